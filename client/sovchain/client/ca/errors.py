"""Errors of the Fabric CA client: one branch of the client's tree.

    CaError                     root; `what` happened, `why`, and the `remedy`
    ├── CaRequestError          the request cannot be made: nothing was sent
    ├── CaUnreachable           the server does not answer, or not in time
    ├── CaNotTrusted            its TLS certificate does not lead to the given roots, or is for another name
    ├── CaRefused               the server's own refusal, with Fabric CA's code
    │   ├── CaAuthenticationFailed  wrong name or secret, or a certificate that it does not accept
    │   ├── CaNotAllowed        the caller lacks an attribute, a role, or the affiliation
    │   ├── CaNotFound          it has no such identity, affiliation, certificate or authority
    │   └── CaAlreadyThere      it has the identity or affiliation already, or has revoked the certificate already
    └── CaUnexpectedReply       the reply is malformed, or is no answer to what was asked

None holds a secret, a key or the body of a request.
"""

from __future__ import annotations

from sovchain.client._text import printable
from sovchain.client.ca.codes import CaCode, code_name
from sovchain.client.errors import FabricError

_MESSAGE_LENGTH = 400


class CaError(FabricError):
    """A Fabric CA could not do what was asked.

    Attributes:
        what: what happened.
        why: the cause.
        remedy: what to do about it.
        endpoint: address of the server.
    """

    def __init__(self, what: str, why: str, remedy: str, *, endpoint: str = "") -> None:
        super().__init__(f"{what}: {why}; {remedy}")
        self.what = what
        self.why = why
        self.remedy = remedy
        self.endpoint = endpoint


class CaRequestError(CaError):
    """The request cannot be made. `field` names the argument; nothing was sent."""

    def __init__(self, field: str, why: str, remedy: str, *, endpoint: str = "") -> None:
        super().__init__(f"cannot ask the certificate authority: {field}", why, remedy, endpoint=endpoint)
        self.field = field


class CaUnreachable(CaError):
    """The server does not answer, or not in time. Whether it did what was asked is not known then."""

    def __init__(self, endpoint: str, why: str) -> None:
        super().__init__(
            f"the certificate authority at {endpoint} does not answer",
            why,
            "check that it runs and that the address is right",
            endpoint=endpoint,
        )


class CaNotTrusted(CaError):
    """The server's TLS certificate cannot be trusted; nothing was sent."""

    def __init__(self, endpoint: str, why: str) -> None:
        super().__init__(
            f"the certificate authority at {endpoint} is not trusted",
            why,
            "give the root of its TLS certificate, and the host name that it is made for",
            endpoint=endpoint,
        )


class CaRefused(CaError):
    """The server refused.

    Attributes:
        operation: what was asked, such as `enroll`.
        code: Fabric CA's number (see `CaCode`); code_name: its name.
        message: the server's words, cut to 400 characters.
        status: the HTTP status.
    """

    _remedy = "correct what it names, and read the server's log for its cause"

    def __init__(self, operation: str, code: int, message: str, *, status: int, endpoint: str) -> None:
        said = printable(message, _MESSAGE_LENGTH)
        super().__init__(
            f"the certificate authority refused to {operation}",
            f"{code_name(code)} ({code}): {said}",
            _REMEDIES.get(code, self._remedy),
            endpoint=endpoint,
        )
        self.operation = operation
        self.code = code
        self.code_name: str = code_name(code)
        self.message = said
        self.status = status


class CaAuthenticationFailed(CaRefused):
    """The server does not know the caller by this name and secret, or by this certificate."""

    _remedy = "check name and secret, or enrol again; the server's log has the cause"


class CaNotAllowed(CaRefused):
    """The caller may not do this."""

    _remedy = "ask as a registrar whose attributes, roles and affiliation cover it, and name an affiliation that exists"


class CaNotFound(CaRefused):
    """The server has nothing of that name."""

    _remedy = "check the name, and which authority of the server was asked"


class CaAlreadyThere(CaRefused):
    """What was to be made, or to be revoked, is so already."""

    _remedy = "use what is there, or modify it"


class CaUnexpectedReply(CaError):
    """The reply is malformed, too large, or no answer to what was asked."""

    def __init__(self, endpoint: str, operation: str, why: str) -> None:
        super().__init__(
            f"the certificate authority at {endpoint} answered to {operation} with something else",
            why,
            "check that the address is that of a Fabric CA 1.5 and that no proxy changes its replies",
            endpoint=endpoint,
        )
        self.operation = operation


_REMEDIES: dict[int, str] = {
    CaCode.PASSWORD_ATTEMPTS: "have a registrar give the identity a new secret",
    CaCode.CN_INVALID_ENROLL: "make the request's common name the enrolment id",
    CaCode.CERT_EXPIRED: "enrol again with the secret: an expired certificate cannot renew itself",
}
_KINDS: dict[int, type[CaRefused]] = {
    CaCode.DUP_IDENTITY_REG: CaAlreadyThere,
    CaCode.CERT_ALREADY_REVOKED: CaAlreadyThere,
    CaCode.CA_NOT_FOUND: CaNotFound,
    CaCode.DB_GET: CaNotFound,
    CaCode.REV_CERT_NOT_FOUND: CaNotFound,
    CaCode.REVOKE_ID_NOT_FOUND: CaNotFound,
}
_BY_STATUS: dict[int, type[CaRefused]] = {401: CaAuthenticationFailed, 403: CaNotAllowed, 404: CaNotFound}


def refusal(operation: str, code: int, message: str, *, status: int, endpoint: str) -> CaRefused:
    """Make the error of the right kind from the server's code and its HTTP status."""
    kind = _KINDS.get(code) or _BY_STATUS.get(status, CaRefused)
    if "already" in message.lower() and kind is CaRefused:
        kind = CaAlreadyThere
    return kind(operation, code, message, status=status, endpoint=endpoint)
