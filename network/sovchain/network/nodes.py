"""Administrative conversations with peers and ordering nodes of any Fabric network, over gRPC.

A `Peer` speaks for one organisation's administrator with one peer of the organisation: proposals to system chaincodes,
and waiting for a transaction to commit there. An `OrderingNode` takes signed transactions.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric import ec
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, query_pb2, transaction_pb2
from google.protobuf.message import Message

from sovchain.network.errors import LifecycleError
from sovchain.protocol.crypto import load_private_key, sign
from sovchain.protocol.identity import serialize_identity
from sovchain.protocol.proposals import Invocation, build_proposal
from sovchain.protocol.transactions import assemble_envelope

CALL_TIMEOUT_S: Final = 30.0
"""Deadline of one call to a node."""
MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
_ALREADY_THERE: Final = ("request already processed", "request already exists")
"""How a BFT node refuses a transaction that it has (SmartBFT's request pool)."""
_RETRY_FIRST_S: Final = 0.05
_RETRY_LAST_S: Final = 1.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A node that is just starting is there within moments; gRPC's own first pause is a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # The deadline of one attempt to connect, however short the pause between two is.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)

_Answer = TypeVar("_Answer", bound=Message)


@dataclass(frozen=True)
class NodeAddress:
    """Where a node listens and how it proves itself.

    Attributes:
        msp_id: the organisation that owns it.
        address: "host:port".
        tls_root_pem: root of its TLS certificate.
        server_name: the name to expect in its certificate instead of the host of `address`; empty: that host.
    """

    msp_id: str
    address: str
    tls_root_pem: bytes = field(repr=False)
    server_name: str = ""

    def channel(self) -> grpc.aio.Channel:
        """Open a TLS channel. It connects at its first use."""
        options: list[tuple[str, str | int]] = [*_OPTIONS]
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(self.tls_root_pem), options=options)


@dataclass(frozen=True)
class Administrator:
    """An identity that signs for its organisation. The key is left out of the repr."""

    msp_id: str
    creator: bytes = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def from_pem(cls, msp_id: str, certificate_pem: bytes, private_key_pem: bytes) -> Administrator:
        """Read certificate and key. Raises ValueError when the key is not an elliptic curve key."""
        key = load_private_key(private_key_pem)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the administrator's key is not an elliptic curve key")
        return cls(msp_id, serialize_identity(msp_id, certificate_pem), key)

    def sign(self, message: bytes) -> bytes:
        """Sign a message as Fabric expects it (ECDSA over SHA-256, low S)."""
        return sign(self.key, message)

    def proposal(self, invocation: Invocation) -> SignedInvocation:
        """Build and sign a proposal, stamped with the time of this machine."""
        transaction_id, proposal = build_proposal(
            invocation, creator=self.creator, nonce=secrets.token_bytes(24), timestamp=datetime.now(UTC)
        )
        content = proposal.SerializeToString()
        signed = proposal_pb2.SignedProposal(proposal_bytes=content, signature=self.sign(content))
        return SignedInvocation(invocation, transaction_id, signed)

    def transaction(
        self, invocation: SignedInvocation, endorsements: Sequence[proposal_response_pb2.ProposalResponse]
    ) -> bytes:
        """Make the signed transaction of equal answers to one proposal."""
        envelope = assemble_envelope(
            invocation.signed.proposal_bytes, endorsements[0].payload, [answer.endorsement for answer in endorsements]
        )
        envelope.signature = self.sign(envelope.payload)
        return envelope.SerializeToString()


@dataclass(frozen=True)
class SignedInvocation:
    """A signed proposal and what it asks for."""

    invocation: Invocation
    transaction_id: str
    signed: proposal_pb2.SignedProposal


class Peer:
    """A peer, spoken to by its organisation's administrator. Close it after use."""

    def __init__(self, address: NodeAddress, administrator: Administrator) -> None:
        self.address = address
        self.administrator = administrator
        self._channel = address.channel()
        self._process_proposal = self._channel.unary_unary(
            "/protos.Endorser/ProcessProposal",
            request_serializer=proposal_pb2.SignedProposal.SerializeToString,
            response_deserializer=proposal_response_pb2.ProposalResponse.FromString,
        )
        self._commit_status = self._channel.unary_unary(
            "/gateway.Gateway/CommitStatus",
            request_serializer=gateway_pb2.SignedCommitStatusRequest.SerializeToString,
            response_deserializer=gateway_pb2.CommitStatusResponse.FromString,
        )

    @property
    def msp_id(self) -> str:
        """The organisation of the peer and of the administrator."""
        return self.address.msp_id

    async def propose(
        self, step: str, chaincode: str, proposal: SignedInvocation
    ) -> proposal_response_pb2.ProposalResponse:
        """Send a proposal and return the answer.

        Raises LifecycleError when the peer cannot be reached or the answer's status is 400 or more; `step` and
        `chaincode` say in it what was being done.
        """
        try:
            answer: proposal_response_pb2.ProposalResponse = await self._process_proposal(
                proposal.signed, timeout=CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise self._failed(step, chaincode, proposal.invocation.channel_id, error) from None
        if answer.response.status >= 400:
            raise LifecycleError(
                step,
                answer.response.message,
                address=self.address.address,
                msp_id=self.msp_id,
                status=answer.response.status,
                channel=proposal.invocation.channel_id,
                chaincode=chaincode,
            )
        return answer

    async def call(self, step: str, channel: str, method: str, request: Message, answer: type[_Answer]) -> _Answer:
        """Call a method of another service of the peer, such as `/protos.Snapshot/Generate`.

        Raises LifecycleError; `step` and `channel` say in it what was being done.
        """
        send = self._channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            result: _Answer = await send(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._failed(step, "", channel, error) from None
        return result

    async def committed(self, step: str, chaincode: str, channel: str, transaction_id: str) -> int:
        """Wait until the peer has committed a transaction; return the block's number.

        Raises LifecycleError when it is not valid, or not committed within `CALL_TIMEOUT_S`.
        """
        request = gateway_pb2.CommitStatusRequest(
            transaction_id=transaction_id, channel_id=channel, identity=self.administrator.creator
        ).SerializeToString()
        signed = gateway_pb2.SignedCommitStatusRequest(request=request, signature=self.administrator.sign(request))
        try:
            answer: gateway_pb2.CommitStatusResponse = await self._commit_status(signed, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._failed(step, chaincode, channel, error) from None
        if answer.result != transaction_pb2.VALID:
            name = transaction_pb2.TxValidationCode.Name(answer.result)
            raise LifecycleError(
                step,
                f"transaction {transaction_id} is not valid: {name}",
                address=self.address.address,
                msp_id=self.msp_id,
                status=answer.result,
                channel=channel,
                chaincode=chaincode,
            )
        return answer.block_number

    async def channels(self) -> frozenset[str]:
        """The channels that the peer has joined (core/scc/cscc/configure.go). Raises LifecycleError."""
        proposal = self.administrator.proposal(Invocation("", "cscc", (b"GetChannels",)))
        answer = await self.propose("list", "", proposal)
        found = query_pb2.ChannelQueryResponse.FromString(answer.response.payload)
        return frozenset(channel.channel_id for channel in found.channels)

    async def join(self, channel: str, genesis_block: bytes) -> None:
        """Join a channel by its first block (core/scc/cscc/configure.go). Raises LifecycleError."""
        proposal = self.administrator.proposal(Invocation("", "cscc", (b"JoinChain", genesis_block)))
        try:
            await self.propose("join", "", proposal)
        except LifecycleError as error:
            raise LifecycleError(
                "join", error.why, address=error.address, msp_id=error.msp_id, status=error.status, channel=channel
            ) from None

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    def _failed(self, step: str, chaincode: str, channel: str, error: grpc.aio.AioRpcError) -> LifecycleError:
        return _call_failed(self.address, step, chaincode, channel, error)


class Broadcaster(Protocol):
    """What takes signed transactions for ordering."""

    async def broadcast(self, step: str, chaincode: str, channel: str, envelope: bytes) -> None:
        """Hand a transaction over. Raises LifecycleError when it is refused."""


class OrderingNodes:
    """The ordering nodes of a channel. Close it after use.

    Under Raft a transaction goes to the first node that takes it. Under BFT it goes to all of them, and a quorum must take
    it: a single node may keep it to itself, or wait long before it forwards it (internal/pkg/gateway/submit.go submitBFT).
    """

    def __init__(self, addresses: Iterable[NodeAddress], *, bft: bool = False) -> None:
        self._addresses = tuple(addresses)
        count = len(self._addresses)
        faulty = (count - 1) // 3
        self._quorum = (count + faulty + 2) // 2 if bft else 1
        self._bft = bft
        self._channels = tuple(address.channel() for address in self._addresses)

    async def broadcast(self, step: str, chaincode: str, channel: str, envelope: bytes) -> None:
        """Hand a transaction over, again and again while the nodes have no leader, for at most `CALL_TIMEOUT_S`.

        Raises LifecycleError with the node's status when it refuses, or when no node could be reached in time.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + CALL_TIMEOUT_S, _RETRY_FIRST_S
        refused: LifecycleError | None = None
        while True:
            taken, verdict = 0, None
            async for address, status, text in self._answers(envelope):
                if status == common_pb2.SUCCESS or any(there in text for there in _ALREADY_THERE):
                    taken += 1
                    if taken == self._quorum:
                        return
                    continue
                refused = LifecycleError(
                    step,
                    text,
                    address=address.address,
                    msp_id=address.msp_id,
                    status=status,
                    channel=channel,
                    chaincode=chaincode,
                )
                # 503 is a node without a leader or one that is not reached; anything else is a verdict.
                if status != common_pb2.SERVICE_UNAVAILABLE:
                    verdict = refused
                    if not self._bft:
                        break
            if verdict is not None:
                raise verdict
            if refused is not None and loop.time() + pause > deadline:
                raise refused
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST_S)

    async def _answers(self, envelope: bytes) -> AsyncIterator[tuple[NodeAddress, int, str]]:
        """What each node says to a transaction: one is asked after the other, under BFT all at once."""
        if self._bft:
            sent = [self._send(connection, envelope) for connection in self._channels]
            for address, (status, text) in zip(self._addresses, await asyncio.gather(*sent), strict=True):
                yield address, status, text
            return
        for address, connection in zip(self._addresses, self._channels, strict=True):
            yield address, *await self._send(connection, envelope)

    @staticmethod
    async def _send(connection: grpc.aio.Channel, envelope: bytes) -> tuple[int, str]:
        call = connection.stream_stream(
            "/orderer.AtomicBroadcast/Broadcast",
            request_serializer=None,  # the envelope is bytes already
            response_deserializer=ab_pb2.BroadcastResponse.FromString,
        )(None, timeout=CALL_TIMEOUT_S)
        try:
            await call.write(envelope)
            answer = await call.read()
            if not isinstance(answer, ab_pb2.BroadcastResponse):
                return common_pb2.SERVICE_UNAVAILABLE, "the ordering node closed the stream without an answer"
            await call.done_writing()
        except grpc.aio.AioRpcError as error:
            return common_pb2.SERVICE_UNAVAILABLE, f"{error.code().name}: {error.details()}"
        finally:
            call.cancel()
        return answer.status, answer.info or common_pb2.Status.Name(answer.status)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels))


def _call_failed(
    address: NodeAddress, step: str, chaincode: str, channel: str, error: grpc.aio.AioRpcError
) -> LifecycleError:
    return LifecycleError(
        step,
        f"{error.code().name}: {error.details()}",
        address=address.address,
        msp_id=address.msp_id,
        status=error.code().value[0],
        channel=channel,
        chaincode=chaincode,
    )
