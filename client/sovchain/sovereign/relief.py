"""Poverty relief for those who run it: the offices on the government channel and the bank's desk on the finance channel."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Literal

from sovchain.contracts.core.records import SALT_BYTES
from sovchain.contracts.finance.payouts import Payout, Payouts
from sovchain.contracts.government.relief import Case, Flow, Objection, Programme, Relief
from sovchain.sovereign.calls import all_pages
from sovchain.sovereign.desk import Desk
from sovchain.sovereign.results import Committed, Recorded


def salted(account: str) -> bytes:
    """Random salt and an account: what the bank is told, and whose SHA-256 an application states."""
    return secrets.token_bytes(SALT_BYTES) + account.encode()


def payee_hash(payee: bytes) -> str:
    """What an application states of a salted account."""
    return hashlib.sha256(payee).hexdigest()


class ReliefOffice(Desk):
    """One office of a programme's authority, as the certificate's attribute `office` says, on the government channel.

    Each method may raise `ContractRefusal`, `InvalidInput`, and the client's `FabricError`s.
    """

    async def open_programme(self, programme: Programme) -> Recorded[Programme]:
        """As an admin of the authority: open a programme."""
        return await self._record(Relief.open_programme, programme)

    async def apply(self, programme: str, household: str, village: str, payee: str) -> Recorded[Case]:
        """As a clerk: put an application on record; `payee` is the `payee_hash` of the household's account."""
        return await self._record(Relief.apply, programme, household, village, payee)

    async def review(self, case: str, *, votes_for: int, votes_against: int, eligible: int) -> Recorded[Case]:
        """As a village office: record what the villagers' assembly voted."""
        return await self._record(Relief.review, case, votes_for, votes_against, eligible)

    async def publish(self, case: str) -> Recorded[Case]:
        """As a notice office: begin the publicity that is due."""
        return await self._record(Relief.publish, case)

    async def audit(self, case: str, finding: str) -> Recorded[Case]:
        """As a township office: audit a case after its first publicity."""
        return await self._record(Relief.audit, case, finding)

    async def approve(self, case: str) -> Recorded[Case]:
        """As a county office: approve a case after its second publicity."""
        return await self._record(Relief.approve, case)

    async def reject(self, case: str, reason: str) -> Recorded[Case]:
        """As the office that is due: end a case."""
        return await self._record(Relief.reject, case, reason)

    async def object(self, case: str, ground: str) -> Recorded[Objection]:
        """As anyone admitted: object to a case in its publicity."""
        return await self._record(Relief.object, case, ground)

    async def resolve(
        self, case: str, objection: str, outcome: Literal["dismissed", "upheld"], finding: str
    ) -> Recorded[Objection]:
        """As the office that is due: resolve an objection."""
        return await self._record(Relief.resolve, case, objection, outcome, finding)

    async def case(self, case: str) -> Case:
        """A case with its signatures."""
        return await self._calls.evaluate(Relief.case, case)

    async def flow(self, programme: str) -> Sequence[Flow]:
        """The approvals of a programme as everybody may see them."""
        return await all_pages(lambda bookmark: self._calls.evaluate(Relief.flow, programme, bookmark))


class PayoutDesk(Desk):
    """A programme's bank, its authority or anybody else on the finance channel.

    Each method may raise `ContractRefusal`, `InvalidInput`, and the client's `FabricError`s.
    """

    async def tell_payee(self, case: str, payee: bytes) -> Committed:
        """As the authority: tell the bank the salted account. It goes to the bank's peer and nowhere else."""
        bank = (await self.payout(case)).bank
        return await self._told(bank, Payouts.tell_payee, case, payee)

    async def pay(self, case: str, reference: str) -> Recorded[Payout]:
        """As the bank: put the payment on record."""
        return await self._record(Payouts.pay, case, reference)

    async def confirm(self, case: str) -> Recorded[Payout]:
        """As another than the bank: put on record that the money came."""
        return await self._record(Payouts.confirm, case)

    async def payout(self, case: str) -> Payout:
        """An order and what came of it."""
        return await self._calls.evaluate(Payouts.payout, case)

    async def payouts(self) -> Sequence[Payout]:
        """All orders."""
        return await all_pages(lambda bookmark: self._calls.evaluate(Payouts.payouts, bookmark))
