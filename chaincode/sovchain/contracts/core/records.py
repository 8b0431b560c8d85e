"""What the contracts store and exchange, as typed records. State holds each one as canonical JSON (RFC 8785)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from sovchain.contracts.core.codes import (
    JURISDICTION_PATTERN,
    MSP_ID_PATTERN,
    PURPOSES,
    ROLES,
    TRANSACTION_ID_PATTERN,
    WORD_PATTERN,
    is_jurisdiction,
    level_of,
)

PAYLOAD_MAX_BYTES = 16 * 1024 * 1024
"""Largest data set, without its salt."""
SALT_BYTES = 32
"""Length of the salt in front of every payload: without it the public hash of a guessable file would disclose it."""
COLUMNS_MAX = 500
ROW_VALUES_MAX = 100
"""Most values of one rule that chooses rows."""
PAGE_MAX = 200
"""Most rows that one page of a listing holds."""

ALGORITHMS: dict[str, str] = {"encoding": "RFC 8785", "hash": "SHA-256", "policy": "Cedar 4"}
ENGINE_VERSION = "3"
"""Changes whenever the same input could lead to another receipt."""


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with six decimals always, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(value: Any) -> Any:
    """Turn RFC 3339 text into a UTC datetime; a datetime must carry its zone. Raises ValueError."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError("the time has no zone: write it as 2026-03-01T00:00:00Z")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise ValueError("the time lies outside the years 1 to 9999 of UTC") from None
    return moment


Timestamp = Annotated[datetime, BeforeValidator(parse_time), PlainSerializer(format_time, return_type=str)]
Hex32 = Annotated[str, StringConstraints(pattern=rf"^{TRANSACTION_ID_PATTERN}$")]
MspId = Annotated[str, StringConstraints(pattern=rf"^{MSP_ID_PATTERN}$")]


def _known_jurisdiction(code: str) -> str:
    if not is_jurisdiction(code):
        raise ValueError(f"{code} is no nation of ISO 3166-1, subdivision of ISO 3166-2 or city within one")
    return code


JurisdictionCode = Annotated[
    str, StringConstraints(pattern=rf"^{JURISDICTION_PATTERN}$"), AfterValidator(_known_jurisdiction)
]
Word = Annotated[str, StringConstraints(pattern=rf"^{WORD_PATTERN}$")]
DAYS_MAX = 36_500
"""Most days that an obligation leaves."""
ObligationKind = Literal["fields", "mask", "rows", "quota", "cosign", "notify", "report", "delete", "expires"]
"""See `obligations`."""
Period = Literal["day", "month", "year"]
"""Calendar periods (UTC) that a quota counts in."""
PersonalKind = Literal["none", "personal", "sensitive"]
"""The words of `codes.PERSONAL_KINDS`, as a type."""
DataClass = Literal["general", "important", "core"]
"""The words of `codes.DATA_CLASSES`, as a type."""
_UNSEEN = r"\x00-\x1f\x7f-\x9f\u{ad}\u{61c}\u{180e}\u{200b}-\u{200f}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{feff}\u{fff9}-\u{fffb}"
"""Characters that show nothing, break a line or turn its direction, so that a text could read as another. A fixed list:
Unicode's own classes grow, and every endorser must come to the same answer."""
ShortText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=rf"^[^{_UNSEEN}\s]([^{_UNSEEN}]*[^{_UNSEEN}\s])?$"),
]
"""One line of text without unseen characters, neither beginning nor ending with a blank."""
LawId = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9][A-Z0-9.-]{1,39}$")]
Fields = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...],
    Field(min_length=1, max_length=COLUMNS_MAX),
]
"""Names of columns."""
Processors = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=40)], ...], Field(min_length=1, max_length=8)
]
"""Places where others process data."""
LawVersionNumber = Annotated[int, Field(ge=1, le=999_999)]
T = TypeVar("T")


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class Page(Record, Generic[T]):
    """One page of a listing. `bookmark` starts the next page; empty means that this was the last."""

    items: tuple[T, ...]
    bookmark: str = ""


# Registry ------------------------------------------------------------------------------------------------------------


class Organisation(Record):
    """An organisation as an admission states it.

    `roles` and `clearance` are ceilings: a certificate of this organisation counts only as far as they allow.
    `legal_id` is the unified social credit code or its foreign equivalent.
    """

    msp_id: MspId
    legal_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ./:-]{2,63}$")]
    name: ShortText
    jurisdiction: JurisdictionCode
    roles: tuple[Word, ...]
    clearance: DataClass

    @model_validator(mode="after")
    def _check(self) -> Organisation:
        _refuse_unknown("role", self.roles, ROLES)
        return self


class Admission(Record):
    """The organisations that one ballot is about."""

    organisations: tuple[Organisation, ...]


class RegisteredOrganisation(Record):
    """An admitted organisation. `changed_at` is the time of the latest admission, suspension or reinstatement."""

    organisation: Organisation
    status: Literal["active", "suspended"]
    admitted_at: Timestamp
    changed_at: Timestamp
    ballot: Hex32
    reason: str = ""


class SuspendedIdentity(Record):
    """An identity that may not act although its certificate is valid."""

    msp_id: MspId
    identity: Hex32
    reason: ShortText
    suspended_at: Timestamp
    suspended_by: MspId


# Ballots -------------------------------------------------------------------------------------------------------------


class Vote(Record):
    """One class's vote, cast by an administrator of a seat."""

    seat: str
    msp_id: MspId
    identity: Hex32
    cast_at: Timestamp
    transaction: Hex32


class Ballot(Record):
    """A proposal under vote. `id` is the transaction that proposed it; after `deadline` no vote counts.

    Subjects: `admission` admits or reinstates organisations; `law` enacts a law's text; `repeal` ends a law; `anchor`
    pins another channel; `calendar` enacts a year's working days.
    """

    id: Hex32
    subject: Literal["admission", "law", "repeal", "anchor", "calendar"]
    title: ShortText
    proposed_by: MspId
    proposed_at: Timestamp
    deadline: Timestamp
    state: Literal["open", "passed"] = "open"
    passed_at: Timestamp | None = None


class BallotView(Record):
    """A ballot with its votes so far and the classes of seat that have yet to vote."""

    ballot: Ballot
    votes: tuple[Vote, ...]
    missing: tuple[str, ...]


# Law -----------------------------------------------------------------------------------------------------------------


class LawHeader(Record):
    """What the comment lines at the top of a law say."""

    law: LawId
    version: LawVersionNumber
    title: ShortText
    level: Literal["nation", "province", "city"]
    jurisdiction: JurisdictionCode
    effective_from: Timestamp

    @model_validator(mode="after")
    def _check(self) -> LawHeader:
        if level_of(self.jurisdiction) != self.level:
            raise ValueError(f"{self.jurisdiction} is a {level_of(self.jurisdiction)}, the law says {self.level}")
        return self


class Clause(Record):
    """One policy of a law. `line` is that of the policy's first token, from 1."""

    clause: ShortText
    effect: Literal["permit", "forbid"]
    line: int


class LawDraft(Record):
    """A proposed law: the text under ballot, valid but not in force."""

    ballot: Hex32
    header: LawHeader
    text_hash: Hex32
    clauses: tuple[Clause, ...]


LawFindingKind = Literal[
    "contradiction",
    "forbidden",
    "unsupported",
    "partly-forbidden",
    "partly-unsupported",
    "duplicate",
    "shadowed",
    "disables",
    "orphaned",
    "idle",
    "released",
    "unlegislated",
]


class LawFinding(Record):
    """What the check of a law against the laws in force found, and where.

    `law`, `version`, `clause`, `line` and `column` (both from 1) are the place; `other` is the clause, law or jurisdiction that it
    has to do with, as one cites it. An error is a clause that can never do what it says.
    """

    severity: Literal["error", "warning"]
    kind: LawFindingKind
    law: LawId
    version: LawVersionNumber
    clause: str
    line: int
    column: int
    detail: str
    other: str | None = None

    def text(self) -> str:
        """The finding on one line, without the file's name."""
        return f"line {self.line}, column {self.column}: {self.severity}, {self.clause}: {self.detail}"


class LawBody(Record):
    """A law's text as it was proposed."""

    text: str


class LawTitle(Record):
    """What a law's id stands for: one jurisdiction for good, and the newest version that was enacted."""

    jurisdiction: JurisdictionCode
    newest: LawVersionNumber


class Repeal(Record):
    """What a ballot on the end of a law is about. It ends all versions up to `newest`."""

    law: LawId
    jurisdiction: JurisdictionCode
    newest: LawVersionNumber
    effective_from: Timestamp


class EnactedLaw(Record):
    """A law that a ballot passed. It is in force from the later of enactment and `header.effective_from`,
    until a later version is in force or `repealed_from`."""

    header: LawHeader
    text_hash: Hex32
    ballot: Hex32
    enacted_at: Timestamp
    repealed_from: Timestamp | None = None


LawState = Literal["proposed", "enacted", "in force", "superseded", "repealed"]


class LawView(Record):
    """A law as a listing shows it, with its state at the time of the query's transaction."""

    header: LawHeader
    text_hash: Hex32
    ballot: Hex32
    state: LawState
    enacted_at: Timestamp | None = None
    repealed_from: Timestamp | None = None
    missing: tuple[str, ...] = ()


# Sharing -------------------------------------------------------------------------------------------------------------


class Column(Record):
    """One column of a table: its name and what its values are."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    type: Literal["integer", "decimal", "boolean", "date", "datetime", "text", "empty"]


MaskFunction = Literal["suppress", "truncate", "hash", "generalise"]
"""See `masks`."""
MASK_MAX = 2**31 - 1
"""Largest argument of a mask."""


class Mask(Record):
    """What is done to a column before it is released."""

    column: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    function: MaskFunction
    argument: Annotated[int, Field(ge=0, le=MASK_MAX)] = 0


class RowRule(Record):
    """Rows are asked for or granted where a column has one of these values. Everyone on the channel reads them: choose columns
    by which nobody can be identified."""

    column: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    values: Annotated[tuple[Annotated[str, StringConstraints(max_length=200)], ...], Field(max_length=ROW_VALUES_MAX)]

    @model_validator(mode="after")
    def _check(self) -> RowRule:
        _refuse_duplicates("values", self.values)
        return self


RowRules = Annotated[tuple[RowRule, ...], Field(min_length=1, max_length=8)]
"""Rules that all hold at once; one for each column."""


class Sealed(Record):
    """A payload that lies sealed in a store: `manifest` is the address of the blob that names its chunks, `location` where the
    owner says the store is. What is deposited and delivered is the key that opens it."""

    manifest: Hex32
    location: Annotated[str, StringConstraints(max_length=500, pattern=rf"^[^{_UNSEEN}]*$")] = ""


class Publication(Record):
    """What an owner makes public about a data set. Nothing of its contents is in here.

    `residency` names the jurisdictions that the data may go to: an empty set is nowhere, not everywhere. `subject` is the
    pseudonym of the one person that the data are about, if it is one; `rows` count persons where data are personal.
    `origin` is where data came from that were made elsewhere. `sources` are the data sets that a product was made from.
    `joint_owners` own it too: each must co-sign every request. `table_root` commits to every cell (see `projection`), so that
    a part of the table can be granted and checked; without it only the whole can be delivered. `sealed` says where a payload lies
    that is no deposit itself.
    """

    name: ShortText
    data_class: DataClass
    jurisdiction: JurisdictionCode
    residency: Annotated[tuple[JurisdictionCode, ...], Field(max_length=32)]
    purposes: Annotated[tuple[Word, ...], Field(max_length=32)]
    columns: Annotated[tuple[Column, ...], Field(max_length=COLUMNS_MAX)]
    rows: Annotated[int, Field(ge=0, le=2**53 - 1)]
    size_bytes: Annotated[int, Field(ge=0, le=2**53 - 1)]
    media_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-z0-9.+-]{1,60}(; charset=[a-z0-9-]{1,20})?$")] = (
        "text/csv; charset=utf-8"
    )
    personal: PersonalKind = "none"
    subject: Hex32 | None = None
    origin: JurisdictionCode | None = None
    sources: Annotated[tuple[Hex32, ...], Field(max_length=32)] = ()
    joint_owners: Annotated[tuple[MspId, ...], Field(max_length=8)] = ()
    table_root: Hex32 | None = None
    sealed: Sealed | None = None

    @model_validator(mode="after")
    def _check(self) -> Publication:
        _refuse_unknown("purpose", self.purposes, PURPOSES)
        _refuse_duplicates("residency", self.residency)
        _refuse_duplicates("sources", self.sources)
        _refuse_duplicates("joint owners", self.joint_owners)
        if self.subject is not None and self.personal == "none":
            raise ValueError("data about a person are personal: say personal or sensitive")
        if self.sealed is None and self.size_bytes > PAYLOAD_MAX_BYTES:
            raise ValueError(f"more than {PAYLOAD_MAX_BYTES} bytes are shared sealed in a store only")
        if self.sealed is not None and self.personal != "none" and self.rows == 0:
            raise ValueError("say for sealed personal data how many persons they are about: what may leave is counted")
        if self.sealed is not None and self.table_root is not None:
            raise ValueError("parts of a sealed payload cannot be granted: it has no table root")
        _refuse_duplicates("columns", [column.name for column in self.columns])
        return self


class DataSet(Record):
    """A catalogue entry. `id` is the transaction that deposited the payload; `commitment` is the SHA-256 of salt and
    payload, the same value that every peer keeps for the owner's private collection. `subjects` are the persons that it or one
    of its sources is about. Permits from before `raised_at`, when its class was raised, carry nothing more."""

    id: Hex32
    owner: MspId
    entry: Publication
    commitment: Hex32
    subjects: tuple[Hex32, ...] = ()
    published_at: Timestamp
    state: Literal["published", "withdrawn", "purged"] = "published"
    changed_at: Timestamp
    raised_at: Timestamp | None = None
    reason: str = ""


class Request(Record):
    """A request on file, committed before anybody decides it. `id` is the transaction that filed it.

    `identity` is the SHA-256 of the requester's client id, `role` and `clearance` are what the requester's certificate
    claimed. `destination` is where the requester says the data will be kept (None: where it is registered); it narrows
    and never widens, because the place of registration is judged too; so are the places of `processors`. `fields` None asks
    for every column, `rows` None for every row. `reference` is the warrant or the emergency that the basis rests on. `salt`
    keeps a receipt from disclosing the request.
    """

    id: Hex32
    dataset: Hex32
    msp_id: MspId
    identity: Hex32
    role: str | None = None
    clearance: str | None = None
    action: Word
    purpose: Word
    legal_basis: Word
    destination: Annotated[str, StringConstraints(max_length=40)] | None = None
    fields: Fields | None = None
    rows: RowRules | None = None
    processors: Processors | None = None
    reference: Hex32 | None = None
    salt: Hex32
    filed_at: Timestamp


class Pointer(Record):
    """An index entry: the request that it leads to."""

    request: Hex32


class Obligation(Record):
    """What a permit demands (see `obligations`): names of columns or organisations, a number of days, masks, rules for rows, or
    most rows in a period."""

    kind: ObligationKind
    names: tuple[str, ...] = ()
    days: Annotated[int, Field(ge=0, le=DAYS_MAX)] = 0
    masks: tuple[Mask, ...] | None = None
    rows: tuple[RowRule, ...] | None = None
    rows_max: int | None = None
    period: Period | None = None


class Reason(Record):
    """Why a decision fell: a clause of a law, a rule of the engine, or both for a clause that could not be judged."""

    law: str | None = None
    version: int | None = None
    clause: str | None = None
    effect: Literal["permit", "forbid"] | None = None
    rule: str | None = None
    detail: str | None = None

    def text(self) -> str:
        """The reason on one line, for people."""
        cited = f"{self.law} version {self.version}, {self.clause}" if self.law is not None else ""
        verb = {"permit": "permitted by ", "forbid": "forbidden by "}.get(self.effect or "", "")
        said = f"{self.rule}: {self.detail}" if self.rule and self.detail else self.rule or ""
        return ": ".join(part for part in (said, f"{verb}{cited}" if cited else "") if part)


class Receipt(Record):
    """The committed decision on one request. `id` is the transaction that decided it.

    `code` is empty for a permit and otherwise the first of the engine's denial codes that applies. `law_set_hash`
    covers the laws that were in force, `request_hash` the request with its salt. `obligations`, `fields` (None: all
    columns), `masks` (of those columns) and `rows` (None: all) are those of a permit. Equal state gives equal bytes.
    """

    id: Hex32
    request: Hex32
    decision: Literal["permit", "deny"]
    code: str
    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...] = ()
    fields: tuple[str, ...] | None = None
    masks: tuple[Mask, ...] | None = None
    rows: tuple[RowRule, ...] | None = None
    law_set_hash: Hex32
    request_hash: Hex32
    decided_at: Timestamp
    decided_by: MspId
    decider: Hex32
    engine_version: str
    algorithms: dict[str, str]


class Acknowledgement(Record):
    """The grantee confirmed what it received; every peer compared the hashes in both parties' collections."""

    request: Hex32
    msp_id: MspId
    commitment: Hex32
    acknowledged_at: Timestamp
    transaction: Hex32


class AccessFilter(Record):
    """Which decisions a listing shows. An absent field selects all."""

    dataset: Hex32 | None = None
    msp_id: MspId | None = None
    decision: Literal["permit", "deny"] | None = None


class Access(Record):
    """Who asked for which data set, under which law it was decided, and what came of it."""

    dataset: Hex32
    dataset_name: str
    owner: str
    request: Hex32
    msp_id: MspId
    identity: Hex32
    action: str
    purpose: str
    filed_at: Timestamp
    receipt: Hex32
    decision: Literal["permit", "deny"]
    code: str
    reasons: tuple[Reason, ...]
    decided_at: Timestamp
    delivered: bool
    acknowledged_at: Timestamp | None = None


def _refuse_unknown(kind: str, words: Sequence[str], known: Any) -> None:
    unknown = sorted(set(words) - set(known))
    if unknown:
        raise ValueError(f"unknown {kind} {', '.join(unknown)}: known are {', '.join(sorted(known))}")
    _refuse_duplicates(kind, words)


def _refuse_duplicates(kind: str, words: Sequence[str]) -> None:
    if len(set(words)) != len(words):
        raise ValueError(f"{kind} has a value twice")
