"""A network as one object: bring it up, connect to it, deploy chaincode, take it down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import structlog

from sovchain.client import Gateway, SigningIdentity
from sovchain.ledger.tools import LedgerTools
from sovchain.network.agreement import agree, agreeing
from sovchain.network.apply import Applied, Apply, plan
from sovchain.network.checks import check
from sovchain.network.control import ApplyRequest, LedgerRequest, Request, ask, listening
from sovchain.network.errors import (
    ApplyUnderWay,
    KeysElsewhere,
    NetworkError,
    NotUp,
    RuntimeUnavailable,
    UnknownName,
)
from sovchain.network.instance import Instance, Status, open_instance, read_description, read_status, running
from sovchain.network.ledgertools import NetworkLedger, perform
from sovchain.network.lifecycle import Deployed
from sovchain.network.logs import logging_to
from sovchain.network.material import Material
from sovchain.network.nodes import Peer
from sovchain.network.observation import Observation
from sovchain.network.observe import observe
from sovchain.network.origin import take_over
from sovchain.network.plan import Plan, Step
from sovchain.network.profiles import profile_path
from sovchain.network.runtimes import Faults, create_runtime, own_part
from sovchain.network.runtimes.access import administered_peer, site_of
from sovchain.network.runtimes.embedded import EmbeddedRuntime
from sovchain.network.runtimes.processes import end_orphans
from sovchain.network.snapshots import Snapshot, copy_snapshot, join_by_snapshot, read_snapshot, take_snapshots
from sovchain.network.startup import Progress, Running, Steps, bring_up, deploy_chaincodes, step_count
from sovchain.network.topology import Topology, default_topology
from sovchain.network.topologyfile import load_topology

DEFAULT_RUNTIME: Final = "embedded"
_POLL_S: Final = 0.05
_log = structlog.get_logger("sovchain.network")


class Network:
    """A network that is up, whatever it runs on. Build it with `up` or `attach`."""

    def __init__(
        self,
        directory: Path,
        topology: Topology,
        nodes: Running | None = None,
        instance: Instance | None = None,
        operator: str = "",
    ) -> None:
        """Not for callers: use `up` or `attach`."""
        self._operator = nodes.site.operator if nodes else operator
        self._directory = directory
        self._topology = topology
        self._nodes = nodes
        self._instance = instance
        self._changing = asyncio.Lock()
        self._material = nodes.material if nodes else Material(topology, directory / "organizations")

    @classmethod
    def up(
        cls,
        topology: Topology | Path | str | None = None,
        runtime: str | None = None,
        directory: Path | str | None = None,
        *,
        progress: Progress | None = None,
        seed: str | None = None,
        keys_of: Path | str | None = None,
    ) -> AbstractAsyncContextManager[Network]:
        """Bring a network up and take it down at the end of the block.

        What a directory holds already is kept: a network that was stopped or killed goes on where it was, and a first
        start that was interrupted is completed.

        Args:
            topology: a topology, the path of a YAML file, or None for the one stored in `directory` or else the
                default.
            runtime: "embedded", "native" for Fabric's own programs on this machine, or "docker" for containers of its
                official images; None for the one stored in `directory` or else the embedded one.
            directory: where the network lives (created, mode 0700). None: a temporary one, removed at the end.
            progress: called after each step.
            seed: text that all keys, certificates and first blocks come from, so that they are the same in every
                directory with the same topology and ports. For tests on the embedded ledger only: whoever knows it has
                every key. A directory keeps its seed.
            keys_of: directory of a network whose keys and first blocks the new one, on the embedded ledger, begins with:
                to replay its blocks (`ledger.import_blocks`) and go on from them. Its chaincodes are left to `apply`.

        Raises:
            OriginRefused: the keys of `keys_of` cannot be taken over.
            SeedRefused: the runtime takes no seed, or the directory's keys do not come from it.
            TopologyError: the topology cannot be used.
            RuntimeUnavailable: there is no such runtime in this installation.
            DirectoryRefused, VersionMismatch, TopologyChanged, InstanceDamaged: the directory cannot be used.
            AlreadyUp: a process runs the network in the directory.
            PortInUse, NoFreePorts: a port is taken.
            ProgramsMissing, NotEnoughSpace, NodeFailed: Fabric's programs cannot be found, or do not start.
            EngineUnavailable, ImagesMissing, EngineFailed: Docker cannot be used, lacks an image, or refuses.
            ChaincodeFailed: a chaincode does not start.
            LifecycleError: a chaincode could not be deployed.
        """
        origin = None if keys_of is None else _absolute(Path(keys_of))
        return _up(topology, runtime, None if directory is None else Path(directory), progress, seed, origin)

    @classmethod
    def attach(cls, directory: Path | str) -> AbstractAsyncContextManager[Network]:
        """Use a network that another process runs in `directory`; it stays up at the end of the block.

        Raises NotUp, DirectoryRefused, VersionMismatch, InstanceDamaged.
        """
        return _attach(_absolute(Path(directory)))

    @staticmethod
    def status(directory: Path | str) -> Status:
        """Say whether a process runs the network in `directory`.

        Raises DirectoryRefused, VersionMismatch, InstanceDamaged.
        """
        return read_status(_absolute(Path(directory)))

    @staticmethod
    async def down(directory: Path | str, *, timeout_s: float = 30.0) -> int:
        """Ask the process that runs the network in `directory` to end (SIGTERM), wait until it has, return its number.

        A start that is under way is interrupted. What the process leaves behind, because it was killed before or does
        not handle the signal, is ended too.

        Raises NotUp, and NetworkError when it has not ended in time; it is not killed, because a commit may be going
        on.
        """
        place = _absolute(Path(directory))
        status = read_status(place)
        if status.state == "down":
            await _end_what_goes_on(place)
        if not status.pid:
            status = running(place)  # says why it is not up
        os.kill(status.pid, signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + timeout_s
        while read_status(place).pid == status.pid:
            if asyncio.get_running_loop().time() > deadline:
                raise NetworkError(
                    f"process {status.pid} has not ended",
                    f"it was asked to {timeout_s:g} s ago",
                    "wait, look at its logs, or kill it: committed transactions survive that",
                    pid=status.pid,
                )
            await asyncio.sleep(_POLL_S)
        await _end_what_goes_on(place)
        return status.pid

    async def observe(self) -> Observation:
        """Look at every node, channel, chaincode and certificate; what cannot be reached is a row that says so.

        Raises DirectoryRefused, VersionMismatch, InstanceDamaged.
        """
        return await observe(read_status(self._directory))

    async def snapshot(
        self, channel: str, peers: Sequence[str] = (), block_number: int | None = None
    ) -> dict[str, Snapshot]:
        """Have peers write snapshots of a channel's state after the same block; return them by the peers' hosts.

        Args:
            channel: the channel.
            peers: hosts of peers, or names of organisations for their first peers; empty: the first peer of each
                member, so that the organisations' snapshots can be compared (`snapshots.agreeing`).
            block_number: the block, which may be one to come; None: the last that is committed.

        Raises:
            UnknownName: there is no such channel or peer.
            RuntimeUnavailable: the network runs on the embedded ledger, whose peers write no snapshots.
            KeysElsewhere: a peer is run by an organisation whose keys are not here.
            SnapshotFailed, LifecycleError: a peer refuses, cannot be reached, or does not write it.
        """
        chosen = list(peers) or list(self._topology.channel(channel).members)
        hosts = list(dict.fromkeys(self._peer_host(name) for name in chosen))
        async with AsyncExitStack() as stack:
            conversations = {self._administered(host, stack): self._snapshots(host) for host in hosts}
            taken = await take_snapshots(channel, conversations, block_number)
        return dict(zip(hosts, taken, strict=True))

    async def join_by_snapshot(self, peer: str, folder: Path | str) -> int:
        """Have a peer that is not on a channel join it from a snapshot in `folder`; return its height then.

        `peer` is a host, or an organisation for its first peer. Raises UnknownName, RuntimeUnavailable, SnapshotFailed,
        LifecycleError.
        """
        host = self._peer_host(peer)
        root = self._snapshots(host)
        snapshot = await asyncio.to_thread(read_snapshot, _absolute(Path(folder)))
        async with AsyncExitStack() as stack:
            conversation = self._administered(host, stack)
            if read_status(self._directory).runtime == "native":
                return await join_by_snapshot(conversation, snapshot)
            from sovchain.network.runtimes.docker_services import CONTAINER_DATA

            # A container sees its own folders only.
            own = f"joining/{snapshot.channel}-{snapshot.hash[:16]}"
            if not (root / own).exists():
                await asyncio.to_thread(copy_snapshot, snapshot, root / own)
            return await join_by_snapshot(conversation, snapshot, f"{CONTAINER_DATA}/snapshots/{own}")

    def _peer_host(self, name: str) -> str:
        hosts = {node.host for node in self._topology.nodes if node.kind == "peer"}
        if name in hosts:
            return name
        if name in self.organizations:
            return self._topology.organization(name).peer_host
        raise UnknownName("peer", name, sorted(hosts))

    def _administered(self, host: str, stack: AsyncExitStack) -> Peer:
        """A conversation of a peer's administrator with it, until the end of the block."""
        node = next(node for node in self._topology.nodes if node.host == host)
        self._check_here(node.organization)
        site = site_of(read_status(self._directory))
        peer = administered_peer(site, self._material, self._topology.organization(node.organization), host)
        stack.push_async_callback(peer.close)
        return peer

    def _snapshots(self, host: str) -> Path:
        """Folder of the snapshots that a peer writes. Raises RuntimeUnavailable."""
        runtime = read_status(self._directory).runtime
        if runtime == "embedded":
            raise RuntimeUnavailable(runtime, "its peers keep no snapshots that can be read here", ("native", "docker"))
        return self._directory / "nodes" / host / "data/snapshots"

    @property
    def directory(self) -> Path:
        """Where the network lives."""
        return self._directory

    @property
    def topology(self) -> Topology:
        """What the network consists of; while a change is not completed, what there was and what is to come."""
        return self._topology

    @property
    def organizations(self) -> Sequence[str]:
        """Names of the organisations with a peer here."""
        return [organization.name for organization in own_part(self._topology, self._operator).organizations]

    @property
    def channels(self) -> Sequence[str]:
        """Names of the channels, where the network spans hosts those of the organisation that is here."""
        return [
            channel.name
            for channel in self._topology.channels
            if not self._operator or self._operator in channel.members
        ]

    @property
    def faults(self) -> Faults | None:
        """What ends and starts single nodes; None on an attached network, and where the runtime cannot."""
        return self._nodes.runtime.faults if self._nodes else None

    def connect(self, organization: str, user: str = "User1", **options: Any) -> AbstractAsyncContextManager[Gateway]:
        """Connect to the organisation's peer as `user`. Raises UnknownName.

        `options` go to `Gateway.connect`; what that raises is raised on entering the block.
        """
        return Gateway.connect(self.profile(organization), self.identity(organization, user), **options)

    def identity(self, organization: str, user: str = "User1") -> SigningIdentity:
        """Return the signing identity of a user. Raises UnknownName, KeysElsewhere, InstanceDamaged."""
        part = self._topology.organization(organization)
        self._check_here(part.name)
        credential = self._material.organization(organization).user(part.user(user).name)
        return SigningIdentity.from_pem(part.msp_id, credential.certificate_pem, credential.private_key_pem)

    def profile(self, organization: str) -> Path:
        """Return the path of the organisation's connection profile. Raises UnknownName, KeysElsewhere."""
        name = self._topology.organization(organization).name
        self._check_here(name)
        return profile_path(self._directory / "connections", name)

    def _check_here(self, organization: str) -> None:
        if organization not in self.organizations:
            raise KeysElsewhere(organization, self.organizations)

    async def deploy(self, chaincode: str) -> list[Deployed]:
        """Install, approve and commit a chaincode of the topology where that is not done yet; say what stands now.

        `up` has done so for all chaincodes. It takes the administrators' keys and the packages, so it works where the
        network was brought up. Raises UnknownName, LifecycleError, NetworkError on an attached network.
        """
        spec = self._topology.chaincode(chaincode)
        if self._nodes is None:
            raise NetworkError(
                f"cannot deploy {chaincode} from here",
                "another process runs the network",
                "take it down and bring it up with the topology that has the chaincode",
            )
        if self._operator:
            return await agree(self._nodes, [spec])
        return await deploy_chaincodes(self._nodes, [spec])

    async def plan(self, topology: Topology | Path | str | None = None) -> Plan:
        """Say what differs between a topology and the network that runs, as the steps that `apply` would take.

        What is compared is what the nodes say, not what an earlier change has noted; nothing is changed. None: the stored
        topology, for example after an `apply` that was interrupted.

        Raises:
            TopologyError: The topology cannot be used.
            ChangesRefused: A running network does not take the change; says what to do instead.
            LifecycleError: A node refuses to say what it is.
        """
        description = read_description(self._directory)
        if description is None:
            raise NotUp(self._directory)
        return await plan(self._directory, description, _topology(topology) or description.topology)

    async def apply(
        self, topology: Topology | Path | str | None = None, *, progress: Progress | None = None
    ) -> Applied:
        """Bring the network that runs to a topology: organisations, nodes, channels, configurations and chaincodes.

        Each step looks before it acts. After an interruption, of this call or of the process that runs the network, the
        next call goes on. On an attached network the process that runs it does the work.

        Args:
            topology: As for `plan`.
            progress: Called after each step.

        Raises:
            TopologyError, ChangesRefused: As for `plan`; nothing is changed.
            ApplyUnderWay: The network is being changed already.
            SignaturesMissing, ConfigurationRefused: A channel's configuration cannot be changed.
            NetworkError: A step failed; what was done stays, and a repetition goes on.
        """
        wanted = _topology(topology)
        if self._nodes is None or self._instance is None:
            result = await ask(self._directory, ApplyRequest(topology=wanted), progress)
            return Applied(tuple(Step(**step) for step in result["steps"]))
        if self._changing.locked():
            raise ApplyUnderWay(self._directory)
        async with self._changing:
            assert self._instance.description is not None
            target = wanted or self._instance.description.topology
            work = Apply(self._instance, self._nodes, target, progress)
            try:
                return await work.run()
            finally:
                self._nodes, self._material = work.running, work.running.material
                self._topology = work.running.site.topology

    @property
    def ledger(self) -> NetworkLedger:
        """What only the embedded ledger offers: snapshots, dumps, time, block cutting, faults.

        Its methods raise RuntimeUnavailable on other runtimes, and NotUp when no process runs the network.
        """
        return NetworkLedger(self._directory, self._tools if self._nodes else None)

    def _tools(self) -> LedgerTools:
        assert self._nodes is not None
        runtime = self._nodes.runtime
        ledger = runtime.ledger if isinstance(runtime, EmbeddedRuntime) else None
        if ledger is None:
            name = read_status(self._directory).runtime
            raise RuntimeUnavailable(name, "its nodes are Fabric's own and cannot do that", ("embedded",))
        return ledger.tools

    async def _answer(self, request: Request, progress: Progress) -> dict[str, Any]:
        """Do what another process asks for (`control`)."""
        if isinstance(request, LedgerRequest):
            return await perform(self._tools(), request)
        applied = await self.apply(request.topology, progress=progress)
        return {"steps": [asdict(step) for step in applied.steps]}


@asynccontextmanager
async def _up(
    topology: Topology | Path | str | None,
    runtime_name: str | None,
    place: Path | None,
    progress: Progress | None,
    seed: str | None,
    origin: Path | None,
) -> AsyncIterator[Network]:
    create_runtime(runtime_name or DEFAULT_RUNTIME)  # refuses a name before anything is touched
    wanted = _topology(topology)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(_temporary()) if place is None else _absolute(place)
        instance = stack.enter_context(open_instance(directory))
        stack.enter_context(logging_to(instance.logs / "network.log"))
        name = runtime_name or (instance.description.runtime if instance.description else DEFAULT_RUNTIME)
        taken = take_over(origin, instance, name) if origin is not None else None
        chosen = wanted or taken or _stored_topology(instance) or default_topology()
        runtime = create_runtime(name)
        try:
            steps = Steps(progress, step_count(chosen, _operator(instance)))
            nodes = await bring_up(instance, chosen, name, runtime, steps, seed)
            network = Network(directory, nodes.site.topology, nodes, instance)
            async with (
                listening(directory, network._answer),  # one of the object's own methods
                agreeing(nodes) if nodes.site.operator else contextlib.nullcontext(),
            ):
                instance.mark("up")
                _log.info("network is up", directory=str(directory), pid=os.getpid())
                yield network
        finally:
            try:
                instance.mark("stopping")
            finally:
                # Also where the directory is gone: its processes are not to outlive it.
                await _shielded(runtime.stop)
            _log.info("network is down", directory=str(directory))


@asynccontextmanager
async def _attach(directory: Path) -> AsyncIterator[Network]:
    status = running(directory)
    assert status.topology is not None  # running() sees to it
    yield Network(directory, status.topology, operator=status.bundle.operator if status.bundle else "")


async def _end_what_goes_on(directory: Path) -> None:
    """End nodes whose watching process was killed: processes and containers go on without it."""
    await end_orphans(directory)
    if read_status(directory).runtime == "docker":
        from sovchain.network.runtimes.docker import end_containers

        await end_containers(directory)


async def _shielded(stop: Callable[[], Any]) -> None:
    """Run `stop` to its end even when the caller is cancelled meanwhile, and pass the cancellation on afterwards."""
    task = asyncio.ensure_future(stop())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _topology(topology: Topology | Path | str | None) -> Topology | None:
    if topology is None:
        return None
    return check(topology) if isinstance(topology, Topology) else load_topology(Path(topology))


def _operator(instance: Instance) -> str:
    bundle = instance.description.bundle if instance.description else None
    return bundle.operator if bundle else ""


def _stored_topology(instance: Instance) -> Topology | None:
    return instance.description.topology if instance.description else None


def _absolute(directory: Path) -> Path:
    """The directory's path from the root: it is written into files and given to processes."""
    return Path(os.path.abspath(directory.expanduser()))


@contextmanager
def _temporary() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="sovchain-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
