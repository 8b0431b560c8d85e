"""One suite of stub behaviour for our runtime and, as the reference, for the shims of Node and Go.

It runs on the embedded ledger and on each real Fabric of this machine; every case says what each call gives, the read-write
sets that the peers make of the same steps are compared, and what differs is listed in `cases.DIFFERENCES`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from cases import CASES, DIFFERENCES, Call, X
from chaincodelab import CHANNEL, Lab, Missing
from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_event_pb2, proposal_pb2, proposal_response_pb2
from fabricprograms import fabric_programs

from sovchain.network.nodes import SignedInvocation
from sovchain.protocol.rwset import NamespaceRwSet, parse_rwset

pytestmark = pytest.mark.timeout(240)
run_together = pytest.mark.asyncio(loop_scope="module")

TRANSIENT = {"a": b"1", "b": b"2"}
LANGUAGES = ("sovchain", "node", "go")
PEER = "peer0.lab.example"


@dataclass
class World:
    """A network with the echo contract in every language of this machine."""

    lab: Lab
    missing: dict[str, str]

    def check(self, language: str) -> None:
        if language in self.missing:
            pytest.skip(self.missing[language])


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["embedded", pytest.param("2.5", marks=pytest.mark.long), "3.1"]
)
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The network, on the embedded ledger and on Fabric's own programs."""
    native = request.param != "embedded"
    if native:
        await asyncio.to_thread(fabric_programs, request.param)
    folder = tmp_path_factory.mktemp("lab")
    runtime, version = ("native", request.param) if native else ("embedded", "3.1")
    async with Lab.up(folder, runtime=runtime, version=version) as lab:
        await lab.add_python("callee")
        made = World(lab, {})
        for language, add in zip(LANGUAGES, (lab.add_python, lab.add_node, lab.add_go), strict=True):
            try:
                await add(language)
            except Missing as error:
                made.missing[language] = str(error)
        yield made


def inputs(proposal: SignedInvocation) -> dict[str, Any]:
    """What a contract should see of a proposal, by the placeholders of the cases."""
    inner = proposal_pb2.Proposal.FromString(proposal.signed.proposal_bytes)
    header = common_pb2.Header.FromString(inner.header)
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    identity = identities_pb2.SerializedIdentity.FromString(signature.creator)
    binding = signature.nonce + signature.creator + channel.epoch.to_bytes(8, "little")
    return {
        "<channel>": channel.channel_id,
        "<txid>": channel.tx_id,
        "<timestamp>": channel.timestamp.seconds * 1000 + channel.timestamp.nanos // 1_000_000,
        "<creator>": [identity.mspid, hashlib.sha256(identity.id_bytes).hexdigest()],
        "<binding>": hashlib.sha256(binding).hexdigest(),
        "<proposal>": hashlib.sha256(proposal.signed.proposal_bytes).hexdigest(),
    }


def same(found: Any, wanted: Any, known: dict[str, Any]) -> bool:
    """Whether a result is what was wanted, placeholders filled in."""
    if wanted == X:
        return True
    if isinstance(wanted, str) and wanted in known:
        return bool(found == known[wanted])
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return False
        return all(same(a, b, known) for a, b in zip(found, wanted, strict=True))
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or found.keys() != wanted.keys():
            return False
        return all(same(found[key], wanted[key], known) for key in wanted)
    return bool(found == wanted)


async def perform(
    world: World, language: str, call: Call
) -> tuple[SignedInvocation, proposal_response_pb2.ProposalResponse]:
    steps = json.dumps(call.steps).replace("<itself>", language)
    proposal = world.lab.proposal(language, "run", steps, transient=TRANSIENT)
    answer = await world.lab.endorse(proposal, timeout_s=30)
    if call.commit and answer.response.status == 200:
        await world.lab.commit(proposal, answer)
    return proposal, answer


def action(answer: proposal_response_pb2.ProposalResponse) -> proposal_pb2.ChaincodeAction:
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(answer.payload)
    return proposal_pb2.ChaincodeAction.FromString(payload.extension)


def plain(namespace: NamespaceRwSet | None) -> Any:
    """A namespace's part of a read-write set, without its name and the versions, which depend on the block."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            dropped = {"namespace", "version", "merkle"}
            return {name: without(part) for name, part in value.items() if name not in dropped}
        return [without(part) for part in value] if isinstance(value, list | tuple) else value

    return None if namespace is None else without(asdict(namespace))


@pytest.mark.parametrize("case", CASES)
@run_together
async def test_a_case_gives_what_fabric_gives_and_leaves_the_same_read_write_set(world: World, case: str) -> None:
    left: dict[str, list[Any]] = {}
    for language in LANGUAGES:
        if language in world.missing:
            continue
        differs = DIFFERENCES.get(language, {}).get(case)
        for number, call in enumerate(CASES[case]):
            proposal, answer = await perform(world, language, call)
            assert answer.response.status == 200, (language, answer.response.message)
            found = json.loads(answer.response.payload)
            wanted = call.gives if differs is None else differs[number]
            assert same(found, wanted, inputs(proposal)), (language, number, found)
            rwset = parse_rwset(action(answer).results)
            if differs is None:
                left.setdefault(language, []).append([plain(rwset.namespace(name)) for name in (language, "callee")])
    for language, sets in left.items():
        assert sets == left["sovchain"], language


@pytest.mark.parametrize("language", LANGUAGES)
@run_together
async def test_the_event_of_a_transaction_is_the_last_one(world: World, language: str) -> None:
    world.check(language)
    _, answer = await perform(world, language, CASES["the last event wins"][0])
    event = chaincode_event_pb2.ChaincodeEvent.FromString(action(answer).events)
    assert (event.event_name, event.payload, event.chaincode_id) == ("Second", b"2", language)


@pytest.mark.parametrize("language", LANGUAGES)
@run_together
async def test_a_failed_call_is_status_500_and_is_not_endorsed(world: World, language: str) -> None:
    world.check(language)
    answer = await world.lab.endorse(world.lab.proposal(language, "fail"))
    assert (answer.response.status, answer.endorsement.signature) == (500, b"")
    if language == "sovchain":
        # Ours says where the log has more; the others send the exception's own words.
        assert answer.response.message.startswith("E_INTERNAL: internal error, reference ")
    else:
        assert answer.response.message.endswith("as told")
    assert json.loads(await world.lab.call(language, "run", '[["get", "failed"]]')) == [None]


@pytest.mark.parametrize("language", LANGUAGES)
@run_together
async def test_many_writes_and_reads_in_one_call(world: World, language: str) -> None:
    """1,100 writes are two batches where the peer takes batches, and 1,100 messages where it does not."""
    world.check(language)
    await world.lab.submit(language, "write", "many", "1100")
    assert await world.lab.call(language, "read", "many", "1200") == b"1100"


@pytest.mark.parametrize("language", LANGUAGES)
@run_together
async def test_a_chaincode_that_is_killed_is_back_when_it_runs_again(world: World, language: str) -> None:
    """On a real peer: killed with a call in hand, and called again within 5 s of its start."""
    world.check(language)
    service = world.lab.services[language]
    held = [world.lab.proposal(language, "write", "k", "20000") for _ in range(3)]
    calls = [asyncio.ensure_future(world.lab.endorse(each, timeout_s=20)) for each in held]
    await asyncio.sleep(0.05)
    service.kill()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, BaseException) or each.response.status in (200, 500) for each in outcomes)
    await service.start()
    async with asyncio.timeout(5):
        while True:
            answer = await world.lab.endorse(world.lab.proposal(language, "empty"))
            if answer.response.status == 200:
                break
            await asyncio.sleep(0.1)


@run_together
async def test_several_streams_of_one_service(world: World) -> None:
    """Both organisations' peers have installed the chaincode and use one process."""
    proposal = world.lab.proposal("sovchain", "run", '[["channel"]]')
    answers = [await world.lab.endorse(proposal), await world.lab.endorse(proposal, peer=world.lab.second)]
    assert {answer.response.payload for answer in answers} == {json.dumps([CHANNEL]).encode()}


@run_together
async def test_a_peer_that_is_killed_and_started_again_finds_the_chaincode_at_once(world: World) -> None:
    """The chaincode's process is untouched: it takes the new stream within 5 s of the peer's first answer."""
    faults = world.lab.network.faults
    if faults is None or PEER not in faults.targets():
        pytest.skip("this runtime ends no single peer")
    held = asyncio.ensure_future(world.lab.endorse(world.lab.proposal("sovchain", "write", "r", "20000"), timeout_s=20))
    await asyncio.sleep(0.02)
    await faults.kill(PEER)
    await asyncio.gather(held, return_exceptions=True)
    await faults.start(PEER)
    async with asyncio.timeout(5):
        while True:
            try:
                answer = await world.lab.endorse(world.lab.proposal("sovchain", "run", '[["txid"]]'))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
                continue
            if answer.response.status == 200:
                break
            await asyncio.sleep(0.05)


def test_each_difference_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs/chaincode-runtime.md").read_text()
    for language, cases in DIFFERENCES.items():
        for case in cases:
            assert case in CASES
            assert case in page, (language, case)
