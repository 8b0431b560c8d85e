"""Every scenario of the official clients (hyperledger/fabric-gateway, scenario/features), in this project's own words.

They run on the network of the conformance tests, on whatever it runs on (`--fabric-runtime`). Which test stands for which
scenario: docs/client/official-scenarios.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from softhsm import generate_in_hsm, softhsm_library

from sovchain.client import (
    ChannelTrust,
    CommitRejected,
    Contract,
    EndorseError,
    EndorsementsInsufficient,
    EvaluateError,
    Gateway,
    Identity,
    MemoryCheckpointer,
    SignatureMissing,
    SignatureRefused,
    SigningIdentity,
    TrustError,
)
from sovchain.client import Network as Channel
from sovchain.client.hsm import HsmKey
from sovchain.protocol.identity import parse_identity
from sovchain.protocol.transactions import parse_transaction
from sovchain.testing.conformance.chaincode import Probe
from sovchain.testing.conformance.topology import APART, COMMON, SHARED, STRICT, WIDE
from sovchain.testing.conformance.world import ConformanceNetwork, World

pytestmark = pytest.mark.xdist_group("conformance")

MSPS = {"Alpha": "AlphaMSP", "Beta": "BetaMSP", "Gamma": "GammaMSP"}
ALL = list(MSPS.values())


@pytest.fixture
async def world(conformance_network: ConformanceNetwork) -> AsyncIterator[World]:
    async with conformance_network.open() as opened:
        yield opened


def implicit(msp_id: str) -> str:
    return f"_implicit_org_{msp_id}"


def msp_folder(network: ConformanceNetwork, organization: str) -> Path:
    domain = network.topology.organization(organization).domain
    return network.directory / f"organizations/peerOrganizations/{domain}/users/User1@{domain}/msp"


def profile(network: ConformanceNetwork, organization: str) -> Path:
    return network.directory / f"connections/{organization}.json"


async def endorsers(contract: Contract, *arguments: Any) -> set[str]:
    """Submit, and give the organisations whose signatures the transaction carries."""
    transaction = await contract.proposal(*arguments).endorse()
    parsed = parse_transaction(transaction.envelope_bytes)
    await (await transaction.submit()).committed()
    return {parse_identity(one.endorser).msp_id for one in parsed.endorsements}


# -- transactions ----------------------------------------------------------------------------------------------------


async def test_evaluate_gives_the_result(world: World) -> None:
    assert await world.alpha.contract().evaluate("Probe:echo", "conga") == b"conga"


async def test_submit_gives_the_result(world: World) -> None:
    assert (await world.alpha.contract().submit("Probe:echo", "conga")).result == b"conga"


async def test_what_was_submitted_can_be_read(world: World) -> None:
    await world.submit(Probe.put, world.key(), b"ledger")
    assert await world.alpha.contract().evaluate(Probe.get, world.key()) == b"ledger"


async def test_transient_data_reach_the_chaincode(world: World) -> None:
    import hashlib

    digest = await world.alpha.contract().evaluate("Probe:digest", transient={"secret": b"value1"})
    assert digest.decode().strip('"') == hashlib.sha256(b"value1").hexdigest()


async def test_an_evaluation_that_the_chaincode_refuses(world: World) -> None:
    with pytest.raises(EvaluateError) as caught:
        await world.alpha.contract().evaluate(Probe.refuse, world.key(), "E_CONGA", "all your error are belong to us")
    assert (caught.value.status, caught.value.code) == ("UNKNOWN", "E_CONGA")
    assert "all your error are belong to us" in str(caught.value)


async def test_a_submit_that_the_chaincode_refuses(world: World) -> None:
    with pytest.raises(EndorseError) as caught:
        await world.alpha.contract().submit(Probe.refuse, world.key(), "E_CONGA", "all your error are belong to us")
    error = caught.value
    assert (error.status, error.code) == ("ABORTED", "E_CONGA")
    assert "see attached details" in error.failure.message
    assert error.details
    assert {detail.msp_id for detail in error.details} <= set(ALL)
    assert all("all your error are belong to us" in detail.message for detail in error.details)
    assert all(detail.address for detail in error.details)
    assert len(error.transaction_id) == 64


# -- errors ----------------------------------------------------------------------------------------------------------


async def test_an_evaluation_with_too_few_arguments(world: World) -> None:
    with pytest.raises(EvaluateError) as caught:
        await world.alpha.contract().evaluate("Probe:echo")
    assert caught.value.status == "UNKNOWN"
    assert caught.value.chaincode_status is not None


async def test_a_submit_to_a_chaincode_that_is_not_there(world: World) -> None:
    with pytest.raises(EndorseError) as caught:
        await world.alpha.wide.contract("nonexistent").submit("exists")
    assert caught.value.status == "FAILED_PRECONDITION"
    assert "nonexistent" in str(caught.value)


async def test_a_submit_of_a_function_that_is_not_there(world: World) -> None:
    with pytest.raises(EndorseError) as caught:
        await world.alpha.contract().submit("Probe:nonexistent")
    assert caught.value.status == "ABORTED"
    assert all(detail.message.startswith("chaincode response ") for detail in caught.value.details)
    assert caught.value.details


async def test_an_evaluation_signed_by_another_organisation(
    world: World, conformance_network: ConformanceNetwork
) -> None:
    """The certificate is Alpha's, the signature Gamma's: this client does not even send it."""
    alpha = SigningIdentity.from_msp_folder(msp_folder(conformance_network, "Alpha"), "AlphaMSP")
    gamma = SigningIdentity.from_msp_folder(msp_folder(conformance_network, "Gamma"), "GammaMSP")
    keyless = Identity("AlphaMSP", alpha.certificate_pem)
    async with Gateway.connect(profile(conformance_network, "Alpha"), keyless) as gateway:
        proposal = gateway.network(WIDE).contract("probe").proposal("Probe:echo", "123")
        with pytest.raises(SignatureRefused):
            proposal.with_signature(gamma.sign(proposal.message))
        proposal._signature = gamma.sign(proposal.message)
        with pytest.raises(EvaluateError) as caught:
            await proposal.evaluate()
    assert caught.value.status == "FAILED_PRECONDITION"
    assert "creator org [AlphaMSP]" in str(caught.value)
    assert [detail.msp_id for detail in caught.value.details] == ["AlphaMSP"]


async def _private_of_alpha(world: World) -> str:
    """Put a value where Alpha's peer alone can read it."""
    mine = world.alpha.contract().with_options(organizations=["AlphaMSP"])
    await mine.submit(Probe.put_private, implicit("AlphaMSP"), world.key(), b"secret")
    return world.key()


async def test_an_organisation_refuses_to_evaluate(world: World) -> None:
    key = await _private_of_alpha(world)
    with pytest.raises(EvaluateError) as caught:
        await (
            world.alpha.contract()
            .with_options(organizations=["BetaMSP"])
            .evaluate(Probe.get_private, implicit("AlphaMSP"), key)
        )
    assert caught.value.status == "UNKNOWN"
    assert caught.value.chaincode_status is not None


async def test_one_of_three_organisations_refuses_to_endorse(world: World) -> None:
    """Alpha and Beta hold the collection's data, Gamma does not."""
    await (
        world.alpha.contract()
        .with_options(organizations=["AlphaMSP", "BetaMSP"])
        .submit(Probe.put_private, SHARED, world.key(), b"secret")
    )
    both = world.alpha.contract().with_options(organizations=["BetaMSP"])

    async def beta_has_it() -> bool:
        try:
            return bool(await both.evaluate(Probe.get_private, SHARED, world.key()))
        except EvaluateError:
            return False

    await world.eventually(beta_has_it, "Beta's peer has the private data")
    with pytest.raises(EndorseError) as caught:
        await world.alpha.contract().with_options(organizations=ALL).submit(Probe.get_private, SHARED, world.key())
    assert caught.value.status == "ABORTED"
    assert {detail.msp_id for detail in caught.value.details} == {"GammaMSP"}


async def test_two_of_three_organisations_refuse_to_endorse(world: World) -> None:
    key = await _private_of_alpha(world)
    with pytest.raises(EndorseError) as caught:
        await (
            world.alpha.contract().with_options(organizations=ALL).submit(Probe.get_private, implicit("AlphaMSP"), key)
        )
    assert caught.value.status == "ABORTED"
    assert {detail.msp_id for detail in caught.value.details} == {"BetaMSP", "GammaMSP"}


async def test_results_that_differ_are_not_endorsed(world: World) -> None:
    with pytest.raises(EndorseError) as caught:
        await world.alpha.contract(STRICT).submit(Probe.differ, world.key())
    assert caught.value.status == "ABORTED"
    assert caught.value.details


# -- endorsement, with a local key and with one in an HSM ------------------------------------------------------------


@asynccontextmanager
async def _hsm_gateway(network: ConformanceNetwork) -> AsyncIterator[Gateway]:
    """A gateway of Alpha whose key is in SoftHSM and was certified by Alpha's CA."""
    library = softhsm_library()
    public = await asyncio.to_thread(generate_in_hsm, library, "scenario", "secp256r1")
    domain = network.topology.organization("Alpha").domain
    folder = network.directory / f"organizations/peerOrganizations/{domain}/ca"
    certificate = x509.load_pem_x509_certificate(next(folder.glob("*-cert.pem")).read_bytes())
    key: Any = serialization.load_pem_private_key(next(folder.glob("*_sk")).read_bytes(), None)
    names = [(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "client"), (x509.NameOID.COMMON_NAME, "HSMUser1")]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(*name) for name in names]))
        .issuer_name(certificate.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    async with HsmKey.open(library, token_label="city", pin="4711", key_label="scenario") as held:
        identity = held.identity("AlphaMSP", made.public_bytes(serialization.Encoding.PEM))
        async with Gateway.connect(profile(network, "Alpha"), identity) as gateway:
            yield gateway


@pytest.fixture(params=["local key", "HSM"])
async def wide(
    request: pytest.FixtureRequest, world: World, conformance_network: ConformanceNetwork
) -> AsyncIterator[Channel]:
    """The channel, as Alpha, with each kind of key."""
    if request.param == "local key":
        yield world.alpha.wide
        return
    async with _hsm_gateway(conformance_network) as gateway:
        yield gateway.network(WIDE)


@pytest.mark.parametrize("msp_id", ALL)
async def test_a_submit_endorsed_by_one_named_organisation(wide: Channel, world: World, msp_id: str) -> None:
    """Into its own collection, which it may endorse alone."""
    contract = wide.contract("probe").with_options(organizations=[msp_id])
    proposal = contract.proposal(Probe.put_private, implicit(msp_id), world.key(), b"value")
    transaction = await proposal.endorse()
    parsed = parse_transaction(transaction.envelope_bytes)
    assert {parse_identity(one.endorser).msp_id for one in parsed.endorsements} == {msp_id}
    assert (await (await transaction.submit()).committed()).code == 0


async def test_a_submit_endorsed_by_two_named_organisations_with_transient_data(wide: Channel, world: World) -> None:
    contract = wide.contract("probe").with_options(organizations=["AlphaMSP", "GammaMSP"])
    transaction = await contract.proposal(Probe.keep_digest, world.key(), b"value1").endorse()
    parsed = parse_transaction(transaction.envelope_bytes)
    assert {parse_identity(one.endorser).msp_id for one in parsed.endorsements} == {"AlphaMSP", "GammaMSP"}
    assert (await (await transaction.submit()).committed()).code == 0


@pytest.mark.parametrize("msp_id", ["AlphaMSP", "BetaMSP"])
async def test_an_evaluation_on_a_named_organisation(wide: Channel, world: World, msp_id: str) -> None:
    """Only that organisation's peer holds the value."""
    contract = wide.contract("probe").with_options(organizations=[msp_id])
    done = await contract.submit(Probe.put_private, implicit(msp_id), world.key(), b"value")
    await world.settle(done)
    assert await contract.evaluate(Probe.get_private, implicit(msp_id), world.key()) == b"value"


# -- discovery -------------------------------------------------------------------------------------------------------


async def test_a_policy_that_needs_a_peer_that_is_down(conformance_network: ConformanceNetwork) -> None:
    peer = conformance_network.topology.organization("Gamma").peer_host
    await asyncio.to_thread(conformance_network.kill_node, peer)
    try:
        async with conformance_network.attach() as network, network.connect("Alpha") as gateway:
            with pytest.raises(EndorseError) as caught:
                await gateway.network(WIDE).contract(STRICT).submit("Probe:echo", "conga")
            assert caught.value.status in ("FAILED_PRECONDITION", "UNAVAILABLE", "ABORTED")
    finally:
        await asyncio.to_thread(conformance_network.start_node, peer)


async def test_a_policy_whose_peers_are_all_there(world: World) -> None:
    async def all_three() -> bool:
        try:
            return await endorsers(world.alpha.contract(STRICT), Probe.put, world.key(), b"conga") == set(ALL)
        except EndorseError:  # Gamma's peer was started a moment ago
            return False

    assert await world.eventually(all_three, "an endorsement of all three")


# -- private data ----------------------------------------------------------------------------------------------------


async def test_a_member_writes_its_collection_and_reads_it_back(world: World) -> None:
    mine = world.alpha.contract().with_options(organizations=["AlphaMSP"])
    await mine.submit(Probe.put_private, implicit("AlphaMSP"), world.key(), b"value-101")
    assert await mine.evaluate(Probe.get_private, implicit("AlphaMSP"), world.key()) == b"value-101"


async def test_a_member_cannot_read_its_collection_on_another_organisations_peer(world: World) -> None:
    key = await _private_of_alpha(world)
    with pytest.raises(EvaluateError):
        await (
            world.alpha.contract()
            .with_options(organizations=["BetaMSP"])
            .evaluate(Probe.get_private, implicit("AlphaMSP"), key)
        )


async def test_another_organisation_writes_what_the_owner_endorses_and_the_owner_reads_it(world: World) -> None:
    theirs = world.beta.contract().with_options(organizations=["AlphaMSP"])
    done = await theirs.submit(Probe.put_private, implicit("AlphaMSP"), world.key(), b"value-104")
    await world.settle(done)
    mine = world.alpha.contract().with_options(organizations=["AlphaMSP"])
    assert await mine.evaluate(Probe.get_private, implicit("AlphaMSP"), world.key()) == b"value-104"


async def test_a_stranger_can_neither_read_nor_write_a_members_collection(world: World) -> None:
    """Only clients of Alpha and Beta may use `shared`; Gamma may not, on whatever peer."""
    on_alpha = world.alpha.contract().with_options(organizations=["AlphaMSP"])
    await (
        world.alpha.contract()
        .with_options(organizations=["AlphaMSP", "BetaMSP"])
        .submit(Probe.put_private, SHARED, world.key(), b"value-106")
    )
    assert await on_alpha.evaluate(Probe.get_private, SHARED, world.key()) == b"value-106"
    stranger = world.gamma.contract().with_options(organizations=["AlphaMSP"])
    with pytest.raises(EvaluateError):
        await stranger.evaluate(Probe.get_private, SHARED, world.key())
    with pytest.raises(EndorseError):
        await stranger.submit(Probe.put_private, SHARED, world.key(), b"value-107")


async def test_a_members_collection_is_written_without_naming_endorsers(world: World) -> None:
    await world.alpha.contract().submit(Probe.put_private, SHARED, world.key(), b"value-108")
    found = await (
        world.alpha.contract().with_options(organizations=["AlphaMSP"]).evaluate(Probe.get_private, SHARED, world.key())
    )
    assert found == b"value-108"


async def test_two_collections_are_written_at_once_by_those_who_hold_both(world: World) -> None:
    """Alpha names nobody and does not hold `apart`: the gateway has Beta and Gamma endorse."""
    contract = world.alpha.contract()
    transaction = await contract.proposal(Probe.put_private_each, [COMMON, APART], world.key(), b"value-109").endorse()
    signed = parse_transaction(transaction.envelope_bytes).endorsements
    assert {parse_identity(one.endorser).msp_id for one in signed} == {"BetaMSP", "GammaMSP"}
    done = await (await transaction.submit()).committed()
    await world.settle(done)

    async def found(collection: str, name: str) -> bytes:
        at_home = world.members[name].contract().with_options(organizations=[MSPS[name]])
        return await at_home.evaluate(Probe.get_private, collection, world.key())

    assert [await found(COMMON, name) for name in MSPS] == [b"value-109"] * 3
    assert [await found(APART, name) for name in ("Beta", "Gamma")] == [b"value-109"] * 2
    with pytest.raises(EvaluateError):
        await found(APART, "Alpha")


async def test_two_collections_that_too_few_hold_both_are_not_written(world: World) -> None:
    """Beta alone holds `shared` and `apart`: transient data goes to nobody else, and one endorsement is too few."""
    with pytest.raises(EndorseError) as caught:
        await world.alpha.contract().submit(Probe.put_private_each, [SHARED, APART], world.key(), b"never")
    assert caught.value.status == "FAILED_PRECONDITION"
    assert all(name in str(caught.value) for name in (SHARED, APART))


# -- policies of keys ------------------------------------------------------------------------------------------------


async def _guarded(world: World, *msp_ids: str) -> Contract:
    """A key that these organisations guard together, and the chaincode that wrote it."""
    await world.submit(Probe.put, world.key(), b"value-001")
    policy = f"AND({', '.join(repr(f'{msp_id}.peer') for msp_id in msp_ids)})"
    await world.submit(Probe.protect, world.key(), policy)
    return world.alpha.contract()


async def test_a_guarded_key_is_changed_by_its_guards(world: World) -> None:
    contract = await _guarded(world, "AlphaMSP", "BetaMSP")
    named = contract.with_options(organizations=["AlphaMSP", "BetaMSP"])
    await world.settle(await named.submit(Probe.put, world.key(), b"changed"))
    assert await contract.evaluate(Probe.get, world.key()) == b"changed"


@pytest.mark.parametrize("named", [["BetaMSP", "GammaMSP"], ["AlphaMSP", "BetaMSP"]])
async def test_a_guarded_key_is_not_changed_by_others(world: World, named: list[str]) -> None:
    contract = await _guarded(world, "AlphaMSP", "GammaMSP")
    with pytest.raises(CommitRejected) as caught:
        await contract.with_options(organizations=named).submit(Probe.put, world.key(), b"changed")
    assert caught.value.code_name == "ENDORSEMENT_POLICY_FAILURE"
    assert await contract.evaluate(Probe.get, world.key()) == b"value-001"


@pytest.mark.parametrize("guards", [["AlphaMSP", "GammaMSP"], ["BetaMSP", "GammaMSP"]])
async def test_the_gateway_finds_the_guards_of_a_key_by_itself(world: World, guards: list[str]) -> None:
    """Also where its own organisation is not among them."""
    contract = await _guarded(world, *guards)
    assert set(guards) <= await endorsers(contract, Probe.put, world.key(), b"changed")


# -- signing elsewhere -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def _keyless(network: ConformanceNetwork) -> AsyncIterator[tuple[Contract, SigningIdentity, Gateway]]:
    signer = SigningIdentity.from_msp_folder(msp_folder(network, "Alpha"), "AlphaMSP")
    keyless = Identity("AlphaMSP", signer.certificate_pem)
    async with Gateway.connect(profile(network, "Alpha"), keyless) as gateway:
        yield gateway.network(WIDE).contract("probe"), signer, gateway


@pytest.mark.parametrize("call", ["evaluate", "submit"])
async def test_nothing_goes_without_a_signature(conformance_network: ConformanceNetwork, call: str) -> None:
    async with _keyless(conformance_network) as (contract, _, _), asyncio.timeout(10):
        with pytest.raises(SignatureMissing):
            await getattr(contract, call)("Probe:echo", "conga")


async def test_an_evaluation_that_is_signed_elsewhere(conformance_network: ConformanceNetwork) -> None:
    async with _keyless(conformance_network) as (contract, signer, _):
        proposal = contract.proposal("Probe:echo", "conga")
        assert await proposal.with_signature(signer.sign(proposal.message)).evaluate() == b"conga"


async def test_a_submit_whose_every_step_is_signed_elsewhere_from_bytes(
    conformance_network: ConformanceNetwork,
) -> None:
    async with _keyless(conformance_network) as (contract, signer, gateway):
        proposal = gateway.load_proposal(contract.proposal("Probe:echo", "conga").to_bytes())
        endorsed = await proposal.with_signature(signer.sign(proposal.message)).endorse()
        transaction = gateway.load_transaction(endorsed.to_bytes())
        assert transaction.result == b"conga"
        pending = await transaction.with_signature(signer.sign(transaction.message)).submit()
        commit = gateway.load_commit(pending.to_bytes())
        assert (await commit.with_signature(signer.sign(commit.message)).status()).successful


# -- events ----------------------------------------------------------------------------------------------------------


async def _next_named(source: Any, name: str) -> bytes:
    async with asyncio.timeout(30):
        async for event in source:
            if event.name == name:
                payload: bytes = event.payload
                return payload
    raise AssertionError("the stream ended")


async def test_an_event_is_received(world: World) -> None:
    async with world.alpha.contract().events() as source:
        await world.submit(Probe.announce, world.key(), world.key("foo"), b"bar")
        assert await _next_named(source, world.key("foo")) == b"bar"


async def test_events_are_replayed_from_a_block(world: World) -> None:
    done = await world.submit(Probe.announce, world.key(), world.key("event"), b"replay")
    async with world.alpha.contract().events(start=done.block_number) as source:
        assert await _next_named(source, world.key("event")) == b"replay"


async def test_a_stream_of_events_that_was_closed_is_opened_again(world: World) -> None:
    for payload in (b"one", b"two"):
        async with world.alpha.contract().events() as source:
            await world.submit(Probe.announce, world.key(), world.key("restart"), payload)
            assert await _next_named(source, world.key("restart")) == payload


async def test_closing_a_stream_of_events_leaves_others_open(world: World) -> None:
    contract = world.alpha.contract()
    async with contract.events() as second:
        async with contract.events() as first:
            await world.submit(Probe.announce, world.key(), world.key("close"), b"before")
            assert await _next_named(first, world.key("close")) == b"before"
            assert await _next_named(second, world.key("close")) == b"before"
        await world.submit(Probe.announce, world.key(), world.key("close"), b"after")
        assert await _next_named(second, world.key("close")) == b"after"


async def test_events_go_on_at_a_checkpoint(world: World) -> None:
    contract, checkpoint = world.alpha.contract(), MemoryCheckpointer()
    async with contract.events(checkpoint=checkpoint) as source:
        await world.submit(Probe.announce, world.key(), world.key("checkpoint"), b"one")
        async for event in source:
            if event.name == world.key("checkpoint"):
                await source.acknowledge(event)
                break
    await world.submit(Probe.announce, world.key(), world.key("checkpoint"), b"two")
    async with contract.events(checkpoint=checkpoint) as source:
        assert (await asyncio.wait_for(anext(source), 30)).payload == b"two"


# -- blocks ----------------------------------------------------------------------------------------------------------

KINDS = ["blocks", "filtered_blocks", "blocks_and_private_data"]


def number_of(block: Any) -> int:
    if hasattr(block, "number"):
        return int(block.number)
    return int((block.block if hasattr(block, "block") else block).header.number)


def listening(channel: Channel, kind: str, *arguments: Any, **options: Any) -> Any:
    return getattr(channel, kind)(*arguments, **options)


async def _until(source: Any, block_number: int) -> None:
    async with asyncio.timeout(30):
        while number_of(await anext(source)) < block_number:
            pass


@pytest.mark.parametrize("kind", KINDS)
async def test_blocks_are_received_replayed_taken_up_again_and_shared(world: World, kind: str) -> None:
    """The official scenarios: receive, replay, restart, and a listener that closes beside one that goes on."""
    wide = world.alpha.wide
    height = (await wide.chain_info()).height
    async with listening(wide, kind, height) as second:
        async with listening(wide, kind, height) as first:
            done = await world.submit(Probe.put, world.key(), b"1")
            await _until(first, done.block_number)
            await _until(second, done.block_number)
        async with listening(wide, kind, done.block_number) as replayed:
            assert number_of(await asyncio.wait_for(anext(replayed), 30)) == done.block_number
        async with listening(wide, kind) as live:
            waiting = asyncio.ensure_future(anext(live))
            await asyncio.sleep(0.3)
            again = await world.submit(Probe.put, world.key(), b"2")
            assert number_of(await asyncio.wait_for(waiting, 30)) >= done.block_number
            await _until(second, again.block_number)


@pytest.mark.parametrize("kind", KINDS)
async def test_blocks_go_on_at_a_checkpoint(world: World, kind: str) -> None:
    wide, checkpoint = world.alpha.wide, MemoryCheckpointer()
    done = await world.submit(Probe.put, world.key(), b"1")
    async with listening(wide, kind, done.block_number, checkpoint=checkpoint) as source:
        assert number_of(await anext(source)) == done.block_number
        again = await world.submit(Probe.put, world.key(), b"2")
        await _until(source, again.block_number)
    async with listening(wide, kind, checkpoint=checkpoint) as source:
        assert number_of(await asyncio.wait_for(anext(source), 30)) <= again.block_number


async def test_private_data_come_with_their_blocks(world: World) -> None:
    done = await (
        world.alpha.contract()
        .with_options(organizations=["AlphaMSP"])
        .submit(Probe.put_private, implicit("AlphaMSP"), world.key(), b"MARKER-private")
    )
    async with world.alpha.wide.blocks_and_private_data(done.block_number) as source:
        found = await asyncio.wait_for(anext(source), 30)
    assert any(b"MARKER-private" in data.SerializeToString() for data in found.private_data.values())
    assert "MARKER" not in repr(found)


# -- beyond the official clients -------------------------------------------------------------------------------------


async def test_endorsements_are_judged_by_the_channels_own_policies_before_anything_is_signed(world: World) -> None:
    """The gateway is asked for one endorsement where two are needed: a peer would only say so after ordering."""
    trust = ChannelTrust(await world.alpha.wide.config_block())
    assert set(ALL) <= set(trust.msp_ids)
    checked = world.alpha.contract().with_options(endorsement_check=trust)
    assert (await checked.submit(Probe.put, world.key(), b"value")).code == 0
    assert (await checked.submit(Probe.put_private, SHARED, world.key(), b"value")).code == 0
    alone = checked.with_options(organizations=["AlphaMSP"])
    with pytest.raises(EndorsementsInsufficient, match="was not met"):
        await alone.submit(Probe.put, world.key(), b"never")
    assert (await alone.submit(Probe.put_private, implicit("AlphaMSP"), world.key(), b"value")).code == 0


async def test_a_key_with_a_policy_of_its_own_is_judged_by_it_where_it_is_named(world: World) -> None:
    contract = await _guarded(world, "AlphaMSP", "GammaMSP")
    policies = {("probe", world.key()): "AND('AlphaMSP.peer', 'GammaMSP.peer')"}
    trust = ChannelTrust(await world.alpha.wide.config_block(), key_policies=policies)
    checked = contract.with_options(endorsement_check=trust)
    with pytest.raises(EndorsementsInsufficient, match="key"):
        await checked.with_options(organizations=["AlphaMSP", "BetaMSP"]).submit(Probe.put, world.key(), b"never")
    assert (await checked.submit(Probe.put, world.key(), b"changed")).code == 0


async def test_a_configuration_of_another_channel_judges_nothing(world: World) -> None:
    trust = ChannelTrust((await world.alpha.narrow.config_block()).SerializeToString())
    with pytest.raises(EndorsementsInsufficient, match="channel"):
        await world.alpha.contract().with_options(endorsement_check=trust).submit(Probe.put, world.key(), b"never")
    with pytest.raises(TrustError):
        ChannelTrust(b"")


async def test_commits_come_by_the_stream_and_own_writes_are_read(world: World) -> None:
    """Many at once, then one read: none asks for its status once the stream runs."""
    contract = world.alpha.contract().with_options(read_own_writes=True)
    await contract.submit(Probe.put, world.key(), b"first")
    feed = contract._session.state.feed
    assert feed is not None
    await world.eventually(lambda: _true(feed.blocks > 0), "the stream of commits")
    done = await asyncio.gather(*(contract.submit(Probe.put, world.key(str(n)), b"%d" % n) for n in range(40)))
    assert all(one.code == 0 for one in done)
    assert feed.blocks > 1
    assert await contract.evaluate(Probe.get, world.key("39")) == b"39"


async def _true(value: bool) -> bool:
    return value


async def test_a_checkpoint_after_a_transaction_without_an_event_starves_nobody(world: World) -> None:
    """Asked the way the official clients ask, a peer would skip everything for ever."""
    from sovchain.client import Position

    silent = await world.submit(Probe.put, world.key(), b"no event")
    await world.submit(Probe.announce, world.key(), world.key("loud"), b"heard")
    checkpoint = MemoryCheckpointer(Position(silent.block_number, silent.transaction_id))
    async with world.alpha.contract().events(checkpoint=checkpoint) as source:
        assert await _next_named(source, world.key("loud")) == b"heard"


async def test_a_checkpoint_that_is_not_there_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from sovchain.client import CheckpointGone, Position

    monkeypatch.setattr("sovchain.client._checkpoints.LAG_S", 0.2)
    height = (await world.alpha.wide.chain_info()).height
    for position in (Position(height + 5), Position(1, "0" * 64)):
        with pytest.raises(CheckpointGone):
            async with world.alpha.contract().events(checkpoint=MemoryCheckpointer(position)) as source:
                await anext(source)
