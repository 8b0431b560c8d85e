"""What a running network does not take is refused by name with what to do; what is in between has all nodes of both."""

from __future__ import annotations

from typing import Any

import pytest

from sovchain.network import ChangesRefused, Topology, TopologyError, UnknownName, default_topology
from sovchain.network.checks import check
from sovchain.network.members import with_organization, without_organization
from sovchain.network.topologyparts import (
    Channel,
    Collection,
    OrderingOrganization,
    Ports,
    User,
)
from sovchain.network.transition import check_changes, resting, union

BASE = default_topology()


def changed(part: str, name: str, **fields: Any) -> Topology:
    parts = tuple(entry.model_copy(update=fields) if entry.name == name else entry for entry in getattr(BASE, part))
    return BASE.model_copy(update={part: parts})


@pytest.mark.parametrize(
    ("new", "key"),
    [
        (BASE.model_copy(update={"name": "other"}), "name"),
        (BASE.model_copy(update={"fabric_version": "2.5"}), "fabric_version"),
        (BASE.model_copy(update={"consensus": "bft"}), "consensus"),
        (BASE.model_copy(update={"state_database": "couchdb"}), "state_database"),
        (BASE.model_copy(update={"ports": Ports(base=20000)}), "ports.base"),
        (BASE.model_copy(update={"channels": BASE.channels[:2]}), "channels.logistics"),
        (BASE.model_copy(update={"chaincodes": BASE.chaincodes[:2]}), "chaincodes.logistics"),
        (changed("organizations", "Finance", domain="f.example"), "organizations.Finance.domain"),
        (changed("organizations", "Finance", msp_id="FMSP"), "organizations.Finance.msp_id"),
        (
            changed("organizations", "Finance", users=(User(name="Admin", role="client"),)),
            "organizations.Finance.users.Admin",
        ),
        (
            changed("ordering_organizations", "FinanceOrderer", host="o.example"),
            "ordering_organizations.FinanceOrderer.host",
        ),
        (changed("chaincodes", "finance", module="a.b:c"), "chaincodes.finance.module"),
        (changed("chaincodes", "finance", channels=("logistics",)), "chaincodes.finance.channels"),
    ],
)
def test_what_stays_as_it_is_is_refused_by_its_key(new: Topology, key: str) -> None:
    with pytest.raises(ChangesRefused) as raised:
        check_changes(BASE, new)
    (refusal,) = raised.value.refusals
    assert refusal.key == key
    assert refusal.why
    assert refusal.remedy
    assert key in raised.value.what


def test_collections_stay_with_their_time_to_live() -> None:
    secret = Collection(name="secret", members=("Finance",), block_to_live=5)
    old = changed("chaincodes", "finance", collections=(secret,))
    without = changed("chaincodes", "finance", version="2")
    longer = changed(
        "chaincodes", "finance", version="2", collections=(secret.model_copy(update={"block_to_live": 9}),)
    )
    for new, key in ((without, "secret"), (longer, "secret.block_to_live")):
        with pytest.raises(ChangesRefused) as raised:
            check_changes(old, new)
        assert raised.value.refusals[0].key == f"chaincodes.finance.collections.{key}"


def test_all_reasons_are_told_at_once() -> None:
    new = BASE.model_copy(update={"name": "other", "channels": BASE.channels[:1]})
    with pytest.raises(ChangesRefused, match=r"and 2 more: channels.finance, channels.logistics"):
        check_changes(BASE, new)


def test_everything_else_is_taken() -> None:
    new = with_organization(BASE, "Health", ["finance"], jurisdiction="CN-GZ-520100", peers=2)
    check(new)
    check_changes(BASE, new)
    check_changes(new, BASE)
    check_changes(BASE, changed("chaincodes", "finance", version="2", module="a.b:c"))


def test_in_between_there_is_all_of_both() -> None:
    new = changed("chaincodes", "finance", version="2").model_copy(
        update={
            "organizations": tuple(
                part.model_copy(update={"peers": 3}) if part.name == "Finance" else part
                for part in BASE.organizations
                if part.name != "OverseasCarrier"
            ),
            "ordering_organizations": (*BASE.ordering_organizations[1:], OrderingOrganization(operator="Logistics")),
            "channels": (
                *(
                    channel.model_copy(update={"members": tuple(m for m in channel.members if m != "OverseasCarrier")})
                    for channel in BASE.channels
                ),
                Channel(name="health", members=("Government", "Supervisor")),
            ),
        }
    )
    both = union(BASE, new)
    hosts = {node.host for node in both.nodes}
    assert hosts == {node.host for node in (*BASE.nodes, *new.nodes)}
    assert "OverseasCarrier" in both.channel("logistics").members
    assert set(both.channel("finance").orderers) == {
        "GovernmentOrderer", "FinanceOrderer", "SupervisorOrderer", "LogisticsOrderer",
    }  # fmt: skip
    assert [spec.label for spec in both.chaincodes if spec.name == "finance"] == ["finance_1.0", "finance_2"]
    rest = resting(BASE, new)
    assert {node.host for node in rest.nodes} == hosts
    assert [channel.name for channel in rest.channels] == [channel.name for channel in BASE.channels]
    assert [channel.members for channel in rest.channels] == [channel.members for channel in BASE.channels]


def test_without_a_change_nothing_is_in_between() -> None:
    both = union(BASE, BASE)
    assert both.organizations == BASE.organizations
    assert both.chaincodes == BASE.chaincodes
    assert [channel.members for channel in both.channels] == [channel.members for channel in BASE.channels]


def test_an_organisation_comes_and_goes() -> None:
    more = with_organization(BASE, "Health", ["finance", "government"], attributes={"role": "doctor"})
    assert more.organization("Health").domain == "health.guiyang.example"
    assert all(user.attributes["role"] == "doctor" for user in more.organization("Health").users)
    assert more.channel("finance").members[-1] == "Health"
    assert with_organization(more, "Health", ["logistics"]).channel("logistics").members[-1] == "Health"
    assert without_organization(more, "Health", ["finance"]).channel("government").members[-1] == "Health"
    assert without_organization(more, "Health") == BASE


def test_names_that_nobody_has_are_refused() -> None:
    with pytest.raises(UnknownName, match="unknown channel 'nowhere'"):
        with_organization(BASE, "Health", ["nowhere"])
    with pytest.raises(UnknownName, match="unknown organization 'Nobody'"):
        without_organization(BASE, "Nobody")
    with pytest.raises(UnknownName, match="unknown member 'Logistics'"):
        without_organization(BASE, "Logistics", ["finance"])
    with pytest.raises(TopologyError):
        with_organization(BASE, "bad_name", ["finance"])


def test_who_is_named_in_a_policy_cannot_simply_go() -> None:
    """The regulator of a channel, or an endorser that a chaincode names: the topology says so first."""
    with pytest.raises(TopologyError):
        check(without_organization(BASE, "Finance"))
