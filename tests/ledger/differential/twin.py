"""A network of real Fabric programs and an embedded ledger that follows it: same keys, same first blocks, same input.

Every proposal goes to the real peers and to the embedded ones; every envelope goes to the real ordering node, whose
blocks the embedded ledger appends. Both call one chaincode, which the test runs. What differs is collected.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from fabric_protos.common import common_pb2
from fabric_protos.discovery import protocol_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import collection_pb2, events_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from raw_chaincode import RawChaincode
from twin_chaincode import run
from twin_people import People, Person
from twin_shown import apart

from sovchain.ledger.channel import Channel
from sovchain.ledger.errors import OrderingRefused
from sovchain.ledger.node import EmbeddedLedger
from sovchain.ledger.orderer import check_envelope
from sovchain.network import ports as ports_module
from sovchain.network.genesis import genesis_blocks
from sovchain.network.material import Material
from sovchain.network.runtimes import Site, native
from sovchain.network.runtimes.access import node_address
from sovchain.network.runtimes.embedded import _nodes
from sovchain.network.runtimes.native import NativeRuntime
from sovchain.network.topology import Batch, OrderingOrganization, Organization, Raft, Topology
from sovchain.network.topology import Channel as ChannelSpec
from sovchain.protocol.blocks import block_commit_hash, transactions_filter
from sovchain.protocol.packages import build_ccaas_package, package_id
from sovchain.protocol.proposals import Invocation, build_proposal
from sovchain.protocol.transactions import assemble_envelope

NAMES = ("One", "Two", "Three")
CHANNEL, OTHER_CHANNEL = "first", "second"
ORDERER = "OrdererOne"
_CODES = transaction_pb2.TxValidationCode
TIMEOUT_S = 100.0
_LAYERS = re.compile(r"initializing channelconfig failed: could not create channel \w+ sub-group config: ")
_PEER_TIME = re.compile(r"peer time \S+?Z")


def topology(version: str, *, batch: int = 12) -> Topology:
    """Three organisations on one channel, two of them on another; one ordering node."""
    cut = Batch(max_message_count=batch, timeout_s=0.15)
    return Topology(
        name="twin",
        domain="twin.example",
        fabric_version=version,  # type: ignore[arg-type]  # one of the two
        raft=Raft(tick_ms=50),
        organizations=tuple(Organization(name=name) for name in NAMES),
        ordering_organizations=(OrderingOrganization(operator="One"),),
        channels=(
            ChannelSpec(name=CHANNEL, members=NAMES, batch=cut),
            ChannelSpec(name=OTHER_CHANNEL, members=NAMES[:2], batch=cut),
        ),
    )


@dataclass(frozen=True)
class Difference:
    """Where the embedded ledger is not what Fabric is."""

    what: str
    fabric: object
    embedded: object
    case: object = field(default=None, compare=False)

    def __str__(self) -> str:
        fabric, embedded = apart(self.fabric, self.embedded)
        return f"{self.what}\n  fabric:   {fabric}\n  embedded: {embedded}\n  case:     {str(self.case)[:1000]}"


@dataclass(frozen=True)
class Endorsed:
    """What the real peers said of a proposal: answers of those that endorsed it, by their organisation."""

    transaction_id: str
    signed: proposal_pb2.SignedProposal
    answers: dict[str, proposal_response_pb2.ProposalResponse]


class Twin:
    """Both ledgers. Make it with `twin`."""

    def __init__(self, site: Site, material: Material, ledger: EmbeddedLedger, chaincode: RawChaincode) -> None:
        self.site = site
        self.material = material
        self.ledger = ledger
        self.chaincode = chaincode
        ordering = site.topology.ordering_organizations[0].name
        self.people = People(material, list(NAMES), ordering)
        if site.topology.fabric_version == "2.5":
            # Fabric 2.5 cannot read this kind of key; 3.1 reads it and finds it not allowed on such a channel.
            self.people.odd = [person for person in self.people.odd if person.kind != "ed25519"]
        self.differences: list[Difference] = []
        self.compared: dict[str, int] = {}
        self.codes: dict[str, int] = {}
        self.blocks: dict[str, list[bytes]] = {CHANNEL: [], OTHER_CHANNEL: []}
        self.waiting: list[object] = []
        self.ordered: list[tuple[int, str]] = []
        self._channels: list[grpc.aio.Channel] = []
        self._real: dict[str, Any] = {}
        self._embedded: dict[str, Any] = {}
        for name in NAMES:
            address = node_address(site, material.organization(name))
            real = address.channel()
            local = grpc.aio.secure_channel(
                ledger.address_of(material.organization(name).node().host),
                grpc.ssl_channel_credentials(address.tls_root_pem),
                options=[("grpc.ssl_target_name_override", "localhost")],
            )
            self._channels += [real, local]
            self._real[name], self._embedded[name] = real, local
        self._orderer = node_address(site, material.organization(ordering)).channel()
        self._channels.append(self._orderer)

    def channel(self, name: str = CHANNEL) -> Channel:
        """The embedded channel."""
        return self.ledger.channels[name]

    # Proposals ----------------------------------------------------------------------------------------------------

    def proposal(
        self,
        *args: bytes,
        creator: Person,
        channel: str = CHANNEL,
        chaincode: str = "cc",
        transient: dict[str, bytes] | None = None,
        is_init: bool = False,
    ) -> proposal_pb2.SignedProposal:
        """A well-formed proposal."""
        invocation = Invocation(channel, chaincode, args, transient or {}, is_init)
        _, proposal = build_proposal(
            invocation, creator=creator.identity, nonce=secrets.token_bytes(24), timestamp=datetime.now(UTC)
        )
        content = proposal.SerializeToString(deterministic=True)
        return proposal_pb2.SignedProposal(proposal_bytes=content, signature=creator.sign(content))

    async def propose(
        self, signed: proposal_pb2.SignedProposal, names: Sequence[str] = NAMES, case: object = None
    ) -> Endorsed:
        """Send a proposal to the peers of these organisations on both sides and compare what they say."""
        asked = [(side, name) for name in names for side in (self._real[name], self._embedded[name])]
        answers = await asyncio.gather(*(_process(side, signed) for side, _ in asked))
        endorsed: dict[str, proposal_response_pb2.ProposalResponse] = {}
        for position, name in enumerate(names):
            fabric, embedded = answers[2 * position], answers[2 * position + 1]
            self.compare(f"answer of {name}'s peer", _visible(fabric), _visible(embedded), case)
            if isinstance(fabric, proposal_response_pb2.ProposalResponse) and fabric.HasField("endorsement"):
                endorsed[name] = fabric
        header = common_pb2.Header()
        transaction_id = ""
        try:
            header.ParseFromString(proposal_pb2.Proposal.FromString(signed.proposal_bytes).header)
            transaction_id = common_pb2.ChannelHeader.FromString(header.channel_header).tx_id
        except Exception:  # a hostile proposal has no id
            transaction_id = ""
        return Endorsed(transaction_id, signed, endorsed)

    # Transactions -------------------------------------------------------------------------------------------------

    async def order(self, envelopes: Sequence[tuple[bytes, object]], channel: str = CHANNEL) -> list[int]:
        """Order envelopes on the real ordering node, follow its blocks, and compare what becomes of each.

        Returns the validation codes of those that were accepted, in order.
        """
        accepted: list[object] = []
        for (envelope, case), (status, text) in zip(
            envelopes, await self._broadcast([e for e, _ in envelopes]), strict=True
        ):
            text = _LAYERS.sub("", text)
            self.ordered.append((status, text))
            self.compare("answer of the ordering node", (status, text), self._would_order(channel, envelope), case)
            if status == common_pb2.SUCCESS:
                accepted.append(case)
        codes = await self._follow(channel, accepted)
        for code in codes:
            name = _CODES.Name(code)
            self.codes[name] = self.codes.get(name, 0) + 1
        return codes

    def _would_order(self, channel: str, envelope: bytes) -> tuple[int, str]:
        try:
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
            named = common_pb2.ChannelHeader.FromString(payload.header.channel_header).channel_id
        except Exception:  # a hostile envelope names no channel
            named = channel
        found = self.ledger.channels.get(named) or self.channel(channel)
        try:
            signer = self.ledger._signer_of(found.bundle)
            check_envelope(found.bundle, envelope, lambda: datetime.now(UTC), signer)
        except OrderingRefused as refusal:
            return refusal.status, refusal.text
        return common_pb2.SUCCESS, ""

    async def _broadcast(self, envelopes: Sequence[bytes]) -> list[tuple[int, str]]:
        answers: list[tuple[int, str]] = []
        call = None
        for envelope in envelopes:
            while True:
                if call is None:
                    call = self._orderer.stream_stream(
                        "/orderer.AtomicBroadcast/Broadcast",
                        request_serializer=None,
                        response_deserializer=ab_pb2.BroadcastResponse.FromString,
                    )(timeout=600)
                try:
                    await call.write(envelope)
                    answer: Any = await asyncio.wait_for(call.read(), TIMEOUT_S)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    answer = None
                if not isinstance(answer, ab_pb2.BroadcastResponse):
                    call = None  # the stream ended after the refusal before
                    continue
                if answer.status == common_pb2.SERVICE_UNAVAILABLE:
                    call = None
                    await asyncio.sleep(0.05)
                    continue
                answers.append((answer.status, answer.info))
                if answer.status != common_pb2.SUCCESS:
                    call = None
                break
        if call is not None:
            await call.done_writing()
            call.cancel()
        return answers

    async def _follow(self, channel: str, accepted: list[object]) -> list[int]:
        """Append the real peer's blocks until all accepted envelopes are in them."""
        codes: list[int] = []
        self.waiting = accepted
        start = self.channel(channel).height
        if not accepted:
            return codes
        async for data in self.real_blocks("One", channel, start):
            block = common_pb2.Block.FromString(data)
            self.blocks[channel].append(data)
            await self.channel(channel).append(data)
            stored = common_pb2.Block.FromString(self.channel(channel).block(block.header.number) or b"")
            where = f"block {block.header.number} of {channel}"
            cases = accepted[len(codes) : len(codes) + len(block.data.data)]
            fabric, embedded = transactions_filter(block), transactions_filter(stored)
            for position, case in enumerate(cases):
                reason = self._reason(channel, block.data.data[position])
                mine = (_CODES.Name(embedded[position]), reason) if fabric[position] != embedded[position] else ""
                theirs = _CODES.Name(fabric[position]) if fabric[position] != embedded[position] else ""
                self.compare(f"code of transaction {position} of {where}", theirs, mine, case)
            self.compare(
                f"commit hash of {where}", block_commit_hash(block).hex(), block_commit_hash(stored).hex(), cases
            )
            codes.extend(fabric)
            self.waiting = accepted[len(codes) :]
            if len(codes) >= len(accepted):
                break
        for name in self.site.topology.channel(channel).members:
            if name != "One":
                async for _ in self.real_blocks(name, channel, start, self.channel(channel).height - 1):
                    pass
        return codes

    def _reason(self, channel: str, envelope: bytes) -> str:
        try:
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        except Exception:  # a hostile envelope has no id
            return ""
        return self.channel(channel).reason(header.tx_id)

    async def real_blocks(self, name: str, channel: str, start: int, stop: int = 2**63 - 1) -> AsyncIterator[bytes]:
        """The blocks of a real peer as it stores them."""
        person = self.people.admin[name]
        seek = ab_pb2.SeekInfo(behavior=ab_pb2.SeekInfo.BLOCK_UNTIL_READY)
        seek.start.specified.number, seek.stop.specified.number = start, stop
        call = self._real[name].stream_stream(
            "/protos.Deliver/Deliver",
            request_serializer=common_pb2.Envelope.SerializeToString,
            response_deserializer=events_pb2.DeliverResponse.FromString,
        )(timeout=TIMEOUT_S)
        try:
            await call.write(deliver_request(person, channel, seek))
            while True:
                answer = await call.read()
                assert isinstance(answer, events_pb2.DeliverResponse), (name, channel, start, self.waiting[:3])
                if not answer.HasField("block"):
                    assert answer.status == common_pb2.SUCCESS, (name, channel, start, answer.status)
                    return
                yield answer.block.SerializeToString(deterministic=True)
                if answer.block.header.number >= stop:
                    return
        finally:
            call.cancel()

    def envelope(
        self,
        endorsed: Endorsed,
        creator: Person,
        names: Sequence[str],
    ) -> common_pb2.Envelope:
        """The signed transaction of a proposal with the endorsements of these organisations."""
        chosen = [endorsed.answers[name] for name in names if name in endorsed.answers]
        envelope = assemble_envelope(
            endorsed.signed.proposal_bytes, chosen[0].payload, [answer.endorsement for answer in chosen]
        )
        envelope.signature = creator.sign(envelope.payload)
        return envelope

    async def discover(self, name: str, request: protocol_pb2.Request, person: Person) -> list[Any]:
        """What the discovery services of an organisation's real and embedded peer say to one request.

        A real peer asks for the client's TLS certificate, and the request must carry its hash.
        """
        part = self.material.organization(name)
        folder = part.user_msp("Admin").parent / "tls"
        certificate, key = (folder / "client.crt").read_bytes(), (folder / "client.key").read_bytes()
        der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
        request.authentication.client_identity = person.identity
        request.authentication.client_tls_cert_hash = hashlib.sha256(der).digest()
        payload = request.SerializeToString()
        signed = protocol_pb2.SignedRequest(payload=payload, signature=person.sign(payload))
        answers: list[Any] = []
        address = node_address(self.site, part)
        own = grpc.aio.secure_channel(
            address.address, grpc.ssl_channel_credentials(address.tls_root_pem, key, certificate)
        )
        try:
            for side in (own, self._embedded[name]):
                call = side.unary_unary(
                    "/discovery.Discovery/Discover",
                    request_serializer=protocol_pb2.SignedRequest.SerializeToString,
                    response_deserializer=protocol_pb2.Response.FromString,
                )
                try:
                    answers.append(await call(signed, timeout=TIMEOUT_S))
                except grpc.aio.AioRpcError as error:
                    answers.append((error.code().name, error.details()))
        finally:
            await own.close(None)
        return answers

    def compare(self, what: str, fabric: object, embedded: object, case: object) -> None:
        """Note one comparison, and the difference if there is one."""
        kind = what.split(" of ")[0]
        self.compared[kind] = self.compared.get(kind, 0) + 1
        if fabric != embedded:
            self.differences.append(Difference(what, fabric, embedded, case))

    # Chaincode ----------------------------------------------------------------------------------------------------

    async def transact(
        self, *args: bytes, creator: Person, names: Sequence[str], channel: str = CHANNEL, chaincode: str = "cc"
    ) -> int:
        """One transaction all the way."""
        signed = self.proposal(*args, creator=creator, channel=channel, chaincode=chaincode)
        endorsed = await self.propose(signed, names)
        assert set(endorsed.answers) == set(names), f"{endorsed} {self.differences}"
        envelope = self.envelope(endorsed, creator, names)
        (code,) = await self.order([(envelope.SerializeToString(), args)], channel)
        return code

    async def install(self, package: bytes) -> None:
        """Install a package on every peer of both sides."""
        arguments = lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package).SerializeToString()
        for name in NAMES:
            signed = self.proposal(
                b"InstallChaincode",
                arguments,
                creator=self.people.admin[name],
                channel="",
                chaincode="_lifecycle",
            )
            await self.propose(signed, [name], "install")

    async def define(
        self,
        name: str,
        package: str,
        policy: bytes = b"",
        collections: collection_pb2.CollectionConfigPackage | None = None,
        channel: str = CHANNEL,
        sequence: int = 1,
        *,
        init_required: bool = False,
    ) -> None:
        """Approve a definition for every member and commit it."""
        members = self.site.topology.channel(channel).members
        definition: dict[str, Any] = {
            "name": name,
            "version": f"{sequence}.0",
            "sequence": sequence,
            "validation_parameter": policy,
            "collections": collections,
            "init_required": init_required,
            "endorsement_plugin": "escc",
            "validation_plugin": "vscc",
        }
        source = lifecycle_pb2.ChaincodeSource(local_package=lifecycle_pb2.ChaincodeSource.Local(package_id=package))
        approval = lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs(source=source, **definition)
        for member in members:
            code = await self.transact(
                b"ApproveChaincodeDefinitionForMyOrg",
                approval.SerializeToString(deterministic=True),
                creator=self.people.admin[member],
                names=[member],
                channel=channel,
                chaincode="_lifecycle",
            )
            assert code == _CODES.VALID, _CODES.Name(code)
        commit = lifecycle_pb2.CommitChaincodeDefinitionArgs(**definition)
        code = await self.transact(
            b"CommitChaincodeDefinition",
            commit.SerializeToString(deterministic=True),
            creator=self.people.admin[members[0]],
            names=members,
            channel=channel,
            chaincode="_lifecycle",
        )
        assert code == _CODES.VALID, _CODES.Name(code)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close(None)


def deliver_request(person: Person, channel: str, seek: ab_pb2.SeekInfo) -> common_pb2.Envelope:
    """A signed request for blocks."""
    header = common_pb2.ChannelHeader(type=common_pb2.DELIVER_SEEK_INFO, channel_id=channel)
    header.timestamp.GetCurrentTime()
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(),
            signature_header=common_pb2.SignatureHeader(
                creator=person.identity, nonce=secrets.token_bytes(24)
            ).SerializeToString(),
        ),
        data=seek.SerializeToString(),
    ).SerializeToString()
    return common_pb2.Envelope(payload=payload, signature=person.sign(payload))


async def _process(side: grpc.aio.Channel, signed: proposal_pb2.SignedProposal) -> Any:
    call = side.unary_unary(
        "/protos.Endorser/ProcessProposal",
        request_serializer=proposal_pb2.SignedProposal.SerializeToString,
        response_deserializer=proposal_response_pb2.ProposalResponse.FromString,
    )
    try:
        return await call(signed, timeout=TIMEOUT_S, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        text = (error.details() or "").replace("\u00a0", " ")  # Go's protobuf uses either space, by build
        return error.code().name, _PEER_TIME.sub("peer time NOW", text)


def _visible(answer: Any) -> object:
    """An answer without the signature, which has a random part."""
    if not isinstance(answer, proposal_response_pb2.ProposalResponse):
        return answer
    shown = proposal_response_pb2.ProposalResponse()
    shown.CopyFrom(answer)
    shown.endorsement.signature = b""
    if not answer.HasField("endorsement"):
        shown.ClearField("endorsement")
    # A peer lists these, and the policies in them, in the random order of a Go map.
    for call in shown.interest.chaincodes:
        policies = sorted(call.key_policies, key=lambda policy: policy.SerializeToString(deterministic=True))
        del call.key_policies[:]
        call.key_policies.extend(policies)
    calls = sorted(shown.interest.chaincodes, key=lambda call: call.SerializeToString(deterministic=True))
    del shown.interest.chaincodes[:]
    shown.interest.chaincodes.extend(calls)
    return shown


@contextmanager
def _impatient_peers() -> Iterator[None]:
    """Peers that do not look for missing private data for a minute before they commit a block."""
    original = native.peer_settings

    def settings(*args: Any, **options: Any) -> Any:
        found = original(*args, **options)
        found["peer"]["gossip"]["pvtData"]["pullRetryThreshold"] = "0s"
        return found

    native.peer_settings = settings
    try:
        yield
    finally:
        native.peer_settings = original


@asynccontextmanager
async def twin(version: str, folder: Path, *, batch: int = 12) -> AsyncIterator[Twin]:
    """Both ledgers, with the chaincodes "cc", "other" and, on the second channel, "far" defined."""
    plan = topology(version, batch=batch)
    runtime = NativeRuntime()
    ports = ports_module.allocate(runtime.services(plan), None, {})
    site = Site(folder, plan, ports, runtime.endpoints(plan, ports))
    for name in ("organizations", "logs", "run"):
        if name != "organizations":
            (folder / name).mkdir(parents=True, exist_ok=True)
    ledger = None
    chaincode = RawChaincode()
    chaincode.functions["run"] = run
    both = None
    try:
        await runtime.release(site)
        material = Material.create(plan, folder / "organizations", datetime.now(UTC))
        blocks = genesis_blocks(plan, material, site.endpoints, folder / "channels", datetime.now(UTC))
        await runtime.prepare(site)
        starting = asyncio.create_task(_start(runtime, site, material, list(blocks.values())))
        own = Site(folder, plan, dict.fromkeys(site.ports, 0), site.endpoints)
        ledger = await EmbeddedLedger.start(
            folder / "embedded",
            peers=_nodes(own, material, "peer"),
            orderers=_nodes(own, material, "orderer"),
            simulate_twice="never",
        )
        for block in blocks.values():
            await ledger.join(block)
        address = await chaincode.start_plain()
        package = build_ccaas_package("cc", {"address": address, "dial_timeout": "10s", "tls_required": False})
        chaincode.package_id = package_id(package, "cc")
        await starting
        both = Twin(site, material, ledger, chaincode)
        await both.install(package)
        yield both
    finally:
        if both is not None:
            await both.close()
        if ledger is not None:
            await ledger.stop(grace_s=0)
        await runtime.stop()
        await chaincode.stop()


async def _start(runtime: NativeRuntime, site: Site, material: Material, blocks: list[bytes]) -> None:
    with _impatient_peers():
        await runtime.start(site, material, blocks)


def steps(*found: list[Any]) -> tuple[bytes, bytes]:
    """The arguments of a proposal that does these steps."""
    return b"run", json.dumps(list(found)).encode()
