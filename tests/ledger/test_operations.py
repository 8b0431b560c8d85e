"""The nodes' operations endpoint and the ordering nodes' administration over real HTTPS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from ledger_world import World
from prometheus_client.parser import text_string_to_metric_families
from service_world import CHANNEL, ORDERER, Services, failure, host_of, services

from sovchain.ledger.operations.https import MAX_BODY_BYTES
from sovchain.ledger.operations.logspec import LEVELS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE = host_of("Org1MSP")
CHANNELS = "/participation/v1/channels"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Two organisations with a chaincode and a few transactions, one of which is invalid."""
    async with services(tmp_path_factory.mktemp("net"), World(("Org1MSP", "Org2MSP"))) as running:
        await running.deploy("cc", "AND('Org1MSP.peer', 'Org2MSP.peer')")
        await running.transact("put", "a", "1")
        await running.transact("put", "b", "1", organizations=["Org1MSP"])
        yield running


async def test_health_and_version_are_for_everybody_metrics_and_levels_for_the_organisation(net: Services) -> None:
    async with net.http(ONE, certified=False) as anybody:
        health = await anybody.get("/healthz")
        assert (health.status_code, health.json()["status"], set(health.json())) == (200, "OK", {"status", "time"})
        assert set((await anybody.get("/version")).json()) == {"Version"}
        assert (await anybody.get("/metrics")).status_code == 401
        assert (await anybody.get("/logspec")).status_code == 401
        assert (await anybody.get("/elsewhere")).status_code == 404
        assert (await anybody.post("/healthz")).status_code == 405
        refused = await anybody.post("/version")
        assert (refused.status_code, refused.json()) == (400, {"Error": "invalid request method: POST"})
    async with net.http(ONE) as member:
        assert (await member.get("/metrics")).headers["content-type"].startswith("text/plain; version=0.0.4")


async def metrics(net: Services, host: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Samples by name and labels, as Prometheus' own parser reads them."""
    async with net.http(host) as member:
        text = (await member.get("/metrics")).text
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removesuffix("_total")  # which the parser adds to every counter
            found.setdefault(name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


async def test_metrics_of_a_peer_have_fabrics_names_and_count_what_it_does(net: Services) -> None:
    before = await metrics(net, ONE)
    height = net.ledger.channels[CHANNEL].height
    channel = labels(channel=CHANNEL)
    assert before["ledger_blockchain_height"][channel] == before["gossip_state_height"][channel] == height
    assert before["gossip_membership_total_peers_known"][channel] == 1
    assert before["ledger_block_processing_time_count"][channel] == height - 1, "all but the first block"
    counted = before["ledger_transaction_count"]
    endorser = {"channel": CHANNEL, "transaction_type": "ENDORSER_TRANSACTION", "chaincode": "cc:1.0"}
    assert counted[labels(**endorser, validation_code="VALID")] == 1
    assert counted[labels(**endorser, validation_code="ENDORSEMENT_POLICY_FAILURE")] == 1
    await net.transact("put", "c", "1")
    await net.evaluate(net.proposal("get", "c")[1])
    _, signed = net.proposal("get", "c", nonce=b"n" * 24)
    signed.signature = b"none"
    await failure(net.process(signed))
    stream = net.deliver()
    await stream.send(net.seek(ab_pb2.SeekInfo(
        start=ab_pb2.SeekPosition(oldest=ab_pb2.SeekOldest()), stop=ab_pb2.SeekPosition(oldest=ab_pb2.SeekOldest())
    )))  # fmt: skip
    await stream.range()
    after = await metrics(net, ONE)

    def grown(name: str, **values: str) -> float:
        return after[name].get(labels(**values), 0) - before.get(name, {}).get(labels(**values), 0)

    assert grown("endorser_proposals_received") == 3
    assert grown("endorser_successful_proposals") == 2
    assert grown("endorser_proposal_validation_failures") == 1
    assert grown("endorser_proposal_duration_count", channel=CHANNEL, chaincode="cc", success="true") == 2
    assert grown("ledger_blockchain_height", channel=CHANNEL) == 1
    assert grown("deliver_blocks_sent", channel=CHANNEL, filtered="false", data_type="block") == 1
    assert (
        grown("deliver_requests_completed", channel=CHANNEL, filtered="false", data_type="block", success="true") == 1
    )
    call = {"service": "gateway_Gateway", "method": "Endorse"}
    assert grown("grpc_server_unary_requests_received", **call) == 1
    assert grown("grpc_server_unary_requests_completed", **call, code="OK") == 1
    refused = {"service": "protos_Endorser", "method": "ProcessProposal", "code": "Unknown"}
    assert grown("grpc_server_unary_requests_completed", **refused) == 1


async def test_metrics_of_an_ordering_node(net: Services) -> None:
    envelope = common_pb2.Envelope(payload=b"x")
    await net.broadcast(envelope)
    found = await metrics(net, ORDERER)
    channel = labels(channel=CHANNEL)
    assert found["consensus_etcdraft_is_leader"][channel] == 1
    assert found["consensus_etcdraft_cluster_size"][channel] == found["consensus_etcdraft_active_nodes"][channel] == 1
    assert found["participation_status"][channel] == found["participation_consensus_relation"][channel] == 1
    assert found["ledger_blockchain_height"][channel] == net.ledger.channels[CHANNEL].height
    assert any(("status", "BAD_REQUEST") in labels for labels in found["broadcast_processed_count"])
    assert "endorser_proposals_received" not in found


async def test_levels_of_loggers_are_read_and_changed(net: Services) -> None:
    kept = LEVELS.spec
    try:
        async with net.http(ONE) as member:
            assert (await member.put("/logspec", json={"spec": "sovchain.ledger=debug:warning"})).status_code == 204
            assert (await member.get("/logspec")).json() == {"spec": "sovchain.ledger=debug:warn"}
            bad = await member.put("/logspec", json={"spec": "loud"})
            assert (bad.status_code, bad.json()) == (
                400, {"error": "invalid logging specification 'loud': bad segment 'loud'"},
            )  # fmt: skip
            assert (await member.put("/logspec", content=b"{")).status_code == 400
        assert LEVELS.level("sovchain.ledger.node") < LEVELS.level("sovchain.network")
    finally:
        LEVELS.activate(kept)


async def test_channels_of_an_ordering_node_are_listed_left_and_joined(net: Services) -> None:
    """Mirrors orderer/common/channelparticipation/restapi.go: statuses, texts and headers."""
    channel = net.ledger.channels[CHANNEL]
    genesis = channel.block(0)
    assert genesis is not None
    async with net.http(ORDERER, admin=True) as admin:
        listed = await admin.get(CHANNELS)
        url = f"{CHANNELS}/{CHANNEL}"
        assert listed.json() == {"systemChannel": None, "channels": [{"name": CHANNEL, "url": url}]}
        assert listed.headers["cache-control"] == "no-store"
        shown = (await admin.get(url)).json()
        assert shown == {
            "name": CHANNEL, "url": url, "consensusRelation": "consenter", "status": "active", "height": channel.height,
        }  # fmt: skip
        again = await admin.post(CHANNELS, files={"config-block": ("b", genesis)})
        assert (again.status_code, again.json()["error"]) == (405, "cannot join: channel already exists")
        assert again.headers["allow"] == "GET, DELETE"
        assert (await admin.delete(url)).status_code == 204
        assert (await admin.get(CHANNELS)).json()["channels"] is None
        gone = await admin.get(url)
        assert (gone.status_code, gone.json()) == (404, {"error": "channel does not exist"})
        assert (await admin.delete(url)).status_code == 404
        _, signed = net.proposal("put", "nobody", "orders")
        refused = await failure(net.submit(await net.endorse(signed)))
        assert "no Raft leader" in refused.details[0].message
        joined = await admin.post(CHANNELS, files={"config-block": ("b", genesis)})
        assert (joined.status_code, joined.headers["location"]) == (201, url)
        assert (await net.transact("put", "again", "1"))[1] == 0
        newest = await admin.get(f"{url}/blocks/newest")
        assert common_pb2.Block.FromString(newest.content).header.number == channel.height - 1
        assert (await admin.get(f"{url}/blocks/9999")).status_code == 404
        assert (await admin.get(f"{url}/blocks/last")).status_code == 400


async def test_what_is_no_block_and_no_form_is_refused(net: Services) -> None:
    async with net.http(ORDERER, admin=True) as admin:
        for files, text in (
            ({"config-block": ("b", b"\xff")}, "cannot unmarshal file part config-block into a block"),
            ({"config-block": ("b", b"")}, "invalid join block: block is not a config block"),
            ({"other": ("b", b"")}, "form does not contains part key: config-block"),
            ({"config-block": ("b", b""), "two": ("c", b"")}, "form contains too many parts"),
        ):
            answer = await admin.post(CHANNELS, files=files)
            assert answer.status_code == 400
            assert text in answer.json()["error"]
        plain = await admin.post(CHANNELS, content=b"x", headers={"content-type": "text/plain"})
        assert (plain.status_code, plain.json()) == (400, {"error": "unsupported Content-Type: [text/plain]"})
        broken = await admin.post(CHANNELS, content=b"x", headers={"content-type": "multipart/form-data; boundary=y"})
        assert broken.status_code == 400
        assert (await admin.get(CHANNELS, headers={"accept": "text/html"})).status_code == 406
        assert (await admin.patch(CHANNELS)).headers["allow"] == "GET, POST, PUT"
        assert (await admin.get(f"{CHANNELS}/UPPER")).status_code == 400


async def test_without_a_certificate_of_the_organisation_nobody_administers(net: Services) -> None:
    async with net.http(ORDERER, admin=True, certified=False) as stranger:
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await stranger.get(CHANNELS)


async def test_a_channel_that_one_node_makes_has_no_peers_and_goes_with_it(net: Services) -> None:
    other = net.world.genesis("other")
    async with net.http(ORDERER, admin=True) as admin:
        made = await admin.post(CHANNELS, files={"config-block": ("b", other)})
        assert (made.status_code, made.json()["height"]) == (201, 1)
        assert net.ledger.channels["other"].peer_msp_ids == ()
        joined = await net.system("cscc", "JoinChain", other, channel_id="", creator=net.admin())
        assert joined.status == 200, joined.message
        assert net.ledger.channels["other"].peer_msp_ids == ("Org1MSP",)
        assert (await admin.delete(f"{CHANNELS}/other")).status_code == 204
        assert "other" in net.ledger.channels, "a peer still has it"
        third = net.world.genesis("third")
        assert (await admin.post(CHANNELS, files={"config-block": ("b", third)})).status_code == 201
        assert (await admin.delete(f"{CHANNELS}/third")).status_code == 204
        assert "third" not in net.ledger.channels
        assert not (net.directory / "ledger" / "third").exists()


async def test_requests_are_bounded(net: Services) -> None:
    async with net.http(ONE) as member:
        assert (await member.put("/logspec", content=b"x" * (MAX_BODY_BYTES + 1))).status_code == 413
        assert (await member.get("/healthz", headers={"x": "y" * 200_000})).status_code == 431
    host, _, port = net.ledger.operations_address_of(ONE).rpartition(":")
    context = ssl.create_default_context(cadata=net.tls.root_pem.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])  # as browsers and curl offer
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="localhost")
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.write(b"\x00\xff\r\n\r\n")
    assert (await reader.read(64)).startswith(b"HTTP/1.1 400")
    writer.close()
