"""Agreeing on chaincodes in a network that spans hosts: each operator approves for itself, the last one commits.

Nobody holds another's keys, and nobody waits for all hosts to be up at once. While an operator's part of the network runs,
`agreeing` installs its packages on its own peers, approves each definition for it, and looks again and again whether all
members of the channel have approved. The operator that sees it commits; where several see it at the same time, they take
turns in the order of the channel's members, and look again first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from sovchain.network.errors import LifecycleError, NetworkError
from sovchain.network.lifecycle import Administration, Deployed, agrees, commit, install
from sovchain.network.nodes import Administrator, OrderingNodes, Peer
from sovchain.network.runtimes.access import administrator_of, node_address
from sovchain.network.topology import ChaincodeSpec
from sovchain.protocol.lifecycle import ChaincodeDefinition, signature_application_policy, with_defaults

if TYPE_CHECKING:
    from sovchain.network.startup import Running

LOOK_EVERY_S: Final = 1.0
"""How often an operator looks whether the others have approved."""
_PAUSE_MAX_S: Final = 10.0
"""Longest pause after something went wrong: the others may be days away."""
_TURN_S: Final = 1.5
"""How long an operator leaves the commit to each member before it."""

_log = structlog.get_logger("sovchain.network.agreement")


@asynccontextmanager
async def agreeing(running: Running) -> AsyncIterator[None]:
    """Agree on all chaincodes of the operator's channels meanwhile. What goes wrong is logged, and tried again."""
    task = asyncio.create_task(_until_agreed(running), name="agreement")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until_agreed(running: Running) -> None:
    pause = LOOK_EVERY_S
    while True:
        try:
            await agree(running, running.site.topology.chaincodes)
            await running.runtime.ready()
            _log.info("all chaincodes are agreed on and can be used", operator=running.site.operator)
            return
        except NetworkError as error:
            _log.warning("agreement goes on", what=error.what, why=error.why)
        except Exception:
            # Nobody awaits this before the network goes down.
            _log.exception("agreement ended")
            raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, _PAUSE_MAX_S)


async def agree(running: Running, chaincodes: Sequence[ChaincodeSpec]) -> list[Deployed]:
    """Agree on chaincodes on the operator's channels, and return when all of them are committed.

    It takes as long as the other operators take. Raises LifecycleError when a node refuses, or does not answer.
    """
    topology, operator = running.site.topology, running.site.operator
    pairs = [
        (spec, channel)
        for spec in chaincodes
        for channel in spec.channels
        if operator in topology.channel(channel).members
    ]
    own = topology.organization(operator)
    async with AsyncExitStack() as stack:
        peers = [_administration(running, stack, operator, node.host) for node in own.all_nodes]
        packages = {running.package_id(operator, spec): running.packages[operator][spec.name] for spec, _ in pairs}
        await asyncio.gather(*(install(peer, packages) for peer in peers))
        orderers = {name: _orderers(running, stack, name) for _, name in pairs}
        ways = [
            asyncio.create_task(_Agreement(running, spec, name, peers[0], orderers[name]).reach())
            for spec, name in pairs
        ]
        try:
            return list(await asyncio.gather(*ways))
        finally:
            # When one way is blocked all begin again, on new connections.
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


def _administration(running: Running, stack: AsyncExitStack, organization: str, host: str) -> Administration:
    """A conversation of the operator's administrator with a peer, which may be another organisation's."""
    site, material = running.site, running.material
    own = site.topology.organization(site.operator)
    administrator: Administrator = administrator_of(material, own)
    peer = Peer(node_address(site, material.organization(organization), host), administrator)
    stack.push_async_callback(peer.close)
    return Administration(peer)


def _orderers(running: Running, stack: AsyncExitStack, channel: str) -> OrderingNodes:
    topology = running.site.topology
    addresses = [
        node_address(running.site, running.material.organization(part.name), node.host)
        for part in topology.orderers(channel)
        for node in part.all_nodes
    ]
    orderers = OrderingNodes(addresses, bft=topology.consensus == "bft")
    stack.push_async_callback(orderers.close)
    return orderers


@dataclass
class _Agreement:
    """The way of one chaincode on one channel to its committed definition, as one operator walks it."""

    running: Running
    spec: ChaincodeSpec
    channel: str
    own: Administration
    orderers: OrderingNodes

    async def reach(self) -> Deployed:
        """Approve, wait for the others, commit or see it committed. Raises LifecycleError."""
        transactions: list[str] = []
        seen_at: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            wanted, committed = await self._wanted()
            package = self.running.package_id(self.running.site.operator, self.spec)
            if await self.own.approved(self.channel, wanted) != package:
                transactions.append(await self.own.approve(self.channel, wanted, package, self.orderers))
                _log.info("approved", channel=self.channel, chaincode=self.spec.name, sequence=wanted.sequence)
            if committed:
                ids = {self.own.peer.msp_id: package}
                return Deployed(self.channel, wanted.name, wanted.version, wanted.sequence, ids, tuple(transactions))
            approvals = await self.own.readiness(self.channel, wanted)
            if all(approvals.values()):
                seen_at = seen_at if seen_at is not None else loop.time()
                if loop.time() - seen_at >= self._turn() * _TURN_S:
                    transactions += await self._commit(wanted)
                    continue
            await asyncio.sleep(LOOK_EVERY_S)

    def _turn(self) -> int:
        members = self.running.site.topology.channel(self.channel).members
        return members.index(self.running.site.operator)

    async def _wanted(self) -> tuple[ChaincodeDefinition, bool]:
        """The definition to agree on, and whether it is committed."""
        policy = signature_application_policy(self.spec.endorsement_policy)
        collections = self.running.site.topology.collections(self.spec.name)
        wanted = with_defaults(ChaincodeDefinition(self.spec.name, self.spec.version, 0, policy, collections))
        current = await self.own.committed(self.channel, self.spec.name)
        if current is None:
            return replace(wanted, sequence=1), False
        wanted = replace(wanted, sequence=current.sequence)
        if agrees(current, wanted):
            return wanted, True
        return replace(wanted, sequence=current.sequence + 1), False

    async def _commit(self, wanted: ChaincodeDefinition) -> list[str]:
        """Commit with the endorsement of every member's first peer; another operator may be faster."""
        topology, operator = self.running.site.topology, self.running.site.operator
        async with AsyncExitStack() as stack:
            others = [
                _administration(self.running, stack, part.name, part.peer_host)
                for part in topology.members(self.channel)
                if part.name != operator
            ]
            try:
                transaction = await commit(self.channel, wanted, [self.own, *others], self.orderers)
            except LifecycleError as error:
                _log.warning("not committed here", channel=self.channel, chaincode=wanted.name, why=error.why)
                await asyncio.sleep(LOOK_EVERY_S)
                return []
        _log.info("committed", channel=self.channel, chaincode=wanted.name, sequence=wanted.sequence)
        return [transaction]
