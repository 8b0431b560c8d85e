"""What a test network runs on, as chosen on pytest's command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One combination of `--fabric-runtime`, `--fabric-version` and `--fabric-consensus`."""

    runtime: str = "embedded"
    fabric_version: str = "3.1"
    consensus: str = "raft"

    def __str__(self) -> str:
        return f"{self.runtime}-{self.fabric_version}-{self.consensus}"
