"""Certification chains of an organisation's certificates, as an MSP asks Go to build them.

Mirrors msp/mspimpl.go getUniqueValidationChain and getValidityOptsForCert, and of Go's crypto/x509 Certificate.Verify
what counts there. The clock is set to one second after the certificate's beginning, so its own end is not judged; that
each authority was valid at that moment is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from sovchain.protocol.errors import InvalidIdentity

_CHAINS_MAX = 16
_LENGTH_MAX = 10
_HANDLED_CRITICAL = frozenset(f"2.5.29.{number}" for number in (14, 15, 17, 19, 30, 31, 32, 33, 35, 36, 37, 54))
"""Extensions that Go understands; a certificate with another one that is critical is not valid."""

Chain = tuple[x509.Certificate, ...]


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the basic constraints say that it may issue certificates."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def subject_key(certificate: x509.Certificate) -> bytes | None:
    """Return the subject key identifier, None if there is none."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        return None


def issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """Whether the parent's key signed the child and its name is the child's issuer."""
    if child.issuer != parent.subject:
        return False
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def unique_chain(
    certificate: x509.Certificate, roots: Sequence[x509.Certificate], intermediates: Sequence[x509.Certificate]
) -> Chain:
    """Return the one chain from a certificate to a root.

    Raises:
        InvalidIdentity: there is none, or more than one.
    """
    problem = _problem(certificate)
    chains = [] if problem else _chains((certificate,), roots, intermediates)
    if len(chains) == 1:
        return chains[0]
    if chains:
        raise InvalidIdentity(f"this MSP only supports a single validation chain, got {len(chains)}")
    problem = problem or "x509: certificate signed by unknown authority"
    raise InvalidIdentity(f"the supplied identity is not valid: {problem}")


def _chains(so_far: Chain, roots: Sequence[x509.Certificate], intermediates: Sequence[x509.Certificate]) -> list[Chain]:
    last = so_far[-1]
    if last in roots:
        return [so_far]
    found: list[Chain] = []
    if len(so_far) >= _LENGTH_MAX:
        return found
    for parent in (*roots, *intermediates):
        if parent in so_far or not _may_issue(parent, so_far) or not issued(last, parent):
            continue
        found.extend(_chains((*so_far, parent), roots, intermediates))
        if len(found) >= _CHAINS_MAX:
            break
    return list(dict.fromkeys(found))


def _may_issue(parent: x509.Certificate, below: Chain) -> bool:
    moment = below[0].not_valid_before_utc + timedelta(seconds=1)
    if not parent.not_valid_before_utc <= moment <= parent.not_valid_after_utc or _problem(parent):
        return False
    try:
        constraints = parent.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    if not constraints.ca or (constraints.path_length is not None and len(below) - 1 > constraints.path_length):
        return False
    try:
        return parent.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _problem(certificate: x509.Certificate) -> str:
    """Return what makes a certificate unusable wherever it stands in a chain; "" if nothing does."""
    if any(
        extension.critical and extension.oid.dotted_string not in _HANDLED_CRITICAL
        for extension in certificate.extensions
    ):
        return "x509: unhandled critical extension"
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    # An MSP asks for no usage, which Go takes for authentication of a server.
    accepted = (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.SERVER_AUTH)
    return "" if any(usage in accepted for usage in usages) else "x509: certificate specifies an incompatible key usage"
