"""What a Fabric CA says and is told, as plain records (`api/client.go` in Fabric CA)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sovchain.client.ca.errors import CaRequestError
from sovchain.client.identity import SigningIdentity
from sovchain.protocol.crypto import PrivateKey, sign

RevocationReason = Literal[
    "unspecified", "keycompromise", "cacompromise", "affiliationchanged", "superseded", "cessationofoperation",
    "certificatehold", "removefromcrl", "privilegewithdrawn", "aacompromise",
]  # fmt: skip
"""RFC 5280, section 5.3.1, in Fabric CA's spelling."""


def reason_named(text: str) -> RevocationReason:
    """Return the reason of this name, whatever its case. Raises CaRequestError, which lists them."""
    for reason in get_args(RevocationReason):
        if reason == text.lower():
            found: RevocationReason = reason
            return found
    raise CaRequestError(
        "reason", f"there is no reason {text!r}", f"use one of: {', '.join(get_args(RevocationReason))}"
    )


@dataclass(frozen=True)
class CaInfo:
    """An authority.

    Attributes:
        name: its name on the server.
        chain_pem: its certificate, then those above it, up to the root.
        version: version of the server.
    """

    name: str
    chain_pem: bytes = field(repr=False)
    version: str


@dataclass(frozen=True)
class Attribute:
    """An attribute of an identity; with `in_certificate` every enrolment certificate carries it unless others are asked for."""

    name: str
    value: str
    in_certificate: bool = False


@dataclass(frozen=True)
class IdentityRecord:
    """An identity that the authority knows. `max_enrollments` of -1 is without limit."""

    enrollment_id: str
    type: str
    affiliation: str
    attributes: tuple[Attribute, ...] = ()
    max_enrollments: int = 0

    def attribute(self, name: str) -> str | None:
        """Return the value of an attribute, None when there is none of this name."""
        return next((attribute.value for attribute in self.attributes if attribute.name == name), None)


@dataclass(frozen=True)
class Affiliation:
    """A place in the tree of affiliations, by its whole name such as `guiyang.finance`, and what is below it."""

    name: str
    children: tuple[Affiliation, ...] = ()
    identities: tuple[IdentityRecord, ...] = ()

    def names(self) -> list[str]:
        """Return all names, this one first; the root of the tree has none."""
        below = [name for child in self.children for name in child.names()]
        return [self.name, *below] if self.name else below


@dataclass(frozen=True)
class Revocation:
    """What was revoked: (authority key identifier, serial number), both hexadecimal; and the list, if asked for."""

    certificates: tuple[tuple[str, str], ...]
    crl_pem: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CertificateQuery:
    """Which certificates to list; without any field all that the caller may see.

    `revoked` and `expired` are (start, end) in UTC, either end None: only those revoked, or expiring, between them.
    """

    enrollment_id: str = ""
    aki: str = ""
    serial: str = ""
    revoked: tuple[datetime | None, datetime | None] | None = None
    expired: tuple[datetime | None, datetime | None] | None = None
    not_revoked: bool = False
    not_expired: bool = False

    def parameters(self) -> Mapping[str, str]:
        """Return the query of the request."""
        named = {"id": self.enrollment_id, "aki": self.aki, "serial": self.serial}
        for kind, times in (("revoked", self.revoked), ("expired", self.expired)):
            for end, moment in zip(("start", "end"), times or (), strict=False):
                named[f"{kind}_{end}"] = moment.isoformat() if moment else ""
        named |= {"notrevoked": "true" if self.not_revoked else "", "notexpired": "true" if self.not_expired else ""}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Certified:
    """A certificate that the authority has just issued for a request that was signed elsewhere, such as in an HSM.

    Attributes:
        certificate_pem: the certificate, PEM, as the authority sent it.
        chain_pem: the authority's own chain.
    """

    certificate_pem: bytes = field(repr=False)
    chain_pem: bytes = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate, parsed."""
        return x509.load_pem_x509_certificate(self.certificate_pem)


@dataclass(frozen=True)
class Enrollment:
    """A certificate that the authority has just issued, and its key.

    Attributes:
        certificate_pem: the certificate, PEM, as the authority sent it.
        key: its private key; the authority never had it.
        chain_pem: the authority's own chain.
    """

    certificate_pem: bytes = field(repr=False)
    key: PrivateKey = field(repr=False)
    chain_pem: bytes = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate, parsed."""
        return x509.load_pem_x509_certificate(self.certificate_pem)

    @property
    def private_key_pem(self) -> bytes:
        """The key, PKCS#8 PEM, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """Sign a message as Fabric CA and Fabric expect it."""
        return sign(self.key, message)

    def identity(self, msp_id: str) -> SigningIdentity:
        """Return the identity that signs transactions for an organisation. Raises IdentityError."""
        return SigningIdentity(msp_id, self.certificate_pem, self.key)

    def ends_within(self, time: timedelta, now: datetime) -> bool:
        """Whether the certificate ends within `time` of `now`, or has ended."""
        return self.certificate.not_valid_after_utc - now <= time
