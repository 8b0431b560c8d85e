"""Wrappers for those who order, co-sign, judge and look after persons' data; see `docs/law-cases.md` for what each act means."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Final, Literal

from sovchain.client import Network
from sovchain.contracts.core import Duties, Orders, PersonalData, Registry, Sharing, Warrants
from sovchain.contracts.core.order_records import (
    Caller,
    Consent,
    ConsentTerms,
    Cosignature,
    Delegation,
    Duty,
    Emergency,
    Hold,
    Order,
    Person,
    Purge,
    Representative,
    SubjectAccess,
    SubjectFile,
    Wallet,
    Warrant,
    WarrantScope,
)
from sovchain.contracts.core.records import DataClass, DataSet, Receipt
from sovchain.sovereign.calls import Calls, committed
from sovchain.sovereign.errors import InvalidInput
from sovchain.sovereign.results import Committed, Recorded

PSEUDONYM_KEY_MIN_BYTES: Final = 32
"""Shortest key that pseudonyms are made with: identity numbers can be counted through, so the key is all that hides them."""


def pseudonym(key: bytes, purpose: str, identity_number: str) -> str:
    """A person's pseudonym for one purpose: HMAC-SHA-256 under the jurisdiction's key. Raises InvalidInput for a short key.

    Two purposes give two pseudonyms that nobody without the key can join. Key and number never go to the ledger.
    """
    if len(key) < PSEUDONYM_KEY_MIN_BYTES:
        raise InvalidInput(
            "the pseudonym key is too short",
            f"it has {len(key)} bytes, {PSEUDONYM_KEY_MIN_BYTES} at least hide an identity number",
            "draw one at random and keep it within the jurisdiction",
        )
    scoped = hmac.digest(key, b"sovchain/pseudonym/" + purpose.encode(), "sha256")
    return hmac.new(scoped, identity_number.encode(), hashlib.sha256).hexdigest()


class Authority:
    """Orders, warrants, emergencies, co-signatures and duties on one channel, as the identity behind `network`.

    Raises ContractRefusal, InvalidInput, and the client's errors.
    """

    def __init__(self, network: Network, chaincode: str | None = None) -> None:
        self._calls = Calls(network.contract(chaincode or network.name))
        self._msp_id = network.identity.msp_id

    async def whoami(self) -> Caller:
        """How the ledger knows this identity."""
        return await self._calls.evaluate(Registry.whoami)

    async def bind_person(self, identity: str, person: str) -> Recorded[Person]:
        """As an admin: bind an identity of the own organisation to a person's pseudonym."""
        done = await self._calls.submit(Registry.bind_person, identity, person)
        return Recorded(record=done.result, committed=committed(done))

    async def delegate(self, delegate: str, role: str, expires_at: datetime, *, depth: int = 0) -> Recorded[Delegation]:
        """As an admin: lend a role of the own organisation to another one."""
        done = await self._calls.submit(Registry.delegate, delegate, role, depth, expires_at)
        return Recorded(record=done.result, committed=committed(done))

    async def revoke_delegation(self, delegate: str, role: str) -> Recorded[Delegation]:
        """As an admin: take a lent role back."""
        done = await self._calls.submit(Registry.revoke_delegation, delegate, role)
        return Recorded(record=done.result, committed=committed(done))

    async def suspend_place(self, jurisdiction: str, reason: str) -> Committed:
        """As an admin of legislator or regulator: suspend a jurisdiction with everything within it."""
        return committed(await self._calls.submit(Registry.suspend_place, jurisdiction, reason))

    async def reinstate_place(self, jurisdiction: str, reason: str) -> Committed:
        """As an admin of the other guardian than suspended it: end a jurisdiction's suspension."""
        return committed(await self._calls.submit(Registry.reinstate_place, jurisdiction, reason))

    async def hold(self, target: str, reason: str) -> Recorded[Hold]:
        """Hold a data set, or everything about a person."""
        done = await self._calls.submit(Orders.hold, target, reason)
        return Recorded(record=done.result, committed=committed(done))

    async def lift(self, target: str, order: str, reason: str) -> Recorded[Order]:
        """Lift a hold of the own organisation."""
        done = await self._calls.submit_after_own(Orders.lift, target, order, reason)
        return Recorded(record=done.result, committed=committed(done))

    async def holds(self, target: str) -> list[Hold]:
        """The holds in force on a data set or a person."""
        return await self._calls.evaluate(Orders.holds, target)

    async def correct(self, target: str, reason: str, replacement: str | None = None) -> Recorded[Order]:
        """Mark a record as wrong, and name what replaces it."""
        done = await self._calls.submit(Orders.correct, target, reason, replacement)
        return Recorded(record=done.result, committed=committed(done))

    async def raise_class(self, dataset: str, data_class: DataClass, reason: str) -> Recorded[DataSet]:
        """Raise a data set's class; every permit so far ends with it."""
        done = await self._calls.submit(Orders.raise_class, dataset, data_class, reason)
        return Recorded(record=done.result, committed=committed(done))

    async def order_purge(self, dataset: str, reason: str) -> Recorded[Purge]:
        """Order that a payload is destroyed wherever it lies."""
        done = await self._calls.submit(Orders.order_purge, dataset, reason)
        return Recorded(record=done.result, committed=committed(done))

    async def purge(self, dataset: str) -> Recorded[Purge]:
        """As a holder: destroy the own copy and confirm it. Two transactions, the first on the own peers only."""
        await self._calls.at(self._msp_id).submit_after_own(Orders.purge, dataset)
        done = await self._calls.submit_after_own(Orders.confirm_purge, dataset)
        return Recorded(record=done.result, committed=committed(done))

    async def purge_status(self, dataset: str) -> Purge:
        """How a purge stands."""
        return await self._calls.evaluate(Orders.purge_status, dataset)

    async def request_warrant(self, scope: WarrantScope, reason: str) -> Recorded[Warrant]:
        """Ask for a warrant."""
        done = await self._calls.submit(Warrants.request, scope, reason)
        return Recorded(record=done.result, committed=committed(done))

    async def issue_warrant(
        self, warrant: str, *, uses: int, expires_at: datetime, sealed_until: datetime | None = None
    ) -> Recorded[Warrant]:
        """As a judge, another person than asked for it: issue a warrant."""
        done = await self._calls.submit_after_own(Warrants.issue, warrant, uses, expires_at, sealed_until)
        return Recorded(record=done.result, committed=committed(done))

    async def break_glass(self, dataset: str, reason: str) -> Recorded[Emergency]:
        """Declare an emergency, to be reviewed by another person within its time."""
        done = await self._calls.submit(Warrants.break_glass, dataset, reason)
        return Recorded(record=done.result, committed=committed(done))

    async def review(self, emergency: str, finding: Literal["justified", "abuse"]) -> Recorded[Emergency]:
        """As a judge or a supervisor: review an emergency."""
        done = await self._calls.submit_after_own(Warrants.review, emergency, finding)
        return Recorded(record=done.result, committed=committed(done))

    async def cosign(self, request: str, *, approve: bool = True) -> Recorded[Cosignature]:
        """Sign for or against a request on file, for the regulator or as a joint owner."""
        done = await self._calls.submit_after_own(Duties.cosign, request, approve)
        return Recorded(record=done.result, committed=committed(done))

    async def decide(self, request: str) -> Recorded[Receipt]:
        """Have a request on file decided, by its id: after it was co-signed, for example."""
        done = await self._calls.submit_after_own(Sharing.decide, request)
        return Recorded(record=done.result, committed=committed(done))

    async def fulfil(self, request: str, kind: Literal["report", "delete"], evidence: bytes) -> Recorded[Duty]:
        """As the grantee: fulfil a duty; the ledger keeps a salted hash of the report or protocol."""
        digest = hashlib.sha256(secrets.token_bytes(32) + evidence).hexdigest()
        done = await self._calls.submit(Duties.fulfil, request, kind, digest)
        return Recorded(record=done.result, committed=committed(done))

    async def tick(self, request: str, kind: Literal["report", "delete"]) -> Recorded[Duty]:
        """Find a duty overdue, on record."""
        done = await self._calls.submit(Duties.tick, request, kind)
        return Recorded(record=done.result, committed=committed(done))

    async def duties(self, request: str) -> list[Duty]:
        """The duties that a permit brought with it."""
        return await self._calls.evaluate(Duties.listing, request)


class PersonalDataDesk:
    """The personal data service centre of one channel, for its caseworkers and for data subjects."""

    def __init__(self, network: Network, chaincode: str | None = None) -> None:
        self._calls = Calls(network.contract(chaincode or network.name))

    async def open_wallet(self, subject: str, msp_id: str, identity: str) -> Recorded[Wallet]:
        """As a caseworker or official: bind a pseudonym to the identity that acts for it."""
        done = await self._calls.submit(PersonalData.open_wallet, subject, msp_id, identity)
        return Recorded(record=done.result, committed=committed(done))

    async def appoint(
        self, subject: str, msp_id: str, identity: str, kind: Literal["guardian", "heir"], until: datetime
    ) -> Recorded[Representative]:
        """As a caseworker or official: record a guardian or an heir."""
        done = await self._calls.submit(PersonalData.appoint, subject, msp_id, identity, kind, until)
        return Recorded(record=done.result, committed=committed(done))

    async def record_death(self, subject: str) -> Recorded[Wallet]:
        """As a caseworker or official: put a death on record."""
        done = await self._calls.submit(PersonalData.record_death, subject)
        return Recorded(record=done.result, committed=committed(done))

    async def consent(self, subject: str, terms: ConsentTerms) -> Recorded[Consent]:
        """As the subject, its guardian or heir: consent to a use."""
        done = await self._calls.submit(PersonalData.consent, subject, terms)
        return Recorded(record=done.result, committed=committed(done))

    async def revoke(self, subject: str, consent: str) -> Recorded[Consent]:
        """As the subject, its guardian or heir: revoke a consent."""
        done = await self._calls.submit_after_own(PersonalData.revoke, subject, consent)
        return Recorded(record=done.result, committed=committed(done))

    async def accesses(self, subject: str) -> list[SubjectAccess]:
        """Every decision on the subject's data."""
        return await self._calls.evaluate(PersonalData.accesses, subject)

    async def file(self, subject: str) -> SubjectFile:
        """Everything that the ledger holds about the subject, to take along."""
        return await self._calls.evaluate(PersonalData.file, subject)
