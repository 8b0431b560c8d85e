"""Sends spoilt requests to every service of an embedded ledger and watches what it makes of them.

    PYTHONPATH=tests/ledger python tests/ledger/hostile/campaign.py SECONDS [SEED]

A find is: a call that ends in INTERNAL or in gRPC's words for an exception, a text with a traceback in it, a call that
nobody answers, an error in a task, a channel that stops, an honest client that is not served any more, memory that grows
beyond its bound. Each find is printed with the request that made it. The same seed sends the same requests, but for random
nonces and signatures.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import psutil
from fabric_protos.common import common_pb2
from fabric_protos.discovery import protocol_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from fabric_protos.peer import collection_pb2, proposal_pb2, transaction_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from google.protobuf.message import DecodeError, Message
from ledger_world import Signer, World, sign_envelope
from raw_chaincode import Answer, Stub
from service_world import CHANNEL, ORDERER, Services, host_of, services
from shapes import spoil, torn

from sovchain.protocol.crypto import sign
from sovchain.protocol.policydsl import parse
from sovchain.protocol.proposals import transaction_id

ANSWER_S: Final = 30.0
GROWTH_MIB: Final = 400
_WAITS: Final = frozenset({"CommitStatus", "ChaincodeEvents", "Deliver", "DeliverFiltered", "DeliverWithPrivateData"})
_WAIT_S: Final = 0.3
_LEAK: Final = re.compile(r"Traceback|File \"|\.py\b|Unexpected <class|site-packages")


@dataclass(frozen=True)
class Seed:
    """An honest request.

    Attributes:
        host, method: where it goes; the method with its path.
        kind: "unary", "stream" (one request, many answers) or "duplex".
        message: the request.
        sign: puts the signatures of a spoilt request right; None where it has none.
    """

    host: str
    method: str
    kind: str
    message: Message
    sign: Callable[[Any], None] | None = None


@dataclass
class Tally:
    """What was sent and what came of it."""

    sent: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    finds: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    memory_mib: tuple[float, float] = (0.0, 0.0)

    def found(self, what: str, method: str, request: bytes) -> None:
        self.finds.append({"what": what[:400], "method": method, "request": request.hex()})
        print(f"FOUND {method}: {what[:400]}\n  {request.hex()[:4000]}", file=sys.stderr, flush=True)


class Campaign:
    """A ledger with honest traffic as seeds, and what is done to it."""

    def __init__(self, net: Services, tally: Tally, seed: int) -> None:
        self.net = net
        self.tally = tally
        self.chance = random.Random(seed)
        self.frames: list[bytes] = []
        self.seeds: list[Seed] = []

    async def prepare(self) -> None:
        """Deploy a chaincode with a collection, collect honest requests of every kind."""
        collection = collection_pb2.StaticCollectionConfig(name="pair", required_peer_count=0, maximum_peer_count=1)
        collection.member_orgs_policy.signature_policy.CopyFrom(parse("OR('Org1MSP.member')"))
        chaincode = await self.net.deploy("cc", "OR('Org1MSP.peer', 'Org2MSP.peer')", collections=[collection])
        chaincode.functions["hostile"] = self._hostile_chaincode
        self.seeds += self._proposals() + await self._envelopes() + self._requests() + self._lifecycle()

    def _proposals(self) -> list[Seed]:
        net, peer, found = self.net, host_of(self.net.first), []
        for arguments, transient in (
            (("put", "a", "1"), {}),
            (("get", "a"), {}),
            (("hide", "pair", "s"), {"value": b"v"}),
        ):
            _, signed = net.proposal(*arguments, transient=transient)
            found.append(Seed(peer, "/protos.Endorser/ProcessProposal", "unary", signed, self._sign_proposal))
            evaluate = gateway_pb2.EvaluateRequest(channel_id=CHANNEL, proposed_transaction=signed)
            endorse = gateway_pb2.EndorseRequest(channel_id=CHANNEL, proposed_transaction=signed)
            for name, request in (("Evaluate", evaluate), ("Endorse", endorse)):
                found.append(Seed(peer, f"/gateway.Gateway/{name}", "unary", request, self._sign_gateway))
        for chaincode, arguments in (
            ("qscc", ("GetBlockByNumber", CHANNEL, "1")),
            ("qscc", ("GetTransactionByID", CHANNEL, "ff")),
            ("qscc", ("GetBlockByHash", CHANNEL, "ff")),
            ("cscc", ("GetConfigBlock", CHANNEL)),
            ("cscc", ("GetChannelConfig", CHANNEL)),
        ):
            _, signed = net.proposal(*arguments, chaincode=chaincode, creator=net.admin())
            found.append(Seed(peer, "/protos.Endorser/ProcessProposal", "unary", signed, self._sign_as_admin))
        block = self.net.ledger.channels[CHANNEL].block(0) or b""
        _, signed = net.proposal("JoinChain", block, chaincode="cscc", creator=net.admin(), channel_id="")
        found.append(Seed(peer, "/protos.Endorser/ProcessProposal", "unary", signed, self._sign_as_admin))
        return found

    async def _envelopes(self) -> list[Seed]:
        found = []
        for arguments, transient in ((("put", "b", "1"), {}), (("hide", "pair", "t"), {"value": b"v"})):
            _, signed = self.net.proposal(*arguments, transient=transient)
            envelope = await self.net.endorse(signed)
            sign_envelope(envelope, self.net.client())
            submit = gateway_pb2.SubmitRequest(channel_id=CHANNEL, prepared_transaction=envelope)
            found += [
                Seed(host_of(self.net.first), "/gateway.Gateway/Submit", "unary", submit, self._sign_submit),
                Seed(ORDERER, "/orderer.AtomicBroadcast/Broadcast", "duplex", envelope, self._sign_envelope),
            ]
        genesis = common_pb2.Block.FromString(self.net.ledger.channels[CHANNEL].block(0) or b"")
        config = common_pb2.Envelope.FromString(genesis.data.data[0])
        found.append(Seed(ORDERER, "/orderer.AtomicBroadcast/Broadcast", "duplex", config, self._sign_envelope))
        return found

    def _requests(self) -> list[Seed]:
        client, peer = self.net.client(), host_of(self.net.first)
        status = gateway_pb2.CommitStatusRequest(channel_id=CHANNEL, transaction_id="f" * 64, identity=client.identity)
        events = gateway_pb2.ChaincodeEventsRequest(channel_id=CHANNEL, chaincode_id="cc", identity=client.identity)
        events.start_position.specified.number = 0
        asked = protocol_pb2.Request(authentication=protocol_pb2.AuthInfo(client_identity=client.identity))
        for number in range(3):
            query = asked.queries.add(channel=CHANNEL)
            if number == 0:
                query.cc_query.interests.add().chaincodes.add(name="cc").collection_names.append("pair")
            elif number == 1:
                query.config_query.SetInParent()
            else:
                query.peer_query.SetInParent()
        signed_status = gateway_pb2.SignedCommitStatusRequest(request=status.SerializeToString())
        signed_events = gateway_pb2.SignedChaincodeEventsRequest(request=events.SerializeToString())
        discover = protocol_pb2.SignedRequest(payload=asked.SerializeToString())
        seek = ab_pb2.SeekInfo()
        seek.start.oldest.SetInParent()
        seek.stop.specified.number = 2
        envelope = self.net.seek(seek)
        found = [
            Seed(peer, "/gateway.Gateway/CommitStatus", "unary", signed_status, self._sign_request("request")),
            Seed(peer, "/gateway.Gateway/ChaincodeEvents", "stream", signed_events, self._sign_request("request")),
            Seed(peer, "/discovery.Discovery/Discover", "unary", discover, self._sign_request("payload")),
            Seed(ORDERER, "/orderer.AtomicBroadcast/Deliver", "duplex", envelope, self._sign_envelope),
        ]
        found += [
            Seed(peer, f"/protos.Deliver/{name}", "duplex", envelope, self._sign_envelope)
            for name in ("Deliver", "DeliverFiltered", "DeliverWithPrivateData")
        ]
        register = shim.ChaincodeMessage(type=shim.ChaincodeMessage.REGISTER, payload=b"\n\x04cc:1")
        return [*found, Seed(peer, "/protos.ChaincodeSupport/Register", "duplex", register)]

    def _lifecycle(self) -> list[Seed]:
        definition: dict[str, Any] = {"name": "cc", "version": "2.0", "sequence": 2}
        collections = collection_pb2.CollectionConfigPackage()
        one = collections.config.add().static_collection_config
        one.name, one.maximum_peer_count = "pair", 1
        one.member_orgs_policy.signature_policy.CopyFrom(parse("OR('Org1MSP.member')"))
        policy = b"\n" + bytes([len(parse("OR('Org1MSP.peer')").SerializeToString())])
        definition |= {
            "collections": collections,
            "validation_parameter": policy + parse("OR('Org1MSP.peer')").SerializeToString(),
        }
        approval = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs(**definition)
        approval.source.unavailable.SetInParent()
        arguments: list[tuple[str, Message]] = [
            ("ApproveChaincodeDefinitionForMyOrg", approval),
            ("CommitChaincodeDefinition", lifecycle_pb2.CommitChaincodeDefinitionArgs(**definition)),
            ("CheckCommitReadiness", lifecycle_pb2.CheckCommitReadinessArgs(**definition)),
            ("QueryChaincodeDefinition", lifecycle_pb2.QueryChaincodeDefinitionArgs(name="cc")),
            (
                "QueryApprovedChaincodeDefinition",
                lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs(name="cc", sequence=1),
            ),
            (
                "InstallChaincode",
                lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=self.net.package("odd", "localhost:9")),
            ),
        ]
        peer, found = host_of(self.net.first), []
        for function, message in arguments:
            channel_id = "" if function == "InstallChaincode" else CHANNEL
            _, signed = self.net.proposal(
                function,
                message.SerializeToString(),
                chaincode="_lifecycle",
                creator=self.net.admin(),
                channel_id=channel_id,
            )
            found.append(Seed(peer, "/protos.Endorser/ProcessProposal", "unary", signed, self._sign_as_admin))
        return found

    # Signatures ---------------------------------------------------------------------------------------------------

    def _sign_proposal(self, signed: proposal_pb2.SignedProposal, signer: Signer | None = None) -> None:
        """Sign, and put the transaction id right for what the nonce and the creator are now."""
        try:
            proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
            header = common_pb2.Header.FromString(proposal.header)
            channel = common_pb2.ChannelHeader.FromString(header.channel_header)
            signature = common_pb2.SignatureHeader.FromString(header.signature_header)
        except DecodeError:
            pass
        else:
            if self.chance.random() < 0.7:
                if signature.nonce:
                    signature.nonce = os.urandom(24)
                channel.tx_id = transaction_id(signature.nonce, signature.creator)
                header.channel_header = channel.SerializeToString()
                header.signature_header = signature.SerializeToString()
                proposal.header = header.SerializeToString()
                signed.proposal_bytes = proposal.SerializeToString()
        signed.signature = sign((signer or self.net.client()).key, signed.proposal_bytes)

    def _sign_as_admin(self, signed: proposal_pb2.SignedProposal) -> None:
        self._sign_proposal(signed, self.net.admin())

    def _sign_gateway(self, request: Any) -> None:
        self._sign_proposal(request.proposed_transaction)

    def _sign_submit(self, request: gateway_pb2.SubmitRequest) -> None:
        self._sign_envelope(request.prepared_transaction)

    def _sign_envelope(self, envelope: common_pb2.Envelope) -> None:
        envelope.signature = sign(self.net.client().key, envelope.payload)

    def _sign_request(self, name: str) -> Callable[[Any], None]:
        def put(request: Any) -> None:
            request.signature = sign(self.net.client().key, getattr(request, name))

        return put

    # Sending ------------------------------------------------------------------------------------------------------

    def spoilt(self, seed: Seed) -> bytes:
        """A request that is no longer what it was."""
        message = type(seed.message)()
        message.CopyFrom(seed.message)
        if self.chance.random() < 0.12:
            return torn(message.SerializeToString(), self.chance)
        for _ in range(self.chance.choice([1, 1, 1, 2, 4])):
            spoil(message, self.chance)
        if seed.sign is not None and self.chance.random() < 0.9:
            seed.sign(message)
        return message.SerializeToString()

    async def send(self, host: str, method: str, kind: str, request: bytes) -> None:
        """Send one request and judge how its call ended."""
        name = method.rpartition("/")[2]
        limit = _WAIT_S if name in _WAITS else ANSWER_S
        self.tally.sent[method] += 1
        channel = self.net.connect(host)
        try:
            if kind == "unary":
                await channel.unary_unary(method)(request, timeout=limit)
            elif kind == "stream":
                call: Any = channel.unary_stream(method)(request, timeout=limit)
                while isinstance(await call.read(), bytes):
                    pass
            else:
                await self._talk(channel, method, request, _WAIT_S if name == "Register" else limit)
            self.tally.answers["OK"] += 1
        except grpc.aio.AioRpcError as error:
            self._judge(error, name, method, request)
        except TimeoutError:
            if name not in _WAITS and name != "Register":
                self.tally.found("nobody answered", method, request)
            self.tally.answers["waits"] += 1

    async def _talk(self, channel: grpc.aio.Channel, method: str, request: bytes, limit: float) -> None:
        call: Any = channel.stream_stream(method)()
        try:
            async with asyncio.timeout(limit):
                await call.write(request)
                for extra in range(self.chance.choice([0, 0, 1, 3])):
                    await call.write(request if extra else torn(request, self.chance))
                await call.done_writing()
                while isinstance(await call.read(), bytes):
                    pass
        except asyncio.InvalidStateError:
            await call.read()  # raises what the call ended with
        finally:
            call.cancel()

    def _judge(self, error: grpc.aio.AioRpcError, name: str, method: str, request: bytes) -> None:
        code, text = error.code(), error.details() or ""
        self.tally.answers[code.name] += 1
        shown = text.encode() + b"".join(
            value if isinstance(value, bytes) else value.encode() for _, value in error.trailing_metadata() or ()
        )
        if code == grpc.StatusCode.INTERNAL and "internal error of the ledger" in text:
            self.tally.found(text, method, request)
        elif _LEAK.search(shown.decode("utf-8", "replace")):
            self.tally.found(f"{code.name} shows code: {text}", method, request)
        elif code == grpc.StatusCode.UNAVAILABLE and "Connection" in text:
            self.tally.found(f"the server is gone: {text}", method, request)
        elif code == grpc.StatusCode.DEADLINE_EXCEEDED and name not in _WAITS:
            self.tally.found("nobody answered", method, request)

    async def _hostile_chaincode(self, stub: Stub) -> Answer | None:
        """Answer a transaction with spoilt frames."""
        kinds = shim.ChaincodeMessage
        message = kinds(type=self.chance.choice(range(-1, 26)), txid=stub.txid, channel_id=stub.channel_id)
        bodies: list[Message] = [
            shim.GetState(key="a"), shim.PutState(key="a", value=b"1", collection="pair"),
            shim.GetStateByRange(startKey="a", endKey="b", metadata=b"\x08\x05"), shim.QueryStateNext(id="1"),
            shim.PutStateMetadata(key="a", metadata=shim.StateMetadata(metakey="VALIDATION_PARAMETER", value=b"x")),
            shim.WriteBatchState(rec=[shim.WriteRecord(key="a", type=shim.WriteRecord.PUT_STATE)] * 3),
            shim.GetStateMultiple(keys=["a", "b"] * 40),
        ]  # fmt: skip
        message.payload = self.chance.choice(bodies).SerializeToString()
        for _ in range(self.chance.randint(1, 3)):
            spoil(message, self.chance)
        stub.stream.send_bytes(
            message.SerializeToString()
            if self.chance.random() < 0.9
            else torn(message.SerializeToString(), self.chance)
        )
        return Answer(b"done") if self.chance.random() < 0.9 else None

    async def through_chaincode(self) -> None:
        """One honest proposal to a chaincode that is not."""
        _, signed = self.net.proposal("hostile")
        await self.send(
            host_of(self.net.first), "/protos.Endorser/ProcessProposal", "unary", signed.SerializeToString()
        )

    async def honest(self) -> None:
        """An honest client is served, on a channel that goes on."""
        channel = self.net.ledger.channels[CHANNEL]
        try:
            async with asyncio.timeout(60):
                for attempt in range(20):  # the hostile chaincode's stream may have to be dialled again
                    _, signed = self.net.proposal("put", "honest", str(self.tally.sent.total()))
                    if (await self.net.process(signed)).response.status == 200:
                        break
                    await asyncio.sleep(0.1 * attempt)
                _, code, _ = await self.net.transact("put", "honest", "again")
            assert code == transaction_pb2.VALID, code
        except (TimeoutError, grpc.aio.AioRpcError, AssertionError) as error:
            self.tally.found(f"an honest client is not served: {error!r}", "honest", b"")
        if channel.stopped is not None:
            self.tally.found(f"the channel stopped: {channel.stopped.reason}", "channel", b"")

    async def batch(self, size: int) -> None:
        """Send `size` spoilt requests, several at a time, then ask as an honest client."""

        async def one() -> None:
            if self.chance.random() < 0.06:
                await self.through_chaincode()
                return
            seed = self.chance.choice(self.seeds)
            await self.send(seed.host, seed.method, seed.kind, self.spoilt(seed))

        for _ in range(0, size, 8):
            await asyncio.gather(*(one() for _ in range(8)))
        await self.honest()


async def run(directory: Path, *, seconds: float = 0.0, count: int = 0, seed: int = 1) -> Tally:
    """Send `count` spoilt requests, or go on for `seconds`."""
    tally, process = Tally(), psutil.Process()
    loop = asyncio.get_running_loop()

    def in_a_task(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The chaincode of the tests runs in this process too, and takes no care of what it is asked.
        if "raw_chaincode.py" not in repr(context.get("future")):
            tally.found(f"error in a task: {context}", "task", b"")

    loop.set_exception_handler(in_a_task)
    world = World(("Org1MSP", "Org2MSP"))
    started = time.monotonic()
    async with services(directory, world, execute_timeout_s=2.0) as net:
        campaign = Campaign(net, tally, seed)
        await campaign.prepare()
        await campaign.batch(80)
        gc.collect()
        before = process.memory_info().rss / 2**20
        shown = time.monotonic()
        while (tally.sent.total() < count) if count else (time.monotonic() - started < seconds):
            await campaign.batch(80)
            if seconds and time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(f"{int(shown - started)} s: {tally.sent.total()} sent, {dict(tally.answers)}, {len(tally.finds)} finds, "
                      f"{process.memory_info().rss / 2**20:.0f} MiB", file=sys.stderr, flush=True)  # fmt: skip
        gc.collect()
        after = process.memory_info().rss / 2**20
    tally.seconds, tally.memory_mib = time.monotonic() - started, (before, after)
    if after - before > GROWTH_MIB:
        tally.found(f"memory grew from {before:.0f} to {after:.0f} MiB", "memory", b"")
    loop.set_exception_handler(None)
    return tally


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        told = asyncio.run(
            run(Path(folder), seconds=float(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 1)
        )
    print(json.dumps({**vars(told), "finds": told.finds}, default=str, indent=1))
