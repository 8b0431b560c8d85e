"""No organisation alone, no pair below the quorum, no altered peer and nobody from outside changes anything on a running network.

On the embedded ledger, and with `--long` on Fabric's own programs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from attackers import CHANNEL, Attacked, attacked, endorsed, signed_by, turned
from cryptography.x509.oid import NameOID
from fabric_protos.common import configtx_pb2, policies_pb2
from fabricprograms import fabric_programs

from sovchain.client import CommitRejected, Contract, EndorseError, FabricError, SigningIdentity
from sovchain.contracts.core import Sharing
from sovchain.contracts.core.records import Receipt
from sovchain.network import (
    ConfigurationRefused,
    LifecycleError,
    Network,
    SignaturesMissing,
    configuration,
    default_topology,
)
from sovchain.network.configuration import ChannelConfiguration, config_block
from sovchain.network.lifecycle import Administration, commit
from sovchain.network.material import Material
from sovchain.network.nodes import Administrator
from sovchain.network.runtimes.chaincodes import serve_environment
from sovchain.network.stored import stored_blocks
from sovchain.network.topology import Topology, User
from sovchain.protocol import lifecycle
from sovchain.protocol.blocks import parse_block
from sovchain.protocol.channelconfig import DEFAULT_ACLS, ChannelBundle
from sovchain.protocol.errors import PolicyUnsatisfied
from sovchain.protocol.identity import parse_identity
from sovchain.protocol.policies import Policy, SignaturePolicy
from sovchain.protocol.proposals import Invocation
from sovchain.protocol.transactions import parse_transaction
from sovchain.sovereign import Sovereign, pseudonym

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

ALONE = {
    "/Channel/Readers": "every member reads its channel",
    "/Channel/Writers": "every member may send transactions; endorsement decides whether they are valid",
    "/Channel/Application/Readers": "every member reads its channel",
    "/Channel/Application/Writers": "every member may propose and send transactions; endorsement decides",
    "/Channel/Orderer/Readers": "every ordering organisation reads the channel that it orders",
    "/Channel/Orderer/Writers": "every ordering organisation may send transactions; endorsement decides",
    "/Channel/Orderer/BlockValidation": "with Raft one node signs each block: it orders, and can make nothing valid",
}
"""What one organisation satisfies alone by design, besides what is in its own group: `docs/law-cases.md` says the same."""
OWN = {"Readers", "Writers", "Admins", "Endorsement"}


# An official of Finance, whom her organisation enrols under pseudonyms, one for each purpose.
NAME, NUMBER, KEY = "Wang Xiaoming", "520102198002030415", bytes(range(32))
ENROLLED = {
    purpose: pseudonym(KEY, f"enrolment/{purpose}", NUMBER)[:32] for purpose in ("credit-assessment", "marketing")
}


def topology() -> Topology:
    """The default network with two identities of one person."""
    default = default_topology()
    finance = default.organization("Finance")
    claims = finance.user("User1").attributes
    users = (*finance.users, *(User(name=name, attributes=claims) for name in ENROLLED.values()))
    organizations = [
        part.model_copy(update={"users": users}) if part == finance else part for part in default.organizations
    ]
    return default.model_copy(update={"organizations": tuple(organizations)})


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["embedded", pytest.param("native", marks=pytest.mark.long)]
)
async def net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Attacked]:
    """The default network on each runtime in turn."""
    if request.param == "native":
        await asyncio.to_thread(fabric_programs, "3.1")
    folder = tmp_path_factory.mktemp("alone") / "network"
    async with Network.up(topology(), request.param, folder) as network, AsyncExitStack() as stack:
        yield await attacked(network, stack)


def operators() -> dict[str, str]:
    """Who is behind each MSP: an organisation's peers and its ordering node are in the same hands."""
    topology = default_topology()
    found = {part.msp_id: part.operator for part in topology.ordering_organizations}
    return found | {part.msp_id: part.name for part in topology.organizations}


def satisfied_alone(net: Attacked, policy: Policy) -> set[str]:
    """Who satisfies a policy with all of its own keys together, tried with real signatures."""
    found = set()
    for operator in set(operators().values()):
        try:
            policy.evaluate(signed_by(b"a change", net.signers(operator)))
            found.add(operator)
        except PolicyUnsatisfied:
            continue
    return found


def elements(group: configtx_pb2.ConfigGroup, path: str = "/Channel") -> Iterator[tuple[str, str]]:
    """Each element of a configuration with the absolute path of the policy that guards its change."""

    def guard(name: str) -> str:
        return name if name.startswith("/") else f"{path}/{name}"

    yield path, guard(group.mod_policy)
    for name, value in group.values.items():
        yield f"{path}: {name}", guard(value.mod_policy)
    for name, policy in group.policies.items():
        yield f"{path}: policy {name}", guard(policy.mod_policy)
    for name, inner in group.groups.items():
        yield from elements(inner, f"{path}/{name}")


async def bundles(net: Attacked) -> dict[str, ChannelBundle]:
    """Every channel's configuration as the regulator's peer has it."""
    regulator = net.peers["Supervisor"]
    return {name: ChannelBundle.from_block(await config_block(regulator, name)) for name in net.network.channels}


async def test_no_organisation_alone_satisfies_a_policy_of_any_channel(net: Attacked) -> None:
    seen: set[str] = set()
    for channel, bundle in (await bundles(net)).items():
        judged = 0
        for path in bundle.policies.paths:
            group, _, name = path.rpartition("/")
            owner = group.rpartition("/")[2]
            alone = satisfied_alone(net, bundle.policies.get(path))
            if owner in operators():
                assert name in OWN
                assert alone <= {operators()[owner]}, (channel, path)
                continue
            judged += 1
            listed = {
                frozenset(map(operators().__getitem__, one)) for one in bundle.policies.satisfying_organisations(path)
            }
            assert alone == {one for (one,) in (group for group in listed if len(group) == 1)}, (channel, path)
            if alone:
                seen.add(path)
        assert judged >= 11
    assert seen == set(ALONE)
    page = (Path(__file__).parents[2] / "docs" / "law-cases.md").read_text()
    for path, reason in ALONE.items():
        assert f"| `{path}` | {reason} |" in page


async def test_no_organisation_alone_changes_an_element_of_a_configuration_but_its_own(net: Attacked) -> None:
    for channel, bundle in (await bundles(net)).items():
        count = 0
        for element, guard in elements(bundle.config.channel_group):
            if guard in {
                "/Channel/",
                "/Channel",
            }:  # the root and the groups below it have no guard: nobody may replace them
                continue
            count += 1
            owner = guard.rpartition("/")[0].rpartition("/")[2]
            assert bundle.policies.find(guard) is not None, (channel, element, guard)
            alone = satisfied_alone(net, bundle.policies.get(guard))
            assert alone == ({operators()[owner]} if owner in operators() else set()), (channel, element, guard)
        assert count > 40


async def test_every_resource_that_one_organisation_reaches_alone_reads_or_asks(net: Attacked) -> None:
    """What changes something is guarded further: a proposal by endorsement, a definition by the lifecycle's policy."""
    for bundle in (await bundles(net)).values():
        for resource in DEFAULT_ACLS:
            assert bundle.policy_for_acl(resource) in {
                "/Channel/Application/Readers",
                "/Channel/Application/Writers",
            }, resource


async def test_no_organisation_alone_satisfies_a_committed_definition(net: Attacked) -> None:
    regulator = Administration(net.peers["Supervisor"])
    for channel, bundle in (await bundles(net)).items():
        names = await regulator.definitions(channel)
        assert names == [channel]
        assert satisfied_alone(net, lifecycle.application_policy(lifecycle.lifecycle_policy(bundle), bundle)) == set()
        for name in names:
            found = await regulator.committed(channel, name)
            assert found is not None
            assert satisfied_alone(net, lifecycle.application_policy(found.validation_parameter, bundle)) == set()
            assert list(found.collections.config) == [], "a new collection needs its policy judged here"
        for part in net.network.topology.members(channel):
            # Its own implicit collection is an organisation's alone, and no one else's.
            own = lifecycle.collection_policy(None, f"_implicit_org_{part.msp_id}", bundle)
            assert satisfied_alone(net, lifecycle.application_policy(own, bundle)) == {part.name}


async def test_no_organisation_alone_satisfies_the_policy_of_a_key(net: Attacked) -> None:
    """Every policy that any transaction has set on a key, read from the blocks themselves."""
    bundle, found = (await bundles(net))[CHANNEL], 0
    blocks = stored_blocks(net.network.directory, CHANNEL)
    next(blocks)  # the channel's first block holds no transaction
    for block in blocks:
        for envelope in parse_block(block).data.data:
            transaction = parse_transaction(envelope)
            for namespace in () if transaction.is_config else transaction.rwset.namespaces:
                for write in namespace.metadata_writes:
                    for name, value in write.entries or ():
                        assert name == "VALIDATION_PARAMETER"
                        policy = SignaturePolicy(policies_pb2.SignaturePolicyEnvelope.FromString(value), bundle.msps)
                        assert satisfied_alone(net, policy) == set(), write.key
                        found += 1
    assert found


async def test_a_pair_below_the_quorum_changes_no_configuration_and_no_definition(
    net: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [net.peers["Finance"], net.peers["Government"]]
    channel = ChannelConfiguration(CHANNEL, pair, net.orderers, [peer.administrator for peer in pair])

    def widen(root: configtx_pb2.ConfigGroup) -> None:
        root.groups["Application"].policies["LifecycleEndorsement"].CopyFrom(
            root.groups["Application"].policies["Writers"]
        )

    with pytest.raises(SignaturesMissing) as missing:
        await channel.change(widen)
    assert missing.value.missing == ("SupervisorMSP",)
    # A client that does not look itself sends the two signatures, and the ordering node looks.
    monkeypatch.setattr(configuration, "is_satisfied", lambda bundle, path, evidence: len(list(evidence)) == 2)
    with pytest.raises(
        ConfigurationRefused, match=r"policy for \[Policy\] /Channel/Application/LifecycleEndorsement not satisfied"
    ):
        await channel.change(widen)
    monkeypatch.undo()
    members = [Administration(peer) for peer in pair]
    current = await members[0].committed(CHANNEL, CHANNEL)
    assert current is not None
    weaker = lifecycle.ChaincodeDefinition(
        name=CHANNEL, version=current.version, sequence=current.sequence + 1,
        endorsement_policy=lifecycle.signature_application_policy("OR('FinanceMSP.peer')"),
    )  # fmt: skip
    weaker = lifecycle.with_defaults(weaker)
    for member in members:
        await member.approve(CHANNEL, weaker, next(iter(await member.installed())), net.orderers)
    with pytest.raises(LifecycleError, match="ENDORSEMENT_POLICY_FAILURE"):
        await commit(CHANNEL, weaker, members, net.orderers)
    after = await members[0].committed(CHANNEL, CHANNEL)
    assert after is not None
    assert after.sequence == current.sequence


@pytest.mark.parametrize("pair", [("Finance", "Government"), ("Finance",), ("Supervisor",)])
async def test_a_colluding_pair_below_the_quorum_commits_nothing(net: Attacked, pair: tuple[str, ...]) -> None:
    request = await net.file("credit-assessment")
    async with net.network.connect("Finance") as gateway:
        contract = gateway.network(CHANNEL).contract("finance")
        with pytest.raises(CommitRejected) as caught:
            await contract.with_options(organizations=[f"{name}MSP" for name in pair]).submit(Sharing.decide, request)
    assert caught.value.code_name == "ENDORSEMENT_POLICY_FAILURE"


async def test_an_altered_result_is_valid_for_nobody_however_it_is_endorsed(net: Attacked) -> None:
    """Finance's and Government's peers sign a permit that no engine gave; the regulator's honest signature is on the denial."""
    request = await net.file("marketing")
    client = net.network.identity("Finance")
    for endorsers in (("Finance",), ("Finance", "Government")):
        async with net.network.connect("Finance") as gateway:
            proposal = gateway.network(CHANNEL).contract("finance").proposal(Sharing.decide, request)
        honest, other = await net.answers(client, proposal.message, ("Supervisor", "Finance"))
        assert honest.payload == other.payload
        forged = turned(honest.payload, b'"deny"', b'"permit"')
        attempt = [*endorsed(forged, *map(net.peer_key, endorsers)), honest.endorsement]
        with pytest.raises(LifecycleError, match="ENDORSEMENT_POLICY_FAILURE"):
            await net.commit(client, proposal.message, proposal.transaction_id, forged, attempt)


async def test_a_rogue_organisation_with_its_own_authority_is_refused_everywhere(net: Attacked, tmp_path: Path) -> None:
    """It calls itself by a member's name, by its own, and endorses in a member's name; peers and ordering nodes refuse it."""
    request = await net.file("credit-assessment")
    # The same names, roles and files as the network's own, from authorities of its own.
    rogue = Material.create(default_topology(), tmp_path / "rogue", datetime.now(UTC))
    user, node = rogue.organization("Finance").user("User1"), rogue.organization("Supervisor").nodes()[0]
    for msp_id in ("FinanceMSP", "RogueMSP"):
        stranger = Administrator.from_pem(msp_id, user.certificate_pem, user.private_key_pem)
        asked = Invocation(CHANNEL, "finance", (b"Sharing:dataset", net.dataset.encode()))
        with pytest.raises(LifecycleError, match=f"access denied: channel \\[{CHANNEL}\\] creator org"):
            await net.peers["Finance"].propose("attack", "finance", stranger.proposal(asked))
    forger = SigningIdentity.from_pem("SupervisorMSP", node.certificate_pem, node.private_key_pem)
    client = net.network.identity("Finance")
    async with net.network.connect("Finance") as gateway:
        proposal = gateway.network(CHANNEL).contract("finance").proposal(Sharing.decide, request)
    (answer,) = await net.answers(client, proposal.message, ("Finance",))
    attempt = [answer.endorsement, *endorsed(answer.payload, forger)]
    with pytest.raises(LifecycleError, match="ENDORSEMENT_POLICY_FAILURE"):
        await net.commit(client, proposal.message, proposal.transaction_id, answer.payload, attempt)
    # The ordering node does not even take a stranger's envelope.
    outsider = SigningIdentity.from_pem("FinanceMSP", user.certificate_pem, user.private_key_pem)
    with pytest.raises(LifecycleError, match="implicit policy evaluation failed"):
        await net.commit(outsider, proposal.message, proposal.transaction_id, answer.payload, [answer.endorsement])


ALTERED = """
import sys
from sovchain.contracts.core import receipts
from sovchain.contracts.core.engine import Decision
from sovchain.contracts.core.records import Reason

receipts.decide = lambda request: Decision("permit", "", (Reason(rule="engine:altered"),), "0" * 64)
from sovchain.chaincode.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


async def test_a_peer_whose_organisation_runs_an_altered_engine_commits_nothing(net: Attacked, tmp_path: Path) -> None:
    """D-50 on a real peer: the definition does not bind an organisation's package, the other endorsers do.

    On the embedded ledger all organisations share what serves the chaincodes; there the altered result above stands for it.
    """
    faults, folder = net.network.faults, net.network.directory / "chaincode" / "Finance"
    if not folder.exists() or faults is None:
        pytest.skip("organisations run no chaincode of their own here")
    target = next(name for name in faults.targets() if name == "chaincode of Finance")
    (tmp_path / "altered.py").write_text(ALTERED)
    request = await net.file("marketing")
    await faults.kill(target)
    command = [sys.executable, "-P", str(tmp_path / "altered.py"), "serve", "--config", str(folder / "serve.json")]
    altered = await asyncio.create_subprocess_exec(*command, env=serve_environment("random"))
    try:
        async with net.network.connect("Finance") as gateway:
            contract = gateway.network(CHANNEL).contract("finance")
            alone = contract.with_options(organizations=["FinanceMSP"])
            answer = await evaluated(alone, request)
            assert answer.decision == "permit", "the altered engine answers"
            with pytest.raises(EndorseError, match="ProposalResponsePayloads do not match"):
                await contract.with_options(organizations=["FinanceMSP", "SupervisorMSP"]).submit(
                    Sharing.decide, request
                )
            with pytest.raises(CommitRejected) as caught:
                await alone.submit(Sharing.decide, request)
            assert caught.value.code_name == "ENDORSEMENT_POLICY_FAILURE"
    finally:
        altered.terminate()
        await altered.wait()
        await faults.start(target)
    async with net.network.connect("Government") as gateway:
        done = await gateway.network(CHANNEL).contract("finance").submit(Sharing.decide, request)
        assert done.result.decision == "deny"


async def evaluated(contract: Contract, request: str) -> Receipt:
    """What an organisation's own chaincode answers, once its process is up."""
    for _ in range(60):
        try:
            return await contract.evaluate(Sharing.decide, request)
        except FabricError:
            await asyncio.sleep(0.5)
    return await contract.evaluate(Sharing.decide, request)


async def test_t26_blocks_tell_organisation_role_and_pseudonym_of_who_looked_and_no_more(net: Attacked) -> None:
    """The submitter's certificate is in every block: what it says is what the organisation had written into it."""
    names = set()
    for purpose, user in ENROLLED.items():
        async with net.network.connect("Finance", user) as gateway:
            answer = await Sovereign(gateway.network(CHANNEL)).request(net.dataset, purpose)
        assert answer.decision == ("permit" if purpose == "credit-assessment" else "deny")
        names.add(f"{user}@finance.guiyang.example")
    blocks, seen = list(stored_blocks(net.network.directory, CHANNEL)), set()
    for block in blocks[1:]:
        for envelope in parse_block(block).data.data:
            who = parse_identity(parse_transaction(envelope).creator)
            common = who.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            if common in names:
                seen.add(common)
                units = {one.value for one in who.certificate.subject if one.oid != NameOID.COMMON_NAME}
                assert units <= {"client", "CN", "Finance", "finance.guiyang.example"}, units
                assert set(who.attributes) <= {"role", "clearance", "hf.Affiliation", "hf.EnrollmentID", "hf.Type"}
    assert seen == names, "the test would be void"
    assert len(names) == 2, "nobody without the key joins two purposes of one person"
    everything = b"".join(blocks)
    for marker in (NAME, NUMBER, *NAME.split()):
        assert marker.encode() not in everything
    # Whoever holds the key finds out.
    assert f"{pseudonym(KEY, 'enrolment/marketing', NUMBER)[:32]}@finance.guiyang.example" in seen
