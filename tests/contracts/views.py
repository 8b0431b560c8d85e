"""Views for tests: queries on a ledger in memory, endorsed by peers with certificates of their own."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2
from memory_ledger import MemoryLedger, admit_everyone, identity_of
from pki import Authority, Signer, pem

from sovchain.chaincode import Operation
from sovchain.contracts.core import Crossing
from sovchain.contracts.core.crossing_records import AnchorStatement
from sovchain.contracts.core.store import encode_record
from sovchain.protocol.channelconfig import msp_config
from sovchain.protocol.proposals import Invocation, build_proposal, parse_signed_proposal, response_payload
from sovchain.protocol.rwset import RwSetBuilder, Version
from sovchain.protocol.transactions import assemble_envelope

NAMES = ("Government", "Finance", "Supervisor")
POLICY = "AND('SupervisorMSP.peer', OR('GovernmentMSP.peer', 'FinanceMSP.peer'))"


class Peers:
    """The authorities of a channel's organisations, and a peer and a client of each."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self.authorities = {name: Authority(f"{name}MSP") for name in names}
        self.peers = {name: authority.issue("peer0", "peer") for name, authority in self.authorities.items()}
        self.clients = {name: authority.issue("User1", "client") for name, authority in self.authorities.items()}

    def config(self, name: str, *revoked: Signer) -> str:
        authority = self.authorities[name]
        crls = [authority.revoke(*revoked)] if revoked else []
        config = msp_config(authority.msp_id, [pem(authority.certificate)], crls=crls)
        return base64.b64encode(config.SerializeToString(deterministic=True)).decode()

    def statement(self, channel: str, at: datetime, **changes: Any) -> AnchorStatement:
        stated = {
            "network": "guiyang",
            "channel": channel,
            "chaincode": channel,
            "epoch": 1,
            "msps": tuple(self.config(name) for name in self.authorities),
            "policy": POLICY,
            "valid_from": at - timedelta(hours=1),
            "valid_to": at + timedelta(days=20),
        }
        return AnchorStatement.model_validate(stated | changes)


@dataclass(frozen=True)
class Forgery:
    """A view before it is put together: every part can be made otherwise."""

    channel: str
    chaincode: str
    args: tuple[bytes, ...]
    payload: bytes
    signers: tuple[Signer, ...]
    asked: datetime
    asker: bytes = field(repr=False)
    status: int = 200
    answered_by: str = ""
    transient: dict[str, bytes] = field(default_factory=dict)
    writes: bool = False

    def bytes(self) -> bytes:
        """The payload of the transaction that nobody submits."""
        invocation = Invocation(self.channel, self.chaincode, self.args, self.transient)
        _, proposal = build_proposal(invocation, creator=self.asker, nonce=b"n" * 24, timestamp=self.asked)
        parsed = parse_signed_proposal(
            proposal_pb2.SignedProposal(proposal_bytes=proposal.SerializeToString(), signature=b"not looked at")
        )
        accesses = RwSetBuilder()
        accesses.add_read(self.chaincode, "key", Version(4, 2))
        if self.writes:
            accesses.add_write(self.chaincode, "key", b"value")
        results, _ = accesses.results()
        response = proposal_response_pb2.Response(status=self.status, payload=self.payload)
        answer = response_payload(
            parsed.proposal_hash, results, None, response, self.answered_by or self.chaincode, "1.0"
        )
        endorsements = [
            proposal_response_pb2.Endorsement(endorser=one.creator, signature=one.sign(answer + one.creator))
            for one in self.signers
        ]
        envelope = assemble_envelope(proposal.SerializeToString(), answer, endorsements[:1])
        return _with_endorsements(envelope, endorsements)

    def changed(self, **changes: Any) -> Forgery:
        return replace(self, **changes)


def _with_endorsements(
    envelope: common_pb2.Envelope, endorsements: Sequence[proposal_response_pb2.Endorsement]
) -> bytes:
    """All of the endorsements, an endorser twice too, which `assemble_envelope` would not have."""
    payload = common_pb2.Payload.FromString(envelope.payload)
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    body = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    del body.action.endorsements[:]
    body.action.endorsements.extend(endorsements)
    transaction.actions[0].payload = body.SerializeToString()
    payload.data = transaction.SerializeToString()
    return payload.SerializeToString()


async def forge(
    ledger: MemoryLedger, peers: Peers, operation: Operation[..., Any], *args: Any, by: Sequence[str] = NAMES
) -> Forgery:
    """The honest view of a query on a ledger, to be altered or not."""
    call = operation.encode(*args)
    answer = await ledger.evaluate(NAMES[0], operation, *args)
    return Forgery(
        channel=ledger.channel,
        chaincode=ledger.channel,
        args=call.args,
        payload=encode_record(answer),
        signers=tuple(peers.peers[name] for name in by),
        asked=ledger.now,
        asker=identity_of("Finance"),
    )


class Crossings:
    """Two channels on which everybody is admitted and that have pinned each other."""

    def __init__(self, source: MemoryLedger, destination: MemoryLedger) -> None:
        self.source, self.destination, self.peers = source, destination, Peers()

    async def pin(self) -> None:
        for ledger, other in ((self.source, self.destination), (self.destination, self.source)):
            await admit_everyone(ledger)
            statement = self.peers.statement(other.channel, ledger.now)
            ballot = await ledger.submit("Government/admin", Crossing.propose_anchor, statement)
            for name in NAMES:
                await ledger.submit(f"{name}/admin", Crossing.vote, ballot)

    async def ask(self, who: str, record_type: str, record_id: str, purpose: str, action: str = "move") -> str:
        expires = self.destination.now + timedelta(days=1)
        made = await self.destination.submit(
            who, Crossing.challenge, self.source.channel, action, record_type, record_id, purpose, expires
        )
        return str(made.id)

    async def asked(self, challenge: str) -> bytes:
        return await view(self.destination, self.peers, Crossing.view_challenge, challenge)

    async def sent(self, challenge: str) -> bytes:
        return await view(self.source, self.peers, Crossing.view_outgoing, challenge)


async def view(
    ledger: MemoryLedger, peers: Peers, operation: Operation[..., Any], *args: Any, by: Sequence[str] = NAMES
) -> bytes:
    """The honest view of a query on a ledger."""
    return (await forge(ledger, peers, operation, *args, by=by)).bytes()
