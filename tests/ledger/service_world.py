"""A whole embedded ledger with TLS, its clients, and chaincode that tests decide, over real gRPC."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import collection_pb2, events_pb2, proposal_pb2, proposal_response_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from google.protobuf.message import Message
from ledger_world import CHAINCODE, NOW, Signer, World, sign_envelope
from raw_chaincode import RawChaincode, ordinary

from sovchain.client._given import rpc_error_of
from sovchain.client._status import failure_of
from sovchain.client.errors import ErrorDetail
from sovchain.ledger.node import EmbeddedLedger
from sovchain.ledger.nodespec import NodeSpec
from sovchain.protocol.crypto import sign
from sovchain.protocol.lifecycle import signature_application_policy
from sovchain.protocol.packages import build_ccaas_package
from sovchain.protocol.proposals import Invocation, build_proposal
from sovchain.protocol.transactions import assemble_envelope

CHANNEL = "testchannel"
ORDERER = "orderer0.example"
_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True)
class Tls:
    """A TLS root with server certificates."""

    root_pem: bytes
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    @classmethod
    def create(cls) -> Tls:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tls root")])
        builder = _certificate(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        return cls(_pem(builder.sign(key, hashes.SHA256())), key, name)

    def issue(self, host: str) -> tuple[bytes, bytes]:
        """(certificate, key) of a server with this name, which is also localhost."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName("localhost")])
        builder = _certificate(subject, self.name, key).add_extension(names, False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _pem(builder.sign(self.key, hashes.SHA256())), private

    def server(self, host: str) -> grpc.ServerCredentials:
        certificate, key = self.issue(host)
        return grpc.ssl_server_credentials([(key, certificate)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=30))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Failure:
    """How a call failed: its gRPC code, text and the details of a gateway."""

    code: grpc.StatusCode
    text: str
    details: tuple[ErrorDetail, ...]


def host_of(msp_id: str) -> str:
    return f"peer0.{msp_id.lower()}.example"


def second_host_of(msp_id: str) -> str:
    return f"peer1.{msp_id.lower()}.example"


class Services:
    """A running ledger and what clients do to it. Make it with `services`."""

    def __init__(self, directory: Path, world: World, tls: Tls, **options: Any) -> None:
        self.directory = directory
        self.world = world
        self.tls = tls
        self.options = options
        self.chaincodes: dict[str, RawChaincode] = {}
        self._started: list[RawChaincode] = []  # each that was ever started: an upgrade replaces one under its name
        self._channels: dict[str, grpc.aio.Channel] = {}
        self.ledger: EmbeddedLedger
        self.client_tls: dict[str, tuple[bytes, bytes]] = {}

    @property
    def first(self) -> str:
        return self.world.msp_ids[0]

    def client(self, msp_id: str | None = None) -> Signer:
        return self.world.organisations[msp_id or self.first].client

    def admin(self, msp_id: str | None = None) -> Signer:
        return self.world.organisations[msp_id or self.first].admin

    # Nodes --------------------------------------------------------------------------------------------------------

    async def start(self, *, mutual_tls: Iterable[str] = (), second_peers: Iterable[str] = ()) -> None:
        peers = [
            self._spec(msp_id, host_of(msp_id), part.peer, part.definition().msp_config.SerializeToString(), mutual_tls)
            for msp_id, part in self.world.organisations.items()
        ]
        for msp_id in second_peers:
            part = self.world.organisations[msp_id]
            signer = part.authority.enrol("peer1", "peer")
            msp = part.definition().msp_config.SerializeToString()
            peers.append(self._spec(msp_id, second_host_of(msp_id), signer, msp, mutual_tls))
        orderer = self._spec("OrdererMSP", ORDERER, self.world.orderer, b"", mutual_tls)
        self.ledger = await EmbeddedLedger.start(self.directory, peers=peers, orderers=[orderer], **self.options)

    def _spec(self, msp_id: str, host: str, signer: Signer, msp: bytes, mutual_tls: Iterable[str]) -> NodeSpec:
        certificate, key = self.tls.issue(host)
        return NodeSpec(
            msp_id=msp_id,
            host=host,
            listen="127.0.0.1:0",
            certificate_pem=signer.certificate_pem,
            private_key_pem=signer.private_key_pem,
            tls_certificate_pem=certificate,
            tls_private_key_pem=key,
            tls_root_pems=self.tls.root_pem,
            client_auth=msp_id in mutual_tls,
            msp_config=msp,
            operations_listen="127.0.0.1:0",
            admin_listen="127.0.0.1:0" if msp_id == "OrdererMSP" else "",
        )

    def http(self, host: str, *, admin: bool = False, certified: bool = True) -> httpx.AsyncClient:
        """A client of a node's operations endpoint or administration, with a certificate of the nodes' TLS root."""
        context = ssl.create_default_context(cadata=self.tls.root_pem.decode())
        if certified:
            certificate, key = self.tls.issue("administrator")
            path = self.directory / "administrator.pem"
            path.write_bytes(key + certificate)
            context.load_cert_chain(path)
        address = self.ledger.admin_address_of(host) if admin else self.ledger.operations_address_of(host)
        url = f"https://localhost:{address.rpartition(':')[2]}"
        return httpx.AsyncClient(base_url=url, verify=context, trust_env=False)

    async def stop(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        await self.ledger.stop(grace_s=0)
        for chaincode in self._started:
            await chaincode.stop()

    def connect(self, host: str) -> grpc.aio.Channel:
        channel = self._channels.get(host)
        if channel is None:
            certificate, key = self.client_tls.get(host, (None, None))
            credentials = grpc.ssl_channel_credentials(self.tls.root_pem, key, certificate)
            channel = grpc.aio.secure_channel(
                self.ledger.address_of(host),
                credentials,
                options=[("grpc.ssl_target_name_override", host), ("grpc.use_local_subchannel_pool", 1)],
            )
            self._channels[host] = channel
        return channel

    # Calls --------------------------------------------------------------------------------------------------------

    async def unary(
        self, host: str, method: str, request: Message | bytes, kind: type[_M], timeout_s: float = 10.0
    ) -> _M:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        call = self.connect(host).unary_unary(method)
        return kind.FromString(await call(data, timeout=timeout_s))

    async def gateway(
        self, method: str, request: Message | bytes, kind: type[_M], msp_id: str | None = None, timeout_s: float = 10.0
    ) -> _M:
        return await self.unary(host_of(msp_id or self.first), f"/gateway.Gateway/{method}", request, kind, timeout_s)

    def proposal(
        self,
        *args: str | bytes,
        channel_id: str = CHANNEL,
        chaincode: str = CHAINCODE,
        transient: Mapping[str, bytes] | None = None,
        creator: Signer | None = None,
        nonce: bytes | None = None,
        timestamp: datetime | None = None,
        is_init: bool = False,
    ) -> tuple[str, proposal_pb2.SignedProposal]:
        creator = creator or self.client()
        raw = tuple(arg.encode() if isinstance(arg, str) else arg for arg in args)
        invocation = Invocation(channel_id, chaincode, raw, dict(transient or {}), is_init)
        txid, proposal = build_proposal(
            invocation,
            creator=creator.identity,
            nonce=nonce or os.urandom(24),
            timestamp=timestamp or datetime.now(UTC),
        )
        return txid, signed_proposal(proposal, creator)

    async def evaluate(
        self, signed: proposal_pb2.SignedProposal, msp_id: str | None = None, organizations: Sequence[str] = ()
    ) -> proposal_response_pb2.Response:
        request = gateway_pb2.EvaluateRequest(
            channel_id=CHANNEL, proposed_transaction=signed, target_organizations=organizations
        )
        return (await self.gateway("Evaluate", request, gateway_pb2.EvaluateResponse, msp_id)).result

    async def endorse(
        self, signed: proposal_pb2.SignedProposal, msp_id: str | None = None, organizations: Sequence[str] = ()
    ) -> common_pb2.Envelope:
        request = gateway_pb2.EndorseRequest(
            channel_id=CHANNEL, proposed_transaction=signed, endorsing_organizations=organizations
        )
        return (await self.gateway("Endorse", request, gateway_pb2.EndorseResponse, msp_id)).prepared_transaction

    async def submit(
        self, envelope: common_pb2.Envelope, creator: Signer | None = None, channel_id: str = CHANNEL
    ) -> None:
        sign_envelope(envelope, creator or self.client())
        request = gateway_pb2.SubmitRequest(channel_id=channel_id, prepared_transaction=envelope)
        await self.gateway("Submit", request, gateway_pb2.SubmitResponse)

    async def status(
        self, txid: str, creator: Signer | None = None, timeout_s: float = 10.0, channel_id: str = CHANNEL
    ) -> tuple[int, int]:
        creator = creator or self.client()
        request = gateway_pb2.CommitStatusRequest(
            transaction_id=txid, channel_id=channel_id, identity=creator.identity
        ).SerializeToString()
        signed = gateway_pb2.SignedCommitStatusRequest(request=request, signature=sign(creator.key, request))
        answer = await self.gateway("CommitStatus", signed, gateway_pb2.CommitStatusResponse, timeout_s=timeout_s)
        return answer.result, answer.block_number

    async def transact(
        self, *args: str | bytes, organizations: Sequence[str] = (), creator: Signer | None = None, **options: Any
    ) -> tuple[str, int, int]:
        """Endorse, submit and wait: (transaction id, validation code, block number)."""
        txid, signed = self.proposal(*args, creator=creator, **options)
        await self.submit(await self.endorse(signed, organizations=organizations), creator)
        return txid, *(await self.status(txid))

    async def process(
        self, signed: proposal_pb2.SignedProposal | bytes, msp_id: str | None = None, host: str = ""
    ) -> proposal_response_pb2.ProposalResponse:
        """The Endorser service of one peer."""
        host = host or host_of(msp_id or self.first)
        return await self.unary(
            host, "/protos.Endorser/ProcessProposal", signed, proposal_response_pb2.ProposalResponse
        )

    async def system(
        self,
        chaincode: str,
        *args: str | bytes,
        creator: Signer | None = None,
        msp_id: str | None = None,
        channel_id: str = CHANNEL,
    ) -> proposal_response_pb2.Response:
        """The response of a system chaincode on one peer."""
        creator = creator or self.admin(msp_id)
        _, signed = self.proposal(*args, chaincode=chaincode, creator=creator, channel_id=channel_id)
        return (await self.process(signed, msp_id)).response

    async def lifecycle(
        self, function: str, arguments: Message | bytes, msp_id: str | None = None, channel_id: str = CHANNEL
    ) -> proposal_response_pb2.Response:
        """One function of `_lifecycle` on one peer, without a transaction."""
        data = arguments if isinstance(arguments, bytes) else arguments.SerializeToString()
        return await self.system("_lifecycle", function, data, msp_id=msp_id, channel_id=channel_id)

    async def lifecycle_transaction(
        self, function: str, arguments: Message, msp_ids: Sequence[str], creator: Signer | None = None
    ) -> int:
        """Endorse a function of `_lifecycle` on these peers, order it, and return its validation code."""
        creator = creator or self.admin(msp_ids[0])
        txid, signed = self.proposal(function, arguments.SerializeToString(), chaincode="_lifecycle", creator=creator)
        responses = [await self.process(signed, msp_id) for msp_id in msp_ids]
        for response in responses:
            assert response.response.status == 200, response.response.message
        envelope = assemble_envelope(
            signed.proposal_bytes, responses[0].payload, [response.endorsement for response in responses]
        )
        sign_envelope(envelope, creator)
        assert (await self.broadcast(envelope)).status == common_pb2.SUCCESS
        return (await self.ledger.channels[CHANNEL].wait_for_commit(txid))[0]

    # Streams ------------------------------------------------------------------------------------------------------

    async def broadcast(self, envelope: common_pb2.Envelope | bytes) -> ab_pb2.BroadcastResponse:
        """The ordering node's answer to one envelope."""
        data = envelope if isinstance(envelope, bytes) else envelope.SerializeToString()
        call: Any = self.connect(ORDERER).stream_stream("/orderer.AtomicBroadcast/Broadcast")()
        await call.write(data)
        answer = await asyncio.wait_for(call.read(), 10)
        call.cancel()
        return ab_pb2.BroadcastResponse.FromString(answer)

    def seek(
        self,
        info: ab_pb2.SeekInfo | bytes,
        *,
        creator: Signer | None = None,
        channel_id: str = CHANNEL,
        timestamp: datetime | None = None,
        tls_hash: bytes = b"",
        with_timestamp: bool = True,
    ) -> common_pb2.Envelope:
        creator = creator or self.client()
        header = common_pb2.ChannelHeader(
            type=common_pb2.DELIVER_SEEK_INFO, channel_id=channel_id, tls_cert_hash=tls_hash
        )
        if with_timestamp:
            header.timestamp.FromDatetime((timestamp or datetime.now(UTC)).astimezone(UTC))
        signature_header = common_pb2.SignatureHeader(creator=creator.identity, nonce=os.urandom(24))
        payload = common_pb2.Payload(
            header=common_pb2.Header(
                channel_header=header.SerializeToString(), signature_header=signature_header.SerializeToString()
            ),
            data=info if isinstance(info, bytes) else info.SerializeToString(),
        ).SerializeToString()
        return common_pb2.Envelope(payload=payload, signature=sign(creator.key, payload))

    def deliver(self, method: str = "Deliver", msp_id: str | None = None) -> DeliverStream:
        """A deliver stream of a peer; of the ordering node with msp_id "OrdererMSP"."""
        if msp_id == "OrdererMSP":
            call: Any = self.connect(ORDERER).stream_stream(f"/orderer.AtomicBroadcast/{method}")()
            return DeliverStream(call, ab_pb2.DeliverResponse)
        call = self.connect(host_of(msp_id or self.first)).stream_stream(f"/protos.Deliver/{method}")()
        return DeliverStream(call, events_pb2.DeliverResponse)

    # Chaincode ----------------------------------------------------------------------------------------------------

    async def raw_package(self, name: str) -> tuple[RawChaincode, bytes]:
        """A running chaincode server and the package that says how it is dialled."""
        chaincode = RawChaincode()
        chaincode.functions.update(ordinary())
        await chaincode.start(self.tls.server("localhost"))
        self.chaincodes[name] = chaincode
        self._started.append(chaincode)
        return chaincode, self.package(name, chaincode.address)

    def package(self, label: str, address: str, **entries: object) -> bytes:
        connection = {
            "address": address,
            "dial_timeout": "3s",
            "tls_required": True,
            "root_cert": self.tls.root_pem.decode(),
            **entries,
        }
        return build_ccaas_package(label, connection)

    async def install(self, package: bytes, msp_ids: Sequence[str] = ()) -> str:
        arguments = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package)
        package_id = ""
        for msp_id in msp_ids or self.world.msp_ids:
            response = await self.lifecycle("InstallChaincode", arguments, msp_id, channel_id="")
            assert response.status == 200, response.message
            package_id = lifecycle_pb2.InstallChaincodeResult.FromString(response.payload).package_id
        return package_id

    async def define(
        self,
        name: str,
        package_id: str,
        policy: str = "",
        *,
        collections: Sequence[collection_pb2.StaticCollectionConfig] = (),
        installed_on: Sequence[str] = (),
        sequence: int = 1,
        init_required: bool = False,
    ) -> None:
        """Approve by all organisations and commit, by the real `_lifecycle`."""
        definition: dict[str, Any] = {
            "name": name,
            "version": "1.0",
            "sequence": sequence,
            "init_required": init_required,
            "validation_parameter": signature_application_policy(policy) if policy else b"",
        }
        if collections:
            definition["collections"] = collection_pb2.CollectionConfigPackage(
                config=[collection_pb2.CollectionConfig(static_collection_config=config) for config in collections]
            )
        for msp_id in self.world.msp_ids:
            approval = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs(**definition)
            if msp_id in (installed_on or self.world.msp_ids):
                approval.source.local_package.package_id = package_id
            else:
                approval.source.unavailable.SetInParent()
            code = await self.lifecycle_transaction("ApproveChaincodeDefinitionForMyOrg", approval, [msp_id])
            assert code == 0, code
        commit = lifecycle_pb2.CommitChaincodeDefinitionArgs(**definition)
        assert await self.lifecycle_transaction("CommitChaincodeDefinition", commit, self.world.msp_ids) == 0

    async def deploy(self, name: str = CHAINCODE, policy: str = "", **options: Any) -> RawChaincode:
        """A raw chaincode, installed on all peers (or `installed_on`), approved and committed."""
        chaincode, package = await self.raw_package(name)
        chaincode.package_id = await self.install(package, options.get("installed_on", ()))
        await self.define(name, chaincode.package_id, policy, **options)
        return chaincode


class DeliverStream:
    """One deliver stream: send requests, read what comes."""

    def __init__(self, call: Any, kind: Any) -> None:
        self.call = call
        self._kind = kind

    async def send(self, envelope: common_pb2.Envelope | bytes) -> None:
        await self.call.write(envelope if isinstance(envelope, bytes) else envelope.SerializeToString())

    async def read(self, timeout_s: float = 10.0) -> Any:
        """The next response, None at the end of the stream."""
        frame = await asyncio.wait_for(self.call.read(), timeout_s)
        return self._kind.FromString(frame) if isinstance(frame, bytes) else None

    async def range(self) -> tuple[list[Any], int]:
        """Blocks up to the next status, and that status."""
        blocks = []
        while True:
            response = await self.read()
            assert response is not None
            kind = response.WhichOneof("Type")
            if kind == "status":
                return blocks, response.status
            blocks.append(getattr(response, kind))


def signed_proposal(proposal: proposal_pb2.Proposal, creator: Signer) -> proposal_pb2.SignedProposal:
    data = proposal.SerializeToString()
    return proposal_pb2.SignedProposal(proposal_bytes=data, signature=sign(creator.key, data))


async def failure(call: Any) -> Failure:
    """Await a call that must fail."""
    try:
        result = await call
    except grpc.aio.AioRpcError as error:
        return Failure(error.code(), error.details() or "", failure_of(rpc_error_of(error), "", 0.0).details)
    raise AssertionError(f"the call succeeded: {result}")


@asynccontextmanager
async def services(
    directory: Path, world: World, *, join: bool = True, second_peers: Iterable[str] = (), **options: Any
) -> AsyncIterator[Services]:
    """A ledger on `directory`, on one channel of all organisations of `world`."""
    running = Services(directory, world, Tls.create(), **options)
    await running.start(second_peers=second_peers)
    try:
        if join:
            await running.ledger.join(world.genesis(CHANNEL))
        yield running
    finally:
        await running.stop()
