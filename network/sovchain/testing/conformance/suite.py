"""All conformance tests in one class."""

from __future__ import annotations

from sovchain.testing.conformance.blocks import BlockConformance
from sovchain.testing.conformance.chaincodes import ChaincodeConformance
from sovchain.testing.conformance.conflicts import ConflictConformance
from sovchain.testing.conformance.durability import DurabilityConformance, FaultConformance
from sovchain.testing.conformance.events import EventConformance
from sovchain.testing.conformance.policies import KeyPolicyConformance, PolicyConformance
from sovchain.testing.conformance.private_data import (
    CollectionConformance,
    PrivateBlockConformance,
    PrivateDataConformance,
)
from sovchain.testing.conformance.queries import QueryConformance
from sovchain.testing.conformance.refusals import RefusalConformance
from sovchain.testing.conformance.transactions import TransactionConformance


class Conformance(
    FaultConformance,
    DurabilityConformance,
    ChaincodeConformance,
    BlockConformance,
    EventConformance,
    QueryConformance,
    CollectionConformance,
    PrivateBlockConformance,
    PrivateDataConformance,
    ConflictConformance,
    KeyPolicyConformance,
    PolicyConformance,
    RefusalConformance,
    TransactionConformance,
):
    """Derive a class named `Test…` from it to run all themes; derive from single themes to run these.

    pytest runs the last base first: what ends nodes or the network comes at the end.
    """
