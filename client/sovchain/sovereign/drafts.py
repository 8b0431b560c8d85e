"""Promissory notes and commercial drafts for their parties: each a customer of a bank, named by the certificate's `party`."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from sovchain.contracts.core.records import SALT_BYTES, Record
from sovchain.contracts.finance.draft_rules import Draft, Issue, Licence, Purpose, plus_months
from sovchain.contracts.finance.drafts import Drafts
from sovchain.sovereign.calls import all_pages
from sovchain.sovereign.desk import Desk
from sovchain.sovereign.results import Committed, Recorded


def salted_terms(terms: bytes) -> tuple[bytes, str]:
    """Terms with a random salt in front, as banks are told them, and their hash, as an `Issue` states it."""
    salted = secrets.token_bytes(SALT_BYTES) + terms
    return salted, hashlib.sha256(salted).hexdigest()


CHRONIC_REFUSALS: Final = 3
"""From how many refusals within six months on an acceptor is one of chronic default (disclosure rules for commercial bills)."""


class AcceptorStanding(Record):
    """How an acceptor pays. Money in fen; `discharged_percent` of what was presented, rounded down."""

    acceptor: str
    paid_fen: int
    refused_fen: int
    discharged_percent: int
    chronic: bool


def standings(drafts: Iterable[Draft], now: datetime) -> list[AcceptorStanding]:
    """Discharge rates and chronic defaults, as everybody may see them: of acceptors that have been asked for payment.

    A draft that was refused stays a refusal whoever paid it in the end. Sorted by acceptor.
    """
    asked: dict[str, list[Draft]] = {}
    for one in drafts:
        if one.presented_at is not None and (one.state == "paid" or one.refused_at is not None):
            asked.setdefault(one.acceptor, []).append(one)
    found = []
    for acceptor, mine in sorted(asked.items()):
        refusals = [one for one in mine if one.refused_at is not None]
        refused_fen = sum(one.amount_fen for one in refusals)
        paid_fen = sum(one.amount_fen for one in mine) - refused_fen
        recent = [one for one in refusals if one.refused_at and plus_months(one.refused_at, 6) > now]
        percent = 100 * paid_fen // (paid_fen + refused_fen)
        found.append(
            AcceptorStanding(
                acceptor=acceptor,
                paid_fen=paid_fen,
                refused_fen=refused_fen,
                discharged_percent=percent,
                chronic=len(recent) >= CHRONIC_REFUSALS,
            )
        )
    return found


class DraftDesk(Desk):
    """One party on the finance channel.

    Each method may raise `ContractRefusal`, `InvalidInput`, and the client's `FabricError`s.
    """

    async def license(self, party: str) -> Recorded[Licence]:
        """As the regulator: let a party discount drafts and issue notes."""
        return await self._record(Drafts.license, party)

    async def issue(self, issue: Issue) -> Recorded[Draft]:
        """As the drawer: draw a draft or make a note."""
        return await self._record(Drafts.issue, issue)

    async def tell(self, draft: str, msp_id: str, terms: bytes) -> Committed:
        """As a party: tell a bank the salted terms. They go to that bank's peer and nowhere else."""
        return await self._told(msp_id, Drafts.tell, draft, msp_id, terms)

    async def accept(self, draft: str) -> Recorded[Draft]:
        """As the acceptor: bind oneself to pay."""
        return await self._record(Drafts.accept, draft)

    async def refuse(self, draft: str, reason: str) -> Recorded[Draft]:
        """As the acceptor: refuse acceptance."""
        return await self._record(Drafts.refuse, draft, reason)

    async def lapse(self, draft: str) -> Recorded[Draft]:
        """As anyone: put on record that acceptance or payment was not given in time."""
        return await self._record(Drafts.lapse, draft)

    async def void(self, draft: str) -> Recorded[Draft]:
        """As the drawer: void a draft that nobody has accepted."""
        return await self._record(Drafts.void, draft)

    async def offer(
        self, draft: str, to: str, purpose: Purpose, price_fen: int | None = None, *, rate_bp: int | None = None
    ) -> Recorded[Draft]:
        """As the holder: offer the draft to a party; a discount for a price in fen, or at a yearly rate in hundredths of a
        percent."""
        return await self._record(Drafts.offer, draft, to, purpose, price_fen, rate_bp)

    async def split(self, draft: str, fen: int) -> Recorded[list[Draft]]:
        """As the holder: cut it into the first `fen` of it and the rest."""
        return await self._record(Drafts.split, draft, fen)

    async def guarantee(self, draft: str, debtor: str) -> Recorded[Draft]:
        """As a guarantor: guarantee that a debtor pays."""
        return await self._record(Drafts.guarantee, draft, debtor)

    async def stop(self, draft: str, reason: str) -> Recorded[Draft]:
        """As the holder: report it lost."""
        return await self._record(Drafts.stop, draft, reason)

    async def resume(self, draft: str) -> Recorded[Draft]:
        """As the holder: take that report back."""
        return await self._record(Drafts.resume, draft)

    async def notify(self, draft: str, to: str) -> Recorded[Draft]:
        """As the holder of a refused draft, or as one who was told: tell somebody who answers for it."""
        return await self._record(Drafts.notify, draft, to)

    async def expire(self, draft: str) -> Recorded[Draft]:
        """As anyone: put on record that all claims are barred by time."""
        return await self._record(Drafts.expire, draft)

    async def withdraw(self, draft: str) -> Recorded[Draft]:
        """As the holder: take an offer back."""
        return await self._record(Drafts.withdraw, draft)

    async def decline(self, draft: str) -> Recorded[Draft]:
        """As whom it was offered to: decline."""
        return await self._record(Drafts.decline, draft)

    async def sign(self, draft: str, invoice: str | None = None) -> Recorded[Draft]:
        """As whom it was offered to: take it; a discount with the hash of the invoice behind it."""
        return await self._record(Drafts.sign, draft, invoice)

    async def free(self, draft: str) -> Recorded[Draft]:
        """As the pledgee: give a pledge back."""
        return await self._record(Drafts.free, draft)

    async def lock(self, draft: str, order: str) -> Recorded[Draft]:
        """As the regulator: stop a draft by an order."""
        return await self._record(Drafts.lock, draft, order)

    async def unlock(self, draft: str, order: str) -> Recorded[Draft]:
        """As the regulator: lift that by an order."""
        return await self._record(Drafts.unlock, draft, order)

    async def present(self, draft: str) -> Recorded[Draft]:
        """As the holder or pledgee: ask for payment."""
        return await self._record(Drafts.present, draft)

    async def pay(self, draft: str, reference: str) -> Recorded[Draft]:
        """As the acceptor: pay the face."""
        return await self._record(Drafts.pay, draft, reference)

    async def dishonour(self, draft: str, reason: str) -> Recorded[Draft]:
        """As the acceptor: refuse payment."""
        return await self._record(Drafts.dishonour, draft, reason)

    async def claim(self, draft: str, debtor: str) -> Recorded[Draft]:
        """As the holder of a refused draft: claim from somebody who answers for it."""
        return await self._record(Drafts.claim, draft, debtor)

    async def settle(self, draft: str, reference: str) -> Recorded[Draft]:
        """As the debtor: pay what is claimed."""
        return await self._record(Drafts.settle, draft, reference)

    async def read(self, draft: str) -> Draft:
        """A draft with its chain."""
        return await self._calls.evaluate(Drafts.read, draft)

    async def listing(self) -> Sequence[Draft]:
        """All drafts."""
        return await all_pages(lambda bookmark: self._calls.evaluate(Drafts.listing, bookmark))
