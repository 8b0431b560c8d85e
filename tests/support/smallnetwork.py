"""A small network for tests of what operators do: three organisations, one of them with two peers, one channel."""

from __future__ import annotations

from typing import Any

from sovchain.network.checks import check
from sovchain.network.topology import Topology

WIDE = "wide"
PROBE = "probe"
SECOND_PEER = "peer1.alpha.small.example"
_PEERS = "'AlphaMSP.peer', 'BetaMSP.peer', 'GammaMSP.peer'"
TWO_OF_THREE = f"OutOf(2, {_PEERS})"
ALL = f"AND({_PEERS})"


def small_topology(version: str = "3.1", **changes: Any) -> Topology:
    """The network, for a version of Fabric, with fields of the topology changed."""
    names = ("Alpha", "Beta", "Gamma")
    document = {
        "name": "small",
        "domain": "small.example",
        "fabric_version": version,
        "organizations": [{"name": name, "peers": 2 if name == "Alpha" else 1} for name in names],
        "ordering_organizations": [{"operator": name} for name in names],
        "channels": [{"name": WIDE, "members": names}],
        "chaincodes": [
            {
                "name": PROBE,
                "module": "sovchain.testing.conformance.chaincode:chaincode",
                "channels": [WIDE],
                "endorsement_policy": TWO_OF_THREE,
            }
        ],
        **changes,
    }
    return check(Topology.model_validate(document))
