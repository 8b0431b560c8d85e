"""What a registrar does at a Fabric CA: identities, affiliations, certificates and their revocation."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from cryptography import x509

from sovchain.client.ca.connection import Caller, Connection
from sovchain.client.ca.errors import CaRequestError, CaUnexpectedReply
from sovchain.client.ca.records import (
    Affiliation,
    Attribute,
    CertificateQuery,
    IdentityRecord,
    Revocation,
    RevocationReason,
)
from sovchain.protocol.crypto import load_certificate
from sovchain.protocol.errors import MalformedError


class Registrar:
    """An authority, administered by one of its own. Build it with `CertificateAuthority.registrar`.

    Every method raises CaError: CaNotAllowed when the caller's attributes do not cover it, CaNotFound and CaAlreadyThere
    for what is not, or is already, there.
    """

    def __init__(self, connection: Connection, name: str, caller: Caller) -> None:
        """Not for callers: use `CertificateAuthority.registrar`."""
        self._connection = connection
        self._name = name
        self._caller = caller

    async def register(
        self,
        enrollment_id: str,
        *,
        type: str = "client",  # noqa: A002  Fabric's own word
        affiliation: str = "",
        secret: str = "",
        max_enrollments: int = 0,
        attributes: Iterable[Attribute] = (),
    ) -> str:
        """Make an identity known and return the secret with which it enrols.

        Args:
            type: client, peer, admin or orderer: the certificate's organisational unit, by which an MSP tells roles.
            affiliation: a place in the authority's tree of affiliations; empty: its root, where the caller is there too.
            secret: empty: the server makes one.
            max_enrollments: how often the secret may be used; 0: as often as the authority allows; -1: without limit.
            attributes: claims; those `in_certificate` are in every certificate.
        """
        body: dict[str, Any] = {
            "id": enrollment_id,
            "type": type,
            "affiliation": affiliation,
            "max_enrollments": max_enrollments,
            "attrs": _attributes(attributes),
        }
        if secret:
            body["secret"] = secret
        result = await self._ask(f"register {enrollment_id}", "POST", "register", body=body)
        return self._text("register", result, "secret")

    async def revoke(
        self, enrollment_id: str, *, reason: RevocationReason = "unspecified", with_crl: bool = False
    ) -> Revocation:
        """Revoke an identity and all its certificates; it cannot enrol again."""
        return await self._revoke({"id": enrollment_id}, enrollment_id, reason, with_crl)

    async def revoke_certificate(
        self, certificate_pem: bytes, *, reason: RevocationReason = "unspecified", with_crl: bool = False
    ) -> Revocation:
        """Revoke one certificate; its identity stays and can enrol again."""
        try:
            certificate = load_certificate(certificate_pem)
            extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            aki = (extension.key_identifier or b"").hex()
        except (MalformedError, x509.ExtensionNotFound):
            raise CaRequestError(
                "certificate_pem", "it is no certificate of a Fabric CA", "give a PEM certificate"
            ) from None
        serial = f"{certificate.serial_number:x}"
        return await self._revoke({"aki": aki, "serial": serial}, f"certificate {serial}", reason, with_crl)

    async def _revoke(self, which: Mapping[str, str], name: str, reason: str, with_crl: bool) -> Revocation:
        body = {**which, "reason": reason, "gencrl": with_crl}
        result = await self._ask(f"revoke {name}", "POST", "revoke", body=body)
        try:
            revoked = tuple((str(found["AKI"]), str(found["Serial"])) for found in result.get("RevokedCerts") or ())
        except (KeyError, TypeError):
            raise self._unexpected("revoke", "RevokedCerts is wrong") from None
        return Revocation(revoked, self._crl("revoke", result) if with_crl and result.get("CRL") else None)

    async def crl(
        self,
        *,
        revoked: tuple[datetime | None, datetime | None] = (None, None),
        expire: tuple[datetime | None, datetime | None] = (None, None),
    ) -> bytes:
        """Return a revocation list, PEM, of what is revoked and has not ended.

        `revoked` and `expire` are (after, before): only certificates revoked, or ending, between them.
        """
        named = zip(("revokedafter", "revokedbefore", "expireafter", "expirebefore"), (*revoked, *expire), strict=True)
        body = {name: moment.isoformat() for name, moment in named if moment is not None}
        return self._crl("gencrl", await self._ask("make a revocation list", "POST", "gencrl", body=body))

    async def identities(self) -> list[IdentityRecord]:
        """Return the identities that the caller may manage."""
        result = await self._ask("list identities", "GET", "identities")
        return [self._identity("identities", found) for found in self._list("identities", result, "identities")]

    async def identity(self, enrollment_id: str) -> IdentityRecord:
        """Return one identity."""
        result = await self._ask(f"show identity {enrollment_id}", "GET", _path("identities", enrollment_id))
        return self._identity("identities", result)

    async def add_identity(
        self,
        enrollment_id: str,
        *,
        type: str = "client",  # noqa: A002  Fabric's own word
        affiliation: str = "",
        secret: str = "",
        max_enrollments: int = 0,
        attributes: Iterable[Attribute] = (),
    ) -> str:
        """The same as `register` by the newer of Fabric CA's two calls; return the secret."""
        body = {
            "id": enrollment_id,
            "type": type,
            "affiliation": affiliation,
            "max_enrollments": max_enrollments,
            "attrs": _attributes(attributes),
            **({"secret": secret} if secret else {}),
        }
        result = await self._ask(f"add identity {enrollment_id}", "POST", "identities", body=body)
        return self._text("identities", result, "secret")

    async def modify_identity(
        self,
        enrollment_id: str,
        *,
        type: str | None = None,  # noqa: A002  Fabric's own word
        affiliation: str | None = None,
        secret: str | None = None,
        max_enrollments: int | None = None,
        attributes: Iterable[Attribute] | None = None,
    ) -> IdentityRecord:
        """Change what is given of an identity; an attribute with an empty value is removed. Certificates stay as they are."""
        changes: dict[str, Any] = {
            "type": type,
            "affiliation": affiliation,
            "secret": secret,
            "max_enrollments": max_enrollments,
            "attrs": None if attributes is None else _attributes(attributes),
        }
        body = {name: value for name, value in changes.items() if value is not None}
        path = _path("identities", enrollment_id)
        return self._identity("identities", await self._ask(f"modify identity {enrollment_id}", "PUT", path, body=body))

    async def remove_identity(self, enrollment_id: str, *, force: bool = False) -> IdentityRecord:
        """Remove an identity, where the server allows it; `force` also the caller's own."""
        path, query = _path("identities", enrollment_id), _force(force)
        return self._identity(
            "identities", await self._ask(f"remove identity {enrollment_id}", "DELETE", path, query=query)
        )

    async def affiliations(self) -> Affiliation:
        """Return the tree of affiliations, from the caller's own downwards."""
        return self._affiliation(await self._ask("list affiliations", "GET", "affiliations"))

    async def affiliation(self, name: str) -> Affiliation:
        """Return one affiliation and what is below it."""
        return self._affiliation(await self._ask(f"show affiliation {name}", "GET", _path("affiliations", name)))

    async def add_affiliation(self, name: str, *, force: bool = False) -> Affiliation:
        """Add an affiliation such as `guiyang.finance`; `force` adds those above it too."""
        return self._affiliation(
            await self._ask(f"add affiliation {name}", "POST", "affiliations", query=_force(force), body={"name": name})
        )

    async def modify_affiliation(self, name: str, new_name: str, *, force: bool = False) -> Affiliation:
        """Give an affiliation another name; `force` takes the identities in it along."""
        path = _path("affiliations", name)
        return self._affiliation(
            await self._ask(f"modify affiliation {name}", "PUT", path, query=_force(force), body={"name": new_name})
        )

    async def remove_affiliation(self, name: str, *, force: bool = False) -> Affiliation:
        """Remove an affiliation, where the server allows it; `force` with the identities in it and what is below."""
        return self._affiliation(
            await self._ask(f"remove affiliation {name}", "DELETE", _path("affiliations", name), query=_force(force))
        )

    async def certificates(self, query: CertificateQuery | None = None) -> list[bytes]:
        """Return certificates that the authority has issued, PEM."""
        parameters = query.parameters() if query else {}
        result = await self._ask("list certificates", "GET", "certificates", query=parameters)
        return [
            self._text("certificates", found, "PEM").encode() for found in self._list("certificates", result, "certs")
        ]

    async def _ask(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        named = {"ca": self._name} if self._name else {}
        return await self._connection.ask(
            operation, method, path, query={**named, **(query or {})}, body=body, caller=self._caller
        )

    def _unexpected(self, operation: str, why: str) -> CaUnexpectedReply:
        return CaUnexpectedReply(self._connection.endpoint, operation, why)

    def _text(self, operation: str, result: Any, name: str) -> str:
        found = result.get(name) if isinstance(result, dict) else None
        if not isinstance(found, str):
            raise self._unexpected(operation, f"{name} is missing or no text")
        return found

    def _list(self, operation: str, result: Mapping[str, Any], name: str) -> Sequence[Any]:
        found = result.get(name) or []
        if not isinstance(found, list):
            raise self._unexpected(operation, f"{name} is no list")
        return found

    def _crl(self, operation: str, result: Mapping[str, Any]) -> bytes:
        try:
            pem = base64.b64decode(self._text(operation, result, "CRL"), validate=True)
            x509.load_pem_x509_crl(pem)
        except (ValueError, binascii.Error):
            raise self._unexpected(operation, "CRL is no revocation list") from None
        return pem

    def _identity(self, operation: str, found: Any) -> IdentityRecord:
        try:
            attributes = tuple(
                Attribute(str(entry["name"]), str(entry["value"]), bool(entry.get("ecert")))
                for entry in found.get("attrs") or ()
            )
            return IdentityRecord(
                str(found["id"]),
                str(found.get("type", "")),
                str(found.get("affiliation", "")),
                attributes,
                int(found.get("max_enrollments", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._unexpected(operation, "an identity is wrong") from None

    def _affiliation(self, found: Any, depth: int = 0) -> Affiliation:
        if not isinstance(found, dict) or depth > _DEPTH_MAX:
            raise self._unexpected("affiliations", "an affiliation is wrong")
        return Affiliation(
            str(found.get("name", "")),
            tuple(self._affiliation(child, depth + 1) for child in self._list("affiliations", found, "affiliations")),
            tuple(self._identity("affiliations", entry) for entry in self._list("affiliations", found, "identities")),
        )


_DEPTH_MAX = 32
"""Deepest tree of affiliations that is read."""


def _attributes(attributes: Iterable[Attribute]) -> list[dict[str, Any]]:
    return [{"name": found.name, "value": found.value, "ecert": found.in_certificate} for found in attributes]


def _path(kind: str, name: str) -> str:
    if not name or "/" in name:
        raise CaRequestError("name", "it is empty or has a slash", "give a name without slashes")
    return f"{kind}/{quote(name, safe='')}"


def _force(force: bool) -> Mapping[str, str]:
    return {"force": "true"} if force else {}
