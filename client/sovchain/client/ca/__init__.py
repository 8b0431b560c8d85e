"""Fabric CA's client: enrol, re-enrol, register, revoke, and administer identities and affiliations.

    async with CertificateAuthority.connect("https://localhost:7054", tls_roots=roots) as ca:
        registrar = ca.registrar(await ca.enroll("admin", secret))
        password = await registrar.register("analyst", attributes=[Attribute("clearance", "core", True)])
        identity = (await ca.enroll("analyst", password)).identity("FinanceMSP")

General layout: `authority` is what everyone uses, `registrar` what registrars use; `request` makes signing requests,
`records` are the data, `codes` and `errors` the refusals, `connection` the wire below.
"""

from __future__ import annotations

from sovchain.client.ca.authority import CertificateAuthority
from sovchain.client.ca.codes import CaCode
from sovchain.client.ca.errors import (
    CaAlreadyThere,
    CaAuthenticationFailed,
    CaError,
    CaNotAllowed,
    CaNotFound,
    CaNotTrusted,
    CaRefused,
    CaRequestError,
    CaUnexpectedReply,
    CaUnreachable,
)
from sovchain.client.ca.records import (
    Affiliation,
    Attribute,
    CaInfo,
    CertificateQuery,
    Certified,
    Enrollment,
    IdentityRecord,
    Revocation,
    RevocationReason,
)
from sovchain.client.ca.registrar import Registrar

__all__ = [
    "Affiliation",
    "Attribute",
    "CaAlreadyThere",
    "CaAuthenticationFailed",
    "CaCode",
    "CaError",
    "CaInfo",
    "CaNotAllowed",
    "CaNotFound",
    "CaNotTrusted",
    "CaRefused",
    "CaRequestError",
    "CaUnexpectedReply",
    "CaUnreachable",
    "CertificateAuthority",
    "CertificateQuery",
    "Certified",
    "Enrollment",
    "IdentityRecord",
    "Registrar",
    "Revocation",
    "RevocationReason",
]
