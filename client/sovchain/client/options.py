"""Deadlines and limits of the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
"""Largest message in both directions, as Fabric's peers have it (internal/pkg/comm/config.go)."""

MAX_IN_FLIGHT: Final = 400
"""Most calls at the same time to one gateway. A peer refuses from 500 on (core.yaml, peer.limits.concurrency)."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines in seconds; each must be positive.

    Attributes:
        connect_s: from `Gateway.connect` until a gateway answers.
        evaluate_s: one evaluation.
        endorse_s: collecting endorsements. The peer allows each endorser 10 s.
        submit_s: handing the transaction to the ordering service, resends included.
        commit_s: from there until the peer has committed it.
    """

    connect_s: float = 5.0
    evaluate_s: float = 5.0
    endorse_s: float = 15.0
    submit_s: float = 5.0
    commit_s: float = 60.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be a positive number of seconds")
