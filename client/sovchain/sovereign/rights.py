"""What persons ask of whoever holds their data, complaints, and what the ledger holds about a person as a signed document."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pydantic import ValidationError

from sovchain.client import Network
from sovchain.contracts.core import PersonalData, Rights
from sovchain.contracts.core.order_records import SubjectFile
from sovchain.contracts.core.records import SALT_BYTES, Record, Timestamp, format_time
from sovchain.contracts.core.rights_records import HandlerRecord, RightKind, RightsAnswer, RightsFiling, RightsRequest
from sovchain.contracts.core.sealing import KEY_BYTES, unseal
from sovchain.protocol.canonical import CanonicalError, canonical_json, parse_json
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.identity import parse_identity, serialize_identity
from sovchain.sovereign.desk import Desk
from sovchain.sovereign.errors import IntegrityError, InvalidInput
from sovchain.sovereign.results import Recorded

EXPORT_FORMAT: Final = "sovchain-personal-export/1"
EXPORT_MAX_BYTES: Final = 64 * 1024 * 1024
"""Longest export that is read."""


class PersonalExport(Record):
    """Everything that a channel holds about a person, as somebody vouches for it by his signature."""

    channel: str
    exported_at: Timestamp
    file: SubjectFile
    rights: tuple[RightsRequest, ...]
    signer: str
    """MSP id and certificate's subject of who vouches."""


class RightsDesk(Desk):
    """Rights requests and complaints of one channel, for data subjects, handlers and the regulator."""

    def __init__(self, network: Network, chaincode: str | None = None) -> None:
        super().__init__(network, chaincode)
        self._identity = network.identity
        self._channel = network.name

    @property
    def msp_id(self) -> str:
        """The organisation on whose behalf this object acts."""
        return self._identity.msp_id

    async def file(
        self, subject: str, kind: RightKind, handler: str, text: bytes, *, dataset: str | None = None
    ) -> Recorded[RightsRequest]:
        """As the subject, its guardian or heir: ask or complain. Two transactions: the text to the handler alone, then the record."""
        try:
            filing = RightsFiling(kind=kind, handler=handler, dataset=dataset)
        except ValidationError as error:
            said = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise InvalidInput("the request is malformed", said, "correct it") from None
        salted = secrets.token_bytes(SALT_BYTES) + text
        request = (await self._calls.at(handler).submit(Rights.send_text, subject, handler, salted)).result
        return await self._record(Rights.file, subject, request, hashlib.sha256(salted).hexdigest(), filing)

    async def answer(
        self,
        subject: str,
        request: str,
        outcome: Literal["fulfilled", "refused"],
        text: bytes,
        *,
        ground: str | None = None,
        law: str | None = None,
        replacement: str | None = None,
    ) -> Recorded[RightsRequest]:
        """As the handler: answer. A refusal states its ground and the law; a correction what replaces the wrong data set."""
        salted = secrets.token_bytes(SALT_BYTES) + text
        try:
            given = RightsAnswer(
                outcome=outcome,
                text=hashlib.sha256(salted).hexdigest(),
                ground=ground,
                law=law,
                replacement=replacement,
            )
        except ValidationError as error:
            said = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise InvalidInput("the answer is malformed", said, "correct it") from None
        msp_id = await self._home(subject)
        await self._told(msp_id, Rights.send_answer, subject, request, salted)
        return await self._record(Rights.answer, subject, request, given)

    async def _home(self, subject: str) -> str:
        return await self._calls.evaluate(Rights.home, subject)

    async def text(self, subject: str, request: str) -> bytes:
        """As the handler: the text of a request."""
        key = secrets.token_bytes(KEY_BYTES)
        own = self._calls.at(self._identity.msp_id)
        return _unsealed(await own.evaluate(Rights.read_text, subject, request, key), key)

    async def answer_text(self, subject: str, request: str) -> bytes:
        """As the subject, its guardian or heir: the text of the answer."""
        key = secrets.token_bytes(KEY_BYTES)
        own = self._calls.at(await self._home(subject))
        return _unsealed(await own.evaluate(Rights.read_answer, subject, request, key), key)

    async def tick(self, subject: str, request: str) -> Recorded[RightsRequest]:
        """Find a request overdue, on record; anybody may."""
        return await self._record(Rights.tick, subject, request)

    async def appeal(self, subject: str, request: str) -> Recorded[RightsRequest]:
        """As the subject: put what was refused or is overdue before the regulator."""
        return await self._record(Rights.appeal, subject, request)

    async def rule(
        self, subject: str, request: str, decision: Literal["uphold", "order"], reason: str
    ) -> Recorded[RightsRequest]:
        """As a judge or a supervisor: rule on an appeal."""
        return await self._record(Rights.rule, subject, request, decision, reason)

    async def free(self, subject: str, request: str) -> Recorded[str]:
        """As the subject: end a restriction that was granted."""
        return await self._record(Rights.free, subject, request)

    async def read(self, subject: str, request: str) -> RightsRequest:
        """A request on file."""
        return await self._calls.evaluate(Rights.read, subject, request)

    async def listing(self, subject: str) -> Sequence[RightsRequest]:
        """The requests that were filed for a subject."""
        return await self._calls.evaluate(Rights.listing, subject)

    async def handler(self, msp_id: str) -> HandlerRecord:
        """How an organisation deals with what persons ask of it."""
        return await self._calls.evaluate(Rights.handler, msp_id)

    async def export(self, subject: str) -> bytes:
        """Everything that the ledger holds about a subject, as canonical JSON that this identity signs; see `check_export`.

        As the subject, its guardian or heir, or a supervisor.
        """
        file = await self._calls.evaluate(PersonalData.file, subject)
        rights = await self.listing(subject)
        stated = {
            "format": EXPORT_FORMAT,
            "channel": self._channel,
            "exported_at": format_time(datetime.now(UTC)),
            "file": file.model_dump(mode="json", exclude_none=True),
            "rights": [one.model_dump(mode="json", exclude_none=True) for one in rights],
            "signer": {
                "msp_id": self._identity.msp_id,
                "certificate": self._identity.certificate_pem.decode("ascii"),
            },
        }
        signature = await self._identity.sign_async(canonical_json(stated))
        return canonical_json({**stated, "signature": base64.b64encode(signature).decode("ascii")})


def check_export(document: bytes, authorities: Sequence[bytes] = ()) -> PersonalExport:
    """Read an export and check its signature.

    `authorities` are certificates (PEM) of CAs, one of which must have issued the signer's; without any, the signer is whoever
    he says. Raises IntegrityError.
    """
    try:
        stated: Any = parse_json(document, max_bytes=EXPORT_MAX_BYTES)
        if canonical_json(stated) != document or stated.pop("format") != EXPORT_FORMAT:
            raise ValueError("it has another format")
        signature = base64.b64decode(stated.pop("signature"), validate=True)
        signer = stated.pop("signer")
        identity = parse_identity(serialize_identity(signer["msp_id"], signer["certificate"].encode("ascii")))
        found = PersonalExport.model_validate_json(
            canonical_json({**stated, "signer": f"{identity.msp_id}, {identity.certificate.subject.rfc4514_string()}"})
        )
    except (CanonicalError, ProtocolError, ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        kind = "it is malformed" if isinstance(error, ValidationError) else str(error) or type(error).__name__
        raise IntegrityError("this is no export of a person's data", kind, "ask for the document again") from None
    signed = canonical_json({**stated, "format": EXPORT_FORMAT, "signer": signer})
    if not identity.verify(signed, signature):
        raise IntegrityError(
            "the export's signature is not good",
            f"{found.signer} did not sign these bytes",
            "ask for the document again",
        )
    if authorities and not any(_issued(identity.certificate, authority) for authority in authorities):
        raise IntegrityError(
            "the signer is nobody that you trust",
            "none of the given authorities issued its certificate",
            "check who sent it",
        )
    return found


def _issued(certificate: x509.Certificate, authority: bytes) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _unsealed(sealed: bytes, key: bytes) -> bytes:
    try:
        return unseal(sealed, key)[SALT_BYTES:]
    except ValueError as error:
        raise IntegrityError("the text cannot be unsealed", str(error), "ask another peer") from None
