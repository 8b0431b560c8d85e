"""Three organisations, a chaincode, a state in memory and signed blocks: no ledger, and no chaincode that runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_event_pb2, proposal_pb2, proposal_response_pb2

from sovchain.protocol.blocks import new_block, sign_block
from sovchain.protocol.channelconfig import (
    ChannelBundle,
    ChannelDefinition,
    Consenter,
    OrganizationDefinition,
    genesis_block,
    msp_config,
)
from sovchain.protocol.commit import BlockCommit, validate_block
from sovchain.protocol.crypto import PrivateKey, sign
from sovchain.protocol.identity import serialize_identity
from sovchain.protocol.lifecycle import (
    LIFECYCLE_NAMESPACE,
    ChaincodeDefinition,
    definition_writes,
    signature_application_policy,
    with_defaults,
)
from sovchain.protocol.proposals import Invocation, build_proposal, parse_signed_proposal, response_payload
from sovchain.protocol.rwset import RwSetBuilder, Version
from sovchain.protocol.transactions import assemble_envelope
from sovchain.protocol.worldstate import UpdateBatch

CHANNEL = "testchannel"
CHAINCODE = "cc"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
APPLICATION = ("AMSP", "BMSP", "CMSP")
BOTH = "AND('AMSP.peer','BMSP.peer')"

Script = Callable[[RwSetBuilder], None]


@dataclass(frozen=True)
class Signer:
    """An enrolled identity."""

    msp_id: str
    identity: bytes
    key: PrivateKey = field(repr=False)
    certificate_pem: bytes = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        return sign(self.key, message)


class Authority:
    """The certificate authority of one organisation."""

    def __init__(self, msp_id: str) -> None:
        self.msp_id = msp_id
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca.{msp_id.lower()}")])
        self.pem = self._issue(self.name, self.key.public_key(), is_ca=True)

    def enrol(self, name: str, role: str) -> Signer:
        """A certificate with `role` as its organisational unit."""
        key = ec.generate_private_key(ec.SECP256R1())
        unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role)
        subject = x509.Name([unit, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        pem = self._issue(subject, key.public_key(), is_ca=False)
        return Signer(self.msp_id, serialize_identity(self.msp_id, pem), key, pem)

    def definition(self) -> OrganizationDefinition:
        return OrganizationDefinition(
            self.msp_id, msp_config(self.msp_id, [self.pem]), orderer_endpoints=["orderer.example:7050"]
        )

    def _issue(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool) -> bytes:
        own = self.key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
            .add_extension(_key_usage(is_ca), critical=True)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, is_ca, is_ca, False, False)


class MemoryState:
    """A StateReader over dictionaries."""

    def __init__(self) -> None:
        self.public: dict[tuple[str, str], tuple[bytes, Mapping[str, bytes], Version]] = {}
        self.hashed: dict[tuple[str, str, bytes], tuple[bytes, Mapping[str, bytes], Version]] = {}

    def copy(self) -> MemoryState:
        state = MemoryState()
        state.public, state.hashed = dict(self.public), dict(self.hashed)
        return state

    def put(self, key: str, value: bytes, version: Version, *, namespace: str = CHAINCODE, policy: bytes = b"") -> None:
        metadata = {"VALIDATION_PARAMETER": policy} if policy else {}
        self.public[namespace, key] = (value, metadata, version)

    def get(self, namespace: str, key: str) -> bytes | None:
        found = self.public.get((namespace, key))
        return None if found is None else found[0]

    def version(self, namespace: str, key: str) -> Version | None:
        found = self.public.get((namespace, key))
        return None if found is None else found[2]

    def metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        found = self.public.get((namespace, key))
        return {} if found is None else found[1]

    def hashed_value(self, namespace: str, collection: str, key_hash: bytes) -> bytes | None:
        found = self.hashed.get((namespace, collection, key_hash))
        return None if found is None else found[0]

    def hashed_version(self, namespace: str, collection: str, key_hash: bytes) -> Version | None:
        found = self.hashed.get((namespace, collection, key_hash))
        return None if found is None else found[2]

    def hashed_metadata(self, namespace: str, collection: str, key_hash: bytes) -> Mapping[str, bytes]:
        found = self.hashed.get((namespace, collection, key_hash))
        return {} if found is None else found[1]

    def range(self, namespace: str, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        for (owner, key), (value, _, version) in sorted(self.public.items()):
            if owner == namespace and start <= key and (not end or key < end):
                yield key, value, version

    def apply(self, updates: UpdateBatch) -> None:
        for place, write in updates.public.items():
            if write.value is None:
                self.public.pop(place, None)
            else:
                self.public[place] = (write.value, write.metadata, write.version)
        for hashed_place, hashed in updates.hashed.items():
            if hashed.value_hash is None:
                self.hashed.pop(hashed_place, None)
            else:
                self.hashed[hashed_place] = (hashed.value_hash, hashed.metadata, hashed.version)


class Organisation:
    def __init__(self, msp_id: str) -> None:
        self.authority = Authority(msp_id)
        self.peer = self.authority.enrol("peer0", "peer")
        self.client = self.authority.enrol("user1", "client")
        self.admin = self.authority.enrol("admin", "admin")


class World:
    """The organisations, the channel, and what they sign."""

    def __init__(self) -> None:
        self.organisations = {msp_id: Organisation(msp_id) for msp_id in APPLICATION}
        self.ordering = Authority("OrdererMSP")
        self.orderer = self.ordering.enrol("orderer0", "orderer")
        self.client = self.organisations["AMSP"].client
        self.genesis = self._genesis()
        self.bundle = ChannelBundle.from_block(self.genesis)
        self.state = MemoryState()
        self.define(self.state, ChaincodeDefinition(CHAINCODE, "1.0", 1, signature_application_policy(BOTH)))

    def _genesis(self, channel_id: str = CHANNEL) -> common_pb2.Block:
        certificate = self.orderer.certificate_pem
        definition = ChannelDefinition(
            channel_id=channel_id,
            application=[organisation.authority.definition() for organisation in self.organisations.values()],
            orderers=[self.ordering.definition()],
            consenters=[Consenter("orderer.example", 7050, certificate, certificate)],
        )
        return genesis_block(definition, timestamp=NOW, nonce=b"n" * 24)

    def define(self, state: MemoryState, definition: ChaincodeDefinition) -> None:
        """Put a definition into a state as if it had been committed in block 0."""
        for key, value in definition_writes(with_defaults(definition)).items():
            state.put(key, value, Version(0, 0), namespace=LIFECYCLE_NAMESPACE)

    def proposal(
        self,
        *,
        chaincode: str = CHAINCODE,
        args: Sequence[bytes] = (b"invoke",),
        creator: Signer | None = None,
        channel_id: str = CHANNEL,
        nonce: bytes | None = None,
        transient: Mapping[str, bytes] | None = None,
    ) -> proposal_pb2.SignedProposal:
        creator = creator or self.client
        invocation = Invocation(channel_id, chaincode, tuple(args), transient or {})
        _, proposal = build_proposal(invocation, creator=creator.identity, nonce=nonce or os.urandom(24), timestamp=NOW)
        encoded = proposal.SerializeToString(deterministic=True)
        return proposal_pb2.SignedProposal(proposal_bytes=encoded, signature=creator.sign(encoded))

    def endorse(self, payload: bytes, signers: Sequence[Signer]) -> list[proposal_response_pb2.Endorsement]:
        return [
            proposal_response_pb2.Endorsement(
                endorser=signer.identity, signature=signer.sign(payload + signer.identity)
            )
            for signer in signers
        ]

    def peers(self, *msp_ids: str) -> list[Signer]:
        return [self.organisations[msp_id].peer for msp_id in msp_ids]

    def transaction(
        self,
        script: Script | bytes = lambda builder: None,
        *,
        endorsers: Sequence[Signer] | None = None,
        creator: Signer | None = None,
        chaincode: str = CHAINCODE,
        action_chaincode: str | None = None,
        version: str = "1.0",
        event: chaincode_event_pb2.ChaincodeEvent | None = None,
        signed: proposal_pb2.SignedProposal | None = None,
        channel_id: str = CHANNEL,
        args: Sequence[bytes] = (b"invoke",),
    ) -> bytes:
        """A signed envelope. `script` fills the read-write set, or is its bytes."""
        creator = creator or self.client
        signed = signed or self.proposal(chaincode=chaincode, creator=creator, channel_id=channel_id, args=args)
        parsed = parse_signed_proposal(signed)
        if isinstance(script, bytes):
            results = script
        else:
            builder = RwSetBuilder()
            script(builder)
            results, _ = builder.results()
        response = proposal_response_pb2.Response(status=200, payload=b"fine")
        payload = response_payload(
            parsed.proposal_hash, results, event, response, action_chaincode or chaincode, version
        )
        endorsers = self.peers("AMSP", "BMSP") if endorsers is None else endorsers
        envelope = assemble_envelope(signed.proposal_bytes, payload, self.endorse(payload, endorsers))
        return seal(envelope, creator)

    def block(
        self, envelopes: Sequence[bytes], *, number: int = 5, previous_hash: bytes = b"p" * 32
    ) -> common_pb2.Block:
        block = new_block(number, previous_hash, envelopes)
        sign_block(block, last_config=0, creator=self.orderer.identity, nonce=b"o" * 24, sign=self.orderer.sign)
        return block

    def commit(
        self,
        envelopes: Sequence[bytes],
        *,
        state: MemoryState | None = None,
        number: int = 5,
        known: Sequence[str] = (),
        previous: bytes | None = b"\x01" * 32,
        bundle: ChannelBundle | None = None,
    ) -> BlockCommit:
        """Validate a block of these envelopes."""
        return validate_block(
            self.block(envelopes, number=number),
            bundle or self.bundle,
            state or self.state,
            transaction_exists=set(known).__contains__,
            previous_commit_hash=previous,
        )


def seal(envelope: common_pb2.Envelope, signer: Signer) -> bytes:
    """Sign an envelope."""
    envelope.signature = signer.sign(envelope.payload)
    return envelope.SerializeToString()


def put(key: str, value: bytes = b"v", namespace: str = CHAINCODE) -> Script:
    """Write one public key blindly."""
    return lambda builder: builder.add_write(namespace, key, value)


def every(*scripts: Script) -> Script:
    """Run scripts one after the other."""

    def run(builder: RwSetBuilder) -> None:
        for script in scripts:
            script(builder)

    return run
