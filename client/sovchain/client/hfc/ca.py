"""hfc's CA service (hfc.fabric_ca) over `sovchain.client.ca`: names, parameters and return shapes are hfc's, calls block.

    service = ca_service("https://localhost:7054", ca_certs_path="tls-root.pem")
    admin = service.enroll("admin", secret)
    password = admin.register("analyst")

A refusal of the server raises CaServiceError, a ValueError as with hfc; the services for identities, affiliations and
certificates return the server's document instead, as hfc's do. The wire's errors are those of `sovchain.client.ca`.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sovchain.client.ca.authority import TIMEOUT_S
from sovchain.client.ca.connection import Connection
from sovchain.client.ca.errors import CaRefused, CaUnexpectedReply
from sovchain.client.ca.request import mismatch, new_key, signing_request
from sovchain.client.hfc.errors import CaServiceError, HfcError
from sovchain.protocol.crypto import PrivateKey, sign

DEFAULT_CA_ENDPOINT: Final = "http://localhost:7054"
_REASONS: Final = (
    "unspecified", "keycompromise", "cacompromise", "affiliationchange", "superseded", "cessationofoperation",
    "certificatehold", "removefromcrl", "privilegewithdrawn", "aacompromise",
)  # fmt: skip
_SPELLING: Final = {"affiliationchange": "affiliationchanged"}
"""hfc's word, which Fabric CA does not know (util/ocsp in cfssl: AffiliationChanged)."""


class Enrollment:
    """A certificate with its key.

    Attributes:
        private_key: the key; None where the caller made the signing request.
        cert: the certificate, PEM.
        caCert: the authority's chain, PEM.
    """

    def __init__(
        self,
        private_key: PrivateKey | None,
        enrollmentCert: bytes,  # noqa: N803 - hfc's name
        caCertChain: bytes | None = None,  # noqa: N803 - hfc's name
        service: CAService | None = None,
    ) -> None:
        self.private_key = private_key
        self.cert = enrollmentCert
        self.caCert = caCertChain
        self._service = service

    def __repr__(self) -> str:
        return "Enrollment()"

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, as `sovchain.client.ca` names it."""
        return self.cert

    def sign(self, message: bytes) -> bytes:
        """Sign a request to the authority. Raises HfcError without a key."""
        if self.private_key is None:
            raise HfcError("the enrolment has no key: set private_key to the one that the request was made with")
        return sign(self.private_key, message)

    def register(
        self,
        enrollmentID: str,  # noqa: N803 - hfc's name
        enrollmentSecret: str | None = None,  # noqa: N803 - hfc's name
        role: str | None = None,
        affiliation: str | None = None,
        maxEnrollments: int = 1,  # noqa: N803 - hfc's name
        attrs: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Make an identity known; return its secret. Raises CaServiceError, CaError, HfcError."""
        return self._at().register(enrollmentID, enrollmentSecret, role, affiliation or "", maxEnrollments, attrs, self)

    def revoke(
        self,
        enrollmentID: str | None = None,  # noqa: N803 - hfc's name
        aki: str | None = None,
        serial: str | None = None,
        reason: str | None = None,
        gencrl: bool = False,
    ) -> tuple[list[dict[str, str]], str]:
        """Revoke an identity, or one certificate. Raises CaServiceError, CaError, HfcError."""
        if not enrollmentID and not (aki and serial):
            raise CaServiceError("revoke: give an enrolment id, or aki and serial")
        if reason and reason not in _REASONS:
            raise CaServiceError(f"revoke: there is no reason {reason!r}: use one of {', '.join(_REASONS)}")
        return self._at().revoke(enrollmentID, aki, serial, reason, gencrl, self)

    def generateCRL(  # noqa: N802 - hfc's name
        self,
        revokedBefore: datetime | None = None,  # noqa: N803 - hfc's name
        revokedAfter: datetime | None = None,  # noqa: N803 - hfc's name
        expireBefore: datetime | None = None,  # noqa: N803 - hfc's name
        expireAfter: datetime | None = None,  # noqa: N803 - hfc's name
    ) -> str:
        """Have a revocation list made; return it in base64. Raises CaServiceError, CaError, HfcError."""
        if revokedAfter and revokedBefore and revokedAfter > revokedBefore:
            raise CaServiceError("generateCRL: revokedAfter is later than revokedBefore")
        return self._at().generateCRL(
            _rfc3339(revokedBefore), _rfc3339(revokedAfter), _rfc3339(expireBefore), _rfc3339(expireAfter), self
        )

    def _at(self) -> CAService:
        if self._service is None:
            raise HfcError("the enrolment belongs to no CA service: give `service`")
        return self._service


class CAService:
    """One authority of a Fabric CA server."""

    def __init__(
        self,
        target: str = DEFAULT_CA_ENDPOINT,
        ca_certs_path: str | Path | None = None,
        crypto: object = None,
        ca_name: str = "",
    ) -> None:
        """Nothing is sent yet.

        Args:
            target: address of the server. `http://` is for this machine alone: secrets travel on it.
            ca_certs_path: roots of its TLS certificate, PEM; None: the system's.
            crypto: not used: keys are P-256.
            ca_name: which of the server's authorities; empty: its default one.

        Raises:
            HfcError: the address is none, is http:// to another machine, or the roots cannot be read.
        """
        parts = urlsplit(target)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise HfcError(f"{target!r} is not https://host:port")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise HfcError(f"{parts.hostname} would be sent secrets that anyone on the way can read: use https://")
        try:
            self._tls = ssl.create_default_context(cafile=None if ca_certs_path is None else str(ca_certs_path))
        except (OSError, ValueError) as error:
            raise HfcError(f"{ca_certs_path} holds no roots that can be read ({type(error).__name__})") from error
        self._endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._name = ca_name

    def enroll(
        self,
        enrollment_id: str,
        enrollment_secret: str,
        csr: x509.CertificateSigningRequest | None = None,
        profile: str = "",
        attr_reqs: Sequence[Mapping[str, Any]] | None = None,
    ) -> Enrollment:
        """Get a certificate for a registered identity, for a new key or for the one that signed `csr`.

        Raises CaServiceError, CaError.
        """
        if not enrollment_id or not enrollment_secret:
            raise CaServiceError("enroll: enrollment_id and enrollment_secret are both needed")
        key = None if csr is not None else new_key()
        body: dict[str, Any] = {"certificate_request": _request(csr, key, enrollment_id)}
        if profile:
            body["profile"] = profile
        return self._issued("enroll", enrollment_id, key, body, attr_reqs, secret=(enrollment_id, enrollment_secret))

    def reenroll(self, currentUser: Enrollment, attr_reqs: Sequence[Any] | None = None) -> Enrollment:  # noqa: N803
        """Get a new certificate, for a new key, by one that is still valid. Raises CaServiceError, CaError, HfcError."""
        if not isinstance(currentUser, Enrollment):
            raise CaServiceError('reenroll: "currentUser" is not an Enrollment')
        subject = x509.load_pem_x509_certificate(currentUser.cert).subject
        name = str(subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
        key = new_key()
        body = {"certificate_request": signing_request(name, key)}
        return self._issued("reenroll", name, key, body, attr_reqs, caller=currentUser)

    def register(
        self,
        enrollmentID: str,  # noqa: N803 - hfc's name
        enrollmentSecret: str | None,  # noqa: N803 - hfc's name
        role: str | None,
        affiliation: str,
        maxEnrollments: int,  # noqa: N803 - hfc's name
        attrs: Sequence[Mapping[str, Any]] | None,
        registrar: Enrollment,
    ) -> str:
        """Make an identity known; return its secret. Raises CaServiceError, CaError, HfcError."""
        body = _identity_body(enrollmentID, enrollmentSecret, role, affiliation, maxEnrollments, attrs)
        return str(self._raising("register", "POST", "register", body, registrar).get("secret", ""))

    def revoke(
        self,
        enrollmentID: str | None,  # noqa: N803 - hfc's name
        aki: str | None,
        serial: str | None,
        reason: str | None,
        gencrl: bool,
        registrar: Enrollment,
    ) -> tuple[list[dict[str, str]], str]:
        """Revoke; return what was revoked, and the list in base64 if asked for. Raises CaServiceError, CaError, HfcError."""
        body = {
            "id": enrollmentID or "",
            "aki": aki or "",
            "serial": serial or "",
            "reason": _SPELLING.get(reason or "", reason or ""),
            "gencrl": gencrl,
        }
        result = self._raising("revoke", "POST", "revoke", self._named(body), registrar)
        return list(result.get("RevokedCerts") or ()), str(result.get("CRL") or "")

    def generateCRL(  # noqa: N802 - hfc's name
        self,
        revokedBefore: str | None,  # noqa: N803 - hfc's name
        revokedAfter: str | None,  # noqa: N803 - hfc's name
        expireBefore: str | None,  # noqa: N803 - hfc's name
        expireAfter: str | None,  # noqa: N803 - hfc's name
        registrar: Enrollment,
    ) -> str:
        """Have a revocation list made; times in RFC 3339. Raises CaServiceError, CaError, HfcError."""
        times = {
            "revokedBefore": revokedBefore,
            "revokedAfter": revokedAfter,
            "expireBefore": expireBefore,
            "expireAfter": expireAfter,
        }
        body = {name: moment for name, moment in times.items() if moment}
        return str(self._raising("generateCRL", "POST", "gencrl", self._named(body), registrar).get("CRL") or "")

    def newIdentityService(self) -> IdentityService:  # noqa: N802 - hfc's name
        """Return what administers identities."""
        return IdentityService(self)

    def newAffiliationService(self) -> AffiliationService:  # noqa: N802 - hfc's name
        """Return what administers affiliations."""
        return AffiliationService(self)

    def newCertificateService(self) -> CertificateService:  # noqa: N802 - hfc's name
        """Return what lists certificates."""
        return CertificateService(self)

    # -- the wire ----------------------------------------------------------------------------------------------------

    def document(
        self,
        method: str,
        path: str,
        registrar: Enrollment,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Make a request; return the server's document, a refusal's too. Raises CaError, HfcError."""
        try:
            result = self._ask(path.partition("/")[0], method, path, query=query, body=body, caller=registrar)
        except CaRefused as refused:
            errors = [{"code": refused.code, "message": refused.message}]
            return {"result": "", "errors": errors, "messages": [], "success": False}
        return {"result": result, "errors": [], "messages": [], "success": True}

    def _ask(self, operation: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        async def asked() -> dict[str, Any]:
            connection = Connection(self._endpoint, self._tls, TIMEOUT_S)
            try:
                return await connection.ask(operation, method, path, **options)
            finally:
                await connection.close()

        # In a thread: hfc's callers call this inside coroutines too, where this thread's loop is running.
        with ThreadPoolExecutor(1, thread_name_prefix="ca-service") as executor:
            return executor.submit(asyncio.run, asked()).result()

    def _raising(
        self, operation: str, method: str, path: str, body: Mapping[str, Any], caller: Enrollment
    ) -> dict[str, Any]:
        try:
            return self._ask(operation, method, path, body=body, caller=caller)
        except CaRefused as refused:
            raise CaServiceError(str(refused)) from refused

    def _issued(
        self,
        operation: str,
        name: str,
        key: PrivateKey | None,
        body: dict[str, Any],
        attributes: Sequence[Any] | None,
        **who: Any,
    ) -> Enrollment:
        if attributes:
            body["attr_reqs"] = [_attribute_request(one) for one in attributes]
        try:
            result = self._ask(operation, "POST", operation, body=self._named(body), **who)
        except CaRefused as refused:
            raise CaServiceError(str(refused)) from refused
        try:
            certificate = base64.b64decode(result["Cert"], validate=True)
            chain = base64.b64decode(result["ServerInfo"]["CAChain"], validate=True)
        except (KeyError, TypeError, ValueError):
            raise CaUnexpectedReply(self._endpoint, operation, "Cert or CAChain is missing or wrong") from None
        why = "" if key is None else mismatch(certificate, name, key.public_key())
        if why:
            raise CaUnexpectedReply(self._endpoint, operation, why)
        return Enrollment(key, certificate, chain, self)

    def _named(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "caname": self._name} if self._name else body

    def named_query(self) -> dict[str, str]:
        """The authority's name, as a query has it."""
        return {"ca": self._name} if self._name else {}


class IdentityService:
    """Identities, as `CAService.newIdentityService` returns it. Its calls raise CaError and HfcError."""

    def __init__(self, client: CAService) -> None:
        self._client = client

    def create(
        self,
        registrar: Enrollment,
        enrollmentID: str,  # noqa: N803 - hfc's name
        enrollmentSecret: str | None = None,  # noqa: N803 - hfc's name
        role: str | None = None,
        affiliation: str | None = None,
        maxEnrollments: int = 1,  # noqa: N803 - hfc's name
        attrs: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Make an identity known; return its secret. Raises CaServiceError too."""
        body = _identity_body(enrollmentID, enrollmentSecret, role, affiliation or "", maxEnrollments, attrs)
        found = self._client.document("POST", "identities", registrar, query=self._client.named_query(), body=body)
        if not found["success"]:
            raise CaServiceError(f"registering failed with errors {found['errors']}")
        return str(found["result"].get("secret", ""))

    def getOne(self, enrollmentID: str, registrar: Enrollment) -> dict[str, Any]:  # noqa: N802, N803 - hfc's names
        """Show one identity."""
        query = self._client.named_query()
        return self._client.document("GET", f"identities/{_quoted(enrollmentID)}", registrar, query=query)

    def getAll(self, registrar: Enrollment) -> dict[str, Any]:  # noqa: N802 - hfc's name
        """List identities."""
        return self._client.document("GET", "identities", registrar, query=self._client.named_query())

    def delete(self, enrollmentID: str, registrar: Enrollment, force: bool = False) -> dict[str, Any]:  # noqa: N803
        """Remove an identity, where the server allows it."""
        query = {**self._client.named_query(), **_force(force)}
        return self._client.document("DELETE", f"identities/{_quoted(enrollmentID)}", registrar, query=query)

    def update(
        self,
        enrollmentID: str,  # noqa: N803 - hfc's name
        registrar: Enrollment,
        type: str | None = None,  # noqa: A002 - hfc's name
        affiliation: str | None = None,
        maxEnrollments: int | None = None,  # noqa: N803 - hfc's name
        attrs: Sequence[Mapping[str, Any]] | None = None,
        enrollmentSecret: str | None = None,  # noqa: N803 - hfc's name
        caname: str | None = None,
    ) -> dict[str, Any]:
        """Change what is given of an identity."""
        changes = {
            "type": type,
            "affiliation": affiliation,
            "attrs": attrs,
            "secret": enrollmentSecret,
            "caname": caname,
        }
        body: dict[str, Any] = {name: value for name, value in changes.items() if value}
        if maxEnrollments is not None:
            body["max_enrollments"] = maxEnrollments
        return self._client.document("PUT", f"identities/{_quoted(enrollmentID)}", registrar, body=body)


class AffiliationService:
    """Affiliations, as `CAService.newAffiliationService` returns it. Its calls raise CaError and HfcError."""

    def __init__(self, client: CAService) -> None:
        self._client = client

    def create(self, registrar: Enrollment, name: str, caname: str = "", force: bool = False) -> dict[str, Any]:
        """Add an affiliation; `force` adds those above it too."""
        body = {"name": name, "caname": caname}
        return self._client.document("POST", "affiliations", registrar, query=_force(force), body=body)

    def getOne(self, affiliation: str, registrar: Enrollment) -> dict[str, Any]:  # noqa: N802 - hfc's name
        """Show one affiliation and what is below it."""
        return self._client.document("GET", f"affiliations/{_quoted(affiliation)}", registrar)

    def getAll(self, registrar: Enrollment) -> dict[str, Any]:  # noqa: N802 - hfc's name
        """List affiliations, from the caller's own downwards."""
        return self._client.document("GET", "affiliations", registrar)

    def delete(self, affiliation: str, registrar: Enrollment, force: bool = False) -> dict[str, Any]:
        """Remove an affiliation, where the server allows it."""
        return self._client.document("DELETE", f"affiliations/{_quoted(affiliation)}", registrar, query=_force(force))

    def update(
        self, affiliation: str, registrar: Enrollment, name: str, caname: str = "", force: bool = False
    ) -> dict[str, Any]:
        """Give an affiliation another name; `force` takes the identities in it along."""
        body = {"name": name, **({"caname": caname} if caname else {})}
        path = f"affiliations/{_quoted(affiliation)}"
        return self._client.document("PUT", path, registrar, query=_force(force), body=body)


class CertificateService:
    """Certificates, as `CAService.newCertificateService` returns it."""

    def __init__(self, client: CAService) -> None:
        self._client = client

    def getCertificates(  # noqa: N802 - hfc's name
        self,
        registrar: Enrollment,
        id: str | None = None,  # noqa: A002 - hfc's name
        aki: str | None = None,
        serial: str | None = None,
        revoked_start: str | None = None,
        revoked_end: str | None = None,
        expired_start: str | None = None,
        expired_end: str | None = None,
        notexpired: bool | None = None,
        notrevoked: bool | None = None,
        ca: str | None = None,
    ) -> dict[str, Any]:
        """List the certificates that the caller may see and that all that is given holds for. Raises CaError, HfcError.

        hfc quotes its query twice, so that the server never sees a condition; here they hold.
        """
        conditions = {
            "id": id, "aki": aki, "serial": serial, "revoked_start": revoked_start, "revoked_end": revoked_end,
            "expired_start": expired_start, "expired_end": expired_end, "ca": ca,
            "notexpired": "true" if notexpired else "", "notrevoked": "true" if notrevoked else "",
        }  # fmt: skip
        query = {name: value for name, value in conditions.items() if value}
        return self._client.document("GET", "certificates", registrar, query=query)


def ca_service(
    target: str = DEFAULT_CA_ENDPOINT,
    ca_certs_path: str | Path | None = None,
    crypto: object = None,
    ca_name: str = "",
) -> CAService:
    """Return a CA service; see `CAService`. Raises HfcError."""
    return CAService(target, ca_certs_path, crypto, ca_name)


def _request(csr: x509.CertificateSigningRequest | None, key: PrivateKey | None, enrollment_id: str) -> str:
    if csr is not None:
        return csr.public_bytes(serialization.Encoding.PEM).decode()
    assert key is not None
    return signing_request(enrollment_id, key)


def _identity_body(
    enrollment_id: str,
    secret: str | None,
    role: str | None,
    affiliation: str,
    max_enrollments: int,
    attributes: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    if not enrollment_id:
        raise CaServiceError("register: enrollmentID is needed")
    if not isinstance(max_enrollments, int):
        raise CaServiceError("register: maxEnrollments is no number")
    body: dict[str, Any] = {"id": enrollment_id, "affiliation": affiliation, "max_enrollments": max_enrollments}
    given = {"type": role, "attrs": attributes, "secret": secret}
    return body | {name: value for name, value in given.items() if value}


def _attribute_request(one: Any) -> dict[str, Any]:
    """hfc takes mappings for an enrolment, and objects for the next one."""
    name = one.get("name") if isinstance(one, Mapping) else getattr(one, "name", None)
    if not name:
        raise CaServiceError("attr_reqs: an attribute has no name")
    optional = one.get("optional") if isinstance(one, Mapping) else getattr(one, "optional", None)
    return {"name": name, "optional": bool(optional)}


def _rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _quoted(name: str) -> str:
    if not isinstance(name, str) or not name or "/" in name:
        raise CaServiceError("a name is empty, has a slash, or is no text")
    return quote(name, safe="")


def _force(force: bool) -> dict[str, str]:
    return {"force": "true"} if force else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
