"""What a chaincode-as-a-service package says about reaching its chaincode: `connection.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from sovchain.ledger.errors import LedgerError
from sovchain.ledger.tls import ClientTls

DEFAULT_DIAL_TIMEOUT_S = 3.0
_MAX_DIAL_TIMEOUT_S = 300.0
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_PORT = re.compile(r"[0-9]{1,5}")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class ConnectionFileError(LedgerError):
    """A package's connection.json cannot be used. `field` names the entry."""

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(
            f"connection.json of the chaincode package is not usable: {entry} {reason}; correct it and install again"
        )
        self.entry = entry


@dataclass(frozen=True)
class ChaincodeConnection:
    """Addresses and TLS of the instances of one chaincode.

    Attributes:
        addresses: "host:port" of the primary instance and, if the package names one, of the replica that runs the same
            chaincode under another hash seed and clock. Empty: the chaincode dials the peer.
        tls: None for plain text.
        dial_timeout_s: how long one attempt to reach an instance may take.
    """

    addresses: tuple[str, ...]
    tls: ClientTls | None
    dial_timeout_s: float = DEFAULT_DIAL_TIMEOUT_S

    @classmethod
    def from_json(cls, document: Mapping[str, object] | None) -> ChaincodeConnection:
        """Read a parsed connection.json; None (a package without one) means that the chaincode dials the peer.

        Mirrors core/container/externalbuilder/instance.go ChaincodeServerUserData. Raises ConnectionFileError.
        """
        if document is None:
            return cls(addresses=(), tls=None)
        address, replica = _text(document, "address"), _text(document, "replica_address")
        if replica and not address:
            raise ConnectionFileError("replica_address", "is set without address")
        addresses = tuple(
            _checked_address(name, value)
            for name, value in (("address", address), ("replica_address", replica))
            if value
        )
        return cls(addresses, _client_tls(document), _duration(document.get("dial_timeout")))


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration such as "1m30s" or "500ms". Raises ValueError."""
    position = 0
    total = 0.0
    for part in _DURATION_PART.finditer(text):
        if part.start() != position:
            break
        total += float(part[1]) * _UNIT_SECONDS[part[2]]
        position = part.end()
    if not text or position != len(text):
        raise ValueError(f"not a duration: {text[:40]!r}")
    return total


def _text(document: Mapping[str, object], entry: str) -> str:
    value = document.get(entry, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConnectionFileError(entry, "is not a string")
    return value


def _flag(document: Mapping[str, object], entry: str) -> bool:
    value = document.get(entry, False)
    if not isinstance(value, bool):
        raise ConnectionFileError(entry, "is not true or false")
    return value


def _checked_address(entry: str, address: str) -> str:
    host, separator, port = address.rpartition(":")
    if not separator or not host or not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise ConnectionFileError(entry, "is not host:port")
    return address


def _client_tls(document: Mapping[str, object]) -> ClientTls | None:
    if not _flag(document, "tls_required"):
        return None
    root = _text(document, "root_cert")
    if not root:
        raise ConnectionFileError("root_cert", "is missing although tls_required is true")
    if not _flag(document, "client_auth_required"):
        return ClientTls(root.encode())
    key, certificate = _text(document, "client_key"), _text(document, "client_cert")
    if not key or not certificate:
        raise ConnectionFileError("client_key or client_cert", "is missing although client_auth_required is true")
    return ClientTls(root.encode(), certificate.encode(), key.encode())


def _duration(value: object) -> float:
    if value is None or value == "" or value == 0:
        return DEFAULT_DIAL_TIMEOUT_S
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConnectionFileError("dial_timeout", "is neither a duration nor nanoseconds")
    try:
        seconds = parse_duration(value) if isinstance(value, str) else cast("float", value) * 1e-9
    except (ValueError, OverflowError):
        raise ConnectionFileError("dial_timeout", "is not a duration such as 10s") from None
    if not 0 < seconds <= _MAX_DIAL_TIMEOUT_S:
        raise ConnectionFileError("dial_timeout", f"is not between 0 and {_MAX_DIAL_TIMEOUT_S:.0f} s")
    return seconds
