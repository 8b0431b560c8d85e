"""A peer's gateway that does what a test tells it: a real TLS server with real protobuf messages and scripted faults.

Without a script it behaves as a healthy peer: Evaluate echoes the arguments, Endorse prepares the transaction that was
proposed, Submit accepts, CommitStatus says VALID. `script` queues what the next calls of a method are answered with.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_event_pb2, events_pb2, proposal_pb2, proposal_response_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from pki import Authority, Signer, pem

from sovchain.client import SigningIdentity
from sovchain.protocol.proposals import parse_signed_proposal, response_payload
from sovchain.protocol.transactions import assemble_envelope

UNARY = ("Evaluate", "Endorse", "Submit", "CommitStatus")
Handler = Callable[[bytes, Any], Awaitable[bytes]]


def identity(value: bytes) -> bytes:
    return value


class LiveAuthority(Authority):
    """An authority whose certificates are valid today, or from `begin` to `end` (days from today)."""

    begin, end = -1.0, 30.0

    def _builder(self, subject: x509.Name, key: Any, issuer: x509.Name) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=self.begin))
            .not_valid_after(now + timedelta(days=self.end))
        )

    def between(self, begin: float, end: float, common_name: str, **options: Any) -> Signer:
        """A certificate for another time."""
        self.begin, self.end = begin, end
        try:
            return self.issue(common_name, **options)
        finally:
            del self.begin, self.end


def host_names(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
    )


def key_pem(signer: Signer) -> bytes:
    return signer.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_identity(signer: Signer) -> SigningIdentity:
    return SigningIdentity.from_pem(signer.msp_id, pem(signer.certificate), key_pem(signer))


def status_details(*details: tuple[str, str, str]) -> bytes:
    """A google.rpc.Status with one gateway.ErrorDetail for each (address, MSP id, message)."""
    status = b""
    for address, msp_id, message in details:
        item = AnyMessage(
            type_url="type.googleapis.com/gateway.ErrorDetail",
            value=gateway_pb2.ErrorDetail(address=address, msp_id=msp_id, message=message).SerializeToString(),
        ).SerializeToString()
        size, length = len(item), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        status += b"\x1a" + length + bytes([size]) + item
    return status


# What a call can be answered with.


def reply(data: bytes) -> Handler:
    async def answer(request: bytes, context: Any) -> bytes:
        return data

    return answer


def fail(code: grpc.StatusCode, text: str = "", *details: tuple[str, str, str], raw: bytes = b"") -> Handler:
    async def answer(request: bytes, context: Any) -> bytes:
        status = raw or status_details(*details)
        trailers = (("grpc-status-details-bin", status),) if status else ()
        await context.abort(code, text, trailers)
        raise AssertionError("abort returned")

    return answer


def hang() -> Handler:
    async def answer(request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    return answer


@dataclass
class Stream:
    """One answer to a streaming call: its messages, then what ends it. `hold` keeps it open.

    What is put into `more` is sent after the messages, until it is None.
    """

    messages: tuple[bytes, ...] = ()
    code: grpc.StatusCode | None = None
    text: str = ""
    hold: bool = False
    more: asyncio.Queue[Any] | None = None

    def from_request(self, request: bytes) -> tuple[bytes, ...]:
        """The messages for a request."""
        return self.messages


def prepared(request: bytes, signer: Signer, *, result: bytes = b"done", proposal: bytes | None = None) -> bytes:
    """What an honest gateway answers to Endorse; `proposal` puts another proposal in the place of the one sent."""
    signed = gateway_pb2.EndorseRequest.FromString(request).proposed_transaction
    if proposal is not None:
        signed = proposal_pb2.SignedProposal(proposal_bytes=proposal, signature=b"none")
    parsed = parse_signed_proposal(signed)
    payload = response_payload(
        parsed.proposal_hash,
        b"",
        None,
        proposal_response_pb2.Response(status=200, payload=result),
        parsed.chaincode,
        "1.0",
    )
    endorsement = proposal_response_pb2.Endorsement(
        endorser=signer.creator, signature=signer.sign(payload + signer.creator)
    )
    envelope = assemble_envelope(signed.proposal_bytes, payload, [endorsement])
    return gateway_pb2.EndorseResponse(prepared_transaction=envelope).SerializeToString()


def commit(code: int = 0, block: int = 7) -> bytes:
    return gateway_pb2.CommitStatusResponse(result=code, block_number=block).SerializeToString()  # type: ignore[arg-type]


def events(block: int, *transactions: str, chaincode: str = "basic") -> bytes:
    return gateway_pb2.ChaincodeEventsResponse(
        block_number=block,
        events=[
            chaincode_event_pb2.ChaincodeEvent(chaincode_id=chaincode, tx_id=tx, event_name="made", payload=tx.encode())
            for tx in transactions
        ],
    ).SerializeToString()


def block(number: int) -> bytes:
    return events_pb2.DeliverResponse(
        block=common_pb2.Block(header=common_pb2.BlockHeader(number=number))
    ).SerializeToString()


def filtered(number: int) -> bytes:
    return events_pb2.DeliverResponse(
        filtered_block=events_pb2.FilteredBlock(channel_id="ch", number=number)
    ).SerializeToString()


def block_of(number: int, *transactions: tuple[str, int, bool]) -> bytes:
    """A filtered block: transaction id, validation code, whether it set an event."""
    found = []
    for txid, code, has_event in transactions:
        action = events_pb2.FilteredChaincodeAction(
            chaincode_event=chaincode_event_pb2.ChaincodeEvent(tx_id=txid, chaincode_id="basic") if has_event else None
        )
        found.append(
            events_pb2.FilteredTransaction(
                txid=txid,
                tx_validation_code=code,  # type: ignore[arg-type]
                transaction_actions=events_pb2.FilteredTransactionActions(chaincode_actions=[action]),
            )
        )
    return events_pb2.DeliverResponse(
        filtered_block=events_pb2.FilteredBlock(channel_id="ch", number=number, filtered_transactions=found)
    ).SerializeToString()


def deliver_status(status: int) -> bytes:
    return events_pb2.DeliverResponse(status=status).SerializeToString()  # type: ignore[arg-type]


def seek_of(request: bytes) -> ab_pb2.SeekInfo:
    envelope = common_pb2.Envelope.FromString(request)
    return ab_pb2.SeekInfo.FromString(common_pb2.Payload.FromString(envelope.payload).data)


class FakeGateway:
    """A scriptable gateway on a port of its own, which it keeps over `stop` and `start`."""

    def __init__(
        self, authority: LiveAuthority, *, tls: bool = True, client_root: bytes | None = None, socket: str = ""
    ) -> None:
        self.authority = authority
        self.peer = authority.issue("peer0", "peer", extension=host_names("localhost", "127.0.0.1"))
        self.tls = tls
        self.client_root = client_root
        self.socket = socket
        self.port = 0
        self.requests: dict[str, list[bytes]] = defaultdict(list)
        self.running: dict[str, int] = defaultdict(int)
        self.most_running = 0
        self.height = 1000
        self.healthy_hook: Callable[[str, bytes], Any] | None = None
        self._scripts: dict[str, deque[Any]] = defaultdict(deque)
        self._server: Any = None
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        self._server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 200 * 1024 * 1024)]
        )
        codec = {"request_deserializer": identity, "response_serializer": identity}
        unary = {name: grpc.unary_unary_rpc_method_handler(partial(self._unary, name), **codec) for name in UNARY}
        unary["ChaincodeEvents"] = grpc.unary_stream_rpc_method_handler(self._events, **codec)
        deliver = {
            name: grpc.stream_stream_rpc_method_handler(partial(self._deliver, name), **codec)
            for name in ("Deliver", "DeliverFiltered", "DeliverWithPrivateData")
        }
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("gateway.Gateway", unary),
                grpc.method_handlers_generic_handler("protos.Deliver", deliver),
            )
        )
        address = self.socket or f"127.0.0.1:{self.port}"
        if self.tls:
            credentials = grpc.ssl_server_credentials(
                [(key_pem(self.peer), pem(self.peer.certificate))], self.client_root, self.client_root is not None
            )
            self.port = self._server.add_secure_port(address, credentials)
        else:
            self.port = self._server.add_insecure_port(address)
        await self._server.start()

    async def stop(self) -> None:
        """Close the port and break every call."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    async def __aenter__(self) -> FakeGateway:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def script(self, method: str, *answers: Any) -> None:
        """Queue answers: handlers or bytes for unary methods, `Stream` for streams."""
        self._scripts[method].extend(answers)

    async def until(self, method: str, count: int) -> None:
        """Wait until `count` calls of a method have arrived since the start."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: len(self.requests[method]) >= count), 10)

    async def until_idle(self) -> None:
        """Wait until no call is under way here, but for the client's own stream of commits."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(self._is_idle), 10)

    def _is_idle(self) -> bool:
        return not any(count for method, count in self.running.items() if method != "feed")

    async def _enter(self, method: str, request: bytes) -> None:
        async with self._changed:
            self.requests[method].append(request)
            self.running[method] += 1
            running = sum(count for name, count in self.running.items() if name != "feed")
            self.most_running = max(self.most_running, running)
            self._changed.notify_all()

    async def _leave(self, method: str) -> None:
        async with self._changed:
            self.running[method] -= 1
            self._changed.notify_all()

    async def _unary(self, method: str, request: bytes, context: Any) -> bytes:
        await self._enter(method, request)
        try:
            script = self._scripts[method]
            answer = script.popleft() if script else None
            if answer is None and self.healthy_hook is not None:
                answer = self.healthy_hook(method, request)
            if isinstance(answer, bytes):
                return answer
            if answer is not None:
                scripted: bytes = await answer(request, context)
                return scripted
            return self.healthy(method, request)
        finally:
            await self._leave(method)

    def healthy(self, method: str, request: bytes) -> bytes:
        """What a peer without faults answers."""
        if method == "Evaluate":
            proposal = parse_signed_proposal(gateway_pb2.EvaluateRequest.FromString(request).proposed_transaction)
            content = b" ".join(proposal.input.args)
            if proposal.chaincode == "qscc" and proposal.input.args[0] == b"GetChainInfo":
                content = ledger_pb2.BlockchainInfo(height=self.height).SerializeToString()
            echo = proposal_response_pb2.Response(status=200, payload=content)
            return gateway_pb2.EvaluateResponse(result=echo).SerializeToString()
        if method == "Endorse":
            return prepared(request, self.peer)
        return b"" if method == "Submit" else commit()

    async def _play(self, method: str, request: bytes, context: Any) -> AsyncIterator[bytes]:
        await self._enter(method, request)
        try:
            script = self._scripts[method]
            stream: Stream = script.popleft() if script else Stream(hold=True)
            for message in stream.from_request(request):
                yield message
            while stream.more is not None and (message := await stream.more.get()) is not None:
                yield message
            if stream.hold:
                await asyncio.Event().wait()
            if stream.code is not None:
                await context.abort(stream.code, stream.text)
        finally:
            await self._leave(method)

    async def _events(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        async for message in self._play("ChaincodeEvents", request, context):
            yield message

    async def _deliver(self, method: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            # The stream that the client keeps for itself, to learn of commits, is scripted and counted apart.
            feed = method == "DeliverFiltered" and seek_of(request).start.WhichOneof("Type") == "newest"
            async for message in self._play("feed" if feed else method, request, context):
                yield message
            return


def profile_of(*gateways: FakeGateway, root: bytes | None = None, **peer: Any) -> Mapping[str, Any]:
    """The connection profile of an organisation with these gateways, in their order."""
    return {
        "client": {"organization": "Org1"},
        "organizations": {"Org1": {"mspid": "Org1MSP", "peers": [f"peer{n}" for n in range(len(gateways))]}},
        "peers": {
            f"peer{n}": {
                "url": f"{'grpcs' if gateway.tls else 'grpc'}://{gateway.address}",
                "tlsCACerts": {"pem": (root or pem(gateway.authority.certificate)).decode()},
                **peer,
            }
            for n, gateway in enumerate(gateways)
        },
    }
