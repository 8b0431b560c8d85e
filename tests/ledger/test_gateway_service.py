"""The Gateway service over real gRPC: codes, texts and details are those of a peer's gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import pytest_asyncio
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2, transaction_pb2
from ledger_world import World
from service_world import CHANNEL, Services, failure, host_of, services, signed_proposal

from sovchain.protocol.crypto import sign

pytestmark = pytest.mark.asyncio(loop_scope="module")

Code = grpc.StatusCode
CODES = transaction_pb2.TxValidationCode
PLAN = "no combination of peers can be derived which satisfy the endorsement policy: "
ENDORSE_FAILED = "failed to endorse transaction, see attached details for more info"
NOT_ENOUGH = "failed to collect enough transaction endorsements, see attached details for more info"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Three organisations; `cc` wants Org1 and Org2, `far` runs on Org3 alone, `nobody` on no peer."""
    async with services(tmp_path_factory.mktemp("net"), World()) as running:
        await running.deploy("cc", "AND('Org1MSP.peer', 'Org2MSP.peer')")
        await running.deploy("far", "OR('Org3MSP.peer')", installed_on=["Org3MSP"])
        await running.deploy("short", "AND('Org1MSP.peer', 'Org2MSP.peer')", installed_on=["Org1MSP"])
        yield running


async def test_a_transaction_is_evaluated_endorsed_and_committed(net: Services) -> None:
    txid, code, number = await net.transact("put", "a", "2")
    assert (code, await net.status(txid)) == (CODES.VALID, (CODES.VALID, number))
    _, signed = net.proposal("get", "a")
    assert (await net.evaluate(signed)).payload == b"2"


async def test_an_unknown_channel(net: Services) -> None:
    _, signed = net.proposal("get", "a", channel_id="nowhere")
    refused = await failure(net.evaluate(signed))
    assert refused.code is Code.UNAVAILABLE
    assert refused.text.startswith("failed to get config for channel [nowhere]: ")
    refused = await failure(net.endorse(signed))
    assert (refused.code, refused.text) == (
        Code.FAILED_PRECONDITION,
        f"{PLAN}No metadata was found for chaincode cc in channel nowhere",
    )
    refused = await failure(net.endorse(signed, organizations=["Org2MSP", "Org1MSP"]))
    assert (refused.code, refused.text) == (
        Code.UNAVAILABLE,
        "failed to find any endorsing peers for org(s): Org2MSP, Org1MSP",
    )
    _, signed = net.proposal("get", "a", channel_id="nowhere", transient={"a": b"b"})
    refused = await failure(net.endorse(signed))
    assert refused.code is Code.FAILED_PRECONDITION
    assert refused.text.startswith("no endorsers found in the gateway's organization; retry specifying endorsing org")
    refused = await failure(net.status("t", channel_id="nowhere"))
    assert refused.code is Code.PERMISSION_DENIED
    envelope = common_pb2.Envelope(payload=b"x")
    refused = await failure(net.submit(envelope, channel_id="nowhere"))
    assert refused.code is Code.FAILED_PRECONDITION


async def test_an_unknown_chaincode(net: Services) -> None:
    _, signed = net.proposal("get", "a", chaincode="none")
    refused = await failure(net.evaluate(signed))
    assert (refused.code, refused.text) == (
        Code.FAILED_PRECONDITION,
        f"no peers available to evaluate chaincode none in channel {CHANNEL}",
    )
    refused = await failure(net.endorse(signed))
    assert (refused.code, refused.text) == (
        Code.FAILED_PRECONDITION,
        f"{PLAN}No metadata was found for chaincode none in channel {CHANNEL}",
    )
    refused = await failure(net.endorse(signed, organizations=["Org1MSP"]))
    assert (refused.code, refused.text) == (
        Code.UNAVAILABLE,
        "failed to find any endorsing peers for org(s): Org1MSP",
    )


async def test_too_few_peers_have_the_chaincode(net: Services) -> None:
    _, signed = net.proposal("put", "a", "1", chaincode="short")
    refused = await failure(net.endorse(signed))
    assert refused.code is Code.FAILED_PRECONDITION
    assert refused.text == f"{PLAN}required chaincodes are not installed on sufficient peers"


async def test_a_policy_that_no_peer_of_the_channel_satisfies(net: Services) -> None:
    await net.deploy("hopeless", "AND('Org1MSP.peer', 'Org1MSP.admin')")
    _, signed = net.proposal("put", "a", "1", chaincode="hopeless")
    refused = await failure(net.endorse(signed))
    assert refused.code is Code.FAILED_PRECONDITION
    assert refused.text == f"{PLAN}no peer combination can satisfy the endorsement policy"


async def test_a_system_chaincode_can_be_evaluated_and_not_endorsed(net: Services) -> None:
    _, signed = net.proposal("GetChainInfo", CHANNEL, chaincode="qscc")
    assert (await net.evaluate(signed)).status == 200
    refused = await failure(net.endorse(signed))
    assert (refused.code, refused.text) == (
        Code.FAILED_PRECONDITION,
        f"{PLAN}No metadata was found for chaincode qscc in channel {CHANNEL}",
    )


def forged(net: Services) -> proposal_pb2.SignedProposal:
    _, signed = net.proposal("get", "a")
    signed.signature = sign(net.admin().key, signed.proposal_bytes)
    return signed


def foreign(net: Services) -> proposal_pb2.SignedProposal:
    stranger = World(("StrangerMSP",)).organisations["StrangerMSP"].client
    return net.proposal("get", "a", creator=stranger)[1]


def impostor(net: Services) -> proposal_pb2.SignedProposal:
    """Another authority's certificate under the name of a member."""
    stranger = World(("Org1MSP",)).organisations["Org1MSP"].client
    return net.proposal("get", "a", creator=stranger)[1]


def renamed(net: Services) -> proposal_pb2.SignedProposal:
    _, signed = net.proposal("get", "a")
    proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
    header = common_pb2.Header.FromString(proposal.header)
    channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
    channel_header.tx_id = "f" * 64
    header.channel_header = channel_header.SerializeToString()
    proposal.header = header.SerializeToString()
    return signed_proposal(proposal, net.client())


DENIED = f"error validating proposal: access denied: channel [{CHANNEL}] creator org "
FAULTS = [
    (forged, f"{DENIED}[Org1MSP]"),
    (foreign, f"{DENIED}unknown, creator is malformed"),
    (impostor, f"{DENIED}unknown, creator is malformed"),
    (renamed, "error validating proposal: incorrectly computed txid '" + "f" * 64 + "' -- expected '"),
]


@pytest.mark.parametrize(("make", "text"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
async def test_a_proposal_at_fault_is_refused_with_the_endorsers_text(net: Services, make: object, text: str) -> None:
    signed = make(net)  # type: ignore[operator]
    refused = await failure(net.evaluate(signed))
    assert refused.code is Code.FAILED_PRECONDITION
    assert refused.text.startswith(f"evaluate call to endorser returned error: {text}")
    assert [detail.msp_id for detail in refused.details] == ["Org1MSP"]
    refused = await failure(net.endorse(signed))
    assert (refused.code, refused.text) == (Code.ABORTED, ENDORSE_FAILED)
    assert refused.details[0].message.startswith(text)
    refused = await failure(net.endorse(signed, organizations=["Org1MSP"]))
    assert (refused.code, refused.text) == (Code.ABORTED, NOT_ENOUGH)


async def test_expired_creators_and_wrong_clocks_look_like_a_peer_that_does_not_answer(net: Services) -> None:
    old = net.world.organisations["Org1MSP"].authority.enrol(
        "old", "client", expires=datetime.now(UTC) - timedelta(hours=1)
    )
    late = datetime.now(UTC) - timedelta(minutes=16)
    early = datetime.now(UTC) + timedelta(minutes=16)
    for signed, text in (
        (net.proposal("get", "a", creator=old)[1], "proposal client identity expired"),
        (net.proposal("get", "a", timestamp=late)[1], "request unauthorized due to incorrect timestamp "),
        (net.proposal("get", "a", timestamp=early)[1], "request unauthorized due to incorrect timestamp "),
    ):
        refused = await failure(net.evaluate(signed))
        assert refused.code is Code.UNAVAILABLE
        assert refused.details[0].message.startswith(text)
        refused = await failure(net.endorse(signed))
        assert (refused.code, refused.text) == (Code.ABORTED, ENDORSE_FAILED)
        assert refused.details[0].message.startswith(text)


async def test_a_transaction_id_is_taken_once(net: Services) -> None:
    txid, signed = net.proposal("put", "once", "1")
    await net.submit(await net.endorse(signed))
    assert (await net.status(txid))[0] == CODES.VALID
    refused = await failure(net.endorse(signed))
    assert refused.code is Code.ABORTED
    assert refused.details[0].message.startswith(f"duplicate transaction found [{txid}]. Creator [")


async def test_requests_that_are_none(net: Services) -> None:
    for method, data, text in (
        ("Evaluate", b"", "failed to unpack transaction proposal: a signed proposal is required"),
        ("Endorse", b"", "the proposed transaction must contain a signed proposal"),
        ("Submit", b"", "a prepared transaction is required"),
        ("CommitStatus", b"", "a commit status request is required"),
    ):
        refused = await failure(net.gateway(method, data, gateway_pb2.EvaluateResponse))
        assert (refused.code, refused.text) == (Code.INVALID_ARGUMENT, text), method
    signed = proposal_pb2.SignedProposal(proposal_bytes=b"\xff\xff", signature=b"s")
    for call in (net.evaluate(signed), net.endorse(signed)):
        assert (await failure(call)).code is Code.INVALID_ARGUMENT
    _, no_channel = net.proposal("get", "a", channel_id="")
    refused = await failure(net.evaluate(no_channel))
    assert refused.text == "failed to unpack transaction proposal: no channel id provided"
    _, no_name = net.proposal("get", "a", chaincode="")
    refused = await failure(net.evaluate(no_name))
    assert refused.code is Code.INVALID_ARGUMENT
    assert refused.text.endswith(f"no chaincode name is provided, channel id [{CHANNEL}]")
    unsigned = common_pb2.Envelope(payload=b"x")
    request = gateway_pb2.SubmitRequest(channel_id=CHANNEL, prepared_transaction=unsigned)
    refused = await failure(net.gateway("Submit", request, gateway_pb2.SubmitResponse))
    assert refused.text == "prepared transaction must be signed"


@pytest.mark.parametrize("status", [0, 199, 400, 404, 499, 500, 503])
async def test_a_chaincodes_error_keeps_its_status_and_text(net: Services, status: int) -> None:
    _, signed = net.proposal("fail", str(status), "not today")
    refused = await failure(net.evaluate(signed))
    expected = f"chaincode response {status}, not today"
    assert (refused.code, refused.text) == (Code.UNKNOWN, f"evaluate call to endorser returned error: {expected}")
    assert [detail.message for detail in refused.details] == [expected]
    refused = await failure(net.endorse(signed))
    assert (refused.code, refused.text) == (Code.ABORTED, ENDORSE_FAILED)
    assert [(detail.msp_id, detail.message) for detail in refused.details] == [("Org1MSP", expected)]
    assert refused.details[0].address.startswith(host_of("Org1MSP"))


@pytest.mark.parametrize("text", ["x" * 60_000, "越" * 20_000], ids=["ascii", "chinese"])
async def test_a_long_error_text_still_reaches_the_client(net: Services, text: str) -> None:
    """gRPC limits the size of trailers; what does not fit is cut, and code and beginning arrive."""
    _, signed = net.proposal("fail", "500", text)
    refused = await failure(net.evaluate(signed))
    assert refused.code is Code.UNKNOWN
    assert refused.text.startswith(f"evaluate call to endorser returned error: chaincode response 500, {text[:50]}")
    refused = await failure(net.endorse(signed))
    assert refused.code is Code.ABORTED
    assert refused.details[0].message.startswith(f"chaincode response 500, {text[:50]}")


async def test_status_200_to_399_is_endorsed(net: Services) -> None:
    txid, signed = net.proposal("fail", "399", "odd")
    assert (await net.evaluate(signed)).status == 399
    await net.submit(await net.endorse(signed))
    assert (await net.status(txid))[0] == CODES.VALID


async def test_organisations_that_the_client_names_need_not_satisfy_the_policy(net: Services) -> None:
    _, code, _ = await net.transact("put", "few", "1", organizations=["Org1MSP"])
    assert code == CODES.ENDORSEMENT_POLICY_FAILURE
    _, signed = net.proposal("get", "few")
    assert (await net.evaluate(signed)).payload == b""
    _, code, _ = await net.transact("put", "few", "1", organizations=["Org2MSP", "Org1MSP", "Org2MSP"])
    assert code == CODES.VALID
    _, signed = net.proposal("put", "few", "1")
    refused = await failure(net.endorse(signed, organizations=["Org1MSP", "NoneMSP", "Org9MSP"]))
    assert (refused.code, refused.text) == (
        Code.UNAVAILABLE,
        "failed to find any endorsing peers for org(s): NoneMSP, Org9MSP",
    )


async def test_a_chaincode_that_the_gateways_own_organisation_does_not_run(net: Services) -> None:
    _, signed = net.proposal("put", "a", "1", chaincode="far")
    assert (await net.evaluate(signed)).payload == b"1"
    _, code, _ = await net.transact("put", "a", "1", chaincode="far")
    assert code == CODES.VALID


async def test_transient_data_goes_to_no_other_organisation_by_itself(net: Services) -> None:
    seen: list[dict[str, bytes]] = []
    functions = net.chaincodes["far"].functions
    put = functions["put"]

    async def watched(stub):  # type: ignore[no-untyped-def]  # as the function that it wraps
        seen.append(stub.transient)
        return await put(stub)

    functions["put"] = watched
    _, signed = net.proposal("put", "a", "1", chaincode="far", transient={"secret": b"s"})
    refused = await failure(net.evaluate(signed))
    assert refused.code is Code.FAILED_PRECONDITION
    assert refused.text == (
        "no endorsers found in the gateway's organization; retry specifying target organization(s) to protect "
        f"transient data: no peers available to evaluate chaincode far in channel {CHANNEL}"
    )
    refused = await failure(net.endorse(signed))
    assert (refused.code, refused.text) == (
        Code.FAILED_PRECONDITION,
        "no endorsers found in the gateway's organization; retry specifying endorsing organization(s) to protect "
        "transient data",
    )
    assert seen == []
    assert (await net.evaluate(signed, organizations=["Org3MSP"])).payload == b"1"
    await net.endorse(signed, organizations=["Org3MSP"])
    assert seen
    assert all(transient == {"secret": b"s"} for transient in seen)


async def test_commit_status_of_an_unknown_id_waits_until_the_deadline_or_the_commit(net: Services) -> None:
    refused = await failure(net.status("0" * 64, timeout_s=0.3))
    assert refused.code is Code.DEADLINE_EXCEEDED
    txid, signed = net.proposal("put", "later", "1")
    envelope = await net.endorse(signed)
    waiting = asyncio.ensure_future(net.status(txid))
    await net.submit(envelope)
    assert (await waiting)[0] == CODES.VALID
    assert net.ledger.channels[CHANNEL]._waiters == {}


async def test_commit_status_needs_a_reader_of_the_channel_and_each_field(net: Services) -> None:
    stranger = World(("StrangerMSP",)).organisations["StrangerMSP"].client
    assert (await failure(net.status("t", creator=stranger))).code is Code.PERMISSION_DENIED
    client = net.client()
    for fields, text in (
        ({"channel_id": CHANNEL, "transaction_id": "t"}, "no identity provided"),
        ({"identity": client.identity, "transaction_id": "t"}, "no channel ID provided"),
        ({"identity": client.identity, "channel_id": CHANNEL}, "transaction ID should not be empty"),
    ):
        request = gateway_pb2.CommitStatusRequest(**fields).SerializeToString()  # type: ignore[arg-type]
        signed = gateway_pb2.SignedCommitStatusRequest(request=request, signature=sign(client.key, request))
        refused = await failure(net.gateway("CommitStatus", signed, gateway_pb2.CommitStatusResponse))
        assert (refused.code, refused.text) == (Code.INVALID_ARGUMENT, text)
    request = gateway_pb2.CommitStatusRequest(
        transaction_id="t", channel_id=CHANNEL, identity=client.identity
    ).SerializeToString()
    signed = gateway_pb2.SignedCommitStatusRequest(request=request, signature=b"\x30\x00")
    refused = await failure(net.gateway("CommitStatus", signed, gateway_pb2.CommitStatusResponse))
    assert refused.code is Code.PERMISSION_DENIED


async def test_what_the_orderer_refuses_is_aborted_with_its_status(net: Services) -> None:
    _, signed = net.proposal("put", "a", "1")
    envelope = await net.endorse(signed)
    stranger = World(("StrangerMSP",)).organisations["StrangerMSP"].client
    refused = await failure(net.submit(envelope, stranger))
    assert refused.code is Code.ABORTED
    assert refused.text.startswith("received unsuccessful response from orderer: status=FORBIDDEN, info=")
    envelope = common_pb2.Envelope(payload=b"\xff")
    refused = await failure(net.submit(envelope))
    assert refused.text.startswith("received unsuccessful response from orderer: status=BAD_REQUEST, info=")


async def test_a_transaction_that_the_client_changed_after_endorsement_is_refused_at_commit(net: Services) -> None:
    txid, signed = net.proposal("put", "a", "honest")
    envelope = await net.endorse(signed)
    envelope.payload = envelope.payload.replace(b"honest", b"thieve")
    await net.submit(envelope)
    assert (await net.status(txid))[0] != CODES.VALID
    _, signed = net.proposal("get", "a")
    assert (await net.evaluate(signed)).payload != b"thieve"
