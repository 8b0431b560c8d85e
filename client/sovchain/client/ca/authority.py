"""A Fabric CA: enrolment for everyone, administration for registrars."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.x509.oid import NameOID

from sovchain.client.ca.connection import Caller, Connection, tls_context
from sovchain.client.ca.errors import CaRequestError, CaUnexpectedReply
from sovchain.client.ca.records import CaInfo, Certified, Enrollment
from sovchain.client.ca.registrar import Registrar
from sovchain.client.ca.request import mismatch, new_key, read_request, signing_request
from sovchain.protocol.crypto import PrivateKey, PublicKey, load_certificate
from sovchain.protocol.errors import MalformedError

TIMEOUT_S: Final = 30.0
RENEW_WITHIN: Final = timedelta(days=30)
"""What `renew` takes for soon."""


class CertificateAuthority:
    """One authority of a Fabric CA server. Build it with `connect`."""

    def __init__(self, connection: Connection, name: str) -> None:
        """Not for callers: use `connect`."""
        self._connection = connection
        self.name = name

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        name: str = "",
        tls_roots: bytes = b"",
        client_certificate: tuple[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        insecure: bool = False,
    ) -> AbstractAsyncContextManager[CertificateAuthority]:
        """Use an authority for the length of the block. Nothing is sent yet.

        Args:
            url: `https://host:port` of the server.
            name: which of the server's authorities; empty: its default one.
            tls_roots: roots that the server's TLS certificate must lead to, PEM.
            client_certificate: paths of certificate and key for mutual TLS, PEM.
            timeout_s: deadline of one request, in seconds.
            insecure: take any certificate, and `http://` too. What is sent then, secrets among it, can be read and
                changed by anyone on the way.

        Raises:
            CaRequestError: the URL or the roots cannot be used, or there are none.
        """
        return _connect(url, name, tls_roots, client_certificate, timeout_s, insecure)

    async def info(self) -> CaInfo:
        """Return the authority's name, certificates and version. Raises CaError."""
        result = await self._connection.ask("tell about itself", "GET", "cainfo", query=self._query())
        return CaInfo(
            str(result.get("CAName", "")), self._decoded("cainfo", result, "CAChain"), str(result.get("Version", ""))
        )

    async def enroll(
        self,
        enrollment_id: str,
        secret: str,
        *,
        key: PrivateKey | None = None,
        profile: str = "",
        hosts: Sequence[str] = (),
        attributes: Mapping[str, bool] | Sequence[str] | None = None,
    ) -> Enrollment:
        """Get a certificate for a registered identity.

        A refusal counts: by default the server closes an identity after ten wrong secrets.

        Args:
            enrollment_id: as registered, without a colon, which separates it from the secret.
            secret: as registered.
            key: the key to certify; None: a new P-256 key. It never leaves this process.
            profile: `tls` for a TLS certificate; empty: an enrolment certificate.
            hosts: host names and addresses of a server.
            attributes: names of the attributes that the certificate is to carry, or a mapping that says of each whether
                the enrolment may go on without it; None: the authority's defaults and all that were registered for it.

        Raises:
            CaRequestError: nothing was sent.
            CaAuthenticationFailed: there is no such identity, or the secret is wrong.
            CaError: see `sovchain.client.ca.errors`.
        """
        if ":" in enrollment_id:
            raise CaRequestError("enrollment_id", "it has a colon", "register it without one")
        return await self._issue(
            "enroll", enrollment_id, key, profile, hosts, attributes, secret=(enrollment_id, secret)
        )

    async def reenroll(
        self,
        caller: Caller,
        *,
        key: PrivateKey | None = None,
        profile: str = "",
        hosts: Sequence[str] = (),
        attributes: Mapping[str, bool] | Sequence[str] | None = None,
    ) -> Enrollment:
        """Get a new certificate by one that is still valid. See `enroll`; give `key` to keep the key.

        Raises CaAuthenticationFailed when the caller's certificate has ended or is revoked, and CaError.
        """
        try:
            subject = load_certificate(caller.certificate_pem).subject
        except MalformedError:
            raise CaRequestError("caller", "its certificate cannot be read", "give a PEM certificate") from None
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return await self._issue(
            "reenroll", str(names[0].value) if names else "", key, profile, hosts, attributes, caller=caller
        )

    async def renew(self, enrollment: Enrollment, *, within: timedelta = RENEW_WITHIN) -> Enrollment:
        """Re-enrol with a new key when the certificate ends `within` this time; otherwise return what was given.

        Raises CaError.
        """
        due = enrollment.ends_within(within, datetime.now(UTC))
        return await self.reenroll(enrollment) if due else enrollment

    def registrar(self, caller: Caller) -> Registrar:
        """Act as `caller`, whose attributes say what it may do, such as `hf.Registrar.Roles` and `hf.Revoker`."""
        return Registrar(self._connection, self.name, caller)

    async def certify(
        self,
        request_pem: bytes,
        secret: str | Caller,
        *,
        profile: str = "",
        attributes: Mapping[str, bool] | Sequence[str] | None = None,
    ) -> Certified:
        """Get a certificate for a signing request that was made elsewhere, such as by `HsmKey.signing_request`.

        Args:
            request_pem: the request. Its common name is the enrolment id.
            secret: as registered, for an enrolment; or who holds a certificate that is still valid, for the next one.
            profile, attributes: as for `enroll`.

        Raises:
            CaRequestError: nothing was sent: the request cannot be used.
            CaError: as for `enroll`.
        """
        enrollment_id, key = read_request(request_pem)
        body: dict[str, Any] = {"certificate_request": request_pem.decode()}
        who: dict[str, Any] = {"secret": (enrollment_id, secret)} if isinstance(secret, str) else {"caller": secret}
        operation = "enroll" if isinstance(secret, str) else "reenroll"
        issued = await self._issued(operation, enrollment_id, key, body, profile, attributes, **who)
        return Certified(*issued)

    async def _issue(
        self,
        operation: str,
        enrollment_id: str,
        key: PrivateKey | None,
        profile: str,
        hosts: Sequence[str],
        attributes: Mapping[str, bool] | Sequence[str] | None,
        *,
        caller: Caller | None = None,
        secret: tuple[str, str] | None = None,
    ) -> Enrollment:
        chosen = key if key is not None else new_key()
        body: dict[str, Any] = {"certificate_request": signing_request(enrollment_id, chosen, hosts), "hosts": [*hosts]}
        certificate, chain = await self._issued(
            operation, enrollment_id, chosen.public_key(), body, profile, attributes, caller=caller, secret=secret
        )
        return Enrollment(certificate, chosen, chain)

    async def _issued(
        self,
        operation: str,
        enrollment_id: str,
        key: PublicKey,
        body: dict[str, Any],
        profile: str,
        attributes: Mapping[str, bool] | Sequence[str] | None,
        **who: Any,
    ) -> tuple[bytes, bytes]:
        """The certificate, which is checked to be what was asked for, and the authority's chain."""
        if profile:
            body["profile"] = profile
        if self.name:
            body["caname"] = self.name
        if attributes is not None:
            wanted = attributes if isinstance(attributes, Mapping) else dict.fromkeys(attributes, False)
            body["attr_reqs"] = [{"name": name, "optional": optional} for name, optional in wanted.items()]
        result = await self._connection.ask(f"{operation} {enrollment_id}", "POST", operation, body=body, **who)
        certificate = self._decoded(operation, result, "Cert")
        why = mismatch(certificate, enrollment_id, key)
        if why:
            raise CaUnexpectedReply(self._connection.endpoint, operation, why)
        server = result.get("ServerInfo")
        return certificate, self._decoded(operation, server if isinstance(server, dict) else {}, "CAChain")

    def _query(self) -> dict[str, str]:
        return {"ca": self.name} if self.name else {}

    def _decoded(self, operation: str, result: Mapping[str, Any], name: str) -> bytes:
        try:
            return base64.b64decode(result[name], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise CaUnexpectedReply(self._connection.endpoint, operation, f"{name} is missing or wrong") from None


@asynccontextmanager
async def _connect(
    url: str, name: str, tls_roots: bytes, client: tuple[str, str] | None, timeout_s: float, insecure: bool
) -> AsyncIterator[CertificateAuthority]:
    parts = urlsplit(url)
    if parts.scheme not in (("https", "http") if insecure else ("https",)) or not parts.hostname:
        raise CaRequestError("url", f"{url!r} is not https://host:port", "give the address of the server with https")
    if not tls_roots and not insecure:
        raise CaRequestError("tls_roots", "none is given", "give the root of the server's TLS certificate")
    endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    connection = Connection(endpoint, tls_context(endpoint, tls_roots, client, insecure=insecure), timeout_s)
    try:
        yield CertificateAuthority(connection, name)
    finally:
        await connection.close()
