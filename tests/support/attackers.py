"""A network with everything that an attacker inside it may hold: keys of single organisations, raw proposals, altered results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2

from sovchain.cli.law_commands import load_organisations
from sovchain.client import SigningIdentity
from sovchain.network import Network
from sovchain.network.material import Material
from sovchain.network.nodes import OrderingNodes, Peer, SignedInvocation
from sovchain.network.runtimes.access import administered_peer, site_of
from sovchain.network.startup import ordering_nodes
from sovchain.protocol.policies import SignedData
from sovchain.protocol.proposals import Invocation
from sovchain.protocol.transactions import assemble_envelope
from sovchain.sovereign import Sovereign

EXAMPLES = Path(__file__).parents[2] / "examples"
CHANNEL = "finance"
SEATS = ("Government", "Supervisor", "Finance")


@dataclass
class Attacked:
    """A running default network whose finance channel is founded."""

    network: Network
    material: Material
    peers: dict[str, Peer]
    orderers: OrderingNodes
    dataset: str

    def signers(self, operator: str) -> list[SigningIdentity]:
        """Every key that an operator holds: of its users, its peers and its ordering nodes."""
        topology = self.network.topology
        found = []
        for part in (*topology.organizations, *topology.ordering_organizations):
            if operator not in (part.name, getattr(part, "operator", "")):
                continue
            own = self.material.organization(part.name)
            found += [
                SigningIdentity.from_pem(part.msp_id, own.read(holder.certificate_file), own.read(holder.key_file))
                for holder in own.holders
            ]
        return found

    def peer_key(self, organization: str) -> SigningIdentity:
        """The key of an organisation's peer."""
        node = self.material.organization(organization).nodes()[0]
        return SigningIdentity.from_pem(node.msp_id, node.certificate_pem, node.private_key_pem)

    async def file(self, purpose: str) -> str:
        """File Finance's request; its id."""
        async with self.network.connect("Finance") as gateway:
            filed = await Sovereign(gateway.network(CHANNEL)).file_request(self.dataset, purpose)
        await self.reached(filed.committed)
        return str(filed.request)

    async def reached(self, committed: Any) -> None:
        """Wait until each member's peer has a transaction."""
        for name in SEATS:
            async with self.network.connect(name) as gateway:
                await Sovereign(gateway.network(CHANNEL)).reached(committed)

    async def answers(self, client: SigningIdentity, message: bytes, peers: Sequence[str]) -> Sequence[Any]:
        """What peers answer to a proposal, with what was proposed."""
        proposal = proposal_pb2.SignedProposal(proposal_bytes=message, signature=client.sign(message))
        invocation = SignedInvocation(Invocation(CHANNEL, "finance", ()), "", proposal)
        return await asyncio.gather(*(self.peers[name].propose("attack", "finance", invocation) for name in peers))

    async def commit(
        self,
        client: SigningIdentity,
        message: bytes,
        transaction_id: str,
        payload: bytes,
        endorsements: Sequence[proposal_response_pb2.Endorsement],
    ) -> int:
        """Send a transaction past the gateway and wait for what the peers make of it. Raises LifecycleError."""
        envelope = assemble_envelope(message, payload, endorsements)
        envelope.signature = client.sign(envelope.payload)
        await self.orderers.broadcast("attack", "finance", CHANNEL, envelope.SerializeToString())
        return await self.peers["Supervisor"].committed("attack", "finance", CHANNEL, transaction_id)


def endorsed(payload: bytes, *endorsers: SigningIdentity) -> list[proposal_response_pb2.Endorsement]:
    """Endorsements of a result that no honest peer computed."""
    return [
        proposal_response_pb2.Endorsement(endorser=one.creator, signature=one.sign(payload + one.creator))
        for one in endorsers
    ]


def signed_by(message: bytes, signers: Sequence[SigningIdentity]) -> list[SignedData]:
    """A message with the signatures of all of them."""
    return [SignedData(message, one.creator, one.sign(message)) for one in signers]


def turned(payload: bytes, old: bytes, new: bytes) -> bytes:
    """A result with other bytes in what it writes and answers, otherwise well formed."""
    response = proposal_response_pb2.ProposalResponsePayload.FromString(payload)
    action = proposal_pb2.ChaincodeAction.FromString(response.extension)
    assert old in action.response.payload
    action.response.payload = action.response.payload.replace(old, new)
    results = rwset_pb2.TxReadWriteSet.FromString(action.results)
    changed = 0
    for namespace in results.ns_rwset:
        kv = kv_rwset_pb2.KVRWSet.FromString(namespace.rwset)
        for write in kv.writes:
            changed += old in write.value
            write.value = write.value.replace(old, new)
        namespace.rwset = kv.SerializeToString()
    assert changed
    action.results = results.SerializeToString()
    response.extension = action.SerializeToString()
    return response.SerializeToString()


async def attacked(network: Network, stack: AsyncExitStack) -> Attacked:
    """Found the finance channel of a default network, share a data set, and take hold of its nodes."""
    site = site_of(Network.status(network.directory))
    material = Material(network.topology, network.directory / "organizations")
    members = network.topology.members(CHANNEL)
    peers = {part.name: administered_peer(site, material, part) for part in members}
    orderers = ordering_nodes(site, material, CHANNEL)
    for closing in (*peers.values(), orderers):
        stack.push_async_callback(closing.close)
    offices = {
        name: Sovereign((await stack.enter_async_context(network.connect(name, "Admin"))).network(CHANNEL))
        for name in SEATS
    }
    for propose in (
        lambda: offices["Government"].propose_admission(load_organisations(EXAMPLES / "registry/finance.yaml")),
        lambda: offices["Government"].propose_law(EXAMPLES / "laws/guiyang-data-sharing.cedar"),
    ):
        proposed: Any = await propose()
        latest = proposed.committed
        for name in SEATS:
            await offices[name].reached(latest)
            latest = (await offices[name].vote(proposed.ballot)).committed
    async with network.connect("Government") as gateway:
        owner = Sovereign(gateway.network(CHANNEL))
        await owner.reached(latest)
        purposes = ["credit-assessment", "marketing"]
        shared = await owner.share(EXAMPLES / "data/sme-tax-credit.csv", purposes=purposes)
    found = Attacked(network, material, peers, orderers, shared.dataset.id)
    await found.reached(shared.published)
    return found
