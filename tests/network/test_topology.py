"""The default network is the one that the project describes, and its policies keep the regulator in."""

from __future__ import annotations

import pytest

from sovchain.network import UnknownName, default_topology
from sovchain.network.checks import check
from sovchain.network.topology import majority_policy
from sovchain.protocol import policies, policydsl

TOPOLOGY = default_topology()


def groups(policy: str) -> set[frozenset[str]]:
    return set(policies.satisfying_organisations(policydsl.parse(policy)))


def test_default_topology_passes_its_own_checks() -> None:
    assert check(TOPOLOGY) is TOPOLOGY


def test_default_members_and_ordering_organisations() -> None:
    members = {channel.name: set(channel.members) for channel in TOPOLOGY.channels}
    assert members == {
        "government": {"Government", "Finance", "Logistics", "Supervisor"},
        "finance": {"Government", "Finance", "Supervisor"},
        "logistics": {"Government", "Logistics", "Supervisor", "OverseasCarrier"},
    }
    assert [(part.name, part.msp_id, part.orderer_host) for part in TOPOLOGY.ordering_organizations] == [
        ("GovernmentOrderer", "GovernmentOrdererMSP", "orderer.government.guiyang.example"),
        ("FinanceOrderer", "FinanceOrdererMSP", "orderer.finance.guiyang.example"),
        ("SupervisorOrderer", "SupervisorOrdererMSP", "orderer.supervisor.guiyang.example"),
    ]
    carrier = TOPOLOGY.organization("OverseasCarrier")
    assert (carrier.msp_id, carrier.domain, carrier.jurisdiction) == (
        "OverseasCarrierMSP",
        "carrier.singapore.example",
        "SG",
    )


def test_every_policy_of_the_default_network_needs_the_regulator_and_somebody_else() -> None:
    for channel in TOPOLOGY.channels:
        for policy in (TOPOLOGY.lifecycle_endorsement(channel.name), TOPOLOGY.admins(channel.name)):
            found = groups(policy)
            assert found
            assert all("SupervisorMSP" in group and len(group) > len(channel.members) // 2 for group in found)
        assert all(
            "SupervisorOrdererMSP" in group and len(group) == 2
            for group in groups(TOPOLOGY.orderer_admins(channel.name))
        )
    for chaincode in TOPOLOGY.chaincodes:
        assert all("SupervisorMSP" in group and len(group) == 2 for group in groups(chaincode.endorsement_policy))


@pytest.mark.parametrize(("count", "least"), [(2, 2), (3, 2), (4, 3), (5, 3)])
def test_majority_without_a_regulator_is_more_than_half(count: int, least: int) -> None:
    members = [f"Org{number}MSP" for number in range(count)]
    assert {len(group) for group in groups(majority_policy(members, "admin", None))} == {least}


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_majority_with_a_regulator_always_holds_it(count: int) -> None:
    members = [f"Org{number}MSP" for number in range(count)]
    found = groups(majority_policy(members, "admin", "Org1MSP"))
    assert {len(group) for group in found} == {count // 2 + 1}
    assert all("Org1MSP" in group for group in found)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownName) as caught:
        TOPOLOGY.organization("Navy")
    assert caught.value.name == "Navy"
    assert "Finance" in caught.value.known
    with pytest.raises(UnknownName) as caught:
        TOPOLOGY.organization("Finance").user("Nobody")
    assert caught.value.known == ("Admin", "User1")
