"""What the embedded ledger answers, orders, validates and commits is what real Fabric does with the same input."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from fabric_protos.common import configtx_pb2
from fabric_protos.discovery import protocol_pb2
from fabric_protos.gossip import message_pb2
from fabricprograms import VERSIONS, fabric_programs
from twin import CHANNEL, NAMES, Twin, steps, twin
from twin_config import (
    Edit,
    acl,
    anchor,
    batch_count,
    everybody,
    new_organisation,
    remove_organisation,
    revoke,
    update_envelope,
)
from twin_generate import prepare
from twin_people import Person
from twin_rounds import rounds

from sovchain.protocol.crypto import sha256

SHORT, LONG, PARTS = 160, 20_000, 8
Spoil = Callable[[configtx_pb2.ConfigUpdate], None] | None


# Each version takes a minute; the newest is compared in every run.
@pytest.fixture(params=[*(pytest.param(one, marks=pytest.mark.long) for one in VERSIONS[:-1]), VERSIONS[-1]])
def version(request: pytest.FixtureRequest) -> str:
    """A version of Fabric whose programs are here."""
    fabric_programs(request.param)
    return str(request.param)


@pytest.fixture
async def both(version: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Twin]:
    """A real network of this version and an embedded ledger that follows it, with the chaincodes defined."""
    async with twin(version, tmp_path_factory.mktemp("twin") / "network") as made:
        await prepare(made)
        yield made


def agreed(both: Twin) -> None:
    """Fail with the first differences, if there are any."""
    shown = "\n".join(str(difference) for difference in both.differences[:5])
    assert not both.differences, f"{len(both.differences)} differences\n{shown}"


@pytest.mark.long
async def test_random_transactions(both: Twin) -> None:
    """Lifecycle and random input, honest and hostile: a few hundred answers, codes and commit hashes."""
    await rounds(both, SHORT, seed=2026)
    agreed(both)
    assert both.compared["answer"] > SHORT
    assert both.compared["code"] >= SHORT
    assert len(both.codes) >= 6, both.codes


async def test_configurations(both: Twin) -> None:
    """Changes of a channel's configuration, taken and refused, and what they mean for who may do what."""
    people, chance = both.people, random.Random(7)
    everyone, one = everybody(both), people.admin["One"]
    root, below, added = new_organisation("NewMSP")
    guest, of_root = below.issue("guest", "client"), root.issue("of the root", "client")
    revoked = people.user["Two"]

    async def change(edit: Edit, signers: Sequence[Person], *, spoil: Spoil = None) -> list[int]:
        codes = await both.order([(update_envelope(both, edit, signers, one, spoil=spoil), edit.__qualname__)])
        assert bool(codes) == (both.ordered[-1][0] == 200), both.ordered[-1]
        return codes

    async def propose(*creators: Person) -> None:
        for creator in creators:
            signed = both.proposal(*steps(["put", "a", creator.kind], ["get", "a"]), creator=creator)
            endorsed = await both.propose(signed, case=creator.kind)
            if endorsed.answers:
                envelope = both.envelope(endorsed, creator, NAMES[:2])
                await both.order([(envelope.SerializeToString(), creator.kind)])

    assert await change(batch_count(5), [one]) == []  # the ordering organisation must sign that
    assert await change(batch_count(5), [people.ordering_admin]) == [0], both.ordered[-1]
    assert both.channel().bundle.batch.max_message_count == 5
    assert await change(batch_count(0), [people.ordering_admin]) == []
    assert await change(anchor("TwoMSP", 7051), [one]) == []
    assert await change(anchor("TwoMSP", 7051), [people.admin["Two"]]) == [0], both.ordered[-1]
    assert await change(acl("qscc/GetChainInfo", "/Channel/Application/Admins"), everyone) == [0], both.ordered[-1]
    assert await change(acl("peer/Propose", "Readers"), [people.user["One"], people.user["Two"]]) == []
    await propose(guest, revoked)
    assert await change(added, [one]) == []
    assert await change(added, everyone) == [0], both.ordered[-1]
    await propose(guest, of_root, below.issue("without a unit"), below.issue("of two", "client", "peer"))
    assert await change(revoke(people.authority["Two"], revoked), [people.admin["Two"]]) == [0], both.ordered[-1]
    await propose(revoked, people.admin["Two"])
    assert await change(remove_organisation("NewMSP"), everyone) == [0], both.ordered[-1]
    await propose(guest)
    await rounds(both, 60, seed=chance.randrange(1 << 30))
    agreed(both)


def discovered(answer: Any) -> object:
    """An answer of the discovery service by what it says: without gossip's signatures, times and random names."""
    if not isinstance(answer, protocol_pb2.Response):
        return answer
    shown: list[object] = []
    for result in answer.results:
        kind = result.WhichOneof("result")
        if kind == "members":
            shown.append(
                {org: [_peer(peer) for peer in peers.peers] for org, peers in result.members.peers_by_org.items()}
            )
        elif kind == "cc_query_res":
            for found in result.cc_query_res.content:
                groups = {
                    name: sorted(_peer(peer)[0] for peer in peers.peers)
                    for name, peers in found.endorsers_by_groups.items()
                }
                layouts = [
                    sorted((str(groups[group]), count) for group, count in layout.quantities_by_group.items())
                    for layout in found.layouts
                ]
                shown.append((found.chaincode, sorted(layouts)))
        else:
            told = getattr(result, kind).SerializeToString(deterministic=True)
            shown.append((kind, told if len(told) < 200 else sha256(told).hex()))
    return shown


def _peer(peer: protocol_pb2.Peer) -> tuple[bytes, bool, list[tuple[str, str]]]:
    alive = message_pb2.GossipMessage.FromString(peer.membership_info.payload).alive_msg
    state = message_pb2.GossipMessage.FromString(peer.state_info.payload).state_info
    chaincodes = sorted((entry.name, entry.version) for entry in state.properties.chaincodes)
    return sha256(peer.identity)[:6], bool(alive.membership.endpoint), chaincodes


async def test_discovery(both: Twin) -> None:
    """Peers, configuration and endorsers as a real peer's discovery service tells them, and to whom."""
    request = protocol_pb2.Request()
    request.queries.add(channel=CHANNEL).config_query.SetInParent()
    request.queries.add(channel=CHANNEL).peer_query.SetInParent()
    for names in (["cc"], ["other"], ["cc", "other"], ["begun"]):
        interest = request.queries.add(channel=CHANNEL).cc_query.interests.add()
        for name in names:
            interest.chaincodes.add(name=name)
    private = request.queries.add(channel=CHANNEL).cc_query.interests.add().chaincodes.add(name="cc")
    private.collection_names.append("signed")
    request.queries.add(channel=CHANNEL).cc_query.SetInParent()
    request.queries.add(channel="nowhere").config_query.SetInParent()
    request.queries.add(channel=CHANNEL)
    request.queries.add().local_peers.SetInParent()
    request.queries.add().config_query.SetInParent()
    people = both.people
    stranger = next(person for person in people.odd if person.kind == "no unit")
    for person in (people.admin["One"], people.user["One"], people.user["Two"], stranger):
        deadline = time.monotonic() + 20
        while True:  # a real peer learns of the others by and by
            fabric, embedded = await both.discover("One", request, person)
            if discovered(fabric) == discovered(embedded) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.3)
        for position, (one, other) in enumerate(zip(discovered(fabric), discovered(embedded), strict=True)):
            both.compare("discovery", one, other, (person.kind, position))
    agreed(both)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
async def test_twenty_thousand_transactions(both: Twin, part: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The same at length, in parts with a fresh network and other seeds each."""
    done = 0
    while done < LONG // PARTS:
        await rounds(both, 500, seed=LONG * part + done + 1)
        done = both.compared["code"]
        agreed(both)
    with capsys.disabled():
        print(f"\n{both.site.topology.fabric_version} part {part}: {dict(both.compared)} {dict(both.codes)}")
