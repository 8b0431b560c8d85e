"""Government data sharing for departments, the bureau and the supervisor; see docs/scenarios/government-data.md."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Literal

from sovchain.contracts.core.records import SALT_BYTES, Record
from sovchain.contracts.government.catalogue import (
    Catalogue,
    CatalogueEntry,
    Dispute,
    Listing,
    PublicEntry,
    Source,
    Statement,
)
from sovchain.contracts.government.corrections import CorrectionClaim, Corrections
from sovchain.contracts.government.exchange import (
    Agreement,
    Asked,
    Delivery,
    Exchange,
    PublicAnswer,
    ShareRequest,
    Terms,
)
from sovchain.sovereign.calls import all_pages
from sovchain.sovereign.desk import Desk
from sovchain.sovereign.results import Committed, Recorded


def salted_brief(text: bytes) -> tuple[bytes, str]:
    """A brief with a random salt in front, as organisations are told it, and its hash, as a request states it."""
    brief = secrets.token_bytes(SALT_BYTES) + text
    return brief, hashlib.sha256(brief).hexdigest()


class Standing(Record):
    """A line of the league table: how a department answers. `refused` counts refusals and revocations, also those that a
    ruling undid; `answer_hours` is the mean of what was answered, rounded up."""

    provider: str
    asked: int
    answered: int
    late: int
    refused: int
    answer_hours: int | None


def league(answers: Iterable[PublicAnswer]) -> list[Standing]:
    """The league table of answer times: whoever was late least often comes first, then whoever answers fastest."""
    by_provider: dict[str, list[PublicAnswer]] = {}
    for one in answers:
        by_provider.setdefault(one.provider, []).append(one)
    table = []
    for provider, found in by_provider.items():
        times = [one.answered_at - one.filed_at for one in found if one.answered_at is not None]
        mean = -(-sum(times, timedelta()) // (timedelta(hours=1) * len(times))) if times else None
        table.append(
            Standing(
                provider=provider,
                asked=len(found),
                answered=len(times),
                late=sum(one.late for one in found),
                refused=sum(bool(one.reason) for one in found),
                answer_hours=mean,
            )
        )
    return sorted(
        table, key=lambda one: (one.late / one.asked, one.answer_hours is None, one.answer_hours, one.provider)
    )


class ExchangeDesk(Desk):
    """One department, the bureau or the supervisor on the government channel.

    Each method may raise `ContractRefusal`, `InvalidInput`, and the client's `FabricError`s. Bytes are shared and released
    with `Sovereign`.
    """

    # -- catalogue -----------------------------------------------------------------------------------------------------

    async def propose(self, statement: Statement) -> Recorded[CatalogueEntry]:
        """As a provider: state an entry for a data set that was shared."""
        return await self._record(Catalogue.propose, statement)

    async def amend(self, entry: str, statement: Statement) -> Recorded[CatalogueEntry]:
        """As its provider: state a draft anew."""
        return await self._record(Catalogue.amend, entry, statement)

    async def remit(self, entry: str, remark: str) -> Recorded[CatalogueEntry]:
        """As the bureau: send a draft back."""
        return await self._record(Catalogue.remit, entry, remark)

    async def review(self, entry: str) -> Recorded[CatalogueEntry]:
        """As the bureau: find a draft in order."""
        return await self._record(Catalogue.review, entry)

    async def publish(self, entry: str) -> Recorded[CatalogueEntry]:
        """As the provider: open an entry for requests."""
        return await self._record(Catalogue.publish, entry)

    async def supply(self, entry: str, dataset: str) -> Recorded[CatalogueEntry]:
        """As the provider: put newer data behind an entry."""
        return await self._record(Catalogue.supply, entry, dataset)

    async def suspend(self, entry: str, remark: str) -> Recorded[CatalogueEntry]:
        """As the bureau: stop requests on an entry."""
        return await self._record(Catalogue.suspend, entry, remark)

    async def resume(self, entry: str) -> Recorded[CatalogueEntry]:
        """As the bureau: let them go on."""
        return await self._record(Catalogue.resume, entry)

    async def retire(self, entry: str, remark: str) -> Recorded[CatalogueEntry]:
        """As the bureau, or for a draft as its provider: end an entry."""
        return await self._record(Catalogue.retire, entry, remark)

    async def entry(self, entry: str) -> CatalogueEntry:
        """An entry."""
        return await self._calls.evaluate(Catalogue.read, entry)

    async def source(self, item: str) -> Source:
        """The entry that a data item comes from."""
        return await self._calls.evaluate(Catalogue.source, item)

    async def public_catalogue(self) -> Sequence[PublicEntry]:
        """The catalogue as everybody may see it."""
        return await all_pages(lambda bookmark: self._calls.evaluate(Catalogue.public, bookmark))

    async def dispute(
        self, entry: str, about: Literal["listing", "source", "quality"], ground: str
    ) -> Recorded[Dispute]:
        """As another department: dispute an entry."""
        return await self._record(Catalogue.dispute, entry, about, ground)

    async def answer(self, dispute: str, answer: str) -> Recorded[Dispute]:
        """As the provider: answer a dispute."""
        return await self._record(Catalogue.answer, dispute, answer)

    async def accept_answer(self, dispute: str) -> Recorded[Dispute]:
        """As whoever raised it: be content with the answer."""
        return await self._record(Catalogue.accept, dispute)

    async def tick_dispute(self, dispute: str) -> Recorded[Dispute]:
        """As anyone: put on record that no answer came in time."""
        return await self._record(Catalogue.tick, dispute)

    async def uphold(self, dispute: str, ruling: str, listing: Listing | None = None) -> Recorded[Dispute]:
        """As the supervisor: rule for whoever raised it, with the listing that the entry has from now on."""
        return await self._record(Catalogue.uphold, dispute, ruling, listing)

    async def dismiss_dispute(self, dispute: str, ruling: str) -> Recorded[Dispute]:
        """As the supervisor: rule against whoever raised it."""
        return await self._record(Catalogue.dismiss, dispute, ruling)

    async def read_dispute(self, dispute: str) -> Dispute:
        """A dispute."""
        return await self._calls.evaluate(Catalogue.read_dispute, dispute)

    # -- requests ------------------------------------------------------------------------------------------------------

    async def tell(self, msp_id: str, brief: bytes) -> Committed:
        """Tell an organisation a salted brief. It goes to that organisation's peer and nowhere else."""
        return await self._told(msp_id, Exchange.tell, msp_id, brief)

    async def file(self, asked: Asked) -> Recorded[ShareRequest]:
        """As a department: ask for data."""
        return await self._record(Exchange.file, asked)

    async def grant(self, request: str, terms: Terms) -> Recorded[ShareRequest]:
        """As the provider: grant what was asked, or part of it."""
        return await self._record(Exchange.grant, request, terms)

    async def refuse(self, request: str, reason: str) -> Recorded[ShareRequest]:
        """As the provider: refuse, with a reason that is public."""
        return await self._record(Exchange.refuse, request, reason)

    async def withdraw(self, request: str) -> Recorded[ShareRequest]:
        """As the user: take a request back."""
        return await self._record(Exchange.withdraw, request)

    async def tick(self, request: str) -> Recorded[ShareRequest]:
        """As anyone: put on record that an answer or a delivery did not come in time."""
        return await self._record(Exchange.tick, request)

    async def escalate(self, request: str, ground: str) -> Recorded[ShareRequest]:
        """As the user: take it to the supervisor."""
        return await self._record(Exchange.escalate, request, ground)

    async def order(self, request: str, terms: Terms, ruling: str) -> Recorded[ShareRequest]:
        """As the supervisor: rule that it is granted."""
        return await self._record(Exchange.order, request, terms, ruling)

    async def dismiss(self, request: str, ruling: str) -> Recorded[ShareRequest]:
        """As the supervisor: rule that it is not."""
        return await self._record(Exchange.dismiss, request, ruling)

    async def agree(self, request: str) -> Recorded[Agreement]:
        """As the user: sign what was granted."""
        return await self._record(Exchange.agree, request)

    async def draw(self, request: str, drawn: str) -> Recorded[Delivery]:
        """As the user: draw a delivery with a request of the core's that was permitted; its owner releases it after."""
        return await self._record(Exchange.draw, request, drawn)

    async def confirm(self, request: str) -> Recorded[ShareRequest]:
        """As the user: confirm that it has come."""
        return await self._record(Exchange.confirm, request)

    async def report(self, request: str, purpose: str, report: bytes) -> Recorded[ShareRequest]:
        """As the user: report the use of a delivery. Only the report's hash is on the ledger."""
        return await self._record(Exchange.report, request, purpose, hashlib.sha256(report).hexdigest())

    async def expire(self, request: str) -> Recorded[ShareRequest]:
        """As anyone: put on record that its period is over."""
        return await self._record(Exchange.expire, request)

    async def revoke(self, request: str, reason: str) -> Recorded[ShareRequest]:
        """As the provider: take a grant back."""
        return await self._record(Exchange.revoke, request, reason)

    async def terminate(self, request: str, ruling: str) -> Recorded[ShareRequest]:
        """As the supervisor: end a grant that is abused."""
        return await self._record(Exchange.terminate, request, ruling)

    async def request(self, request: str) -> ShareRequest:
        """A request."""
        return await self._calls.evaluate(Exchange.read, request)

    async def delivery(self, drawn: str) -> Delivery:
        """A delivery by the core's request."""
        return await self._calls.evaluate(Exchange.delivery, drawn)

    async def agreement(self, request: str) -> Agreement:
        """The agreement on a request."""
        return await self._calls.evaluate(Exchange.agreement, request)

    async def league(self) -> Sequence[Standing]:
        """The league table of answer times, of all requests."""
        return league(await all_pages(lambda bookmark: self._calls.evaluate(Exchange.answers, bookmark)))

    # -- corrections ---------------------------------------------------------------------------------------------------

    async def claim(self, entry: str, brief: str) -> Recorded[CorrectionClaim]:
        """As a department: claim that the data are wrong; `brief` is the hash of the particulars that were told."""
        return await self._record(Corrections.claim, entry, brief)

    async def correct(self, claim: str) -> Recorded[CorrectionClaim]:
        """As the provider, after `supply`: point to the corrected data."""
        return await self._record(Corrections.correct, claim)

    async def reject(self, claim: str, reason: str) -> Recorded[CorrectionClaim]:
        """As the provider: find the data right."""
        return await self._record(Corrections.reject, claim, reason)

    async def tick_claim(self, claim: str) -> Recorded[CorrectionClaim]:
        """As anyone: put on record that no answer came in time."""
        return await self._record(Corrections.tick, claim)

    async def escalate_claim(self, claim: str) -> Recorded[CorrectionClaim]:
        """As the claimant: take it to the supervisor."""
        return await self._record(Corrections.escalate, claim)

    async def order_correction(self, claim: str, ruling: str) -> Recorded[CorrectionClaim]:
        """As the supervisor: order the correction."""
        return await self._record(Corrections.order, claim, ruling)

    async def dismiss_claim(self, claim: str, ruling: str) -> Recorded[CorrectionClaim]:
        """As the supervisor: find that nothing is to be corrected."""
        return await self._record(Corrections.dismiss, claim, ruling)
