"""Deployment looks before it acts, waits for what lags, and says which node refused what."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2 as messages

from sovchain.network import LifecycleError, default_topology
from sovchain.network import lifecycle as module
from sovchain.network.lifecycle import Administration, deploy, install
from sovchain.network.material import Material
from sovchain.network.nodes import Administrator, NodeAddress, OrderingNodes, Peer
from sovchain.protocol.lifecycle import ChaincodeDefinition, signature_application_policy, with_defaults
from sovchain.protocol.packages import build_ccaas_package, package_id
from sovchain.protocol.proposals import parse_signed_proposal
from sovchain.protocol.transactions import parse_envelope_header

TOPOLOGY = default_topology()
MEMBERS = [part for part in TOPOLOGY.organizations if part.name in TOPOLOGY.channel("finance").members]
POLICY = signature_application_policy("AND('SupervisorMSP.peer', 'FinanceMSP.peer')")
DEFINITION = ChaincodeDefinition("notes", "1.0", 0, POLICY)
PACKAGE = build_ccaas_package("notes_1.0", {"address": "127.0.0.1:1"})
IDENTIFIER = package_id(PACKAGE, "notes_1.0")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.create(TOPOLOGY, tmp_path_factory.mktemp("lifecycle") / "organizations", datetime.now(UTC))


@dataclass
class World:
    """What peers and ordering nodes of a made-up channel have in common: approvals, a definition, and calls counted."""

    installed: dict[str, set[str]] = field(default_factory=dict)
    approvals: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    committed: messages.QueryChaincodeDefinitionResult | None = None
    pending: dict[str, object] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    lag: int = 0
    statuses: list[int] = field(default_factory=list)
    code: int = transaction_pb2.VALID
    refuse: str = ""
    vary: bool = False

    def answer(self, msp_id: str, function: str, content: bytes, transaction_id: str) -> tuple[int, str, bytes]:
        self.calls[function] += 1
        if function == self.refuse:
            return 500, "no", b""
        match function:
            case "QueryInstalledChaincodes":
                result = messages.QueryInstalledChaincodesResult()
                for identifier in self.installed.get(msp_id, set()):
                    result.installed_chaincodes.add(package_id=identifier)
                return 200, "", result.SerializeToString()
            case "InstallChaincode":
                package = messages.InstallChaincodeArgs.FromString(content).chaincode_install_package
                identifier = package_id(package, "notes_1.0")
                if identifier in self.installed.setdefault(msp_id, set()):
                    return 500, "chaincode already successfully installed", b""
                self.installed[msp_id].add(identifier)
                return 200, "", messages.InstallChaincodeResult(package_id=identifier).SerializeToString()
            case "QueryChaincodeDefinition":
                if self.committed is None:
                    return 404, "namespace notes is not defined", b""
                return 200, "", self.committed.SerializeToString()
            case "QueryApprovedChaincodeDefinition":
                return self._approved(msp_id, messages.QueryApprovedChaincodeDefinitionArgs.FromString(content))
            case "CheckCommitReadiness":
                return self._readiness(messages.CheckCommitReadinessArgs.FromString(content))
            case "ApproveChaincodeDefinitionForMyOrg":
                approval = messages.ApproveChaincodeDefinitionForMyOrgArgs.FromString(content)
                self.pending[transaction_id] = (msp_id, approval)
            case "CommitChaincodeDefinition":
                self.pending[transaction_id] = messages.CommitChaincodeDefinitionArgs.FromString(content)
        return 200, "", b""

    def _approved(self, msp_id: str, wanted: messages.QueryApprovedChaincodeDefinitionArgs) -> tuple[int, str, bytes]:
        if msp_id not in self.approvals:
            return 500, "could not fetch approved chaincode definition", b""
        found = messages.ApproveChaincodeDefinitionForMyOrgArgs.FromString(self.approvals[msp_id][0])
        if found.sequence != wanted.sequence:
            return 500, "could not fetch approved chaincode definition", b""
        result = messages.QueryApprovedChaincodeDefinitionResult(
            sequence=found.sequence,
            version=found.version,
            endorsement_plugin=found.endorsement_plugin,
            validation_plugin=found.validation_plugin,
            validation_parameter=found.validation_parameter,
            source=found.source,
        )
        return 200, "", result.SerializeToString()

    def _readiness(self, wanted: messages.CheckCommitReadinessArgs) -> tuple[int, str, bytes]:
        result = messages.CheckCommitReadinessResult()
        for member in MEMBERS:
            content, _ = self.approvals.get(member.msp_id, (b"", ""))
            found = messages.ApproveChaincodeDefinitionForMyOrgArgs.FromString(content)
            result.approvals[member.msp_id] = found.sequence == wanted.sequence and found.version == wanted.version
        if self.lag:
            self.lag -= 1
            result.approvals[MEMBERS[0].msp_id] = False
        return 200, "", result.SerializeToString()

    def order(self, transaction_id: str) -> None:
        match self.pending.pop(transaction_id):
            case (str() as msp_id, messages.ApproveChaincodeDefinitionForMyOrgArgs() as approval):
                self.approvals[msp_id] = (approval.SerializeToString(), approval.source.local_package.package_id)
            case messages.CommitChaincodeDefinitionArgs() as commit:
                self.committed = messages.QueryChaincodeDefinitionResult(
                    sequence=commit.sequence,
                    version=commit.version,
                    endorsement_plugin=commit.endorsement_plugin,
                    validation_plugin=commit.validation_plugin,
                    validation_parameter=commit.validation_parameter,
                )


def handlers(world: World, msp_id: str) -> list[grpc.GenericRpcHandler]:
    async def process(signed: proposal_pb2.SignedProposal, _: object) -> proposal_response_pb2.ProposalResponse:
        proposal = parse_signed_proposal(signed)
        function, content = proposal.input.args
        status, text, payload = world.answer(msp_id, function.decode(), content, proposal.transaction_id)
        return proposal_response_pb2.ProposalResponse(
            response=proposal_response_pb2.Response(status=status, message=text, payload=payload),
            payload=msp_id.encode() if world.vary else b"the same",
            endorsement=proposal_response_pb2.Endorsement(endorser=msp_id.encode(), signature=b"s"),
        )

    async def commit_status(
        signed: gateway_pb2.SignedCommitStatusRequest, _: object
    ) -> gateway_pb2.CommitStatusResponse:
        world.calls["CommitStatus"] += 1
        return gateway_pb2.CommitStatusResponse(result=world.code, block_number=7)  # type: ignore[arg-type]  # a number

    async def broadcast(
        requests: AsyncIterator[common_pb2.Envelope], _: object
    ) -> AsyncIterator[ab_pb2.BroadcastResponse]:
        async for envelope in requests:
            status = world.statuses.pop(0) if world.statuses else common_pb2.SUCCESS
            if status == common_pb2.SUCCESS:
                assert envelope.signature
                world.order(parse_envelope_header(envelope.SerializeToString()).transaction_id)
            yield ab_pb2.BroadcastResponse(status=status, info="" if status == 200 else "refused")  # type: ignore[arg-type]

    def unary(function: object, kind: type) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            function, kind.FromString, lambda message: message.SerializeToString()
        )

    stream = grpc.stream_stream_rpc_method_handler(
        broadcast, common_pb2.Envelope.FromString, lambda message: message.SerializeToString()
    )
    return [
        grpc.method_handlers_generic_handler(
            "protos.Endorser", {"ProcessProposal": unary(process, proposal_pb2.SignedProposal)}
        ),
        grpc.method_handlers_generic_handler(
            "gateway.Gateway", {"CommitStatus": unary(commit_status, gateway_pb2.SignedCommitStatusRequest)}
        ),
        grpc.method_handlers_generic_handler("orderer.AtomicBroadcast", {"Broadcast": stream}),
    ]


@asynccontextmanager
async def nodes(world: World, material: Material) -> AsyncIterator[tuple[list[Administration], OrderingNodes]]:
    """One peer for each member; each also takes transactions for ordering."""
    async with AsyncExitStack() as stack:
        members, addresses = [], []
        for member in MEMBERS:
            part = material.organization(member.name)
            node, admin = part.node(), part.user("Admin")
            server = grpc.aio.server()
            server.add_generic_rpc_handlers(handlers(world, member.msp_id))
            pair = (node.tls_private_key_pem, node.tls_certificate_pem)
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
            await server.start()
            stack.push_async_callback(server.stop, None)
            address = NodeAddress(member.msp_id, f"localhost:{port}", part.tls_root_pem, node.host)
            peer = Peer(address, Administrator.from_pem(member.msp_id, admin.certificate_pem, admin.private_key_pem))
            stack.push_async_callback(peer.close)
            members.append(Administration(peer))
            addresses.append(address)
        orderers = OrderingNodes(addresses)
        stack.push_async_callback(orderers.close)
        yield members, orderers


async def bring(world: World, material: Material, definition: ChaincodeDefinition = DEFINITION) -> module.Deployed:
    async with nodes(world, material) as (members, orderers):
        await asyncio.gather(*(install(member, {IDENTIFIER: PACKAGE}) for member in members))
        return await deploy("finance", definition, dict.fromkeys(members, IDENTIFIER), orderers)


async def test_a_new_chaincode_is_installed_approved_by_all_and_committed(material: Material) -> None:
    world = World()
    deployed = await bring(world, material)
    assert (deployed.sequence, len(deployed.transactions)) == (1, 4)
    assert deployed.package_ids == {member.msp_id: IDENTIFIER for member in MEMBERS}
    assert set(world.installed) == set(world.approvals) == {member.msp_id for member in MEMBERS}
    assert world.committed is not None
    assert world.committed.validation_parameter == POLICY
    assert world.committed.endorsement_plugin == with_defaults(DEFINITION).endorsement_plugin
    assert world.calls["CommitChaincodeDefinition"] == 3


async def test_repeating_it_changes_nothing(material: Material) -> None:
    world = World()
    await bring(world, material)
    before = world.calls.copy()
    again = await bring(world, material)
    assert (again.sequence, again.transactions) == (1, ())
    for function in ("InstallChaincode", "ApproveChaincodeDefinitionForMyOrg", "CommitChaincodeDefinition"):
        assert world.calls[function] == before[function]


async def test_what_was_interrupted_goes_on_where_it_was(material: Material) -> None:
    world = World(refuse="CommitChaincodeDefinition")
    with pytest.raises(LifecycleError):
        await bring(world, material)
    del world.approvals[MEMBERS[1].msp_id]
    world.refuse = ""
    before = world.calls.copy()
    deployed = await bring(world, material)
    assert len(deployed.transactions) == 2
    assert world.calls["ApproveChaincodeDefinitionForMyOrg"] - before["ApproveChaincodeDefinitionForMyOrg"] == 1


async def test_another_definition_takes_the_next_sequence(material: Material) -> None:
    world = World()
    await bring(world, material)
    deployed = await bring(world, material, ChaincodeDefinition("notes", "1.1", 0, POLICY))
    assert (deployed.sequence, deployed.version, len(deployed.transactions)) == (2, "1.1", 4)


async def test_an_organisation_with_another_package_approves_again_without_a_new_commit(material: Material) -> None:
    world = World()
    await bring(world, material)
    content, _ = world.approvals[MEMBERS[0].msp_id]
    approval = messages.ApproveChaincodeDefinitionForMyOrgArgs.FromString(content)
    approval.source.local_package.package_id = "notes_1.0:other"
    world.approvals[MEMBERS[0].msp_id] = (approval.SerializeToString(), "notes_1.0:other")
    deployed = await bring(world, material)
    assert (deployed.sequence, len(deployed.transactions)) == (1, 1)
    assert world.approvals[MEMBERS[0].msp_id][1] == IDENTIFIER


async def test_a_peer_that_lags_is_waited_for(material: Material) -> None:
    world = World(lag=4)
    assert len((await bring(world, material)).transactions) == 4
    assert world.calls["CheckCommitReadiness"] > 3


async def test_approvals_that_never_arrive_are_named(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_TIMEOUT_S", 0.2)
    with pytest.raises(LifecycleError, match=MEMBERS[0].msp_id) as caught:
        await bring(World(lag=10**6), material)
    assert caught.value.step == "readiness"


async def test_ordering_nodes_without_a_leader_are_asked_again(material: Material) -> None:
    world = World(statuses=[common_pb2.SERVICE_UNAVAILABLE] * 5)
    assert len((await bring(world, material)).transactions) == 4


async def test_a_refusal_names_step_node_and_reason(material: Material) -> None:
    with pytest.raises(LifecycleError, match="refused") as caught:
        await bring(World(statuses=[common_pb2.FORBIDDEN]), material)
    assert (caught.value.step, caught.value.status) == ("approve", common_pb2.FORBIDDEN)
    with pytest.raises(LifecycleError, match="ENDORSEMENT_POLICY_FAILURE") as caught:
        await bring(World(code=transaction_pb2.ENDORSEMENT_POLICY_FAILURE), material)
    assert caught.value.channel == "finance"
    with pytest.raises(LifecycleError, match="no") as caught:
        await bring(World(refuse="ApproveChaincodeDefinitionForMyOrg"), material)
    assert (caught.value.step, caught.value.status, caught.value.chaincode) == ("approve", 500, "notes")
    with pytest.raises(LifecycleError, match="differs"):
        await bring(World(vary=True), material)


async def test_a_peer_that_is_not_there_is_an_error_of_the_network(material: Material, tmp_path: Path) -> None:
    part = material.organization("Finance")
    admin = part.user("Admin")
    address = NodeAddress(part.msp_id, "localhost:1", part.tls_root_pem, part.node().host)
    peer = Peer(address, Administrator.from_pem(part.msp_id, admin.certificate_pem, admin.private_key_pem))
    try:
        with pytest.raises(LifecycleError, match="UNAVAILABLE"):
            await Administration(peer).installed()
        with pytest.raises(LifecycleError, match="UNAVAILABLE"):
            await Administration(peer).approved("finance", DEFINITION)
    finally:
        await peer.close()


async def test_a_peer_with_another_tls_root_is_not_trusted(material: Material) -> None:
    async with nodes(World(), material) as (members, _):
        wrong = material.organization("OverseasCarrier").tls_root_pem
        known = members[0].peer.address
        peer = Peer(NodeAddress(known.msp_id, known.address, wrong, known.server_name), members[0].peer.administrator)
        try:
            with pytest.raises(LifecycleError, match="UNAVAILABLE"):
                await Administration(peer).installed()
        finally:
            await peer.close()
