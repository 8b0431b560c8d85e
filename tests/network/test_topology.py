"""The default network is the one that the project describes, and its policies keep the regulator in."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sovchain.network import UnknownName, default_topology
from sovchain.network.checks import check
from sovchain.network.topology import OrderingOrganization, Organization, Topology, User, majority_policy
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


def test_what_is_left_out_is_derived_from_names_and_domains() -> None:
    topology = Topology.model_validate(
        {
            "domain": "net.example",
            "organizations": [
                {"name": "Alpha", "peers": 2, "attributes": {"role": "clerk", "clearance": "core"}},
                {
                    "name": "Beta",
                    "domain": "beta.example",
                    "attributes": {"role": "clerk"},
                    "users": [{"name": "Root", "role": "admin", "attributes": {"role": "head"}}, {"name": "Clerk"}],
                },
            ],
            "ordering_organizations": [
                {"operator": "Alpha", "nodes": 3},
                {"operator": "Beta", "host": "order.beta.example"},
            ],
            "channels": [{"name": "shared", "members": ["Alpha", "Beta"], "anchor_peers": {"Beta": []}}],
        }
    )
    alpha, beta = topology.organizations
    assert (alpha.msp_id, alpha.domain) == ("AlphaMSP", "alpha.net.example")
    assert all(user.attributes == {"role": "clerk", "clearance": "core"} for user in alpha.users)
    assert [user.attributes["role"] for user in beta.users] == ["head", "clerk"]
    first, second = topology.ordering_organizations
    assert (first.name, first.msp_id, first.domain) == ("AlphaOrderer", "AlphaOrdererMSP", "orderer.alpha.net.example")
    assert [node.host for node in topology.nodes] == [
        "peer0.alpha.net.example",
        "peer1.alpha.net.example",
        "peer0.beta.example",
        "orderer.alpha.net.example",
        "orderer1.orderer.alpha.net.example",
        "orderer2.orderer.alpha.net.example",
        "order.beta.example",
    ]
    assert second.domain == "orderer.beta.example"
    assert topology.anchor_peers("shared") == {"Alpha": ("peer0.alpha.net.example",), "Beta": ()}


def test_parts_made_in_a_program_are_derived_like_those_of_a_file() -> None:
    made = Topology(
        domain="net.example",
        organizations=(Organization(name="Alpha", attributes={"role": "clerk"}),),
        ordering_organizations=(OrderingOrganization(operator="Alpha"),),
        channels=TOPOLOGY.channels,
    )
    assert Topology.model_validate(made.model_dump(mode="json", exclude_defaults=True)) == made
    assert made.ordering_organizations[0].domain == "orderer.alpha.net.example"


@pytest.mark.parametrize(("version", "capability"), [("2.5", "V2_0"), ("3.1", "V3_0")])
def test_capabilities_are_those_of_the_version_unless_a_channel_has_its_own(version: str, capability: str) -> None:
    document = TOPOLOGY.model_dump(mode="json") | {"fabric_version": version}
    document["channels"][0]["capabilities"] = {"channel": "V2_0", "application": "V2_0"}
    topology = Topology.model_validate(document)
    assert topology.capabilities("finance").channel == capability
    assert topology.capabilities("government").application == "V2_0"


def test_collections_become_what_a_definition_holds() -> None:
    document = TOPOLOGY.model_dump(mode="json")
    document["chaincodes"][1]["collections"] = [
        {"name": "pair", "members": ["Finance", "Supervisor"], "block_to_live": 7, "member_only_write": False},
        {"name": "own", "policy": "OR('FinanceMSP.member')", "endorsement_policy": "OR('FinanceMSP.peer')"},
    ]
    topology = check(Topology.model_validate(document))
    assert topology.collections("government") is None
    package = topology.collections("finance")
    assert package is not None
    pair, own = (config.static_collection_config for config in package.config)
    assert (pair.name, pair.block_to_live, pair.maximum_peer_count, pair.member_only_read) == ("pair", 7, 3, True)
    assert not pair.member_only_write
    assert policydsl.render(pair.member_orgs_policy.signature_policy).count("MSP") == 2
    assert not pair.HasField("endorsement_policy")
    assert own.endorsement_policy.signature_policy.identities


@pytest.mark.parametrize("value", ["a\nb", "\x85", "\x1b[31m", "\u2028", "\ufeffx"])
def test_an_attribute_has_no_control_characters(value: str) -> None:
    with pytest.raises(ValidationError):
        User(name="User1", attributes={"role": value})
