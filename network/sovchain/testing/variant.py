"""What a test network runs on, as chosen on pytest's command line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Variant:
    """One combination of `--fabric-runtime`, `--fabric-version` and `--fabric-consensus`.

    Version and consensus are None where the topology decides.
    """

    runtime: str
    fabric_version: str | None = None
    consensus: str | None = None

    def __str__(self) -> str:
        return "-".join(part for part in (self.runtime, self.fabric_version, self.consensus) if part)


HARNESS = "harness"
"""The runtime of a variant that is no network: contracts run in the process of the tests."""


def add_options(parser: pytest.Parser) -> None:
    """Add the options that choose what the networks run on."""
    group = parser.getgroup("fabric", "Hyperledger Fabric networks (sovchain)")
    group.addoption(
        "--fabric-runtime",
        action="append",
        choices=("embedded", "native", "docker"),
        help="what test networks run on; may be given several times, then each test runs on each (default: embedded)",
    )
    group.addoption(
        "--contracts-on",
        choices=("harness", "network"),
        default="harness",
        help="where contract_world tests contracts: in this process, or on the networks that the options above choose",
    )
    group.addoption(
        "--fabric-version",
        action="append",
        choices=("2.5", "3.1"),
        help="Fabric version of the test networks; may be given several times (default: that of the topology)",
    )
    group.addoption(
        "--fabric-consensus",
        action="append",
        choices=("raft", "bft"),
        help="consensus of the network of the conformance tests; may be given several times (default: raft)",
    )


def variants(config: pytest.Config, *, consensus: bool) -> list[Variant]:
    """Return the combinations that were chosen; with `consensus`, those of the conformance tests."""

    def chosen(option: str, default: str | None) -> Sequence[str | None]:
        return config.getoption(option) or [default]

    runtimes = config.getoption("--fabric-runtime") or ["embedded"]
    versions = chosen("--fabric-version", "3.1" if consensus else None)
    kinds = chosen("--fabric-consensus", "raft") if consensus else [None]
    return [Variant(*choice) for choice in itertools.product(runtimes, versions, kinds)]


def contract_variants(config: pytest.Config) -> list[Variant]:
    """Return what contract tests run on: the harness, or each network that was chosen."""
    if config.getoption("--contracts-on") == "harness":
        return [Variant(HARNESS)]
    return variants(config, consensus=False)
