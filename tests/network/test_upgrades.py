"""A chaincode's upgrade is a topology with that chaincode changed, or a refusal that names what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from smallnetwork import ALL, PROBE, TWO_OF_THREE, small_topology

from sovchain.network import TopologyError, UnknownName
from sovchain.network.topology import Collection
from sovchain.network.upgrades import read_collections, with_upgrade

SHARED = Collection(name="shared", members=("Alpha", "Beta"))


def test_what_is_not_given_stays() -> None:
    topology = small_topology()
    assert with_upgrade(topology, PROBE) == topology
    changed = with_upgrade(topology, PROBE, version="2.0", collections=[SHARED])
    spec = changed.chaincode(PROBE)
    assert (spec.version, spec.endorsement_policy, spec.collections) == ("2.0", TWO_OF_THREE, (SHARED,))
    assert changed.model_copy(update={"chaincodes": topology.chaincodes}) == topology
    assert with_upgrade(changed, PROBE, endorsement_policy=ALL).chaincode(PROBE).collections == (SHARED,)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "no version"},
        {"version": ""},
        {"endorsement_policy": "AND("},
        {"endorsement_policy": "OR('AlphaMSP.peer')"},
        {"endorsement_policy": "AND('NobodyMSP.peer', 'AlphaMSP.peer')"},
        {"collections": [Collection(name="shared", members=("Nobody",))]},
        {"module": "no module"},
    ],
)
def test_what_no_topology_may_say_is_refused(changes: dict[str, object]) -> None:
    """The rules of topologies hold: one organisation alone satisfies no policy, names are known."""
    with pytest.raises(TopologyError, match="chaincodes"):
        with_upgrade(small_topology(), PROBE, **changes)  # type: ignore[arg-type]  # fields by name


def test_an_unknown_chaincode_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="use one of: probe"):
        with_upgrade(small_topology(), "prob", version="2.0")


def test_collections_are_read_as_a_topology_has_them(tmp_path: Path) -> None:
    path = tmp_path / "collections.yaml"
    path.write_text("- {name: shared, members: [Alpha, Beta]}\n")
    assert read_collections(path) == (SHARED,)


@pytest.mark.parametrize("text", ["{", "- {nam: shared}", "shared", "- [", "&a [*a]", "- {name: shared, members: 7}"])
def test_a_file_that_holds_no_collections_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "collections.yaml"
    path.write_text(text)
    with pytest.raises(TopologyError, match=r"collections\.yaml"):
        read_collections(path)
