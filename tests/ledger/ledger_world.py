"""Organisations with certificates, a genesis block and signed transactions, made in memory for the ledger's tests."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2

from sovchain.ledger.channel import Channel
from sovchain.ledger.orderer import SigningNode
from sovchain.ledger.simulator import SimulationResults, TxSimulator
from sovchain.protocol.channelconfig import (
    BatchSettings,
    ChannelDefinition,
    Consenter,
    OrganizationDefinition,
    genesis_block,
    msp_config,
)
from sovchain.protocol.crypto import PrivateKey, load_private_key, sign
from sovchain.protocol.identity import serialize_identity
from sovchain.protocol.lifecycle import (
    ChaincodeDefinition,
    definition_writes,
    signature_application_policy,
    with_defaults,
)
from sovchain.protocol.proposals import Invocation, build_proposal, parse_signed_proposal, response_payload
from sovchain.protocol.transactions import assemble_envelope

NOW = datetime.now(UTC).replace(microsecond=0)
CHAINCODE = "cc"
FAST = BatchSettings(timeout_s=0.02)

Script = Callable[[TxSimulator], None]


@dataclass(frozen=True)
class Signer:
    """One enrolled identity."""

    msp_id: str
    identity: bytes
    key: PrivateKey = field(repr=False)
    certificate_pem: bytes = field(repr=False)
    private_key_pem: bytes = field(repr=False)


def signer_from_pem(msp_id: str, certificate_pem: bytes, private_key_pem: bytes) -> Signer:
    identity = serialize_identity(msp_id, certificate_pem)
    return Signer(msp_id, identity, load_private_key(private_key_pem), certificate_pem, private_key_pem)


class Authority:
    """A certificate authority of one organisation."""

    def __init__(self, msp_id: str) -> None:
        self.msp_id = msp_id
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca.{msp_id.lower()}")])
        self.certificate = (
            self._builder(self.name, self.key.public_key(), NOW - timedelta(days=1), NOW + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(cert_sign=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def enrol(self, name: str, role: str, *, expires: datetime | None = None) -> Signer:
        """A certificate with `role` as its organisational unit (client, peer, admin, orderer)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        until = expires or NOW + timedelta(days=365)
        certificate = (
            self._builder(subject, key.public_key(), NOW - timedelta(days=1), until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(cert_sign=False), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return signer_from_pem(self.msp_id, pem, _key_pem(key))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        issuer_key = self.key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


class Organisation:
    """An organisation with a peer, an administrator and a client."""

    def __init__(self, msp_id: str) -> None:
        self.msp_id = msp_id
        self.authority = Authority(msp_id)
        self.peer = self.authority.enrol("peer0", "peer")
        self.admin = self.authority.enrol("admin", "admin")
        self.client = self.authority.enrol("client", "client")

    def definition(self) -> OrganizationDefinition:
        return OrganizationDefinition(self.msp_id, msp_config(self.msp_id, [self.authority.certificate_pem]))


@dataclass(frozen=True)
class Endorsed:
    """A signed transaction that is ready to be ordered."""

    transaction_id: str
    envelope: bytes
    results: SimulationResults


class World:
    """Application organisations and an ordering organisation, and what they sign."""

    def __init__(self, msp_ids: Sequence[str] = ("Org1MSP", "Org2MSP", "Org3MSP")) -> None:
        self.organisations = {msp_id: Organisation(msp_id) for msp_id in msp_ids}
        self.ordering = Authority("OrdererMSP")
        self.orderer = self.ordering.enrol("orderer0", "orderer")

    def save(self, path: Path) -> None:
        """Write what another process needs to open a channel and to endorse: see `load`."""
        signers = {"orderer": self.orderer}
        for msp_id, organisation in self.organisations.items():
            signers |= {f"{msp_id}/peer": organisation.peer, f"{msp_id}/client": organisation.client}
        content = {
            name: [signer.msp_id, signer.certificate_pem.decode(), signer.private_key_pem.decode()]
            for name, signer in signers.items()
        }
        path.write_text(json.dumps(content))

    @classmethod
    def load(cls, path: Path) -> World:
        """The world that `save` wrote, without its authorities: it opens channels, and makes none."""
        content = {
            name: signer_from_pem(msp_id, certificate.encode(), key.encode())
            for name, (msp_id, certificate, key) in json.loads(path.read_text()).items()
        }
        world = cls.__new__(cls)
        world.orderer = content["orderer"]
        world.organisations = {}
        for name, peer in content.items():
            if name.endswith("/peer"):
                organisation = Organisation.__new__(Organisation)
                organisation.msp_id, organisation.peer = peer.msp_id, peer
                organisation.client = content[f"{peer.msp_id}/client"]
                world.organisations[peer.msp_id] = organisation
        return world

    @property
    def msp_ids(self) -> tuple[str, ...]:
        return tuple(self.organisations)

    @property
    def signing_node(self) -> SigningNode:
        return SigningNode.from_pem("OrdererMSP", self.orderer.certificate_pem, self.orderer.private_key_pem)

    def genesis(self, channel_id: str = "testchannel", batch: BatchSettings = FAST) -> bytes:
        definition = ChannelDefinition(
            channel_id=channel_id,
            application=[organisation.definition() for organisation in self.organisations.values()],
            orderers=[
                OrganizationDefinition(
                    "OrdererMSP",
                    msp_config("OrdererMSP", [self.ordering.certificate_pem]),
                    orderer_endpoints=["orderer.example:7050"],
                )
            ],
            consenters=[Consenter("orderer.example", 7050, self.orderer.certificate_pem, self.orderer.certificate_pem)],
            batch=batch,
        )
        block = genesis_block(definition, timestamp=NOW, nonce=os.urandom(24))
        return block.SerializeToString(deterministic=True)

    async def create(
        self,
        directory: Path,
        *,
        channel_id: str = "testchannel",
        batch: BatchSettings = FAST,
        peers: Iterable[str] | None = None,
    ) -> Channel:
        """A new channel without chaincode."""
        return await Channel.create(
            directory,
            self.genesis(channel_id, batch),
            peer_msp_ids=self.msp_ids if peers is None else peers,
            orderer=self.signing_node,
        )

    async def open(self, directory: Path) -> Channel:
        return await Channel.open(directory, peer_msp_ids=self.msp_ids, orderer=self.signing_node)

    def proposal(
        self,
        channel_id: str,
        *,
        chaincode: str = CHAINCODE,
        args: Sequence[bytes] = (b"invoke",),
        transient: Mapping[str, bytes] | None = None,
        creator: Signer | None = None,
    ) -> tuple[str, proposal_pb2.SignedProposal]:
        creator = creator or next(iter(self.organisations.values())).client
        invocation = Invocation(channel_id, chaincode, tuple(args), dict(transient or {}))
        transaction_id, proposal = build_proposal(
            invocation, creator=creator.identity, nonce=os.urandom(24), timestamp=datetime.now(UTC)
        )
        data = proposal.SerializeToString()
        return transaction_id, proposal_pb2.SignedProposal(proposal_bytes=data, signature=sign(creator.key, data))

    async def endorse(
        self,
        channel: Channel,
        script: Script,
        *,
        chaincode: str = CHAINCODE,
        version: str = "1.0",
        endorsers: Sequence[str] | None = None,
        creator: Signer | None = None,
        distribute: bool = True,
    ) -> Endorsed:
        """Run `script` as the chaincode, have the peers of `endorsers` (default: all) sign what it did."""
        creator = creator or next(iter(self.organisations.values())).client
        transaction_id, signed = self.proposal(channel.channel_id, chaincode=chaincode, creator=creator)
        endorsers = endorsers or self.msp_ids
        with await channel.snapshot() as snapshot:
            simulator = channel.simulator(snapshot, endorsers[0], transaction_id)
            script(simulator)
            results = simulator.results()
            simulator.done()
        if results.private is not None and distribute:
            await asyncio.to_thread(channel.store_private, transaction_id, endorsers[0], results.private)
        envelope = self.envelope(signed, results.public, chaincode, version, endorsers, creator)
        return Endorsed(transaction_id, envelope, results)

    def envelope(
        self,
        signed: proposal_pb2.SignedProposal,
        results: bytes,
        chaincode: str,
        version: str,
        endorsers: Sequence[str],
        creator: Signer,
    ) -> bytes:
        parsed = parse_signed_proposal(signed)
        payload = response_payload(
            parsed.proposal_hash, results, None, proposal_response_pb2.Response(status=200), chaincode, version
        )
        endorsements = [
            proposal_response_pb2.Endorsement(endorser=peer.identity, signature=sign(peer.key, payload + peer.identity))
            for peer in (self.organisations[msp_id].peer for msp_id in endorsers)
        ]
        return sign_envelope(assemble_envelope(signed.proposal_bytes, payload, endorsements), creator)

    async def submit(self, channel: Channel, script: Script, **options: object) -> tuple[str, int, int]:
        """Endorse, order and wait: (transaction id, validation code, block number)."""
        endorsed = await self.endorse(channel, script, **options)  # type: ignore[arg-type]
        await channel.order(endorsed.envelope)
        code, number = await channel.wait_for_commit(endorsed.transaction_id)
        return endorsed.transaction_id, code, number

    async def define(
        self,
        channel: Channel,
        *,
        name: str = CHAINCODE,
        policy: str | None = None,
        sequence: int = 1,
        collections: object = None,
    ) -> None:
        """Commit a chaincode definition; by default any one peer may endorse."""
        peers = ", ".join(f"'{msp_id}.peer'" for msp_id in self.msp_ids)
        definition = with_defaults(
            ChaincodeDefinition(
                name=name,
                version="1.0",
                sequence=sequence,
                endorsement_policy=signature_application_policy(policy or f"OR({peers})"),
                collections=collections,  # type: ignore[arg-type]
            )
        )

        def script(simulator: TxSimulator) -> None:
            for key, value in definition_writes(definition).items():
                simulator.put_state("_lifecycle", key, value)

        _, code, _ = await self.submit(channel, script, chaincode="_lifecycle", version="syscc")
        assert code == 0, channel.reason(_)


def sign_envelope(envelope: common_pb2.Envelope, signer: Signer) -> bytes:
    envelope.signature = sign(signer.key, envelope.payload)
    return envelope.SerializeToString(deterministic=True)


def put(key: str, value: bytes, namespace: str = CHAINCODE) -> Script:
    """A chaincode that writes one key without reading it."""
    return lambda simulator: simulator.put_state(namespace, key, value)


def increment(key: str, namespace: str = CHAINCODE) -> Script:
    """A chaincode that reads a number and writes the next."""

    def script(simulator: TxSimulator) -> None:
        value = int(simulator.get_state(namespace, key) or b"0")
        simulator.put_state(namespace, key, str(value + 1).encode())

    return script
