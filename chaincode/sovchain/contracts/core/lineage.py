"""What a product was made from: a withdrawn or purged source suspends everything that was made of it."""

from __future__ import annotations

from typing import Final

from sovchain.contracts.core import store
from sovchain.contracts.core.records import DataSet
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.store import StateView

ANCESTORS_MAX: Final = 128
"""Most data sets that a product may go back to, over all steps: each decision on it reads them."""


async def ancestors(view: StateView, sources: tuple[str, ...]) -> list[DataSet]:
    """The data sets that a product goes back to, over all steps, nearest first. Raises E_NOT_FOUND, E_LIMIT.

    Entries do not change their sources, and a source is there before its product: there is no cycle.
    """
    found: dict[str, DataSet] = {}
    waiting = list(sources)
    while waiting:
        source = waiting.pop(0)
        if source in found:
            continue
        if len(found) == ANCESTORS_MAX:
            raise refusal(
                "E_LIMIT",
                "the product goes back to too many data sets",
                f"at most {ANCESTORS_MAX} are followed",
                "name fewer sources",
            )
        found[source] = await store.require(view, DataSet, store.DATASET, source)
        waiting += found[source].entry.sources
    return list(found.values())


def out_of_circulation(sources: list[DataSet]) -> str | None:
    """The first of some data sets that was withdrawn or purged, None when all are in circulation."""
    return next((source.id for source in sources if source.state != "published"), None)
