"""A law before the vote, beside the laws that are in force on this channel: read here, judged by `conflicts`."""

from __future__ import annotations

from datetime import datetime

from sovchain.contracts.core import store
from sovchain.contracts.core.codes import jurisdiction_path
from sovchain.contracts.core.conflicts import conflicts, errors, repeal_effects
from sovchain.contracts.core.engine import LawVersion, laws_in_force
from sovchain.contracts.core.lawtext import LawText
from sovchain.contracts.core.records import EnactedLaw, LawBody, LawFinding
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StateView


def law_version(enacted: EnactedLaw, text: str = "") -> LawVersion:
    """An enacted law as the engine takes it."""
    return LawVersion(
        law=enacted.header.law,
        version=enacted.header.version,
        jurisdiction=enacted.header.jurisdiction,
        in_force_from=max(enacted.header.effective_from, enacted.enacted_at),
        repealed_from=enacted.repealed_from,
        text=text,
        text_hash=enacted.text_hash,
    )


async def _in_force(view: StateView, at: datetime, *prefixes: str) -> list[LawVersion]:
    """The laws in force at a time of these jurisdictions, with their texts; without any, of all."""
    enacted: list[EnactedLaw] = []
    if prefixes:
        for place in prefixes:
            enacted += await store.scan(view, EnactedLaw, store.ENACTED, place)
    else:
        enacted = await store.scan(view, EnactedLaw, store.ENACTED)
    by_hash = {law.text_hash: law for law in enacted}
    chosen = laws_in_force([law_version(law) for law in enacted], at)
    return [
        law_version(by_hash[one.text_hash], (await store.require(view, LawBody, store.LAW_TEXT, one.text_hash)).text)
        for one in chosen
    ]


async def require_no_conflict(view: StateView, law: LawText, now: datetime) -> None:
    """Raise E_LAW with `line`, `column`, `clause` and `other` for a law of which a clause could never do what it says.

    Its own level and those above are read, as they will be when it takes effect. What it does to lower laws stands against no
    law: `review` tells it.
    """
    header = law.header
    around = await _in_force(view, max(header.effective_from, now), *jurisdiction_path(header.jurisdiction))
    for found in errors(law, around):
        raise refusal(
            "E_LAW",
            "the law conflicts with law in force" if found.other else "the law conflicts with itself",
            f"line {found.line}, column {found.column}, {found.clause}: {found.detail}",
            "change or leave out the clause, or have the other amended first",
            line=found.line,
            column=found.column,
            clause=found.clause,
            kind=found.kind,
            other=found.other,
        )


async def review(view: StateView, law: LawText, now: datetime) -> tuple[LawFinding, ...]:
    """All that a law would conflict with or change, on every level, when it takes effect."""
    return conflicts(law, await _in_force(view, max(law.header.effective_from, now)))


async def review_repeal(view: StateView, law: str, effective_from: datetime, now: datetime) -> tuple[LawFinding, ...]:
    """What the end of a law would leave without effect or without a law."""
    return repeal_effects(law, await _in_force(view, max(effective_from, now)))
