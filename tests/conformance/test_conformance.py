"""The conformance suite on the runtimes of `--fabric-runtime`, by default the embedded ledger."""

from __future__ import annotations

from sovchain.testing.conformance import Conformance


class TestConformance(Conformance):
    """All of it."""
