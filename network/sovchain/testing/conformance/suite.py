"""All conformance tests in one class."""

from __future__ import annotations

from sovchain.testing.conformance.blocks import BlockConformance
from sovchain.testing.conformance.transactions import TransactionConformance


class Conformance(TransactionConformance, BlockConformance):
    """Derive a class named `Test…` from it to run all themes; derive from single themes to run these."""
