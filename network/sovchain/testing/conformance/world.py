"""What the conformance tests hold in their hands: the network, and its three organisations."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from sovchain.chaincode import Operation
from sovchain.client import Contract, Gateway, Profile, Submitted
from sovchain.client import Network as Channel
from sovchain.network import Network, Topology
from sovchain.testing.conformance.topology import INNER, NARROW, ORGANIZATIONS, PROBE, WIDE, conformance_topology
from sovchain.testing.hosted import HostedNetwork

P = ParamSpec("P")
R = TypeVar("R")

CATCH_UP_S: Final = 30.0
"""How long the peers of the other organisations may lag behind before a test fails."""
_PAUSE_S: Final = 0.02


class Member:
    """One organisation of the network: its gateway, its view of the channels.

    Attributes:
        msp_id: its MSP id.
        gateway: the connection of its User1 to its peer.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.msp_id = gateway.identity.msp_id

    @property
    def wide(self) -> Channel:
        """The channel that all three organisations are on."""
        return self.gateway.network(WIDE)

    @property
    def narrow(self) -> Channel:
        """The channel that Alpha and Beta are on."""
        return self.gateway.network(NARROW)

    def contract(self, chaincode: str = PROBE) -> Contract:
        """Return a chaincode on the channel that it is deployed on."""
        return (self.narrow if chaincode == INNER else self.wide).contract(chaincode)

    @property
    def collection(self) -> str:
        """Name of the organisation's implicit collection (core/chaincode/implicitcollection/name.go)."""
        return f"_implicit_org_{self.msp_id}"


class World:
    """The network as one test sees it: three connected organisations, and keys that no other test uses."""

    def __init__(self, members: dict[str, Member]) -> None:
        self.members = members
        self.alpha, self.beta, self.gamma = (members[name] for name in ORGANIZATIONS)
        self._prefix = f"t{secrets.token_hex(4)}"

    def key(self, name: str = "key") -> str:
        """Return a key of this test alone; keys of one test sort as their names do."""
        return f"{self._prefix}-{name}"

    async def submit(
        self,
        operation: Operation[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Submitted[R]:
        """Submit to `probe` as Alpha, and return once the peers of all three organisations have committed it.

        The peers of a real network commit one after another, and two that stand at different blocks endorse different
        read sets.
        """
        return await self.settle(await self.alpha.contract().submit(operation, *args, **kwargs))

    async def settle(self, done: Submitted[R]) -> Submitted[R]:
        """Wait until all peers have committed a transaction of the channel `wide`."""
        for member in self.members.values():
            await member.wide.commit(done.transaction_id).status(timeout_s=CATCH_UP_S)
        return done

    @staticmethod
    async def eventually(condition: Callable[[], Awaitable[Any]], what: str, timeout_s: float = CATCH_UP_S) -> Any:
        """Ask until the answer is true, and return it; fail with `what` after `timeout_s` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not (found := await condition()):
            assert loop.time() < deadline, f"not within {timeout_s:g} s: {what}"
            await asyncio.sleep(_PAUSE_S)
        return found


class ConformanceNetwork(HostedNetwork):
    """The network that the conformance tests run on.

    To run them on a network of your own, override the fixture `conformance_network` with one that brings this object's
    network up and takes it down:

        @pytest.fixture(scope="session")
        def conformance_network(tmp_path_factory):
            with ConformanceNetwork(tmp_path_factory.mktemp("fabric") / "network", "native") as network:
                yield network
    """

    def __init__(self, directory: Path, runtime: str = "embedded", topology: Topology | None = None) -> None:
        """As `HostedNetwork`; without a topology that of `conformance_topology`."""
        super().__init__(directory, runtime, topology or conformance_topology())

    def __enter__(self) -> ConformanceNetwork:
        self.start()
        return self

    @asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        """Connect User1 of each organisation for the length of a test.

        A network that an earlier test failed to bring up again is brought up first. Raises HostFailed, NotUp,
        ConnectError.
        """
        if self.left_down:
            await asyncio.to_thread(self.start)
        async with AsyncExitStack() as stack:
            network: Network = await stack.enter_async_context(self.attach())
            gateways = await asyncio.gather(
                *(stack.enter_async_context(network.connect(name)) for name in ORGANIZATIONS)
            )
            yield World({name: Member(gateway) for name, gateway in zip(ORGANIZATIONS, gateways, strict=True)})


def foreign_profile(network: Network, organization: str, stranger: str) -> Profile:
    """Return the way to an organisation's peer for a client of another organisation."""
    document = json.loads(network.profile(organization).read_text())
    for part in document["organizations"].values():
        part["mspid"] = network.topology.organization(stranger).msp_id
    return Profile.from_mapping(document)
