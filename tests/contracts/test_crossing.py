"""Records cross channels by proof, exactly once; every way to cheat on it is refused with the check that found it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from crossing_world import Parcels, World, pinned_world
from fabric_protos.common import common_pb2
from pki import Authority
from refusals import refused
from views import Peers, forge, view

from sovchain.chaincode import ContractError
from sovchain.contracts.core import Crossing


@pytest.fixture
async def world() -> World:
    return await pinned_world()


async def test_a_moved_record_lives_at_one_place_at_a_time(world: World) -> None:
    challenge = await world.sent()
    assert await world.place() == "locked for finance"
    with refused("E_STATE", "on its way"):
        await world.source.submit(
            "Government", Crossing.send, "finance", await world.challenge_view(await world.asked())
        )
    proof = (await world.outgoing(challenge)).bytes()
    arrival = await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    assert arrival.endorsers == ("FinanceMSP", "GovernmentMSP", "SupervisorMSP")
    assert (await world.destination.evaluate("Finance", Parcels.read, "p1")).weight == 7
    settled = await world.source.submit(
        "Logistics", Crossing.finalise, challenge, await world.challenge_view(challenge)
    )
    assert (settled.state, await world.place()) == ("finalised", "finance")


async def test_a_shared_record_stays_where_it_is(world: World) -> None:
    challenge = await world.sent("share")
    await world.destination.submit("Finance", Crossing.accept, challenge, (await world.outgoing(challenge)).bytes())
    assert await world.place() == "here"


async def test_a_view_is_imported_once(world: World) -> None:
    challenge = await world.sent()
    proof = (await world.outgoing(challenge)).bytes()
    await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    with refused("E_STATE", "imported"):
        await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    with refused("E_STATE", "imported"):
        await world.destination.submit("Finance", Crossing.cancel, challenge, "changed my mind")
    with refused("E_MISMATCH"):
        await world.destination.submit("Finance", Crossing.accept, await world.asked(), proof)


async def test_a_cancelled_challenge_frees_the_record_and_nothing_else_does(world: World) -> None:
    challenge = await world.sent()
    proof = (await world.outgoing(challenge)).bytes()
    open_view = await world.challenge_view(challenge)
    for step in (Crossing.release, Crossing.finalise):
        with refused("E_STATE", "open"):
            await world.source.submit("Government", step, challenge, open_view)
    await world.destination.submit("Finance", Crossing.cancel, challenge, "not needed")
    with refused("E_STATE", "cancelled"):
        await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    cancelled = await world.challenge_view(challenge)
    with refused("E_STATE", "cancelled"):
        await world.source.submit("Government", Crossing.finalise, challenge, cancelled)
    await world.source.submit("Government", Crossing.release, challenge, cancelled)
    assert await world.place() == "here"
    with refused("E_STATE", "released"):
        await world.source.submit("Government", Crossing.release, challenge, cancelled)
    # The old answer leads nowhere, and the record can be asked for again.
    with refused("E_STATE", "cancelled"):
        await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    await world.sent()


async def test_import_and_cancellation_change_one_key(world: World) -> None:
    """So that of the two in one block the second conflicts (MVCC)."""
    challenge = await world.sent()
    proof = (await world.outgoing(challenge)).bytes()
    await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    imported = {key for key in world.destination.transactions[-1].writes if key.startswith("\0challenge")}
    other = await world.asked()
    await world.destination.submit("Finance", Crossing.cancel, other, "no")
    cancelled = {key for key in world.destination.transactions[-1].writes if key.startswith("\0challenge")}
    assert {key.replace(challenge, "") for key in imported} == {key.replace(other, "") for key in cancelled}
    assert len(imported) == 1


async def test_an_expired_challenge_imports_nothing_and_unlocks_nothing_by_itself(world: World) -> None:
    challenge = await world.sent()
    proof = (await world.outgoing(challenge)).bytes()
    for ledger in (world.source, world.destination):
        ledger.now += timedelta(days=3)
    with refused("E_TIME", "expired"):
        await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    assert await world.place() == "locked for finance"
    await world.destination.submit("Logistics", Crossing.cancel, challenge, "expired")
    await world.source.submit("Government", Crossing.release, challenge, await world.challenge_view(challenge))
    assert await world.place() == "here"


async def test_only_the_requester_imports_and_cancels(world: World) -> None:
    challenge = await world.sent()
    proof = (await world.outgoing(challenge)).bytes()
    with refused("E_NOT_REQUESTER"):
        await world.destination.submit("Logistics", Crossing.accept, challenge, proof)
    with refused("E_NOT_REQUESTER"):
        await world.destination.submit("Logistics", Crossing.cancel, challenge, "mine now")
    with refused("E_NOT_ADMITTED"):
        await world.destination.submit("Outsider", Crossing.challenge, "government", "move", "parcel", "p1",
                                       "statistics", world.destination.now + timedelta(days=1))  # fmt: skip


async def test_the_destinations_own_rules_count_although_the_view_is_good(world: World) -> None:
    await world.source.submit("Government", Parcels.put, "heavy", 101)
    challenge = await world.sent(record_id="heavy")
    with refused("E_WEIGHT"):
        await world.destination.submit("Finance", Crossing.accept, challenge, (await world.outgoing(challenge)).bytes())
    assert (await world.destination.evaluate("Finance", Crossing.view_challenge, challenge)).challenge.state == "open"


async def test_a_view_from_another_channel_or_of_another_kind_is_refused(world: World) -> None:
    """The same proof on another channel; a KV chaincode of the same organisations whose bytes imitate a view."""
    challenge = await world.sent()
    honest = await world.outgoing(challenge)
    echoed = Parcels.echo.encode(honest.payload.decode())
    for check, forged in {
        "E_VIEW_CHANNEL": honest.changed(channel="logistics"),
        "E_VIEW_CHAINCODE": honest.changed(chaincode="kv"),
        "E_VIEW_FUNCTION": honest.changed(args=echoed.args),
        "E_VIEW_STATUS": honest.changed(status=500),
        "E_VIEW_WRITES": honest.changed(writes=True),
    }.items():
        with refused("E_VIEW") as caught:
            await world.destination.submit("Finance", Crossing.accept, challenge, forged.bytes())
        assert caught.value.fields["check"] == check
    swapped = honest.changed(args=Crossing.view_challenge.encode(challenge).args)
    with refused("E_VIEW"):
        await world.destination.submit("Finance", Crossing.accept, challenge, swapped.bytes())
    with refused("E_VIEW"):
        await world.destination.submit("Finance", Crossing.accept, challenge, honest.changed(answered_by="kv").bytes())


async def test_a_view_that_too_few_or_the_wrong_ones_signed_is_refused(world: World) -> None:
    challenge = await world.sent()
    honest = await world.outgoing(challenge)
    government, finance, supervisor = (world.peers.peers[name] for name in ("Government", "Finance", "Supervisor"))
    rogue = Authority("SupervisorMSP").issue("peer0", "peer")
    other = world.peers.authorities["Government"].issue("peer1", "peer")
    unknown = Authority("CarrierMSP").issue("peer0", "peer")
    for check, signers in (
        ("E_VIEW_POLICY", (government, finance)),
        ("E_VIEW_POLICY", (supervisor,)),
        ("E_VIEW_POLICY", (government, other)),
        ("E_VIEW_IDENTITY", (supervisor, supervisor)),
        ("E_VIEW_IDENTITY", (world.peers.clients["Supervisor"], government)),
        ("E_VIEW_IDENTITY", (rogue, government)),
        ("E_VIEW_IDENTITY", (supervisor, government, unknown)),
    ):
        with refused("E_VIEW") as caught:
            await world.destination.submit(
                "Finance", Crossing.accept, challenge, honest.changed(signers=signers).bytes()
            )
        assert caught.value.fields["check"] == check


async def test_a_view_with_one_bit_flipped_is_refused(world: World) -> None:
    challenge = await world.sent()
    honest = (await world.outgoing(challenge)).bytes()
    good = await world.destination.evaluate("Finance", Crossing.view_challenge, challenge)
    assert good.challenge.state == "open"
    for position in range(0, len(honest), 7):
        altered = bytearray(honest)
        altered[position] ^= 1 << position % 8
        with pytest.raises(ContractError) as caught:
            await world.destination.submit("Finance", Crossing.accept, challenge, bytes(altered))
        assert caught.value.code in ("E_VIEW", "E_MISMATCH")


async def test_a_huge_or_padded_view_is_refused(world: World) -> None:
    challenge = await world.sent()
    honest = await world.outgoing(challenge)
    padded = honest.bytes() + bytes([0x7A, 1, 0])  # an unknown field 15 of the payload
    for check, data in (
        ("E_VIEW_SIZE", b"x" * 600_000),
        ("E_VIEW_FORM", b""),
        ("E_VIEW_FORM", b"x"),
        ("E_VIEW_FORM", padded),
        ("E_VIEW_FORM", honest.changed(signers=honest.signers * 11).bytes()),
        ("E_VIEW_FORM", common_pb2.Payload().SerializeToString()),
    ):
        with refused("E_VIEW") as caught:
            await world.destination.submit("Finance", Crossing.accept, challenge, data)
        assert caught.value.fields["check"] == check


async def test_a_view_after_the_certificates_end_or_revocation_is_refused(world: World) -> None:
    challenge = await world.sent()
    proof = (await world.outgoing(challenge)).bytes()
    peers = world.peers
    told = peers.statement("government", world.source.now, epoch=2, msps=tuple(
        peers.config(name, *([peers.peers["Supervisor"]] if name == "Supervisor" else [])) for name in peers.authorities
    ))  # fmt: skip
    own = peers.statement("government", world.source.now)
    for statement in (own, told):
        ballot = await world.source.submit("Government/admin", Crossing.propose_anchor, statement)
        for name in ("Government", "Supervisor", "Finance"):
            await world.source.submit(f"{name}/admin", Crossing.vote, ballot)
    said = await view(world.source, peers, Crossing.view_anchor, 2)
    ballot = await world.destination.submit("Government/admin", Crossing.propose_anchor, told, said)
    for name in ("Government", "Supervisor", "Finance"):
        await world.destination.submit(f"{name}/admin", Crossing.vote, ballot)
    with refused("E_VIEW", "revoked") as caught:
        await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    assert caught.value.fields["check"] == "E_VIEW_IDENTITY"
    # Peers with new certificates vouch for the same committed record: nothing is lost by the change.
    renewed = peers.authorities["Supervisor"].issue("peer0", "peer")
    again = (await world.outgoing(challenge)).changed(signers=(renewed, peers.peers["Government"]))
    await world.destination.submit("Finance", Crossing.accept, challenge, again.bytes())


async def test_the_next_epoch_needs_the_word_of_the_one_before(world: World) -> None:
    usurped = Peers()
    statement = usurped.statement("government", world.destination.now, epoch=2)
    with refused("E_VIEW"):
        await world.destination.submit("Government/admin", Crossing.propose_anchor, statement)
    ballot = await world.source.submit(
        "Government/admin", Crossing.propose_anchor, world.peers.statement("government", world.source.now)
    )
    for name in ("Government", "Supervisor", "Finance"):
        await world.source.submit(f"{name}/admin", Crossing.vote, ballot)
    said = await view(world.source, world.peers, Crossing.view_anchor, 1)
    with refused("E_ANCHOR", "the statements differ"):
        await world.destination.submit("Government/admin", Crossing.propose_anchor, statement, said)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"epoch": 3}, "the next is 1"),
        ({"policy": "OR('SupervisorMSP.peer', 'GovernmentMSP.peer')"}, "alone would satisfy"),
        ({"policy": "AND('SupervisorMSP.member', 'GovernmentMSP.peer')"}, "others than peers"),
        ({"policy": "AND('SupervisorMSP.peer', 'CarrierMSP.peer')"}, "CarrierMSP"),
        ({"policy": "AND("}, "at position"),
        ({"msps": ("AAAA",)}, "cannot be"),
    ],
)
async def test_a_statement_that_cannot_be_relied_on_is_not_put_to_the_vote(
    world: World, changes: dict[str, Any], why: str
) -> None:
    statement = world.peers.statement("logistics", world.source.now, **changes)
    with refused("E_ANCHOR", why):
        await world.source.submit("Government/admin", Crossing.propose_anchor, statement)


async def test_nothing_is_asked_of_a_channel_that_is_not_pinned_or_whose_anchor_has_ended(world: World) -> None:
    challenge = await world.sent()
    proof = (await world.outgoing(challenge)).bytes()
    world.destination.now += timedelta(days=21)
    with refused("E_TIME"):
        await world.destination.submit("Finance", Crossing.accept, challenge, proof)
    with refused("E_NO_ANCHOR", "not in force"):
        await world.asked()
    with refused("E_KIND"):
        await world.destination.submit("Finance", Crossing.challenge, "logistics", "move", "parcel", "p1", "statistics",
                                       world.destination.now + timedelta(days=1))  # fmt: skip


async def test_an_answer_goes_to_its_destination_only(world: World) -> None:
    """The challenge of one channel, presented as another's; the answer to one, presented there."""
    challenge = await world.asked()
    said = await forge(world.destination, world.peers, Crossing.view_challenge, challenge)
    with refused("E_VIEW"):
        await world.source.submit("Government", Crossing.send, "finance", said.changed(channel="logistics").bytes())
    await world.source.submit("Government", Crossing.send, "finance", said.bytes())
    with refused("E_STATE", "answered"):
        await world.source.submit("Government", Crossing.send, "finance", said.bytes())
