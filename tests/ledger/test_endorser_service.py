"""Endorser, Broadcast and the system chaincodes over real gRPC: statuses and texts are Fabric's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from fabric_protos.common import common_pb2, configtx_pb2, ledger_pb2
from fabric_protos.peer import proposal_pb2, query_pb2, transaction_pb2
from ledger_world import NOW, OrganizationDefinition, Signer, World, msp_config, sign_envelope
from service_world import CHANNEL, Services, failure, services, signed_proposal

from sovchain.protocol.blocks import header_hash

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN = grpc.StatusCode.UNKNOWN
Edit = Callable[[proposal_pb2.Proposal, common_pb2.ChannelHeader, common_pb2.SignatureHeader], None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Two organisations with `cc`; Org1's client "gone" is revoked, and OtherMSP's peer is on no channel."""
    world = World(("Org1MSP", "Org2MSP"))
    first = world.organisations["Org1MSP"]
    gone = first.authority.enrol("gone", "client")
    serial = x509.load_pem_x509_certificate(gone.certificate_pem).serial_number
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(first.authority.name)
        .last_update(NOW - timedelta(days=1))
        .next_update(NOW + timedelta(days=30))
        .add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - timedelta(days=1)).build()
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(first.authority.key.public_key()), False)
        .sign(first.authority.key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    config = msp_config("Org1MSP", [first.authority.certificate_pem], crls=[crl])
    first.definition = lambda: OrganizationDefinition("Org1MSP", config)  # type: ignore[method-assign]  # with the CRL
    async with services(tmp_path_factory.mktemp("net"), world) as running:
        running.gone = gone  # type: ignore[attr-defined]  # for one test
        await running.deploy("cc", "OR('Org1MSP.peer', 'Org2MSP.peer')")
        yield running


# Endorser -------------------------------------------------------------------------------------------------------------


def edited(net: Services, edit: Edit, **options: Any) -> proposal_pb2.SignedProposal:
    """A proposal that its creator changed before signing it."""
    _, signed = net.proposal("put", "a", "1", **options)
    proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
    header = common_pb2.Header.FromString(proposal.header)
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    edit(proposal, channel, signature)
    header.channel_header, header.signature_header = channel.SerializeToString(), signature.SerializeToString()
    proposal.header = header.SerializeToString()
    return signed_proposal(proposal, options.get("creator") or net.client())


def setting(part: str, name: str, value: Any) -> Edit:
    def edit(proposal: Any, channel: Any, signature: Any) -> None:
        setattr({"proposal": proposal, "channel": channel, "signature": signature}[part], name, value)

    return edit


DENIED = f"error validating proposal: access denied: channel [{CHANNEL}] creator org "
FAULTS: list[tuple[str, str, Any, str]] = [
    ("channel", "type", common_pb2.MESSAGE, "error validating proposal: invalid header type MESSAGE"),
    ("channel", "epoch", 1, "error validating proposal: epoch is non-zero"),
    ("channel", "tx_id", "x", "error validating proposal: incorrectly computed txid 'x' -- expected '"),
    ("channel", "extension", b"", "ChaincodeHeaderExtension.ChaincodeId is nil"),
    ("signature", "nonce", b"", "error validating proposal: nonce is empty"),
    ("signature", "creator", b"", "error validating proposal: creator is empty"),
    ("proposal", "payload", b"", "chaincode invocation spec did not contain chaincode spec"),
    ("proposal", "payload", b"\xff", ""),
]


@pytest.mark.parametrize(("part", "name", "value", "text"), FAULTS, ids=[f"{f[0]}.{f[1]}" for f in FAULTS])
async def test_faults_of_a_header(net: Services, part: str, name: str, value: Any, text: str) -> None:
    refused = await failure(net.process(edited(net, setting(part, name, value))))
    assert refused.code is UNKNOWN
    assert refused.text.startswith(text)


async def test_an_unknown_channel_is_a_response_and_no_error(net: Services) -> None:
    response = await net.process(net.proposal("put", "a", "1", channel_id="nowhere")[1])
    assert (response.response.status, response.response.message) == (500, "channel 'nowhere' not found")
    assert not response.HasField("endorsement")


async def test_creators_that_are_not_valid_members(net: Services) -> None:
    stranger = World(("StrangerMSP",)).organisations["StrangerMSP"].client
    impostor = World(("Org1MSP",)).organisations["Org1MSP"].client
    authority = net.world.organisations["Org1MSP"].authority
    old = authority.enrol("old", "client", expires=datetime.now(UTC) - timedelta(hours=1))
    gone: Signer = net.gone  # type: ignore[attr-defined]  # set by the fixture
    for creator, text in (
        (stranger, f"{DENIED}unknown, creator is malformed"),
        (impostor, f"{DENIED}unknown, creator is malformed"),
        (gone, f"{DENIED}[Org1MSP]"),
        (old, "proposal client identity expired"),
    ):
        refused = await failure(net.process(net.proposal("put", "a", "1", creator=creator)[1]))
        assert (refused.code, refused.text) == (UNKNOWN, text)
    for changed in (b"", b"\x00", net.proposal("x")[1].signature):
        _, signed = net.proposal("put", "a", "1")
        signed.signature = changed
        refused = await failure(net.process(signed))
        expected = "error validating proposal: empty signature bytes" if not changed else f"{DENIED}[Org1MSP]"
        assert (refused.code, refused.text) == (UNKNOWN, expected)


async def test_who_is_no_client_may_not_propose_where_writers_are_clients(net: Services) -> None:
    """The default Writers policy takes admins, clients and members; an orderer's certificate is none of them."""
    orderer = net.world.orderer
    refused = await failure(net.process(net.proposal("put", "a", "1", creator=orderer)[1]))
    assert refused.code is UNKNOWN
    assert "access denied" in refused.text or "Failed evaluating policy" in refused.text


async def test_bytes_that_are_no_proposal(net: Services) -> None:
    for data in (b"", b"\xff\xff", proposal_pb2.SignedProposal(proposal_bytes=b"\xff").SerializeToString()):
        refused = await failure(net.process(data))
        assert refused.code in (UNKNOWN, grpc.StatusCode.INTERNAL)
        assert "internal error of the ledger" not in refused.text


async def test_a_chaincode_that_is_not_defined(net: Services) -> None:
    response = await net.process(net.proposal("put", "a", "1", chaincode="none")[1])
    assert response.response.status == 500
    assert response.response.message == (
        f"make sure the chaincode none has been successfully defined on channel {CHANNEL} and try again: "
        "chaincode none not found"
    )
    assert not response.payload


async def test_responses_of_chaincode_are_endorsed_below_400_only(net: Services) -> None:
    for status, endorsed, has_payload in (("200", True, True), ("399", True, True), ("400", False, False)):
        response = await net.process(net.proposal("fail", status, "text")[1])
        assert (response.response.status, response.response.message) == (int(status), "text")
        assert (response.HasField("endorsement"), bool(response.payload)) == (endorsed, has_payload)
    response = await net.process(net.proposal("fail", "500", "text")[1])
    assert not response.HasField("endorsement")
    assert response.payload, "a chaincode's own 500 has the payload, by which a gateway tells it from a peer's"


async def test_a_duplicate_id_is_refused(net: Services) -> None:
    txid, signed = net.proposal("put", "dup", "1")
    await net.submit(await net.endorse(signed))
    await net.status(txid)
    refused = await failure(net.process(signed, "Org2MSP"))
    assert refused.text == f"duplicate transaction found [{txid}]. Creator [{net.client().identity.hex()}]"


# Broadcast ------------------------------------------------------------------------------------------------------------


def envelope(
    creator: Signer, kind: int = common_pb2.MESSAGE, channel_id: str = CHANNEL, data: bytes = b"x"
) -> common_pb2.Envelope:
    header = common_pb2.ChannelHeader(type=kind, channel_id=channel_id, tx_id="t")
    signature_header = common_pb2.SignatureHeader(creator=creator.identity, nonce=b"n" * 24)
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(), signature_header=signature_header.SerializeToString()
        ),
        data=data,
    )
    made = common_pb2.Envelope(payload=payload.SerializeToString())
    sign_envelope(made, creator)
    return made


async def test_each_refusal_of_broadcast(net: Services) -> None:
    client, stranger = net.client(), World(("StrangerMSP",)).organisations["StrangerMSP"].client
    authority = net.world.organisations["Org1MSP"].authority
    old = authority.enrol("old", "client", expires=datetime.now(UTC) - timedelta(hours=1))
    unsigned = envelope(client)
    unsigned.signature = b""
    limit = net.ledger.channels[CHANNEL].bundle.batch.absolute_max_bytes
    no_header = common_pb2.Envelope(payload=common_pb2.Payload(data=b"x").SerializeToString(), signature=b"s")
    for sent, status, text in (
        (b"\xff\xff", 400, "could not determine channel ID: "),
        (b"", 400, "could not determine channel ID: header not set"),
        (no_header, 400, "could not determine channel ID: header not set"),
        (envelope(client, channel_id="nowhere"), 400, "channel does not exist"),
        (envelope(client, common_pb2.CONFIG), 400, "message is of type that cannot be processed directly"),
        (envelope(client, common_pb2.ORDERER_TRANSACTION), 400, "message is of type that is no longer supported"),
        (envelope(client, data=bytes(limit)), 400, "message payload is "),
        (envelope(old), 400, "broadcast client identity expired"),
        (envelope(stranger), 403, ""),
        (envelope(net.gone), 403, ""),  # type: ignore[attr-defined]  # set by the fixture
        (unsigned, 403, ""),
        (envelope(client, common_pb2.CONFIG_UPDATE), 400, "error applying config update to existing channel"),
    ):
        answer = await net.broadcast(sent)
        assert (answer.status, answer.info[: len(text)]) == (status, text)
        if status == 403:
            assert answer.info.endswith("permission denied")


async def test_the_broadcast_stream_goes_on_after_success_and_ends_after_a_refusal(net: Services) -> None:
    _, signed = net.proposal("put", "a", "1")
    good = await net.endorse(signed)
    sign_envelope(good, net.client())
    call: Any = net.connect("orderer0.example").stream_stream("/orderer.AtomicBroadcast/Broadcast")()
    for sent in (good, good, envelope(net.client(), channel_id="nowhere")):
        await call.write(sent.SerializeToString())
        assert isinstance(await call.read(), bytes)
    assert await call.read() is grpc.aio.EOF


async def test_an_envelope_of_a_wrong_type_is_ordered_and_marked_invalid(net: Services) -> None:
    """Ordering looks at no transaction: what is none becomes part of a block, with its code."""
    height = net.ledger.channels[CHANNEL].height
    assert (await net.broadcast(envelope(net.client()))).status == 200
    await net.transact("put", "after", "1")
    codes = []
    for number in range(height, net.ledger.channels[CHANNEL].height):
        block = common_pb2.Block.FromString(net.ledger.channels[CHANNEL].block(number) or b"")
        codes += list(block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER])
    assert transaction_pb2.VALID in codes
    assert any(code != transaction_pb2.VALID for code in codes)


# System chaincodes ----------------------------------------------------------------------------------------------------


async def test_qscc_answers_about_blocks_and_transactions(net: Services) -> None:
    txid, _, number = await net.transact("put", "q", "1")
    channel = net.ledger.channels[CHANNEL]
    info = ledger_pb2.BlockchainInfo.FromString((await net.system("qscc", "GetChainInfo", CHANNEL)).payload)
    last = common_pb2.Block.FromString(channel.block(channel.height - 1) or b"")
    assert (info.height, info.currentBlockHash) == (channel.height, header_hash(last.header))
    assert info.previousBlockHash == last.header.previous_hash
    block = channel.block(number)
    digest = header_hash(common_pb2.Block.FromString(block or b"").header)
    for args, expected in (
        (("GetBlockByNumber", CHANNEL, str(number)), block),
        (("GetBlockByNumber", CHANNEL, str(2**64 - 1)), last.SerializeToString()),
        (("GetBlockByHash", CHANNEL, digest), block),
        (("GetBlockByTxID", CHANNEL, txid), block),
    ):
        response = await net.system("qscc", *args, creator=net.client())
        assert (response.status, response.payload) == (200, expected), args
    answer = await net.system("qscc", "GetTransactionByID", CHANNEL, txid)
    processed = transaction_pb2.ProcessedTransaction.FromString(answer.payload)
    assert processed.validationCode == 0
    assert processed.transactionEnvelope.SerializeToString() in (block or b"")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "Incorrect number of arguments, 0"),
        (("GetChainInfo",), "Incorrect number of arguments, 1"),
        (("GetBlockByNumber", CHANNEL), "missing 3rd argument for GetBlockByNumber"),
        (("GetChainInfo", "nowhere"), "Invalid chain ID, nowhere"),
        (("Nothing", CHANNEL, "x"), f"access denied for [Nothing][{CHANNEL}]: ["),
        (
            ("GetBlockByNumber", CHANNEL, "x"),
            'Failed to parse block number with error strconv.ParseUint: parsing "x": invalid syntax',
        ),
        (
            ("GetBlockByNumber", CHANNEL, "-1"),
            'Failed to parse block number with error strconv.ParseUint: parsing "-1": invalid syntax',
        ),
        (
            ("GetBlockByNumber", CHANNEL, "18446744073709551616"),
            'Failed to parse block number with error strconv.ParseUint: parsing "18446744073709551616": '
            "value out of range",
        ),
        (
            ("GetBlockByNumber", CHANNEL, "9" * 5000),
            f'Failed to parse block number with error strconv.ParseUint: parsing "{"9" * 40}": value out of range',
        ),
        (("GetBlockByNumber", CHANNEL, "999"), "Failed to get block number 999, error no such block number [999]"),
        (("GetBlockByHash", CHANNEL, "x"), "Failed to get block hash 78, error no such block hash [78] in index"),
        (("GetTransactionByID", CHANNEL, "x"), "Failed to get transaction with id x, error no such transaction ID [x]"),
        (("GetBlockByTxID", CHANNEL, "x"), "Failed to get block for txID x, error no such transaction ID [x] in index"),
    ],
)
async def test_refusals_of_qscc(net: Services, args: tuple[str, ...], text: str) -> None:
    response = await net.system("qscc", *args)
    assert (response.status, response.message[: len(text)]) == (500, text)


async def test_qscc_serves_members_only(net: Services) -> None:
    stranger = World(("StrangerMSP",)).organisations["StrangerMSP"].client
    refused = await failure(net.system("qscc", "GetChainInfo", CHANNEL, creator=stranger))
    assert "access denied" in refused.text
    # Without a channel in its header the proposal is judged by the peer's own organisation, the query by the channel.
    response = await net.system("qscc", "GetChainInfo", CHANNEL, channel_id="")
    assert response.status == 200


async def test_cscc_answers_about_channels(net: Services) -> None:
    response = await net.system("cscc", "GetChannels", channel_id="", creator=net.client())
    channels = query_pb2.ChannelQueryResponse.FromString(response.payload).channels
    assert [channel.channel_id for channel in channels] == [CHANNEL]
    response = await net.system("cscc", "GetConfigBlock", CHANNEL)
    assert response.payload == net.ledger.channels[CHANNEL].block(0)
    response = await net.system("cscc", "GetChannelConfig", CHANNEL)
    config = configtx_pb2.Config.FromString(response.payload)
    assert set(config.channel_group.groups["Application"].groups) == {"Org1MSP", "Org2MSP"}


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "Incorrect number of arguments, 0"),
        (("JoinChain",), "Incorrect number of arguments, 1"),
        (("Nothing", "x"), "Requested function Nothing not found."),
        (("JoinChain", b"\xff"), "Failed to reconstruct the genesis block, "),
        (("JoinChain", b""), '"JoinChain" request failed '),
        (("GetConfigBlock", "nowhere"), "access denied for [GetConfigBlock][nowhere]: "),
        (("GetChannelConfig", ""), "empty channel name provided"),
        (("GetChannelConfig", "nowhere"), "access denied for [GetChannelConfig][nowhere]: "),
    ],
)
async def test_refusals_of_cscc(net: Services, args: tuple[str, ...], text: str) -> None:
    response = await net.system("cscc", *args, channel_id="")
    assert (response.status, response.message[: len(text)]) == (500, text)


async def test_a_channel_is_joined_by_an_administrator_once(net: Services) -> None:
    block = net.world.genesis("second")
    response = await net.system("cscc", "JoinChain", block, channel_id="", creator=net.client())
    assert response.message.startswith("access denied for [JoinChain][second]: [")
    assert "second" not in net.ledger.channels
    assert (await net.system("cscc", "JoinChain", block, channel_id="")).status == 200
    assert (await net.system("cscc", "JoinChain", block, channel_id="", msp_id="Org2MSP")).status == 200
    other = net.world.genesis("second")
    response = await net.system("cscc", "JoinChain", other, channel_id="")
    assert response.status == 500
    assert "exists with another genesis block" in response.message
