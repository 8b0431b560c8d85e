"""When blocks are cut, where that is not what the channel's configuration says: by hand, at once, by other limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import Field

from sovchain.protocol.genesis import BatchSettings

_UNBOUNDED: Final = 2**62
Count = Annotated[int, Field(ge=1, le=10_000)]
Bytes = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


@dataclass(frozen=True)
class Cutting:
    """What overrides a channel's batch settings; None leaves what the configuration says.

    Attributes:
        held: cut by hand only; a configuration still gets a block of its own, as consensus demands.
        max_message_count: transactions of a block; 1 cuts each one at once.
        preferred_max_bytes: bytes of a block.
        timeout_s: seconds that the oldest transaction waits at most.
    """

    held: bool = False
    max_message_count: Count | None = None
    preferred_max_bytes: Bytes | None = None
    timeout_s: Seconds | None = None

    def over(self, settings: BatchSettings) -> BatchSettings:
        """The settings in force over those of a channel's configuration."""
        if self.held:
            return replace(settings, max_message_count=_UNBOUNDED, preferred_max_bytes=_UNBOUNDED, timeout_s=math.inf)
        count, size, timeout_s = self.max_message_count, self.preferred_max_bytes, self.timeout_s
        return replace(
            settings,
            max_message_count=settings.max_message_count if count is None else count,
            preferred_max_bytes=settings.preferred_max_bytes if size is None else size,
            timeout_s=settings.timeout_s if timeout_s is None else timeout_s,
        )
