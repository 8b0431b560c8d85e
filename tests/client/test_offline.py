"""Signing elsewhere: every step without a key, also from bytes in another process, and never without a good signature."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.gateway import gateway_pb2
from fakegateway import FakeGateway, LiveAuthority, Stream, block, events, filtered, key_pem, profile_of
from pki import Signer, pem

from sovchain.client import Gateway, Identity, MalformedStep, SignatureMissing, SignatureRefused, SigningIdentity


@pytest.fixture(scope="session")
def signer(authority: LiveAuthority) -> Signer:
    return authority.issue("user", "client")


@pytest.fixture
def keyless(signer: Signer) -> Identity:
    return Identity("Org1MSP", pem(signer.certificate))


async def test_nothing_is_sent_without_a_signature(fake: FakeGateway, keyless: Identity) -> None:
    async with Gateway.connect(profile_of(fake), keyless) as gateway:
        contract = gateway.network("ch").contract("basic")
        for call in (contract.evaluate("read"), contract.submit("make"), anext(contract.events(start=1))):
            with pytest.raises(SignatureMissing):
                await call
        with pytest.raises(SignatureMissing):
            await gateway.network("ch").commit("0" * 64).status()
    assert not any(fake.requests.values())


async def test_every_step_goes_through_bytes_and_is_signed_elsewhere(
    fake: FakeGateway, keyless: Identity, signer: Signer
) -> None:
    """Each step is taken by a gateway of its own, as in another process."""

    async def step(take: Any) -> Any:
        async with Gateway.connect(profile_of(fake), keyless) as gateway:
            return await take(gateway)

    async def propose(gateway: Gateway) -> bytes:
        contract = gateway.network("ch").contract("basic").with_options(organizations=["Org1MSP"])
        return contract.proposal("make", "a", transient={"secret": "value"}).to_bytes()

    async def evaluate(gateway: Gateway) -> bytes:
        proposal = gateway.load_proposal(proposed)
        return await proposal.with_signature(signer.sign(proposal.message)).evaluate()

    async def endorse(gateway: Gateway) -> bytes:
        proposal = gateway.load_proposal(proposed)
        return (await proposal.with_signature(signer.sign(proposal.message)).endorse()).to_bytes()

    async def submit(gateway: Gateway) -> bytes:
        transaction = gateway.load_transaction(endorsed)
        assert transaction.result == b"done"
        return (await transaction.with_signature(signer.sign(transaction.message)).submit()).to_bytes()

    async def wait(gateway: Gateway) -> Any:
        commit = gateway.load_commit(submitted)
        with pytest.raises(SignatureMissing):
            await commit.status()
        return await commit.with_signature(signer.sign(commit.message)).status()

    proposed = await step(propose)
    assert await step(evaluate) == b"make a"
    endorsed = await step(endorse)
    submitted = await step(submit)
    status = await step(wait)
    assert status.successful
    sent = gateway_pb2.EndorseRequest.FromString(fake.requests["Endorse"][0])
    assert list(sent.endorsing_organizations) == ["Org1MSP"]
    assert sent.transaction_id == status.transaction_id


async def test_a_signature_is_checked_before_anything_is_sent(
    fake: FakeGateway, keyless: Identity, signer: Signer
) -> None:
    async with Gateway.connect(profile_of(fake), keyless) as gateway:
        proposal = gateway.network("ch").contract("basic").proposal("make")
        for wrong in (b"", b"random", signer.sign(b"another message")):
            with pytest.raises(SignatureRefused):
                proposal.with_signature(wrong)
    assert not any(fake.requests.values())


async def test_listening_is_signed_elsewhere_too(fake: FakeGateway, keyless: Identity, signer: Signer) -> None:
    fake.script("ChaincodeEvents", Stream((events(3, "a"),), hold=True))
    fake.script("Deliver", Stream((block(3),), hold=True))
    fake.script("DeliverFiltered", Stream((filtered(3),), hold=True))
    async with Gateway.connect(profile_of(fake), keyless) as gateway:
        network = gateway.network("ch")
        request = network.contract("basic").events_request(3)
        loaded = gateway.load_events_request(request.to_bytes())
        async with await loaded.with_signature(signer.sign(loaded.message)).listen() as source:
            assert (await anext(source)).transaction_id == "a"
        full = gateway.load_blocks_request(network.blocks_request(3).to_bytes())
        async with await full.with_signature(signer.sign(full.message)).listen() as blocks:
            assert (await anext(blocks)).header.number == 3
        short = gateway.load_filtered_blocks_request(network.filtered_blocks_request(3).to_bytes())
        async with await short.with_signature(signer.sign(short.message)).listen() as found:
            assert (await anext(found)).number == 3


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"\x0a\x05hello", b"\x0a\x00\x12\x00"])
async def test_bytes_that_are_no_step_are_refused(fake: FakeGateway, keyless: Identity, data: bytes) -> None:
    async with Gateway.connect(profile_of(fake), keyless) as gateway:
        for load in (
            gateway.load_proposal,
            gateway.load_transaction,
            gateway.load_commit,
            gateway.load_events_request,
            gateway.load_blocks_request,
        ):
            with pytest.raises(MalformedStep):
                load(data)


async def test_a_step_of_another_identity_is_refused(
    fake: FakeGateway, keyless: Identity, user: SigningIdentity
) -> None:
    async with Gateway.connect(profile_of(fake), user) as gateway:
        foreign = gateway.network("ch").contract("basic").proposal("make").to_bytes()
    async with Gateway.connect(profile_of(fake), keyless) as gateway:
        with pytest.raises(MalformedStep, match="another identity"):
            gateway.load_proposal(foreign)


SIGNER = """
import sys
from sovchain.protocol.crypto import load_private_key, sign
message = sys.stdin.buffer.read()
sys.stdout.buffer.write(sign(load_private_key(open(sys.argv[1], "rb").read()), message))
"""


async def test_another_process_signs(fake: FakeGateway, keyless: Identity, signer: Signer, tmp_path: Path) -> None:
    """The process that has the key never sees the network; the one on the network never sees the key."""
    key = tmp_path / "key.pem"
    key.write_bytes(key_pem(signer))

    def sign(message: bytes) -> bytes:
        return subprocess.run(
            [sys.executable, "-c", SIGNER, str(key)], input=message, capture_output=True, check=True
        ).stdout

    async with Gateway.connect(profile_of(fake), keyless) as gateway:
        proposal = gateway.network("ch").contract("basic").proposal("read", "a")
        assert await proposal.with_signature(sign(proposal.message)).evaluate() == b"read a"
