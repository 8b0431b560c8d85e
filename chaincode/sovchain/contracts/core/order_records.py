"""Records of orders, persons, consents and duties."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sovchain.contracts.core.codes import ACTIONS, PURPOSES
from sovchain.contracts.core.records import (
    DataClass,
    Hex32,
    JurisdictionCode,
    MspId,
    Period,
    Record,
    ShortText,
    Timestamp,
    Word,
    _refuse_unknown,
)

# Registry ------------------------------------------------------------------------------------------------------------


class Caller(Record):
    """How the ledger knows whoever asks."""

    msp_id: str
    identity: Hex32
    role: str | None = None
    clearance: str | None = None
    person: Hex32 | None = None


class Person(Record):
    """The person behind an identity, as a pseudonym: HMAC-SHA-256 of an identity number under a key that stays in the
    jurisdiction. Two identities of one person never make four eyes."""

    msp_id: MspId
    identity: Hex32
    person: Hex32
    bound_at: Timestamp
    bound_by: MspId


class Delegation(Record):
    """A role that one organisation lends another. `depth` is how often it may be passed on."""

    delegator: MspId
    delegate: MspId
    role: Word
    depth: Annotated[int, Field(ge=0, le=2)]
    expires_at: Timestamp
    delegated_at: Timestamp
    revoked_at: Timestamp | None = None


class SuspendedPlace(Record):
    """A jurisdiction whose organisations may not act, nor those of the places within it."""

    jurisdiction: JurisdictionCode
    suspended: bool
    reason: ShortText
    changed_at: Timestamp
    changed_by: MspId


# Orders --------------------------------------------------------------------------------------------------------------


class Hold(Record):
    """An order that nothing happens to a data set, or to any about a person. `target` is a data set id or a pseudonym."""

    id: Hex32
    target: Hex32
    issuer: MspId
    identity: Hex32
    reason: ShortText
    placed_at: Timestamp


class Order(Record):
    """An order on record for good: what it did, on which ground. `id` is the transaction that made it."""

    id: Hex32
    kind: Literal["hold", "lift", "purge", "correct", "reclassify"]
    target: Hex32
    issuer: MspId
    identity: Hex32
    reason: ShortText
    ordered_at: Timestamp


class Correction(Record):
    """A note on a record that it is wrong, and what replaces it. The record stays."""

    target: Hex32
    replacement: Hex32 | None
    order: Hex32


class Reclassification(Record):
    """An owner's proposal to lower a class, which the regulator confirms."""

    dataset: Hex32
    data_class: DataClass
    proposed_by: MspId
    proposed_at: Timestamp


class Purge(Record):
    """An order to destroy a data set's payload wherever it lies. Closed when each holder has confirmed."""

    dataset: Hex32
    order: Hex32
    holders: tuple[MspId, ...]
    ordered_at: Timestamp
    confirmed: tuple[MspId, ...] = ()
    closed_at: Timestamp | None = None


class Warrant(Record):
    """A judge's leave to see a data set. Hidden from the data's subject until `sealed_until`."""

    id: Hex32
    dataset: Hex32
    grantee: MspId
    purpose: Word
    actions: tuple[Word, ...]
    reason: ShortText
    requester: Hex32
    requester_person: Hex32
    requested_at: Timestamp
    issuer: MspId | None = None
    issuer_person: Hex32 | None = None
    issued_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    sealed_until: Timestamp | None = None
    uses_max: int = 0
    used: int = 0


class WarrantScope(Record):
    """What a warrant is asked for."""

    dataset: Hex32
    purpose: Word
    actions: Annotated[tuple[Word, ...], Field(min_length=1, max_length=len(ACTIONS))]

    @model_validator(mode="after")
    def _check(self) -> WarrantScope:
        _refuse_unknown("action", self.actions, ACTIONS)
        _refuse_unknown("purpose", (self.purpose,), PURPOSES)
        return self


class Emergency(Record):
    """A declared emergency: access first, review after. Unreviewed at `review_by` it suspends whoever declared it."""

    id: Hex32
    dataset: Hex32
    msp_id: MspId
    identity: Hex32
    reason: ShortText
    declared_at: Timestamp
    review_by: Timestamp
    review: Literal["justified", "abuse"] | None = None
    reviewed_at: Timestamp | None = None
    reviewer: MspId | None = None


class OpenEmergency(Record):
    """Which emergency of an identity is the latest."""

    emergency: Hex32


# Signatures and duties -----------------------------------------------------------------------------------------------


class Cosignature(Record):
    """A human's signature for or against a request: the regulator's, or a joint owner's."""

    request: Hex32
    who: str
    msp_id: MspId
    identity: Hex32
    approve: bool
    signed_at: Timestamp


class Duty(Record):
    """Something that a permit obliges the grantee to do by a time. `alerted_at` is when somebody found it overdue."""

    request: Hex32
    kind: Literal["report", "delete"]
    msp_id: MspId
    due: Timestamp
    done_at: Timestamp | None = None
    evidence: Hex32 | None = None
    alerted_at: Timestamp | None = None


class Notice(Record):
    """A decision that an organisation was told of."""

    request: Hex32
    msp_id: MspId
    decided_at: Timestamp


class Revocation(Record):
    """A permit that ended before its time, and who ended it why."""

    request: Hex32
    revoked_by: MspId
    identity: Hex32
    reason: ShortText
    revoked_at: Timestamp


class UseReport(Record):
    """The grantee reported its use; the report itself lies in the owner's collection, under this hash."""

    request: Hex32
    msp_id: MspId
    commitment: Hex32
    filed_at: Timestamp


class GrantState(Record):
    """How a permit stands: `problems` are the codes and reasons why nothing would be released on it, none while it carries."""

    request: Hex32
    dataset: Hex32
    grantee: MspId
    permitted_at: Timestamp
    delivered: bool
    problems: tuple[str, ...]
    duties: tuple[Duty, ...]
    reported_at: Timestamp | None = None


class Usage(Record):
    """How many rows of a data set were permitted to a grantee in the day, month and year (UTC) of its last permit with a quota."""

    day: str
    day_rows: int
    month_rows: int
    year_rows: int

    def rows(self, day: str) -> dict[Period, int]:
        """What still counts on a day (YYYY-MM-DD)."""
        return {
            "day": self.day_rows if self.day == day else 0,
            "month": self.month_rows if self.day[:7] == day[:7] else 0,
            "year": self.year_rows if self.day[:4] == day[:4] else 0,
        }


class Tally(Record):
    """What has added up in a calendar year (UTC)."""

    persons: int = 0
    sensitive: int = 0
    rows: int = 0


# Persons -------------------------------------------------------------------------------------------------------------


class Wallet(Record):
    """A data subject: a pseudonym for one purpose and the identity that acts for it."""

    subject: Hex32
    msp_id: MspId
    identity: Hex32
    opened_at: Timestamp
    changed_at: Timestamp
    died_at: Timestamp | None = None


class Representative(Record):
    """Who acts for a subject: a guardian until the subject's majority, an heir after the subject's death."""

    subject: Hex32
    msp_id: MspId
    identity: Hex32
    kind: Literal["guardian", "heir"]
    until: Timestamp
    appointed_at: Timestamp
    appointed_by: MspId


class ConsentTerms(Record):
    """What a consent covers: one grantee, purposes, columns (None: all) and a period."""

    grantee: MspId
    purposes: Annotated[tuple[Word, ...], Field(min_length=1, max_length=len(PURPOSES))]
    fields: Annotated[tuple[str, ...], Field(min_length=1, max_length=500)] | None = None
    valid_from: Timestamp
    valid_until: Timestamp

    @model_validator(mode="after")
    def _check(self) -> ConsentTerms:
        _refuse_unknown("purpose", self.purposes, PURPOSES)
        if self.valid_until <= self.valid_from:
            raise ValueError("the consent ends before it begins")
        return self


class Consent(Record):
    """A consent on record. `given_by` tells on whose authority, `authority_until` when that ends."""

    id: Hex32
    subject: Hex32
    terms: ConsentTerms
    given_by: Literal["subject", "guardian", "heir"]
    identity: Hex32
    given_at: Timestamp
    authority_until: Timestamp | None = None
    revoked_at: Timestamp | None = None


class SubjectAccess(Record):
    """One line of a subject's access log."""

    dataset: Hex32
    request: Hex32
    msp_id: MspId
    action: str
    purpose: str
    legal_basis: str
    decision: Literal["permit", "deny"]
    code: str
    decided_at: Timestamp
    emergency: bool = False


class SubjectFile(Record):
    """Everything that the ledger holds about a subject, to take along."""

    wallet: Wallet
    representatives: tuple[Representative, ...]
    consents: tuple[Consent, ...]
    datasets: tuple[Hex32, ...]
    accesses: tuple[SubjectAccess, ...]
