"""Nodes of real Fabric, whatever runs them: asked until they answer, joined to their channels, used as a client would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx

from sovchain.client import EndorseError, Gateway, GatewayAddress, Profile, SigningIdentity
from sovchain.network.errors import LifecycleError, NetworkError, NodeFailed
from sovchain.network.material import Material
from sovchain.network.profiles import profile_path
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.access import administered_peer, orderer_admin
from sovchain.network.topology import Node, Organization

ANSWER_TIMEOUT_S: Final = 30.0
"""How long a node may take from its start to its first answer, and a channel until a client can use its chaincode."""

_POLL_S: Final = 0.03
_METADATA: Final = "org.hyperledger.fabric:GetMetadata"
_UNAVAILABLE: Final = 14
_DEADLINE_EXCEEDED: Final = 4

Ended = Callable[[str], Awaitable[str | None]]
"""Says why the node with a host name has ended; None while it runs."""


class Joining:
    """The nodes of a network that are being started.

    Each call asks again and again, for at most `ANSWER_TIMEOUT_S`, and raises NodeFailed when the node has ended or does
    not answer in time. What is joined already is left, so a call may be repeated.
    """

    def __init__(self, site: Site, material: Material, blocks: Mapping[str, bytes], ended: Ended) -> None:
        """`blocks` holds the first block of each channel, by the channel's name."""
        self._site = site
        self._material = material
        self._blocks = blocks
        self._ended = ended

    async def everyone(self) -> None:
        """Join all nodes that run here to all their channels. Raises NodeFailed, LifecycleError."""
        nodes = self._site.nodes
        # A peer that joins a channel calls the anchor peers at once, and waits long before it calls an absent one again.
        await asyncio.gather(*(self._peer(node, ()) for node in nodes if node.kind == "peer"))
        await asyncio.gather(*(self._join(node, self._blocks) for node in nodes))

    async def node(self, host: str) -> None:
        """Wait until a node answers, and join it to those of its channels that it does not know.

        Raises NodeFailed, LifecycleError.
        """
        await self._join(next(node for node in self._site.nodes if node.host == host), self._blocks)

    async def answers(self, host: str) -> None:
        """Wait until a node answers, and join it to nothing. Raises NodeFailed."""
        await self._join(next(node for node in self._site.topology.nodes if node.host == host), ())

    def at(self, site: Site) -> Joining:
        """The same for what the network has become."""
        return Joining(site, self._material, self._blocks, self._ended)

    async def _join(self, node: Node, channels: Collection[str]) -> None:
        await (self._orderer if node.kind == "orderer" else self._peer)(node, channels)

    async def _orderer(self, node: Node, channels: Collection[str]) -> None:
        topology = self._site.topology
        own = {
            channel.name
            for channel in topology.channels
            if node.organization in {part.name for part in topology.orderers(channel.name)}
        }
        admin = orderer_admin(self._site, self._material.organization(node.organization), node.host)
        try:
            joined = await self._answer(node.host, admin.channels)
            wanted = sorted((own & set(channels)) - joined)
            await asyncio.gather(*(admin.join(channel, self._blocks[channel]) for channel in wanted))
        finally:
            await admin.close()

    async def _peer(self, node: Node, channels: Collection[str]) -> None:
        topology = self._site.topology
        own = {channel.name for channel in topology.channels if node.organization in channel.members}
        peer = administered_peer(self._site, self._material, topology.organization(node.organization), node.host)
        try:
            joined = await self._answer(node.host, peer.channels)
            wanted = sorted((own & set(channels)) - joined)
            await asyncio.gather(*(peer.join(channel, self._blocks[channel]) for channel in wanted))
        finally:
            await peer.close()

    async def _answer(self, host: str, ask: Callable[[], Awaitable[frozenset[str]]]) -> frozenset[str]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWER_TIMEOUT_S
        log = self._site.directory / f"logs/{host}.log"
        while True:
            try:
                return await ask()
            except (httpx.TransportError, LifecycleError) as error:
                if isinstance(error, LifecycleError) and error.status not in (_UNAVAILABLE, _DEADLINE_EXCEEDED):
                    raise
                why = await self._ended(host)
                if why is not None:
                    raise NodeFailed(host, "does not start", why, log) from None
                if loop.time() > deadline:
                    why = f"not within {ANSWER_TIMEOUT_S:.0f} s: {error or type(error).__name__}"
                    raise NodeFailed(host, "does not answer", why, log) from None
            await asyncio.sleep(_POLL_S)

    async def usable(self) -> None:
        """Wait until every peer's gateway has found endorsers of every chaincode that ran it. Raises NetworkError."""
        await asyncio.gather(
            *(
                self._usable(organization, gateway)
                for organization in self._site.organizations
                for gateway in Profile.load(self._profile(organization)).gateways
            )
        )

    def _profile(self, organization: Organization) -> Path:
        return profile_path(self._site.directory / "connections", organization.name)

    async def _usable(self, organization: Organization, gateway_address: GatewayAddress) -> None:
        topology = self._site.topology
        credential = self._material.organization(organization.name).user(organization.administrator.name)
        identity = SigningIdentity.from_pem(organization.msp_id, credential.certificate_pem, credential.private_key_pem)
        # A client takes any of the organisation's peers, and each learns of the others by itself.
        profile = replace(Profile.load(self._profile(organization)), gateways=(gateway_address,))
        async with Gateway.connect(profile, identity) as gateway:
            await asyncio.gather(
                *(
                    self._endorsed(gateway, organization, channel, spec.name)
                    for spec in topology.chaincodes
                    for channel in spec.channels
                    if organization.name in topology.channel(channel).members
                )
            )

    async def _endorsed(self, gateway: Gateway, organization: Organization, channel: str, chaincode: str) -> None:
        """Have a query endorsed by all members, which is not sent for ordering, again and again until they can."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWER_TIMEOUT_S
        members = [member.msp_id for member in self._site.topology.members(channel)]
        contract = gateway.network(channel).contract(chaincode)
        # Whichever member a client names as endorser, this gateway must know its peer and the peer must reach its chaincode.
        waiting = [contract.with_options(organizations=members), contract]
        # Without names the peers are those that gossip takes for alive, which it learns apart from their chaincodes.
        while waiting:
            try:
                await waiting[0].proposal(_METADATA).endorse()
                del waiting[0]
                continue
            except EndorseError as error:
                # An answer of the chaincode, even a refusal, shows that it can be reached.
                if error.chaincode_status is not None:
                    del waiting[0]
                    continue
                if error.status not in ("UNAVAILABLE", "FAILED_PRECONDITION", "ABORTED") or loop.time() > deadline:
                    raise NetworkError(
                        f"chaincode {chaincode} on channel {channel} cannot be used by {organization.name}",
                        str(error),
                        "read the logs of the peers and of the chaincode processes",
                        channel=channel,
                        chaincode=chaincode,
                        organization=organization.name,
                    ) from None
            await asyncio.sleep(_POLL_S)
