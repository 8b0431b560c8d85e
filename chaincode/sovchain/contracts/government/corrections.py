"""Claims that shared data are wrong: whoever uses them says so, their source answers in time, and corrects at the source.

What is wrong with whom is not for everybody: a claim holds the salted hash of its particulars (`Exchange.tell` brings them
to the source), and the number of data set and entry.
"""

from __future__ import annotations

from typing import Final, Literal

from sovchain.chaincode import (
    Context,
    Contract,
    Given,
    StateMachine,
    To,
    guard,
    holder,
    query,
    record,
    role,
    transaction,
)
from sovchain.contracts.core.calendar import working_days_after
from sovchain.contracts.core.records import Hex32, MspId, Record, ShortText, Timestamp
from sovchain.contracts.core.store import StubView, implicit_collection
from sovchain.contracts.government import catalogue, exchange
from sovchain.contracts.government.catalogue import (
    ANSWER_DAYS,
    BUREAU,
    PROVIDER,
    SUPERVISOR,
    CatalogueEntry,
    clock_over,
)
from sovchain.contracts.government.exchange import brief_key
from sovchain.contracts.scenario import Scenario, advance


@record(key="id")
class CorrectionClaim(Record):
    """A claim that the data behind an entry are wrong. `wrong` is the data set complained of, `corrected` the one after."""

    id: Hex32
    entry: Hex32
    provider: MspId
    claimant: MspId
    brief: Hex32
    wrong: Hex32
    state: Literal["claimed", "corrected", "rejected", "overdue", "escalated", "ordered", "dismissed"]
    claimed_at: Timestamp
    due: Timestamp
    reason: str = ""
    ruling: str = ""
    corrected: Hex32 | None = None


@guard("E_NOT_TOLD", "the bureau was told the particulars")
def told(ctx: Context, claim: CorrectionClaim | None, given: Given) -> bool:
    """Otherwise there would be nothing to correct by."""
    return bool(given["told"])


@guard("E_DATASET", "newer data stand behind the entry than those complained of")
def newer(ctx: Context, claim: CorrectionClaim, given: Given) -> bool:
    """A correction is made at the source, and everybody gets it from there."""
    return bool(given["dataset"] != claim.wrong)


class Corrections(Contract):
    """Claims for correction."""

    life = StateMachine(
        CorrectionClaim,
        {
            (None, "claim"): To("claimed", guards=(told,)),
            ("claimed", "correct"): To("corrected", PROVIDER, (newer,)),
            ("claimed", "reject"): To("rejected", PROVIDER, text="with the reason"),
            ("claimed", "tick"): To("overdue", guards=(clock_over,)),
            ("overdue", "correct"): To("corrected", PROVIDER, (newer,)),
            ("overdue", "escalate"): To("escalated", holder("claimant")),
            ("rejected", "escalate"): To("escalated", holder("claimant")),
            ("escalated", "order"): To("ordered", role("supervisor"), (SUPERVISOR,)),
            ("escalated", "dismiss"): To("dismissed", role("supervisor"), (SUPERVISOR,)),
            ("ordered", "correct"): To("corrected", PROVIDER, (newer,)),
        },
        title="correction claim",
    )

    @transaction
    async def claim(self, ctx: Context, entry: Hex32, brief: Hex32) -> CorrectionClaim:
        """Claim that the data behind an entry are wrong. Called by any department. Raises E_NOT_FOUND, E_NOT_TOLD, E_CALENDAR."""
        found = await ctx.records(CatalogueEntry).require(entry)
        kept = await ctx.stub.get_private_data_hash(implicit_collection(BUREAU), brief_key(brief))
        due = await working_days_after(StubView(ctx.stub), found.jurisdiction, ctx.timestamp, ANSWER_DAYS)
        claim = CorrectionClaim(
            id=ctx.transaction_id, entry=entry, provider=found.provider, claimant=ctx.identity.msp_id, brief=brief,
            wrong=found.statement.dataset, state="claimed", claimed_at=ctx.timestamp, due=due,
        )  # fmt: skip
        return await advance(ctx, self.life, claim, "claim", given={"told": kept is not None and kept.hex() == brief})

    @transaction
    async def correct(self, ctx: Context, claim: Hex32) -> CorrectionClaim:
        """Point to the corrected data, after `Catalogue.supply`. Called by the provider. Raises E_ACCESS, E_STATE, E_DATASET."""
        found = await ctx.records(CorrectionClaim).require(claim)
        dataset = (await ctx.records(CatalogueEntry).require(found.entry)).statement.dataset
        return await advance(ctx, self.life, found, "correct", {"corrected": dataset}, {"dataset": dataset})

    @transaction
    async def reject(self, ctx: Context, claim: Hex32, reason: ShortText) -> CorrectionClaim:
        """Find the data right, with the reason. Called by the provider. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, claim, "reject", {"reason": reason})

    @transaction
    async def tick(self, ctx: Context, claim: Hex32) -> CorrectionClaim:
        """Put on record that no answer came in time. Called by anyone. Raises E_NOT_FOUND, E_STATE, E_TIME."""
        return await self._step(ctx, claim, "tick")

    @transaction
    async def escalate(self, ctx: Context, claim: Hex32) -> CorrectionClaim:
        """Take it to the supervisor. Called by the claimant. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        return await self._step(ctx, claim, "escalate")

    @transaction
    async def order(self, ctx: Context, claim: Hex32, ruling: ShortText) -> CorrectionClaim:
        """Order the correction. Called by the supervisor. Raises E_NOT_FOUND, E_ACCESS, E_ROLE, E_STATE."""
        return await self._step(ctx, claim, "order", {"ruling": ruling})

    @transaction
    async def dismiss(self, ctx: Context, claim: Hex32, ruling: ShortText) -> CorrectionClaim:
        """Find that nothing is to be corrected. Called by the supervisor. Raises E_NOT_FOUND, E_ACCESS, E_ROLE, E_STATE."""
        return await self._step(ctx, claim, "dismiss", {"ruling": ruling})

    @query
    async def read(self, ctx: Context, claim: Hex32) -> CorrectionClaim:
        """A claim. Raises E_NOT_FOUND."""
        return await ctx.records(CorrectionClaim).require(claim)

    async def _step(self, ctx: Context, claim: str, action: str, changes: Given | None = None) -> CorrectionClaim:
        return await advance(ctx, self.life, await ctx.records(CorrectionClaim).require(claim), action, changes)


SCENARIO: Final = Scenario(
    "government-data",
    "Government data sharing",
    (catalogue.Catalogue(), exchange.Exchange(), Corrections()),
    (catalogue.Catalogue.listing, exchange.Exchange.life, catalogue.Catalogue.hearing, Corrections.life),
)
