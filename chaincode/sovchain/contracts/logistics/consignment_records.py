"""What is on record of a consignment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from sovchain.chaincode import record
from sovchain.contracts.core.codes import MSP_ID_PATTERN
from sovchain.contracts.core.records import Hex32, JurisdictionCode, MspId, Record, ShortText, Timestamp
from sovchain.contracts.logistics.positions import Position

PartyId = Annotated[str, StringConstraints(pattern=rf"^{MSP_ID_PATTERN}/[a-z0-9][a-z0-9-]{{0,39}}$")]
SeriesName = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,4}$")]
Number = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,4}-[0-9]{8}$")]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Fen = Annotated[int, Field(ge=0, le=10**15)]
State = Literal[
    "draft", "issued", "checked", "in-transit", "offered", "held", "exception", "arrived", "tendered", "delivered",
    "delivered-reserved", "refused", "claimed", "settled", "closed", "void",
]  # fmt: skip


class Place(Record):
    """Where goods are loaded or go to; the address is in the particulars."""

    jurisdiction: JurisdictionCode
    position: Position


class Order(Record):
    """What a consignor states. `carriers` are those who may have the goods in hand, in any order: the declared chain.

    `contract` is the salted hash of the contract of carriage, `particulars` that of goods and addresses, `tracking` the
    SHA-256 of the tracking code. Temperatures are in thousandths of a degree.
    """

    consignee: PartyId
    carrier: PartyId
    carriers: Annotated[tuple[PartyId, ...], Field(max_length=20)] = ()
    origin: Place
    destination: Place
    packages: Annotated[int, Field(ge=1, le=1_000_000)]
    weight_kg: Annotated[int, Field(ge=1, le=100_000_000)]
    freight_fen: Fen
    contract: Hex32
    particulars: Hex32
    tracking: Hex32
    temperature_milli: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _check(self) -> Order:
        if self.temperature_milli is not None and self.temperature_milli[0] > self.temperature_milli[1]:
            raise ValueError("the lowest temperature is above the highest")
        return self


class Reservation(Record):
    """What a party states against the goods or their handling."""

    by: PartyId
    at: Timestamp
    text: ShortText


@record(key="series")
class Series(Record):
    """Numbers of one issuer, without a gap: a number is taken in the transaction that makes its note."""

    series: SeriesName
    owner: MspId
    last: int


@record(key="number", indexes={"by_tracking": ("tracking",)})
class Consignment(Record):
    """A consignment note. `disposer` holds the right of disposal. `sequence` counts its events."""

    number: Number
    order: Order
    tracking: Hex32
    consignor: PartyId
    consignee: PartyId
    carrier: PartyId
    custodian: PartyId
    disposer: PartyId
    destination: Place
    state: State
    sequence: int
    changed_at: Timestamp
    carriers: tuple[PartyId, ...]
    offered_to: PartyId | None = None
    loaded: Count | None = None
    tendered: Count | None = None
    received: Count | None = None
    reservations: tuple[Reservation, ...] = ()
    proof: Hex32 | None = None
    claims_until: Timestamp | None = None
    claim_fen: Fen | None = None
    settled_fen: Fen | None = None
    paid_fen: Fen | None = None
    reference: str = ""
    reason: str = ""


@record(key="contract")
class Load(Record):
    """A contract of carriage that has its note."""

    contract: Hex32
    number: Number


@record(key="number")
class Trail(Record):
    """The track of a consignment: its first and latest points. `alerts` counts hops that no lorry makes."""

    number: Number
    first: Position
    latest: Position
    at: Timestamp
    points: int
    alerts: int = 0
    cleared: int = 0
    finding: str = ""


@record(key="id")
class Inspection(Record):
    """An officer's reading of a consignment's particulars, on record before it takes place."""

    id: Hex32
    number: Number
    msp_id: MspId
    identity: Hex32
    duty: ShortText
    reason: ShortText
    at: Timestamp


class Status(Record):
    """What the holder of a tracking code sees."""

    state: State
    changed_at: Timestamp


class PublicNote(Record):
    """What everybody may see of a consignment: void numbers are there like all others."""

    number: Number
    state: State
    jurisdiction: JurisdictionCode
