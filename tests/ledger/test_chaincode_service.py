"""Chaincode over real streams with TLS: what is broken in one transaction stays in it, and the others go on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from client_mode_chaincode import chaincode as letters
from fabric_protos.peer import chaincode_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from fabric_protos.peer.lifecycle import lifecycle_pb2
from ledger_world import World
from raw_chaincode import Answer, Kind, RawChaincode, Stub
from service_world import CHANNEL, Failure, Services, failure, host_of, services

from sovchain.chaincode.connect import PeerConnection
from sovchain.chaincode.errors import StreamError
from sovchain.chaincode.tls import ClientTls
from sovchain.protocol.packages import build_package
from sovchain.protocol.packages import package_id as package_id_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE = Path(__file__).parent
LETTERS = build_package("letters", "python", {"src/main.py": b""})
"""A package without an address: its chaincode dials the peer."""
LETTERS_ID = package_id_of(LETTERS, "letters")
TERMINATED = "chaincode stream terminated"
EXPIRED = "timeout expired while executing transaction"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Two organisations with `cc` and `other`; a transaction may take 0.4 s."""
    directory = tmp_path_factory.mktemp("net")
    async with services(directory, World(("Org1MSP", "Org2MSP")), execute_timeout_s=0.4) as running:
        await running.deploy("cc", "OR('Org1MSP.peer', 'Org2MSP.peer')")
        await running.deploy("other", "OR('Org1MSP.peer', 'Org2MSP.peer')")
        package_id = await running.install(LETTERS)
        await running.define("letters", package_id, "OR('Org1MSP.peer', 'Org2MSP.peer')")
        yield running


@pytest.fixture
def cc(net: Services) -> RawChaincode:
    return net.chaincodes["cc"]


async def refused(net: Services, *args: str) -> Failure:
    return await failure(net.endorse(net.proposal(*args)[1]))


async def works(net: Services, chaincode: str = "cc") -> None:
    _, code, _ = await net.transact("put", "works", "1", chaincode=chaincode)
    assert code == 0


async def test_a_chaincode_that_dies_takes_its_own_transactions_along_and_is_dialled_again(
    net: Services, cc: RawChaincode
) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def wait(stub: Stub) -> Answer:
        arrived.set()
        await release.wait()
        await stub.put("w", b"1")
        return Answer()

    async def die(stub: Stub) -> None:
        await stub.put("d", b"1")
        stub.stream.drop()

    cc.functions["die"] = die
    net.chaincodes["other"].functions["wait"] = wait
    elsewhere = asyncio.ensure_future(net.transact("wait", chaincode="other"))
    await arrived.wait()
    found = await refused(net, "die")
    assert found.code is grpc.StatusCode.ABORTED
    assert found.details[0].message.endswith(TERMINATED)
    release.set()
    assert (await elsewhere)[1] == 0
    await works(net)
    _, signed = net.proposal("get", "d")
    assert (await net.evaluate(signed)).payload == b""


GARBAGE = {
    "bytes": b"\xff\xff\xff",
    "a second registration": Kind(type=Kind.REGISTER).SerializeToString(),
    "a frame of the peer": Kind(type=Kind.TRANSACTION, txid="x", channel_id="y").SerializeToString(),
    "an unknown type": Kind(type=99).SerializeToString(),  # type: ignore[arg-type]  # a number on the wire
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_ends_the_stream_and_nothing_else(net: Services, cc: RawChaincode, garbage: bytes) -> None:
    async def babble(stub: Stub) -> None:
        stub.stream.send_bytes(garbage)

    cc.functions["babble"] = babble
    found = await refused(net, "babble")
    assert found.details[0].message.endswith(TERMINATED)
    await works(net, "other")
    await works(net)


async def test_requests_and_results_that_cannot_be_decoded_fail_their_transaction_only(
    net: Services, cc: RawChaincode
) -> None:
    async def ask(stub: Stub) -> Answer:
        await stub.ask(getattr(Kind, stub.args[0].decode()), b"\xff\xff")
        return Answer()

    async def answer(stub: Stub) -> None:
        stub.send(Kind.COMPLETED, b"\xff\xff")

    async def error(stub: Stub) -> None:
        stub.send(Kind.ERROR, b"out of order")

    cc.functions |= {"ask": ask, "answer": answer, "error": error}
    streams = len(cc.streams)
    for name in ("GET_STATE", "PUT_STATE", "GET_STATE_BY_RANGE", "INVOKE_CHAINCODE", "WRITE_BATCH_STATE"):
        found = await refused(net, "ask", name)
        assert f"{name} failed: transaction ID: " in found.details[0].message
        assert found.details[0].message.endswith("unmarshal failed")
    assert "failed to unmarshal response for transaction" in (await refused(net, "answer")).details[0].message
    found = await refused(net, "error")
    assert found.details[0].message == "error in simulation: transaction returned with failure: out of order"
    assert len(cc.streams) == streams, "the stream stayed open"


async def test_a_chaincode_that_never_answers_times_out_while_others_go_on(net: Services, cc: RawChaincode) -> None:
    silent: list[Stub] = []

    async def never(stub: Stub) -> None:
        await stub.put("n", b"1")
        silent.append(stub)

    cc.functions["never"] = never
    waiting = asyncio.ensure_future(refused(net, "never"))
    while not silent:
        await works(net)
    await works(net)
    assert not waiting.done()
    found = await waiting
    assert found.code is grpc.StatusCode.ABORTED
    assert found.details[0].message.endswith(f"error sending: {EXPIRED}")
    silent[0].complete(Answer(b"too late"))  # the ledger drops it
    with pytest.raises(Exception, match="no ledger context"):
        await silent[0].put("n", b"2")
    await works(net)


async def test_a_write_after_the_answer_is_refused_and_not_part_of_the_transaction(
    net: Services, cc: RawChaincode
) -> None:
    answers: list[str] = []

    async def late(stub: Stub) -> None:
        await stub.put("in time", b"1")
        stub.complete(Answer())
        try:
            await stub.put("late", b"1")
        except Exception as error:
            answers.append(str(error))

    cc.functions["late"] = late
    # One simulation on each stream: with a second one of this id on the same stream, the write would come into that.
    txid, code, _ = await net.transact("late", organizations=net.world.msp_ids)
    assert code == 0
    assert (await net.evaluate(net.proposal("get", "late")[1])).payload == b""
    assert (await net.evaluate(net.proposal("get", "in time")[1])).payload == b"1"
    assert f"PUT_STATE failed: transaction ID: {txid}: no ledger context" in answers


async def test_frames_with_another_transaction_id_change_nothing(net: Services, cc: RawChaincode) -> None:
    async def astray(stub: Stub) -> Answer:
        request = shim.PutState(key="astray", value=b"1").SerializeToString()
        stub.send(Kind.PUT_STATE, request, txid="f" * 64)
        stub.send(Kind.COMPLETED, b"", txid="f" * 64)
        stub.send(Kind.KEEPALIVE)
        stub.send(Kind.QUERY_STATE_CLOSE, shim.QueryStateClose(id="none").SerializeToString())
        await stub.responses.get()
        return Answer(b"fine")

    cc.functions["astray"] = astray
    _, code, _ = await net.transact("astray")
    assert code == 0
    assert (await net.evaluate(net.proposal("get", "astray")[1])).payload == b""


async def test_a_chaincode_cannot_touch_the_transaction_of_another(net: Services, cc: RawChaincode) -> None:
    """The same id on the stream of another chaincode is not found there."""
    held: list[Stub] = []
    release = asyncio.Event()

    async def hold(stub: Stub) -> Answer:
        held.append(stub)
        await release.wait()
        return Answer()

    async def intrude(stub: Stub) -> Answer:
        request = shim.PutState(key="stolen", value=b"1").SerializeToString()
        stub.send(Kind.PUT_STATE, request, txid=held[0].txid)
        stub.send(Kind.COMPLETED, b"", txid=held[0].txid)
        await stub.get("x")
        return Answer()

    cc.functions["hold"] = hold
    net.chaincodes["other"].functions["intrude"] = intrude
    waiting = asyncio.ensure_future(net.transact("hold"))
    while not held:
        await works(net, "other")
    assert (await net.evaluate(net.proposal("intrude", chaincode="other")[1])).status == 200
    assert not waiting.done()
    release.set()
    assert (await waiting)[1] == 0
    for name in ("cc", "other"):
        assert (await net.evaluate(net.proposal("get", "stolen", chaincode=name)[1])).payload == b""


async def test_one_transaction_id_runs_once_at_a_time_on_a_stream(net: Services, cc: RawChaincode) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def once(stub: Stub) -> Answer:
        arrived.set()
        await release.wait()
        return Answer()

    cc.functions["once"] = once
    txid, signed = net.proposal("once")
    first = asyncio.ensure_future(net.process(signed))
    await arrived.wait()
    second = await net.process(signed)
    assert second.response.status == 500
    assert second.response.message.endswith(f"txid: {txid}({CHANNEL}) exists")
    release.set()
    assert (await first).response.status == 200


# What a peer dials ----------------------------------------------------------------------------------------------------


async def unreachable(net: Services, name: str, package: bytes) -> str:
    package_id = await net.install(package)
    await net.define(name, package_id, "OR('Org1MSP.peer', 'Org2MSP.peer')")
    response = await net.process(net.proposal("get", "x", chaincode=name)[1])
    assert response.response.status == 500
    return response.response.message


async def test_why_a_chaincode_cannot_be_reached_is_said(net: Services) -> None:
    text = await unreachable(net, "absent", net.package("absent", "localhost:1", dial_timeout="300ms"))
    assert "could not launch chaincode absent:" in text
    assert "connection to localhost:1 failed: " in text
    chaincode, _ = await net.raw_package("renamed")
    chaincode.package_id = "another:0"
    text = await unreachable(net, "renamed", net.package("renamed", chaincode.address))
    assert "the chaincode there registers as another:0" in text
    chaincode, _ = await net.raw_package("strange")
    wrong_root = net.package(
        "strange", chaincode.address, root_cert=net.tls.create().root_pem.decode(), dial_timeout="1s"
    )
    assert f"connection to {chaincode.address} failed: " in await unreachable(net, "strange", wrong_root)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"address": "localhost:²"}, "address is not host:port"),
        ({"address": "localhost:" + "1" * 5000}, "address is not host:port"),
        ({"address": "localhost:70000"}, "address is not host:port"),
        ({"dial_timeout": 10**400}, "integer is beyond"),
        ({"dial_timeout": "9" * 400 + "h"}, "dial_timeout is not"),
        ({"dial_timeout": "soon"}, "dial_timeout is not"),
        ({"root_cert": ""}, "root_cert is missing although tls_required is true"),
        ({"tls_required": "yes"}, "tls_required is not true or false"),
    ],
)
async def test_a_package_whose_connection_cannot_be_used_is_not_installed(
    net: Services, entries: dict[str, Any], text: str
) -> None:
    connection = {"address": "localhost:1", "tls_required": True, "root_cert": "x"} | entries
    package = build_package("bad", "ccaas", {"connection.json": json.dumps(connection).encode()})
    arguments = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package)
    response = await net.lifecycle("InstallChaincode", arguments, channel_id="")
    assert response.status == 500
    assert text in response.message


# What dials a peer ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def dialling(net: Services, msp_id: str, package_id: str) -> AsyncIterator[asyncio.Task[None]]:
    address = f"localhost:{net.ledger.address_of(host_of(msp_id)).rpartition(':')[2]}"
    connection = PeerConnection(letters, package_id, address, tls=ClientTls(net.tls.root_pem))
    running = asyncio.create_task(connection.run())
    try:
        yield running
    finally:
        await connection.stop()
        await asyncio.gather(running, return_exceptions=True)


async def until_callable(net: Services, *, callable_: bool = True) -> None:
    async with asyncio.timeout(15):
        while True:
            response = await net.process(net.proposal("Letters:get", "x", chaincode="letters")[1])
            if (response.response.status == 200) is callable_:
                return
            await asyncio.sleep(0.02)


async def test_a_chaincode_process_that_dials_its_peer_serves_transactions(net: Services, tmp_path: Path) -> None:
    package_id = LETTERS_ID
    response = await net.process(net.proposal("Letters:get", "x", chaincode="letters")[1])
    assert response.response.message.endswith(
        f"could not launch chaincode {package_id}: the chaincode has not connected to this peer; start the chaincode "
        "and send the proposal again"
    )
    roots = tmp_path / "roots.pem"
    roots.write_bytes(net.tls.root_pem)
    environment = {
        **os.environ,
        "PYTHONWARNINGS": "error",
        "PYTHONPATH": str(HERE),
        "CORE_CHAINCODE_ID_NAME": package_id,
        "CORE_PEER_ADDRESS": f"localhost:{net.ledger.address_of(host_of('Org1MSP')).rpartition(':')[2]}",
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_ROOTCERT_FILE": str(roots),
    }
    command = [sys.executable, "-m", "sovchain.chaincode", "connect", "client_mode_chaincode"]
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        await until_callable(net)
        txid, signed = net.proposal("Letters:put", "x", '"hello"', chaincode="letters")
        await net.submit(await net.endorse(signed, organizations=["Org1MSP"]))
        assert (await net.status(txid))[0] == 0
        assert (await net.evaluate(net.proposal("Letters:get", "x", chaincode="letters")[1])).payload == b'"hello"'
    finally:
        process.kill()
        await process.wait()
    await until_callable(net, callable_=False)
    async with dialling(net, "Org1MSP", package_id):
        await until_callable(net)  # another process may take its place


async def test_who_may_not_register(net: Services) -> None:
    cc_id, letters_id = net.chaincodes["cc"].package_id, LETTERS_ID
    for package_id in ("none:0", cc_id):
        async with dialling(net, "Org1MSP", package_id) as running:
            with pytest.raises(StreamError, match="peer will not accept external chaincode connection"):
                await asyncio.wait_for(running, 10)
    async with dialling(net, "Org1MSP", letters_id):
        await until_callable(net)
        async with dialling(net, "Org1MSP", letters_id) as second:
            with pytest.raises(StreamError, match="duplicate chaincodeID"):
                await asyncio.wait_for(second, 10)
        await until_callable(net)


async def test_a_registration_without_a_name_or_without_registration_is_refused(net: Services) -> None:
    nameless = Kind(type=Kind.REGISTER, payload=chaincode_pb2.ChaincodeID().SerializeToString())
    for frame, text in (
        (nameless.SerializeToString(), "error in handling register chaincode, chaincodeID name is empty"),
        (Kind(type=Kind.COMPLETED).SerializeToString(), "cannot handle message (COMPLETED) while in created state"),
        (b"\xff\xff", "no chaincode message"),
    ):
        call: Any = net.connect(host_of("Org1MSP")).stream_stream("/protos.ChaincodeSupport/Register")()
        await call.write(frame)
        found = await failure(call.read())
        assert found.code is grpc.StatusCode.FAILED_PRECONDITION
        assert text in found.text
