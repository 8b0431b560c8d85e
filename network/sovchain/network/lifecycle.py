"""The chaincode lifecycle on any Fabric peers: install, approve for each organisation, check readiness, commit.

Every step looks before it acts, so `deploy` can be repeated, and goes on where an earlier one was interrupted. The
functions and their arguments are those of `core/chaincode/lifecycle/scc.go` in Fabric.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from fabric_protos.peer import collection_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2 as messages
from google.protobuf.message import Message

from sovchain.network.errors import LifecycleError
from sovchain.network.nodes import CALL_TIMEOUT_S, Broadcaster, Peer
from sovchain.protocol.lifecycle import LIFECYCLE_NAMESPACE, ChaincodeDefinition, with_defaults
from sovchain.protocol.proposals import Invocation

_NOT_FOUND: Final = 404
_POLL_FIRST_S: Final = 0.02
_POLL_LAST_S: Final = 0.5

_Result = TypeVar("_Result", bound=Message)


@dataclass(frozen=True)
class Deployed:
    """What `deploy` found or did.

    Attributes:
        channel, chaincode, version, sequence: the definition that is committed now.
        package_ids: the package that each organisation runs, by its MSP id. Packages may differ, the definition not.
        transactions: ids of the transactions that were needed, in order of commitment; empty when all was there
            already.
    """

    channel: str
    chaincode: str
    version: str
    sequence: int
    package_ids: Mapping[str, str]
    transactions: tuple[str, ...]


class _Definition(Protocol):
    """The fields that a definition has in Fabric's answers."""

    sequence: int
    version: str
    endorsement_plugin: str
    validation_plugin: str
    validation_parameter: bytes
    init_required: bool

    @property
    def collections(self) -> collection_pb2.CollectionConfigPackage: ...


class Administration:
    """The lifecycle functions of one peer, called by its organisation's administrator.

    Each raises LifecycleError when the peer refuses or cannot be reached.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    async def installed(self) -> frozenset[str]:
        """Return the ids of the packages on the peer."""
        result = await self._query(
            "query", "", "", "QueryInstalledChaincodes", messages.QueryInstalledChaincodesArgs(),
            messages.QueryInstalledChaincodesResult,
        )  # fmt: skip
        return frozenset(entry.package_id for entry in result.installed_chaincodes)

    async def install(self, package: bytes, chaincode: str) -> str:
        """Put a package on the peer; return its id."""
        result = await self._query(
            "install", "", chaincode, "InstallChaincode",
            messages.InstallChaincodeArgs(chaincode_install_package=package), messages.InstallChaincodeResult,
        )  # fmt: skip
        return result.package_id

    async def committed(self, channel: str, chaincode: str) -> messages.QueryChaincodeDefinitionResult | None:
        """Return the committed definition with the organisations' approvals, or None."""
        try:
            return await self._query(
                "query", channel, chaincode, "QueryChaincodeDefinition",
                messages.QueryChaincodeDefinitionArgs(name=chaincode), messages.QueryChaincodeDefinitionResult,
            )  # fmt: skip
        except LifecycleError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def definitions(self, channel: str) -> list[str]:
        """Return the names of the chaincodes that have a committed definition on a channel."""
        result = await self._query(
            "query", channel, "", "QueryChaincodeDefinitions", messages.QueryChaincodeDefinitionsArgs(),
            messages.QueryChaincodeDefinitionsResult,
        )  # fmt: skip
        return [definition.name for definition in result.chaincode_definitions]

    async def approved(self, channel: str, definition: ChaincodeDefinition) -> str | None:
        """Return the package that the organisation approved exactly this definition with, or None.

        A peer answers a missing approval with its general error status; so any refusal counts as "not approved", and
        the approval that follows brings the reason to light.
        """
        arguments = messages.QueryApprovedChaincodeDefinitionArgs(name=definition.name, sequence=definition.sequence)
        try:
            result = await self._query(
                "query", channel, definition.name, "QueryApprovedChaincodeDefinition", arguments,
                messages.QueryApprovedChaincodeDefinitionResult,
            )  # fmt: skip
        except LifecycleError as error:
            if error.status < 400:
                raise  # a status of gRPC: the peer was not reached
            return None
        return result.source.local_package.package_id if agrees(result, definition) else None

    async def approve(self, channel: str, definition: ChaincodeDefinition, package: str, orderers: Broadcaster) -> str:
        """Approve a definition for the organisation, wait for the commit, return the transaction id."""
        local = messages.ChaincodeSource.Local(package_id=package)
        arguments = messages.ApproveChaincodeDefinitionForMyOrgArgs(
            source=messages.ChaincodeSource(local_package=local),
            name=definition.name,
            version=definition.version,
            sequence=definition.sequence,
            endorsement_plugin=definition.endorsement_plugin,
            validation_plugin=definition.validation_plugin,
            validation_parameter=definition.endorsement_policy,
            collections=definition.collections,
            init_required=definition.init_required,
        )
        invocation = _invocation(channel, "ApproveChaincodeDefinitionForMyOrg", arguments)
        return await _transact("approve", invocation, definition.name, [self.peer], orderers)

    async def readiness(self, channel: str, definition: ChaincodeDefinition) -> dict[str, bool]:
        """Return for each organisation of the channel whether it has approved exactly this definition."""
        arguments = messages.CheckCommitReadinessArgs(
            name=definition.name,
            version=definition.version,
            sequence=definition.sequence,
            endorsement_plugin=definition.endorsement_plugin,
            validation_plugin=definition.validation_plugin,
            validation_parameter=definition.endorsement_policy,
            collections=definition.collections,
            init_required=definition.init_required,
        )
        result = await self._query(
            "readiness",
            channel,
            definition.name,
            "CheckCommitReadiness",
            arguments,
            messages.CheckCommitReadinessResult,
        )
        return dict(result.approvals)

    async def _query(
        self, step: str, channel: str, chaincode: str, function: str, arguments: Message, result: type[_Result]
    ) -> _Result:
        proposal = self.peer.administrator.proposal(_invocation(channel, function, arguments))
        answer = await self.peer.propose(step, chaincode, proposal)
        return result.FromString(answer.response.payload)


async def commit(
    channel: str, definition: ChaincodeDefinition, members: Sequence[Administration], orderers: Broadcaster
) -> str:
    """Commit a definition that the organisations have approved, endorsed by all of `members`; return the transaction
    id.

    Waits first until each peer has seen all approvals, since peers may lag behind one another, and last until all have
    committed. Raises LifecycleError.
    """
    msp_ids = {member.peer.msp_id for member in members}
    await asyncio.gather(*(_await_readiness(member, channel, definition, msp_ids) for member in members))
    arguments = messages.CommitChaincodeDefinitionArgs(
        name=definition.name,
        version=definition.version,
        sequence=definition.sequence,
        endorsement_plugin=definition.endorsement_plugin,
        validation_plugin=definition.validation_plugin,
        validation_parameter=definition.endorsement_policy,
        collections=definition.collections,
        init_required=definition.init_required,
    )
    invocation = _invocation(channel, "CommitChaincodeDefinition", arguments)
    return await _transact("commit", invocation, definition.name, [member.peer for member in members], orderers)


async def install(member: Administration, packages: Mapping[str, bytes]) -> None:
    """Put those of the packages (by their ids) on a peer that are not there yet. Raises LifecycleError."""
    there = await member.installed()
    for identifier, package in packages.items():
        if identifier not in there:
            await member.install(package, identifier.partition(":")[0])


async def deploy(
    channel: str,
    definition: ChaincodeDefinition,
    packages: Mapping[Administration, str],
    orderers: Broadcaster,
) -> Deployed:
    """Bring a channel to the state that every member has approved and the channel has committed a definition.

    Args:
        channel: the channel.
        definition: what is to be committed; its sequence is found out: the committed one when nothing differs,
            otherwise the next.
        packages: one peer of each organisation of the channel, and the id of the package that it runs, installed there.
        orderers: the channel's ordering nodes.

    Raises:
        LifecycleError: a peer or an ordering node refused a step. What is done already stays, and a repetition goes on.
    """
    members = list(packages)
    wanted = with_defaults(definition)
    current = await members[0].committed(channel, wanted.name)
    wanted = replace(wanted, sequence=current.sequence if current else 1)
    done = current is not None and agrees(current, wanted)
    if current is not None and not done:
        wanted = replace(wanted, sequence=current.sequence + 1)
    approvals = await asyncio.gather(
        *(_agree(member, channel, wanted, package, orderers) for member, package in packages.items())
    )
    transactions = [transaction for transaction in approvals if transaction]
    if not done:
        transactions.append(await commit(channel, wanted, members, orderers))
    identifiers = {member.peer.msp_id: package for member, package in packages.items()}
    return Deployed(channel, wanted.name, wanted.version, wanted.sequence, identifiers, tuple(transactions))


async def _agree(
    member: Administration, channel: str, definition: ChaincodeDefinition, package: str, orderers: Broadcaster
) -> str | None:
    """Approve for one organisation unless it has done so with this package; return the transaction id, if any."""
    if await member.approved(channel, definition) == package:
        return None
    return await member.approve(channel, definition, package, orderers)


async def _await_readiness(
    member: Administration, channel: str, definition: ChaincodeDefinition, msp_ids: set[str]
) -> None:
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + CALL_TIMEOUT_S, _POLL_FIRST_S
    while True:
        approvals = await member.readiness(channel, definition)
        missing = sorted(msp_id for msp_id in msp_ids if not approvals.get(msp_id))
        if not missing:
            return
        if loop.time() + pause > deadline:
            raise LifecycleError(
                "readiness",
                f"no approval of {', '.join(missing)} within {CALL_TIMEOUT_S:.0f} s",
                address=member.peer.address.address,
                msp_id=member.peer.msp_id,
                status=0,
                channel=channel,
                chaincode=definition.name,
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, _POLL_LAST_S)


async def _transact(
    step: str, invocation: Invocation, chaincode: str, peers: Sequence[Peer], orderers: Broadcaster
) -> str:
    """Propose to all peers in the first one's name, order the transaction, wait until all peers have committed it."""
    first, channel = peers[0], invocation.channel_id
    proposal = first.administrator.proposal(invocation)
    answers = await asyncio.gather(*(peer.propose(step, chaincode, proposal) for peer in peers))
    for peer, answer in zip(peers, answers, strict=True):
        if answer.payload != answers[0].payload:
            raise LifecycleError(
                step,
                f"its answer differs from that of {first.msp_id}; the peers may not be at the same block",
                address=peer.address.address,
                msp_id=peer.msp_id,
                status=answer.response.status,
                channel=channel,
                chaincode=chaincode,
            )
    await orderers.broadcast(step, chaincode, channel, first.administrator.transaction(proposal, answers))
    await asyncio.gather(*(peer.committed(step, chaincode, channel, proposal.transaction_id) for peer in peers))
    return proposal.transaction_id


def _invocation(channel: str, function: str, arguments: Message) -> Invocation:
    return Invocation(
        channel, LIFECYCLE_NAMESPACE, (function.encode(), arguments.SerializeToString(deterministic=True))
    )


def agrees(found: _Definition, wanted: ChaincodeDefinition, *, sequence: int | None = None) -> bool:
    """Whether a definition in a peer's answer says the same as `wanted`, whose defaults are filled in.

    With `sequence` it stands for that of `wanted`.
    """
    collections = wanted.collections.SerializeToString(deterministic=True) if wanted.collections else b""
    return (
        found.sequence == (wanted.sequence if sequence is None else sequence)
        and found.version == wanted.version
        and found.endorsement_plugin == wanted.endorsement_plugin
        and found.validation_plugin == wanted.validation_plugin
        and found.validation_parameter == wanted.endorsement_policy
        and found.init_required == wanted.init_required
        and found.collections.SerializeToString(deterministic=True) == collections
    )
