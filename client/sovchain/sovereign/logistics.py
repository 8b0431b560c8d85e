"""Digital logistics for consignors, carriers, consignees and officers; see docs/scenarios/digital-logistics.md."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from sovchain.contracts.core.records import SALT_BYTES
from sovchain.contracts.core.sealing import KEY_BYTES, unseal
from sovchain.contracts.government.licences import CarrierLicence, TransportLicences
from sovchain.contracts.logistics.consignment_records import (
    Consignment,
    Inspection,
    Order,
    Place,
    PublicNote,
    Series,
    State,
    Status,
    Trail,
)
from sovchain.contracts.logistics.consignments import Consignments
from sovchain.contracts.logistics.licences import LicenceHere, Licences
from sovchain.contracts.logistics.positions import Position
from sovchain.contracts.logistics.tracks import Tracks
from sovchain.sovereign.calls import all_pages
from sovchain.sovereign.desk import Desk
from sovchain.sovereign.errors import IntegrityError
from sovchain.sovereign.results import Committed, Recorded


def salted(text: bytes) -> tuple[bytes, str]:
    """Particulars, a contract or a receipt with a random salt in front, and the hash that stands on the ledger."""
    kept = secrets.token_bytes(SALT_BYTES) + text
    return kept, hashlib.sha256(kept).hexdigest()


def tracking_code() -> tuple[bytes, str]:
    """A random tracking code, to be given to whoever may see the status, and its hash, as an `Order` states it."""
    code = secrets.token_bytes(SALT_BYTES)
    return code, hashlib.sha256(code).hexdigest()


def statistics(notes: Iterable[PublicNote]) -> dict[str, dict[State, int]]:
    """How many consignments are in which state, by the jurisdiction of their origin: for everybody."""
    counted: dict[str, Counter[State]] = {}
    for note in notes:
        counted.setdefault(note.jurisdiction, Counter())[note.state] += 1
    return {place: dict(sorted(states.items())) for place, states in sorted(counted.items())}


class LicenceOffice(Desk):
    """The transport office on the government channel."""

    async def grant(self, carrier: str, certificate: str, valid_until: datetime) -> Recorded[CarrierLicence]:
        """License a carrier."""
        return await self._record(TransportLicences.grant, carrier, certificate, valid_until)

    async def renew(self, carrier: str, valid_until: datetime) -> Recorded[CarrierLicence]:
        """Let a licence go on, or give it back."""
        return await self._record(TransportLicences.renew, carrier, valid_until)

    async def revoke(self, carrier: str, reason: str) -> Recorded[CarrierLicence]:
        """Take a licence away."""
        return await self._record(TransportLicences.revoke, carrier, reason)

    async def read(self, carrier: str) -> CarrierLicence:
        """A carrier's licence."""
        return await self._calls.evaluate(TransportLicences.read, carrier)


class LogisticsDesk(Desk):
    """One party or officer on the logistics channel.

    Each method may raise `ContractRefusal`, `InvalidInput`, and the client's `FabricError`s.
    """

    async def open_series(self, series: str) -> Recorded[Series]:
        """Begin a series of numbers for the own organisation."""
        return await self._record(Consignments.open_series, series)

    async def tell(self, msp_id: str, particulars: bytes) -> Committed:
        """Tell an organisation salted particulars. They go to that organisation's peer and nowhere else."""
        return await self._told(msp_id, Consignments.tell, msp_id, particulars)

    async def draft(self, series: str, order: Order) -> Recorded[Consignment]:
        """As the consignor: draw up a note under the series' next number."""
        return await self._record(Consignments.draft, series, order)

    async def sign(self, number: str) -> Recorded[Consignment]:
        """As the carrier: sign it."""
        return await self._record(Consignments.sign, number)

    async def void(self, number: str, reason: str) -> Recorded[Consignment]:
        """As the consignor: void it before the goods are picked up."""
        return await self._record(Consignments.void, number, reason)

    async def pick_up(self, number: str, loaded: int, reservation: str | None = None) -> Recorded[Consignment]:
        """As the carrier: check what is loaded."""
        return await self._record(Consignments.pick_up, number, loaded, reservation)

    async def contest(self, number: str) -> Recorded[Consignment]:
        """As the consignor: reject the reservations."""
        return await self._record(Consignments.contest, number)

    async def depart(self, number: str) -> Recorded[Consignment]:
        """As the consignor: accept them and hand the goods over."""
        return await self._record(Consignments.depart, number)

    async def declare(self, number: str, carrier: str) -> Recorded[Consignment]:
        """As the consignor: let a further carrier have the goods."""
        return await self._record(Consignments.declare, number, carrier)

    async def offer(self, number: str, to: str) -> Recorded[Consignment]:
        """As the custodian: offer custody."""
        return await self._record(Consignments.offer, number, to)

    async def accept(self, number: str, reservation: str | None = None) -> Recorded[Consignment]:
        """As whom it was offered to: take custody."""
        return await self._record(Consignments.accept, number, reservation)

    async def decline(self, number: str) -> Recorded[Consignment]:
        """As whom it was offered to: decline."""
        return await self._record(Consignments.decline, number)

    async def retract(self, number: str) -> Recorded[Consignment]:
        """As the custodian: take an offer back."""
        return await self._record(Consignments.retract, number)

    async def breach(self, number: str, temperature_milli: int) -> Recorded[Consignment]:
        """As the custodian: put a reading outside the bounds on record."""
        return await self._record(Consignments.breach, number, temperature_milli)

    async def divert(self, number: str, destination: Place, consignee: str) -> Recorded[Consignment]:
        """As the holder of the right of disposal: send the goods elsewhere."""
        return await self._record(Consignments.divert, number, destination, consignee)

    async def pass_right(self, number: str, to: str) -> Recorded[Consignment]:
        """As its holder: pass the right of disposal on."""
        return await self._record(Consignments.pass_right, number, to)

    async def hold(self, number: str, order: str) -> Recorded[Consignment]:
        """As an officer: hold the goods."""
        return await self._record(Consignments.hold, number, order)

    async def lift(self, number: str, order: str) -> Recorded[Consignment]:
        """As an officer: lift a hold."""
        return await self._record(Consignments.lift, number, order)

    async def report_exception(self, number: str, reason: str) -> Recorded[Consignment]:
        """As the custodian: say that the carriage cannot go on."""
        return await self._record(Consignments.report_exception, number, reason)

    async def instruct(self, number: str, destination: Place, consignee: str) -> Recorded[Consignment]:
        """As the holder of the right of disposal: say what becomes of the goods."""
        return await self._record(Consignments.instruct, number, destination, consignee)

    async def arrive(self, number: str) -> Recorded[Consignment]:
        """As the custodian: arrive."""
        return await self._record(Consignments.arrive, number)

    async def tender(self, number: str, packages: int) -> Recorded[Consignment]:
        """As the custodian: offer the goods to the consignee."""
        return await self._record(Consignments.tender, number, packages)

    async def take(self, number: str, proof: str) -> Recorded[Consignment]:
        """As the consignee: take the goods; `proof` is the salted hash of the signed receipt."""
        return await self._record(Consignments.take, number, proof)

    async def reserve(self, number: str, packages: int, reservation: str, proof: str) -> Recorded[Consignment]:
        """As the consignee: take them with a reservation."""
        return await self._record(Consignments.reserve, number, packages, reservation, proof)

    async def refuse(self, number: str, reason: str) -> Recorded[Consignment]:
        """As the consignee: refuse them."""
        return await self._record(Consignments.refuse, number, reason)

    async def claim(self, number: str, claim_fen: int, reason: str) -> Recorded[Consignment]:
        """As the consignee: claim damage."""
        return await self._record(Consignments.claim, number, claim_fen, reason)

    async def settle(self, number: str, paid_fen: int) -> Recorded[Consignment]:
        """As the carrier: pay a claim."""
        return await self._record(Consignments.settle, number, paid_fen)

    async def drop(self, number: str) -> Recorded[Consignment]:
        """As the consignee: drop a claim."""
        return await self._record(Consignments.drop, number)

    async def pay(self, number: str, fen: int, reference: str) -> Recorded[Consignment]:
        """As the consignor: put the payment of the freight on record."""
        return await self._record(Consignments.pay, number, fen, reference)

    async def close(self, number: str) -> Recorded[Consignment]:
        """As the carrier: close a note of which contract, funds and track agree."""
        return await self._record(Consignments.close, number)

    async def point(self, number: str, position: Position) -> Recorded[Trail]:
        """As the custodian: add a point to the track."""
        return await self._record(Tracks.point, number, position)

    async def clear(self, number: str, finding: str) -> Recorded[Trail]:
        """As an officer: find that a track's alerts are explained."""
        return await self._record(Tracks.clear, number, finding)

    async def inspect(self, number: str, duty: str, reason: str) -> Recorded[Inspection]:
        """As an officer: put on record that the particulars are read, and why."""
        return await self._record(Consignments.inspect, number, duty, reason)

    async def particulars(self, number: str, msp_id: str, inspection: str | None = None) -> bytes:
        """As a party, or as the officer of an inspection: the particulars, from the collection of an organisation that was told.

        Raises IntegrityError for bytes that are not those of the note.
        """
        key = secrets.token_bytes(KEY_BYTES)
        sealed = await self._calls.at(msp_id).evaluate(Consignments.particulars, number, msp_id, key, inspection)
        opened = unseal(sealed, key)
        if hashlib.sha256(opened).hexdigest() != (await self.read(number)).order.particulars:
            raise IntegrityError("the particulars are not those of the note", "their hash differs", "ask another party")
        return opened[SALT_BYTES:]

    async def read(self, number: str) -> Consignment:
        """A note."""
        return await self._calls.evaluate(Consignments.read, number)

    async def status(self, code: bytes) -> Status:
        """The status alone, by a tracking code."""
        return await self._calls.evaluate(Consignments.status, code)

    async def track(self, number: str) -> Trail:
        """The track of a consignment."""
        return await self._calls.evaluate(Tracks.read, number)

    async def licence(self, carrier: str) -> LicenceHere:
        """A carrier's licence as this channel knows it."""
        return await self._calls.evaluate(Licences.read, carrier)

    async def public(self) -> Sequence[PublicNote]:
        """All numbers with their states: what statistics are made of."""
        return await all_pages(lambda bookmark: self._calls.evaluate(Consignments.public, bookmark))

    async def inspections(self) -> Sequence[Inspection]:
        """Who read what on which duty."""
        return await all_pages(lambda bookmark: self._calls.evaluate(Consignments.inspections, bookmark))
