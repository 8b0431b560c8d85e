"""What is tried again, how often, and after what pause: as data."""

from __future__ import annotations

import random
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

CONFLICTS: Final = frozenset({"MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT"})
"""Codes of transactions that were right when they were endorsed and too late when they were committed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a submit does more than its three steps. Whatever it says, an unknown outcome is never endorsed anew.

    Attributes:
        conflict_retries: how often a transaction that was rejected with one of `conflict_codes` is endorsed anew, under a
            new transaction id. The contract then runs again on newer data, so that its result may differ. Default: never.
        conflict_codes: names of validation codes that count as conflicts.
        disagreement_retries: how often endorsing is tried again when endorsers gave different results, as peers do that
            stand at different blocks. Nothing was sent for ordering. Default: never.
        unknown_resends: how often, after an unknown outcome, the status is asked for and, if there is none, the very same
            bytes are sent again. A peer commits a transaction id once, whatever arrives. Default: never.
        ask_s: how long the status is waited for before that.
        overload_pause_s: first pause before a peer that has too many calls is asked again, within the step's deadline;
            0 takes its refusal as final.
        pause_s: longest first pause between tries; it doubles, and each is drawn at random from 0 to that.
        pause_most_s: no pause is longer.
    """

    conflict_retries: int = 0
    conflict_codes: AbstractSet[str] = CONFLICTS
    disagreement_retries: int = 0
    unknown_resends: int = 0
    ask_s: float = 3.0
    overload_pause_s: float = 0.1
    pause_s: float = 0.1
    pause_most_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("conflict_retries", "disagreement_retries", "unknown_resends"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(f"{name} must be a number from 0 to 1000")
        for name in ("ask_s", "overload_pause_s", "pause_s", "pause_most_s"):
            if not 0 <= getattr(self, name) < 3600:
                raise ValueError(f"{name} must be a number of seconds from 0 to an hour")

    def pause(self, tries: int) -> float:
        """Seconds to wait before the next try, after `tries` of them (from 1): full jitter, doubling."""
        most_s = min(self.pause_s * 2 ** min(tries - 1, 16), self.pause_most_s)
        return random.uniform(0.0, most_s)  # noqa: S311 - jitter, no secret
