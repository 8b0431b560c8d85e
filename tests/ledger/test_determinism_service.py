"""A chaincode that does not repeat itself is refused with the key named, and nothing is committed."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from fabric_protos.peer import chaincode_shim_pb2 as shim
from fabric_protos.peer import collection_pb2
from ledger_world import World
from raw_chaincode import Answer, Function, Kind, RawChaincode, Stub
from service_world import CHANNEL, Services, failure, services

from sovchain.protocol.policydsl import parse as parse_policy

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE = Path(__file__).parent
COUNTER = itertools.count()


def writing(key: str, value: object) -> Function:
    async def function(stub: Stub) -> Answer:
        await stub.put(key, str(value()).encode())  # type: ignore[operator]  # any of the sources below
        return Answer()

    return function


async def composite(stub: Stub) -> Answer:
    await stub.put(f"\x00asset\x00{stub.args[0].decode()}\x00", os.urandom(8))
    return Answer()


async def other_keys(stub: Stub) -> Answer:
    await stub.put(f"k{next(COUNTER)}", b"1")
    return Answer()


async def reads(stub: Stub) -> Answer:
    await stub.get(f"r{next(COUNTER)}")
    return Answer()


async def ranges(stub: Stub) -> Answer:
    request = shim.GetStateByRange(startKey="a", endKey=f"b{next(COUNTER)}")
    await stub.ask(Kind.GET_STATE_BY_RANGE, request.SerializeToString())
    return Answer()


async def response(stub: Stub) -> Answer:
    return Answer(str(next(COUNTER)).encode())


async def event(stub: Stub) -> Answer:
    return Answer(event=("E", str(next(COUNTER)).encode()))


async def private(stub: Stub) -> Answer:
    await stub.put("p", os.urandom(8), "secrets")
    return Answer()


async def steady(stub: Stub) -> Answer:
    found = await stub.get("count")
    await stub.put("count", b"%d" % (int(found or b"0") + 1))
    return Answer(event=("Steady", b"1"))


CASES: dict[str, tuple[Function, str]] = {
    "clock": (writing("when", time.time_ns), "the write of key when in namespace cc"),
    "random": (writing("dice", random.random), "the write of key dice in namespace cc"),
    "composite": (composite, "the write of key [asset, 7] in namespace cc"),
    "other_keys": (other_keys, r"the write of key k\d+ in namespace cc"),
    "reads": (reads, r"the read of key r\d+ in namespace cc"),
    "ranges": (ranges, r"the range a..b\d+ in namespace cc"),
    "private": (private, "the private collection secrets in namespace cc"),
    "response": (response, "the response"),
    "event": (event, "the event"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Two organisations, `cc` with a collection of both."""
    async with services(tmp_path_factory.mktemp("net"), World(("Org1MSP", "Org2MSP"))) as running:
        members = parse_policy("OR('Org1MSP.member', 'Org2MSP.member')")
        collection = collection_pb2.StaticCollectionConfig(
            name="secrets",
            member_orgs_policy=collection_pb2.CollectionPolicyConfig(signature_policy=members),
            maximum_peer_count=1,
        )
        chaincode = await running.deploy("cc", "OR('Org1MSP.peer', 'Org2MSP.peer')", collections=[collection])
        chaincode.functions |= {name: function for name, (function, _) in CASES.items()} | {"steady": steady}
        yield running


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("organizations", [(), ("Org1MSP", "Org2MSP")], ids=["one peer", "two peers"])
async def test_what_differs_is_named_and_nothing_is_committed(
    net: Services, name: str, organizations: tuple[str, ...]
) -> None:
    height = net.ledger.channels[CHANNEL].height
    text = rf"chaincode cc is not deterministic: two simulations of this proposal differ in {CASES[name][1]}; use the"
    text = text.replace("[asset, 7]", re.escape("[asset, 7]"))
    _, signed = net.proposal(name, "7")
    refused = await failure(net.endorse(signed, organizations=organizations))
    assert refused.code is grpc.StatusCode.ABORTED
    assert re.search(text, refused.text), refused.text
    if organizations:
        assert refused.details[0].message == "ProposalResponsePayloads do not match"
    assert any(re.search(text, detail.message) for detail in refused.details)
    for call in (net.evaluate(signed), net.process(signed)):
        refused = await failure(call)
        assert refused.code is grpc.StatusCode.ABORTED
        assert re.search(text, refused.text)
    assert net.ledger.channels[CHANNEL].height == height


async def test_the_text_names_keys_and_never_values(net: Services) -> None:
    marks = itertools.count(10**9)
    net.chaincodes["cc"].functions["marked"] = writing("k", lambda: f"MARK{next(marks)}")
    refused = await failure(net.endorse(net.proposal("marked")[1]))
    assert "key k" in refused.text
    assert "MARK" not in refused.text + "".join(detail.message for detail in refused.details)


async def test_a_deterministic_one_passes(net: Services) -> None:
    for organizations in ((), ("Org1MSP", "Org2MSP")):
        _, code, _ = await net.transact("steady", organizations=organizations)
        assert code == 0
    assert (await net.evaluate(net.proposal("get", "count")[1])).payload == b"2"


async def test_the_order_of_hashes_is_caught_by_the_second_instance(net: Services, tmp_path: Path) -> None:
    certificate, key = net.tls.issue("localhost")
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    addresses = []
    for _ in range(2):  # the package names the addresses, and the processes are told the package's id
        placeholder = RawChaincode()
        addresses.append(await placeholder.start(net.tls.server("localhost")))
        await placeholder.stop()
    package_id = await net.install(net.package("letters", addresses[0], replica_address=addresses[1]))
    await net.define("letters", package_id, "OR('Org1MSP.peer', 'Org2MSP.peer')")
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "CHAINCODE_ID": package_id,
        "CHAINCODE_TLS_CERT": str(tmp_path / "cert.pem"),
        "CHAINCODE_TLS_KEY": str(tmp_path / "key.pem"),
    }
    command = [sys.executable, "-m", "sovchain.chaincode", "serve", "client_mode_chaincode"]
    processes = [
        await asyncio.create_subprocess_exec(
            *command, env=environment | {"CHAINCODE_SERVER_ADDRESS": address, "PYTHONHASHSEED": str(seed)}
        )
        for seed, address in enumerate(addresses, 1)
    ]
    try:
        async with asyncio.timeout(20):
            while True:  # until both processes listen
                response = await net.process(net.proposal("Letters:get", "x", chaincode="letters")[1])
                if response.response.status == 200:
                    break
        _, signed = net.proposal("Letters:members", "all", chaincode="letters")
        refused = await failure(net.endorse(signed))
        assert refused.code is grpc.StatusCode.ABORTED
        assert "differ in the write of key all in namespace letters" in refused.text
        _, code, _ = await net.transact("Letters:put", "x", '"1"', chaincode="letters")
        assert code == 0
    finally:
        for child in processes:
            child.kill()
            await child.wait()
