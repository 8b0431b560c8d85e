"""The same contract test on the harness and on a network, as chosen on pytest's command line.

    pytest                                          on `ContractHarness`, in microseconds
    pytest --contracts-on network                   on the embedded ledger
    pytest --contracts-on network --fabric-runtime native --fabric-version 2.5

Each test has a chaincode of its own, so that no test sees another's state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

from sovchain.chaincode import Chaincode, Operation
from sovchain.client import Gateway, SigningIdentity, Submitted
from sovchain.network import Topology
from sovchain.network.certificates import Validity
from sovchain.network.material import Material
from sovchain.network.profiles import profile_path
from sovchain.network.topology import ChaincodeSpec, Channel, Collection, OrderingOrganization, Organization
from sovchain.testing.harness import ContractHarness, majority, msp_of
from sovchain.testing.hosted import HostedNetwork

if TYPE_CHECKING:
    from sovchain.client.contract import Contract as ClientContract

P = ParamSpec("P")
R = TypeVar("R")

CHANNEL: Final = "channel"
CHAINCODES_PER_NETWORK: Final = 16
"""Tests that share a network; the next ones get a new one."""


@dataclass(frozen=True)
class ContractSpec:
    """What is tested, and on what.

    Attributes:
        module: where the chaincode is, "module:attribute".
        organizations: names of the members; the MSP of `North` is `NorthMSP`.
        collections: its private data collections.
        endorsement_policy: in Fabric's policy language; a majority of the peers' organisations if not given.
    """

    module: str
    organizations: tuple[str, ...] = ("Org1", "Org2")
    collections: tuple[Collection, ...] = ()
    endorsement_policy: str | None = None

    def chaincode(self) -> Chaincode:
        """The chaincode itself. Raises ServiceError."""
        from sovchain.chaincode.serve import load_chaincode

        return load_chaincode(self.module)

    def harness(self) -> ContractHarness:
        """A harness for it."""
        return ContractHarness(
            self.chaincode(),
            channel=CHANNEL,
            organizations=self.organizations,
            collections=self.collections,
            endorsement_policy=self.endorsement_policy,
        )

    def topology(self, names: Sequence[str], fabric_version: str | None = None) -> Topology:
        """A network with the chaincode under each of these names."""
        policy = self.endorsement_policy or majority([msp_of(name) for name in self.organizations])
        return Topology.model_validate(
            {
                "name": "contracts",
                "domain": "contracts.example",
                "fabric_version": fabric_version or "3.1",
                "organizations": [
                    Organization(name=name, domain=f"{name.lower()}.contracts.example") for name in self.organizations
                ],
                "ordering_organizations": [OrderingOrganization(operator=name) for name in self.organizations],
                "channels": [Channel(name=CHANNEL, members=self.organizations)],
                "chaincodes": [
                    ChaincodeSpec(
                        name=name,
                        module=self.module if ":" in self.module else f"{self.module}:chaincode",
                        channels=(CHANNEL,),
                        endorsement_policy=policy,
                        collections=self.collections,
                    )
                    for name in names
                ],
                "accept": ["ordering-majority"],
            }
        )


class ContractCaller(Protocol):
    """Somebody who calls the contract under test."""

    async def evaluate(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function without committing anything. Raises EvaluateError, ArgumentError."""
        ...

    async def submit(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Submitted[R]:
        """Have a function committed. Raises EndorseError, CommitRejected, ArgumentError."""
        ...


class ContractWorld(Protocol):
    """Where a contract is tested: a `ContractHarness`, or a network."""

    def caller(
        self,
        organization: str,
        user: str = "User1",
        *,
        attributes: Mapping[str, str] | None = None,
        unit: str = "client",
        endorsers: Sequence[str] | None = None,
    ) -> ContractCaller:
        """Somebody who calls the contract, as `ContractHarness.caller`."""
        ...


class NetworkCaller:
    """Somebody who calls the contract on a network."""

    def __init__(
        self, profile: Path, identity: SigningIdentity, chaincode: str, endorsers: Sequence[str] | None
    ) -> None:
        """Made by `NetworkWorld.caller`."""
        self._profile = profile
        self._identity = identity
        self._chaincode = chaincode
        self._endorsers = endorsers

    async def evaluate(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `ContractCaller.evaluate`."""
        async with AsyncExitStack() as stack:
            contract = await self.contract(stack)
            return await contract.evaluate(operation, *args, **kwargs)

    async def submit(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Submitted[R]:
        """See `ContractCaller.submit`."""
        async with AsyncExitStack() as stack:
            contract = await self.contract(stack)
            return await contract.submit(operation, *args, **kwargs)

    async def reached(self, block_number: int) -> None:
        """Wait until a peer of the caller's organisation has a block."""
        async with Gateway.connect(self._profile, self._identity) as gateway:
            await gateway.network(CHANNEL).reached(block_number)

    async def contract(self, stack: AsyncExitStack) -> ClientContract:
        """The contract as this caller's client has it, connected until the stack closes: for endorsing now and sending later."""
        gateway = await stack.enter_async_context(Gateway.connect(self._profile, self._identity))
        contract = gateway.network(CHANNEL).contract(self._chaincode)
        return contract if self._endorsers is None else contract.with_options(organizations=self._endorsers)


class NetworkWorld:
    """A contract on a network, under a name that no other test uses.

    Attributes:
        chaincode: that name.
    """

    def __init__(self, network: HostedNetwork, spec: ContractSpec, chaincode: str) -> None:
        """Made by the fixture `contract_world`."""
        self.chaincode = chaincode
        self._network = network
        self._spec = spec
        self._material = Material(network.topology, network.directory / "organizations")
        self._identities: dict[Any, SigningIdentity] = {}

    def caller(
        self,
        organization: str,
        user: str = "User1",
        *,
        attributes: Mapping[str, str] | None = None,
        unit: str = "client",
        endorsers: Sequence[str] | None = None,
    ) -> NetworkCaller:
        """See `ContractWorld.caller`. The organisation's CA signs a certificate for the caller."""
        if organization not in self._spec.organizations:
            raise ValueError(f"the network has no organisation {organization}: name it in the contract's spec")
        claims = tuple(sorted((attributes or {}).items()))
        who = (organization, user, unit, claims)
        identity = self._identities.get(who)
        if identity is None:
            identity = self._identities[who] = self._enrol(organization, user, unit, dict(claims))
        profile = profile_path(self._network.directory / "connections", organization)
        chosen = None if endorsers is None else [msp_of(name) for name in endorsers]
        return NetworkCaller(profile, identity, self.chaincode, chosen)

    async def settled(self, block_number: int) -> None:
        """Wait until the peers of all organisations have a block: until then they may endorse or refuse by what they know."""
        await asyncio.gather(*(self.caller(name).reached(block_number) for name in self._spec.organizations))

    def _enrol(self, organization: str, user: str, unit: str, attributes: Mapping[str, str]) -> SigningIdentity:
        material = self._material.organization(organization)
        validity = Validity.starting(datetime.now(UTC), days=1)
        name = f"{user}@{organization.lower()}.contracts.example"
        issued = material.authority("ca").enroll(name, unit, "", validity, attributes)
        return SigningIdentity.from_pem(material.msp_id, issued.certificate_pem, issued.private_key_pem)


class WorldPool:
    """Networks for the contract tests of one run, each brought up when the one before has no fresh chaincode left."""

    def __init__(
        self,
        folder: Path,
        runtime: str,
        fabric_version: str | None,
        tests: int,
        *,
        per_network: int = CHAINCODES_PER_NETWORK,
    ) -> None:
        """Args: folder: where they live; tests: how many tests will ask; per_network: how many share one. Each of them is a
        chaincode of its own, and outside the embedded ledger a process for every organisation."""
        self._folder = folder
        self._runtime = runtime
        self._version = fabric_version
        self._left = tests
        self._per_network = per_network
        self._names: list[str] = []
        self._network: HostedNetwork | None = None
        self._count = 0

    def take(self, spec: ContractSpec) -> NetworkWorld:
        """A world that no other test has. Raises HostFailed."""
        if not self._names:
            self.close()
            self._count += 1
            names = [f"contract{number}" for number in range(max(1, min(self._left, self._per_network)), 0, -1)]
            topology = spec.topology(names, self._version)
            network = HostedNetwork(self._folder / f"network{self._count}", self._runtime, topology)
            network.start()
            self._network, self._names = network, names
        assert self._network is not None
        self._left -= 1
        return NetworkWorld(self._network, spec, self._names.pop())

    def close(self) -> None:
        """Take the network down. Idempotent."""
        network, self._network = self._network, None
        if network is not None:
            network.stop()
