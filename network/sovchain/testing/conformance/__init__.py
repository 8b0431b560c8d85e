"""The conformance tests: what a client of Fabric can rely on, whatever the network runs on.

    from sovchain.testing.conformance import Conformance

    class TestMyFabric(Conformance):
        pass

General layout:
    suite.py         `Conformance`, all themes in one class; the other modules hold one theme each
    topology.py      the small network that the tests run on
    chaincode.py     the chaincode that they call
    world.py         `ConformanceNetwork` and what a test sees of it
    gaps.py          `not_implemented`: what a runtime cannot do yet

The tests use public interfaces alone (`sovchain.network.Network`, `sovchain.client`), and say in their docstrings
which file of Fabric 3.1 makes the rule. They need pytest-asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sovchain.testing.conformance.gaps import not_implemented
    from sovchain.testing.conformance.suite import Conformance
    from sovchain.testing.conformance.topology import conformance_topology
    from sovchain.testing.conformance.world import ConformanceNetwork

__all__ = ["Conformance", "ConformanceNetwork", "conformance_topology", "not_implemented"]

_HOMES = {
    "Conformance": "suite",
    "ConformanceNetwork": "world",
    "conformance_topology": "topology",
    "not_implemented": "gaps",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: a chaincode process imports this package and must not load pytest."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
