"""The small network that the conformance tests run on.

Three organisations, Alpha, Beta and Gamma, are on the channel `wide`; Alpha and Beta are on `narrow` too. The same
chaincode is deployed under several names:

    probe    wide    two of the three organisations endorse
    strict   wide    all three endorse
    renewed  wide    two of the three; the tests upgrade it
    inner    narrow  both endorse

Where topologies can declare private data collections, `probe` has these: `shared` by Alpha and Beta, whose clients alone
read and write it; `brief`, whose data live for `BRIEF_BLOCKS` blocks; `common` to all three; and `apart`, which Beta and
Gamma hold and Alpha does not.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from sovchain.network import Topology, TopologyError
from sovchain.network.checks import check
from sovchain.network.topology import ChaincodeSpec

MODULE: Final = "sovchain.testing.conformance.chaincode:chaincode"
ORGANIZATIONS: Final = ("Alpha", "Beta", "Gamma")
WIDE: Final = "wide"
NARROW: Final = "narrow"
PROBE: Final = "probe"
STRICT: Final = "strict"
RENEWED: Final = "renewed"
INNER: Final = "inner"
SHARED: Final = "shared"
BRIEF: Final = "brief"
COMMON: Final = "common"
APART: Final = "apart"
BRIEF_BLOCKS: Final = 2
"""After how many blocks the data of `brief` are purged."""

_PEERS: Final = ", ".join(f"'{name}MSP.peer'" for name in ORGANIZATIONS)
TWO_OF_THREE: Final = f"OutOf(2, {_PEERS})"
ALL: Final = f"AND({_PEERS})"


def conformance_topology(fabric_version: str = "3.1", consensus: str = "raft") -> Topology:
    """Return the topology of the conformance network.

    Args:
        fabric_version: "2.5" or "3.1".
        consensus: "raft" with three ordering nodes, or "bft" with four.

    Raises:
        TopologyError: there is no such version, or topologies have no such consensus.
    """
    operators = [*ORGANIZATIONS, *(ORGANIZATIONS[:1] if consensus == "bft" else ())]
    document: dict[str, Any] = {
        "name": "conformance",
        "fabric_version": fabric_version,
        "organizations": [_organization(name) for name in ORGANIZATIONS],
        "ordering_organizations": [_ordering(number, operator) for number, operator in enumerate(operators)],
        # Three organisations cannot run four nodes so that none of them holds a third.
        "accept": ["ordering-majority"] if consensus == "bft" else [],
        "channels": [
            {"name": WIDE, "members": ORGANIZATIONS},
            {"name": NARROW, "members": ORGANIZATIONS[:2]},
        ],
        "chaincodes": [
            _chaincode(PROBE, WIDE, TWO_OF_THREE),
            _chaincode(STRICT, WIDE, ALL),
            _chaincode(RENEWED, WIDE, TWO_OF_THREE),
            _chaincode(INNER, NARROW, "AND('AlphaMSP.peer', 'BetaMSP.peer')"),
        ],
    }
    if "collections" in ChaincodeSpec.model_fields:
        members = ORGANIZATIONS[:2]
        document["chaincodes"][0]["collections"] = [
            {"name": SHARED, "members": members, "member_only_read": True, "member_only_write": True},
            {"name": BRIEF, "members": members, "block_to_live": BRIEF_BLOCKS},
            {"name": COMMON, "members": ORGANIZATIONS},
            {"name": APART, "members": ORGANIZATIONS[1:], "member_only_write": False},
        ]
    if consensus != "raft":
        document["consensus"] = consensus
    try:
        return check(Topology.model_validate(document))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TopologyError(key, first["msg"], remedy="give another version or consensus") from None


def with_chaincode(topology: Topology, name: str, **changes: object) -> Topology:
    """Return the topology with fields of one chaincode changed, for an upgrade. Raises UnknownName, TopologyError."""
    changed = topology.chaincode(name).model_copy(update=changes)
    chaincodes = tuple(changed if spec.name == name else spec for spec in topology.chaincodes)
    return check(topology.model_copy(update={"chaincodes": chaincodes}))


def _organization(name: str) -> dict[str, Any]:
    users = [{"name": "Admin", "role": "admin"}, {"name": "User1", "attributes": {"clearance": "general"}}]
    return {"name": name, "msp_id": f"{name}MSP", "domain": f"{name.lower()}.example", "users": users}


def _ordering(number: int, operator: str) -> dict[str, Any]:
    return {
        "name": f"Orderer{number}",
        "msp_id": f"Orderer{number}MSP",
        "domain": f"orderer{number}.example",
        "operator": operator,
    }


def _chaincode(name: str, channel: str, policy: str) -> dict[str, Any]:
    return {"name": name, "module": MODULE, "channels": [channel], "endorsement_policy": policy}
