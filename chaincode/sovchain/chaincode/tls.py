"""TLS material of the runtime, for both directions of the stream."""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sovchain.chaincode.errors import ServiceError
from sovchain.rpc import tls
from sovchain.rpc.errors import TlsError

MAX_FILE_BYTES = 1024 * 1024
_PEM = b"-----BEGIN "


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a chaincode service shows to peers, and which peers it lets in.

    Attributes:
        certificate: PEM chain of the service.
        key: PEM private key of the certificate.
        client_roots: PEM roots; if given, a peer must show a certificate that they vouch for.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    client_roots: bytes | None = None

    def context(self) -> ssl.SSLContext:
        """The same for Python's ssl (TLS 1.2 or later, HTTP/2). Raises ServiceError."""
        with _told():
            return tls.server_context(self.certificate, self.key, self.client_roots)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Which peer a chaincode that dials trusts, and what it shows to it.

    Attributes:
        roots: PEM roots of the peer's TLS CA.
        certificate: PEM chain of the chaincode, for mutual TLS.
        key: PEM private key of the certificate.
        server_name: name to expect in the peer's certificate instead of the host dialled.
    """

    roots: bytes
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """The same for Python's ssl (TLS 1.2 or later, HTTP/2). Raises ServiceError."""
        with _told():
            return tls.client_context(self.roots, self.certificate, self.key)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except TlsError as error:
        raise ServiceError(str(error)) from error


def read_pem(path: str | Path, what: str, *, encoded: bool = False) -> bytes:
    """Read a PEM file.

    Args:
        path: the file.
        what: what it should hold, for the message.
        encoded: the file may hold base64 of PEM, as peers write it for the containers that they start
            (fabric/core/container/dockercontroller/dockercontroller.go).

    Raises:
        ServiceError: it cannot be read, is too large, or holds no PEM.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ServiceError(f"cannot read {what} {path}: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ServiceError(f"{what} {path} is larger than {MAX_FILE_BYTES} bytes: it is no PEM file")
    if _PEM not in data and encoded:
        try:
            data = base64.b64decode(data, validate=False)
        except binascii.Error:
            data = b""
    if _PEM not in data:
        raise ServiceError(f"{what} {path} holds no PEM: a line with BEGIN is missing")
    return data
