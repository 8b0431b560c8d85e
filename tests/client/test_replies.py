"""A gateway is not trusted: a reply that does not answer the question is an error, and nothing is signed for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import transaction_pb2
from fakegateway import FakeGateway, prepared

from sovchain.chaincode import Context, query, transaction
from sovchain.chaincode import Contract as ChaincodeContract
from sovchain.client import Contract, SigningIdentity, UnexpectedReply
from sovchain.protocol.proposals import Invocation, build_proposal

Change = Callable[[common_pb2.Payload], None]


async def refused(contract: Contract, fake: FakeGateway) -> UnexpectedReply:
    """The error of a submit whose endorsement cannot be used; checks that nothing was signed and sent."""
    with pytest.raises(UnexpectedReply) as caught:
        await contract.submit("make", "a")
    assert not fake.requests["Submit"]
    assert not fake.requests["CommitStatus"]
    assert caught.value.call == "endorse"
    assert caught.value.endpoint == fake.address
    assert (
        caught.value.transaction_id == gateway_pb2.EndorseRequest.FromString(fake.requests["Endorse"][0]).transaction_id
    )
    return caught.value


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", b"\x0a\x00", b"\x0a\x05hello", secrets.token_bytes(300)])
async def test_an_endorsement_of_arbitrary_bytes_is_refused(contract: Contract, fake: FakeGateway, data: bytes) -> None:
    fake.script("Endorse", data)
    await refused(contract, fake)


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", b"\x0a\x05hello"])
async def test_an_evaluation_of_arbitrary_bytes_is_refused(contract: Contract, fake: FakeGateway, data: bytes) -> None:
    """An empty message has no result, which is not the same as an empty result."""
    fake.script("Evaluate", data)
    with pytest.raises(UnexpectedReply, match="evaluate"):
        await contract.evaluate("read")


@pytest.mark.parametrize(
    ("invocation", "differs"),
    [
        (Invocation("ch", "basic", (b"make", b"a")), "transaction id"),
        (Invocation("other", "basic", (b"make", b"a")), "channel"),
        (Invocation("ch", "other", (b"make", b"a")), "chaincode"),
        (Invocation("ch", "basic", (b"make", b"b")), "input"),
    ],
    ids=["another transaction", "another channel", "another chaincode", "other arguments"],
)
async def test_another_prepared_transaction_is_not_signed(
    contract: Contract, fake: FakeGateway, user: SigningIdentity, invocation: Invocation, differs: str
) -> None:
    """Each is well formed and endorsed; it only is not what was asked for."""
    _, proposal = build_proposal(
        invocation, creator=user.creator, nonce=secrets.token_bytes(24), timestamp=datetime.now(UTC)
    )

    async def answer(request: bytes, context: object) -> bytes:
        return prepared(request, fake.peer, proposal=proposal.SerializeToString())

    fake.script("Endorse", answer)
    assert differs in str(await refused(contract, fake))


def _without_endorsements(payload: common_pb2.Payload) -> None:
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    del action.action.endorsements[:]
    transaction.actions[0].payload = action.SerializeToString()
    payload.data = transaction.SerializeToString()


def _without_actions(payload: common_pb2.Payload) -> None:
    payload.data = b""


def _configuration(payload: common_pb2.Payload) -> None:
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    header.type = common_pb2.CONFIG
    payload.header.channel_header = header.SerializeToString()


def _epoch(payload: common_pb2.Payload) -> None:
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    header.timestamp.seconds += 1
    payload.header.channel_header = header.SerializeToString()


@pytest.mark.parametrize("change", [_without_endorsements, _without_actions, _configuration, _epoch])
async def test_a_changed_transaction_is_not_signed(contract: Contract, fake: FakeGateway, change: Change) -> None:
    async def answer(request: bytes, context: object) -> bytes:
        honest = gateway_pb2.EndorseResponse.FromString(prepared(request, fake.peer))
        payload = common_pb2.Payload.FromString(honest.prepared_transaction.payload)
        change(payload)
        honest.prepared_transaction.payload = payload.SerializeToString()
        return honest.SerializeToString()

    fake.script("Endorse", answer)
    await refused(contract, fake)


async def test_the_same_proposal_endorsed_honestly_is_signed_and_sent(contract: Contract, fake: FakeGateway) -> None:
    """The tests above are void unless the unchanged transaction passes."""
    await contract.submit("make", "a")
    sent = gateway_pb2.SubmitRequest.FromString(fake.requests["Submit"][0])
    assert sent.prepared_transaction.signature


class Counter(ChaincodeContract):
    """Only the declared types are used."""

    @query
    async def count(self, ctx: Context) -> int:
        """Count."""
        return 1

    @transaction
    async def add(self, ctx: Context) -> int:
        """Add."""
        return 1


async def test_a_result_that_is_not_of_the_declared_type_is_refused(contract: Contract, fake: FakeGateway) -> None:
    """The fake echoes the function's name and endorses `done`; neither is a number, and neither is repeated."""
    with pytest.raises(UnexpectedReply, match="declared type") as caught:
        await contract.evaluate(Counter.count)
    assert "Counter:count" not in str(caught.value)
    with pytest.raises(UnexpectedReply, match="declared type"):
        await contract.submit(Counter.add)
    assert not fake.requests["Submit"]
