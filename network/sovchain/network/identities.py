"""The identities of a network's organisations: who there is, renewing, and revoking for folders and channels alike."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from sovchain.client.ca import RevocationReason
from sovchain.network import material_enrolment
from sovchain.network.configuration import ChannelConfiguration, Configured
from sovchain.network.errors import NotUp, UnknownName
from sovchain.network.instance import Status
from sovchain.network.material import AUTHORITIES, Material, OrganizationMaterial
from sovchain.network.material_revocation import Revoked, is_revoked, put_revocation_lists, revoke
from sovchain.network.nodes import Administrator, OrderingNodes, Peer
from sovchain.network.runtimes.access import node_address, site_of
from sovchain.network.topology import Organization


@dataclass(frozen=True)
class IdentitySeen:
    """A node or user whose certificates are here.

    Attributes:
        organization: whose it is.
        name: host name of a node, name of a user.
        role: client, admin, peer or orderer; root for the two roots, `ca` and `tlsca`.
        ends_at: when the first of its certificates ends (UTC).
        revoked: whether its enrolment certificate is revoked.
        issuer: "generated" or "fabric-ca".
    """

    organization: str
    name: str
    role: str
    ends_at: datetime
    revoked: bool
    issuer: str


@dataclass(frozen=True)
class Revocation:
    """A revocation and where it is in force.

    Attributes:
        revoked: what is revoked in the organisation's folders.
        channels: the channels that have it; none while the network is down.
        unread: channels that the organisation orders for and whose configuration nobody here can read.
    """

    revoked: Revoked
    channels: tuple[Configured, ...] = ()
    unread: tuple[str, ...] = ()


class Identities:
    """The identities in a network's directory, of the organisations whose keys are there."""

    def __init__(self, status: Status) -> None:
        """`status` is what `read_status` says. Raises NotUp when the directory holds no network."""
        if status.topology is None:
            raise NotUp(status.directory, "it holds no network yet")
        self._up = status.state == "up"
        self._site = site_of(status)
        self._material = Material(status.topology, status.directory / "organizations")

    def organization(self, name: str) -> OrganizationMaterial:
        """Return the folder of an organisation or ordering organisation. Raises UnknownName."""
        if name not in self._material.organizations:
            raise UnknownName("organization", name, sorted(self._material.organizations))
        return self._material.organization(name)

    def known(self, organization: str | None = None) -> Sequence[IdentitySeen]:
        """Return all nodes and users, or those of one organisation. Raises UnknownName, InstanceDamaged."""
        parts = [self.organization(organization)] if organization else self._material.organizations.values()
        return [seen for part in parts if part.has_keys for seen in _seen(part)]

    async def renew(self, organization: str, name: str) -> str:
        """Renew the certificates of a node or user, keeping its keys; return the name on them.

        Where a Fabric CA issues them the network must be up. A node uses them from its next start. Raises UnknownName,
        NetworkError (it is revoked), CaError, InstanceDamaged.
        """
        part, now = self.organization(organization), datetime.now(UTC)
        if part.organization.certificate_authority == "fabric-ca":
            (renewed,) = await material_enrolment.renew_of(self._site, part, now, only=[name])
        else:
            (renewed,) = part.renew(now, only=[name])
        return renewed

    async def revoke(self, organization: str, name: str, *, reason: RevocationReason = "unspecified") -> Revocation:
        """Revoke a node or user in the organisation's folders and, while the network is up, on all its channels.

        To repeat it brings to the channels what they lack. Raises UnknownName, CaError, InstanceDamaged, and what
        `ChannelConfiguration.change` raises.
        """
        part = self.organization(organization)
        revoked = await revoke(self._site, part, name, datetime.now(UTC), reason=reason)
        if not self._up:
            return Revocation(revoked)
        channels = self._channels(part)
        readable = [name for name in channels if self._members(name)]
        async with AsyncExitStack() as stack:
            done = await asyncio.gather(*(self._publish_on(name, part, stack) for name in readable))
        return Revocation(revoked, tuple(done), tuple(name for name in channels if name not in readable))

    def _channels(self, part: OrganizationMaterial) -> Sequence[str]:
        """The channels that an organisation has a part in."""
        topology, name = self._site.topology, part.organization.name
        return [
            channel.name
            for channel in topology.channels
            if name in channel.members or name in {orderer.name for orderer in topology.orderers(channel.name)}
        ]

    def _members(self, channel: str) -> Sequence[OrganizationMaterial]:
        """The members of a channel whose keys are here."""
        found = [self._material.organization(member.name) for member in self._site.topology.members(channel)]
        return [part for part in found if part.has_keys]

    async def _publish_on(self, channel: str, part: OrganizationMaterial, stack: AsyncExitStack) -> Configured:
        """Bring an organisation's revocation lists to a channel."""
        topology = self._site.topology
        peers = [Peer(node_address(self._site, own), _administrator(own)) for own in self._members(channel)]
        for peer in peers:
            stack.push_async_callback(peer.close)
        addresses = [
            node_address(self._site, self._material.organization(orderer.name), node.host)
            for orderer in topology.orderers(channel)
            for node in orderer.all_nodes
        ]
        orderers = OrderingNodes(addresses, bft=topology.consensus == "bft")
        stack.push_async_callback(orderers.close)
        configuration = ChannelConfiguration(channel, peers, orderers, [_administrator(part)])
        return await configuration.change(lambda root: put_revocation_lists(root, part))


def _seen(part: OrganizationMaterial) -> Iterator[IdentitySeen]:
    name, issuer = part.organization.name, part.organization.certificate_authority
    for kind in AUTHORITIES:
        yield IdentitySeen(name, kind, "root", part.authority_certificate(kind).not_valid_after_utc, False, issuer)
    for holder in part.holders:
        yield IdentitySeen(name, holder.enrollment_id, holder.role, part.ends(holder), is_revoked(part, holder), issuer)


def _administrator(part: OrganizationMaterial) -> Administrator:
    organization = part.organization
    name = organization.administrator.name if isinstance(organization, Organization) else "Admin"
    credential = part.user(name)
    return Administrator.from_pem(part.msp_id, credential.certificate_pem, credential.private_key_pem)
