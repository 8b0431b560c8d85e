"""For people who test what they build on sovchain.

General layout:
    plugin.py     the pytest plugin: the fixture `fabric` and the network of the conformance tests
    variant.py    its options
    isolation.py  `Fabric`: a test's own place on a network that all tests share
    hosted.py     a network in a process of its own; `host.py` is that process's program
    containers.py the containers of a network, as pytest-docker has them
    faults.py     ending and starting single nodes, where a runtime offers that
    harness*.py   `ContractHarness`: contracts in the process; `machines.py`: the cases of state machines
    worlds.py     the same contract test on the harness and on a network
    conformance/  the conformance tests: what a client can rely on, whatever the network runs on

Guide: docs/testing.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sovchain.testing.faults import Faults, NotOffered
    from sovchain.testing.harness import ContractHarness, refused
    from sovchain.testing.hosted import HostedNetwork, HostFailed
    from sovchain.testing.isolation import Fabric
    from sovchain.testing.worlds import ContractSpec, ContractWorld

__all__ = [
    "ContractHarness",
    "ContractSpec",
    "ContractWorld",
    "Fabric",
    "Faults",
    "HostFailed",
    "HostedNetwork",
    "NotOffered",
    "refused",
]

_HOMES = {
    "ContractHarness": "harness",
    "ContractSpec": "worlds",
    "ContractWorld": "worlds",
    "Fabric": "isolation",
    "Faults": "faults",
    "HostFailed": "hosted",
    "HostedNetwork": "hosted",
    "NotOffered": "faults",
    "refused": "harness",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: every pytest session imports this package with the plugin."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
