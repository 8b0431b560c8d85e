"""How a call, a stream or a listener fails."""

from __future__ import annotations

from sovchain.rpc.wire import UNAVAILABLE, status_name


class RpcError(Exception):
    """A call or a stream ended otherwise than it should.

    Attributes:
        message: why, as the other side said it or as it was seen here.
        code: gRPC status code.
        details: the bytes of `grpc-status-details-bin`, a google.rpc.Status; empty where none came.
        told: whether the other side ended the call with this status itself.
        unprocessed: whether the other side has certainly not begun with the call, so that it may be sent again.
    """

    def __init__(
        self,
        message: str,
        code: int = UNAVAILABLE,
        details: bytes = b"",
        *,
        told: bool = False,
        unprocessed: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = details
        self.told = told
        self.unprocessed = unprocessed

    @property
    def status(self) -> str:
        """The name of the status, such as `UNAVAILABLE`."""
        return status_name(self.code)

    def __str__(self) -> str:
        if not self.told:
            return self.message
        text = "".join(letter if letter.isprintable() else "?" for letter in self.message[:1000])
        return f"the other side ended the stream with gRPC status {self.code}: {text}"


class AddressError(ValueError):
    """An address is none, or cannot be listened on."""


class TlsError(ValueError):
    """TLS material that cannot be used."""
