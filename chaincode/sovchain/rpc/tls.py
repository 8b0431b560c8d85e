"""TLS contexts from PEM in memory."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from sovchain.rpc.errors import TlsError


def context(protocol: int) -> ssl.SSLContext:
    """A context for `ssl.PROTOCOL_TLS_SERVER` or `..._CLIENT`: TLS 1.2 or later, HTTP/2."""
    made = ssl.SSLContext(protocol)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # As Go does: a given root is trusted even if it is an intermediate whose own root was not given.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.set_alpn_protocols(["h2"])
    return made


def server_context(certificate: bytes, key: bytes, client_roots: bytes | None = None) -> ssl.SSLContext:
    """What a server shows. With `client_roots`, clients must show a certificate below one of these. Raises TlsError."""
    made = context(ssl.PROTOCOL_TLS_SERVER)
    load_pair(made, certificate, key)
    if client_roots is not None:
        trust(made, client_roots)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def client_context(roots: bytes, certificate: bytes | None = None, key: bytes | None = None) -> ssl.SSLContext:
    """Whom a client trusts, and what it shows, if anything. Raises TlsError."""
    made = context(ssl.PROTOCOL_TLS_CLIENT)
    trust(made, roots)
    if certificate is not None and key is not None:
        load_pair(made, certificate, key)
    return made


def trust(context: ssl.SSLContext, roots: bytes) -> None:
    """Trust these PEM certificates. Raises TlsError."""
    try:
        context.load_verify_locations(cadata=roots.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise TlsError("the tls roots are no PEM certificates: check the file") from error


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Show this PEM certificate, with its chain, and use this PEM key. Raises TlsError."""
    # Python's ssl takes both from files only; these are in memory where the system has such files.
    with _file(certificate) as certificate_path, _file(key) as key_path:
        try:
            # Without an own answer OpenSSL would ask the terminal for the passphrase of an encrypted key.
            context.load_cert_chain(certificate_path, key_path, password="")
        except (ssl.SSLError, ValueError, OSError):
            raise TlsError(
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
