"""TLS material of the runtime, for both directions of the stream."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sovchain.chaincode.errors import ServiceError

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
        made = _context(ssl.PROTOCOL_TLS_SERVER)
        _load_pair(made, self.certificate, self.key)
        if self.client_roots is not None:
            _trust(made, self.client_roots)
            made.verify_mode = ssl.CERT_REQUIRED
        return made


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
        made = _context(ssl.PROTOCOL_TLS_CLIENT)
        _trust(made, self.roots)
        if self.certificate is not None and self.key is not None:
            _load_pair(made, self.certificate, self.key)
        return made


def _context(protocol: int) -> ssl.SSLContext:
    made = ssl.SSLContext(protocol)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # As Go does: a given root is trusted even if it is an intermediate whose own root was not given.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.set_alpn_protocols(["h2"])
    return made


def _trust(context: ssl.SSLContext, roots: bytes) -> None:
    try:
        context.load_verify_locations(cadata=roots.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ServiceError("the tls roots are no PEM certificates: check the file") from error


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Python's ssl takes key and certificate from files only; these are in memory where the system has such files."""
    with _file(certificate) as certificate_path, _file(key) as key_path:
        try:
            # Without an own answer OpenSSL would ask the terminal for the passphrase of an encrypted key.
            context.load_cert_chain(certificate_path, key_path, password="")
        except (ssl.SSLError, ValueError, OSError):
            raise ServiceError(
                "the tls certificate and its key do not belong together, or the key is encrypted or malformed: check "
                "the files"
            ) from None


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("tls", os.MFD_CLOEXEC)
        try:
            _write(number, content)
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
        return
    number, path = tempfile.mkstemp()  # mode 0600
    try:
        try:
            _write(number, content)
        finally:
            os.close(number)
        yield path
    finally:
        os.unlink(path)


def _write(number: int, content: bytes) -> None:
    while content:
        content = content[os.write(number, content) :]


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
