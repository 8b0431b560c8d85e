"""The facts that a decision depends on, as plain values. `receipts.gather` reads them from committed state.

A default is what the absence of the fact means, and never the more permissive reading: no evidence, nothing granted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sovchain.contracts.core.records import Period, RowRule


@dataclass(frozen=True)
class OrganisationFacts:
    """What the registry says about an organisation. `active` is False also while a place that it lies in is suspended."""

    msp_id: str
    jurisdiction: str | None
    roles: frozenset[str]
    clearance: str | None
    active: bool


@dataclass(frozen=True)
class DelegationLink:
    """One step of a delegated role. `depth` is how many further steps it allows; `delegator_roles` what the registry
    allows the delegator itself."""

    delegator: str
    delegate: str
    role: str
    depth: int
    expires_at: datetime
    revoked: bool
    delegator_active: bool
    delegator_roles: frozenset[str]


@dataclass(frozen=True)
class Subject:
    """Who asks. `role` and `clearance` are the certificate's claims; None when it makes none.

    `organisation` is None for an organisation that the registry does not know. `delegations` is the chain, root first,
    by which a role that the organisation lacks may have come to it.
    """

    msp_id: str
    identity: str
    organisation: OrganisationFacts | None
    role: str | None
    clearance: str | None
    identity_suspended: bool = False
    delegations: tuple[DelegationLink, ...] = ()


@dataclass(frozen=True)
class Resource:
    """The data set that is asked for, as its catalogue entry states it.

    `personal` is one of `codes.PERSONAL_KINDS`. `subjects` are the pseudonyms of the persons that it or one of its sources
    is about. `joint_owners` own it besides `owner`; `joint_places` are their jurisdictions, None for an unregistered one.
    `origin` is the jurisdiction that it came from, None for where it is. `withdrawn_source` is a data set that it goes back to
    and that is no longer in circulation.
    """

    id: str
    owner: str
    jurisdiction: str | None
    data_class: str | None
    residency: frozenset[str]
    purposes: frozenset[str]
    rows: int
    published: bool = True
    columns: tuple[str, ...] = ()
    personal: str | None = "none"
    subjects: frozenset[str] = frozenset()
    origin: str | None = None
    joint_owners: frozenset[str] = frozenset()
    joint_places: tuple[str | None, ...] = ()
    withdrawn_source: str | None = None


@dataclass(frozen=True)
class LawVersion:
    """One enacted version of a law: from `in_force_from` until `repealed_from` or until the next version begins."""

    law: str
    version: int
    jurisdiction: str
    in_force_from: datetime
    repealed_from: datetime | None
    text: str
    text_hash: str


@dataclass(frozen=True)
class ConsentFacts:
    """A consent on record. `fields` None is every field; `authority_until` ends the power of whoever gave it for another
    (a guardian's at the subject's majority), None for a subject's own."""

    subject: str
    grantee: str
    purposes: frozenset[str]
    fields: frozenset[str] | None
    valid_from: datetime
    valid_until: datetime
    revoked: bool = False
    authority_until: datetime | None = None


@dataclass(frozen=True)
class WarrantFacts:
    """A warrant on record. The persons are pseudonyms, None where an identity is bound to none."""

    dataset: str
    grantee: str
    purpose: str
    actions: frozenset[str]
    issued: bool
    expires_at: datetime
    uses_left: int
    requester_person: str | None
    issuer_person: str | None


@dataclass(frozen=True)
class EmergencyFacts:
    """A declared emergency. It carries decisions until `review_by`, and longer only if the review justified it."""

    dataset: str
    grantee: str
    identity: str
    review_by: datetime
    review: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What is on record about a request, its data set and its requester.

    Attributes:
        holds: orders in force that hold the data set or one of its subjects.
        cosigned, cosign_refused: who signed for and against: `regulator`, or the MSP id of a joint owner.
        consents: every consent that could cover the request.
        own_data: the requester is the one person that the data are about.
        warrant, emergency: what the request refers to.
        exported_persons, exported_sensitive: persons whose data the owner let out of the nation since 1 January.
        received_rows: rows of personal data that the requester had from the owner since 1 January.
    """

    holds: tuple[str, ...] = ()
    cosigned: frozenset[str] = frozenset()
    cosign_refused: frozenset[str] = frozenset()
    consents: tuple[ConsentFacts, ...] = ()
    own_data: bool = False
    warrant: WarrantFacts | None = None
    emergency: EmergencyFacts | None = None
    exported_persons: int = 0
    exported_sensitive: int = 0
    received_rows: int = 0
    used_rows: Mapping[Period, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DecisionInput:
    """Everything that a decision depends on. `laws` may hold more than applies: the engine selects.

    `fields` None asks for every column, `rows` None for every row. `processors` are the places where others process the data for the requester.
    """

    subject: Subject
    resource: Resource | None
    action: str | None
    purpose: str | None
    legal_basis: str | None
    destination: str | None
    time: datetime
    channel: str
    laws: Sequence[LawVersion] = ()
    fields: tuple[str, ...] | None = None
    processors: tuple[str, ...] = ()
    rows: tuple[RowRule, ...] | None = None
    evidence: Evidence = field(default_factory=Evidence)
