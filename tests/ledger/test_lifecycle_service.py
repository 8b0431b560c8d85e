"""`_lifecycle` and private data over real gRPC: texts, readiness, and who gets what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from fabric_protos.common import common_pb2
from fabric_protos.peer import collection_pb2, transaction_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2 as messages
from ledger_world import World, sign_envelope
from raw_chaincode import Answer, Stub
from service_world import CHANNEL, Services, failure, services

from sovchain.protocol.identity import parse_identity
from sovchain.protocol.lifecycle import (
    DEFAULT_ENDORSEMENT_POLICY,
    reference_application_policy,
    signature_application_policy,
)
from sovchain.protocol.packages import build_package, package_id
from sovchain.protocol.policydsl import parse as parse_policy
from sovchain.protocol.transactions import assemble_envelope

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODES = transaction_pb2.TxValidationCode
MSP_IDS = ("Org1MSP", "Org2MSP", "Org3MSP")
ANY = signature_application_policy("OR('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer')")


def collection(name: str, members: str, **fields: Any) -> collection_pb2.StaticCollectionConfig:
    policy = collection_pb2.CollectionPolicyConfig(signature_policy=parse_policy(members))
    return collection_pb2.StaticCollectionConfig(
        name=name, member_orgs_policy=policy, **{"maximum_peer_count": 1, **fields}
    )


MINE = collection("mine", "OR('Org1MSP.member', 'Org2MSP.member')", member_only_read=True, member_only_write=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Three organisations; `two` wants any two of them, `third` Org1 and Org3; the collection is Org1's and Org2's."""
    async with services(tmp_path_factory.mktemp("net"), World(MSP_IDS)) as running:
        two = "OutOf(2, 'Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer')"
        await running.deploy("two", two, collections=[MINE])
        await running.deploy("third", "AND('Org1MSP.peer', 'Org3MSP.peer')", collections=[MINE])
        await running.deploy("bare", "OR('Org1MSP.peer')", installed_on=["Org1MSP"])
        yield running


# Private data ---------------------------------------------------------------------------------------------------------


def endorsers(envelope: common_pb2.Envelope) -> set[str]:
    payload = common_pb2.Payload.FromString(envelope.payload)
    (action,) = transaction_pb2.Transaction.FromString(payload.data).actions
    endorsed = transaction_pb2.ChaincodeActionPayload.FromString(action.payload).action
    return {parse_identity(endorsement.endorser).msp_id for endorsement in endorsed.endorsements}


async def test_transient_data_goes_to_members_of_the_collection_only(net: Services) -> None:
    seen: list[Stub] = []
    functions = net.chaincodes["two"].functions
    hide = functions["hide"]

    async def watched(stub: Stub) -> Answer | None:
        seen.append(stub)
        return await hide(stub)

    functions["hide"] = watched
    for number in range(8):
        txid, signed = net.proposal("hide", "mine", f"k{number}", chaincode="two", transient={"value": b"secret"})
        envelope = await net.endorse(signed)
        assert endorsers(envelope) == {"Org1MSP", "Org2MSP"}
        assert b"secret" not in envelope.SerializeToString()
        await net.submit(envelope)
        assert (await net.status(txid))[0] == CODES.VALID
    assert len({id(stub.stream) for stub in seen}) == 2, "no third peer was asked"
    functions["hide"] = hide


async def test_without_transient_data_any_organisation_that_the_policy_knows_may_endorse(net: Services) -> None:
    async def write(stub: Stub) -> Answer:
        await stub.put("open", b"1", "mine")
        return Answer()

    net.chaincodes["third"].functions["write"] = write
    envelope = await net.endorse(net.proposal("write", chaincode="third")[1])
    assert endorsers(envelope) == {"Org1MSP", "Org3MSP"}


async def test_a_policy_that_needs_an_outsider_is_refused_unless_the_client_names_it(net: Services) -> None:
    txid, signed = net.proposal("hide", "mine", "k", chaincode="third", transient={"value": b"secret"})
    refused = await failure(net.endorse(signed))
    assert (refused.code, refused.text) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "requires endorsement from organisation(s) that are not in the distribution policy of the private data "
        "collection(s): [mine]; retry specifying trusted endorsing organizations to protect transient data",
    )
    await net.submit(await net.endorse(signed, organizations=["Org1MSP", "Org3MSP"]))
    assert (await net.status(txid))[0] == CODES.VALID
    answer = await net.evaluate(net.proposal("reveal", "mine", "k", chaincode="third")[1])
    assert answer.payload == b"secret"


async def test_only_members_read_and_write_the_collection(net: Services) -> None:
    await net.transact("hide", "mine", "seen", chaincode="two", transient={"value": b"secret"})
    outsider = net.client("Org3MSP")
    for creator, msp_id, text in (
        (net.client("Org2MSP"), "Org2MSP", ""),
        (outsider, "Org1MSP", "tx creator does not have read access permission on privatedata in chaincodeName:two"),
        (net.client("Org1MSP"), "Org3MSP", "private data matching public hash version is not available"),
    ):
        _, signed = net.proposal("reveal", "mine", "seen", chaincode="two", creator=creator)
        response = (await net.process(signed, msp_id)).response
        if text:
            assert text in response.message
            assert b"secret" not in response.SerializeToString()
        else:
            assert response.payload == b"secret"
    _, signed = net.proposal("hide", "mine", "x", chaincode="two", creator=outsider, transient={"value": b"s"})
    response = (await net.process(signed)).response
    assert "tx creator does not have write access permission on privatedata in chaincodeName:two" in response.message
    _, signed = net.proposal("reveal", "none", "x", chaincode="two")
    assert "none" in (await net.process(signed)).response.message


# Lifecycle ------------------------------------------------------------------------------------------------------------


def definition(kind: Any, **fields: Any) -> Any:
    return kind(**{"name": "new", "version": "1.0", "sequence": 1, "validation_parameter": ANY, **fields})


async def approve(net: Services, msp_id: str, **fields: Any) -> Any:
    arguments = definition(messages.ApproveChaincodeDefinitionForMyOrgArgs, **fields)
    return await net.lifecycle("ApproveChaincodeDefinitionForMyOrg", arguments, msp_id)


async def approved(net: Services, msp_id: str, **fields: Any) -> int:
    arguments = definition(messages.ApproveChaincodeDefinitionForMyOrgArgs, **fields)
    return await net.lifecycle_transaction("ApproveChaincodeDefinitionForMyOrg", arguments, [msp_id])


async def readiness(net: Services, **fields: Any) -> tuple[dict[str, bool], dict[str, list[str]]]:
    arguments = definition(messages.CheckCommitReadinessArgs, **fields)
    response = await net.lifecycle("CheckCommitReadiness", arguments)
    assert response.status == 200, response.message
    result = messages.CheckCommitReadinessResult.FromString(response.payload)
    return dict(result.approvals), {msp_id: list(found.items) for msp_id, found in result.mismatches.items()}


APPROVE = "failed to invoke backing implementation of 'ApproveChaincodeDefinitionForMyOrg': "
BAD_APPROVALS: list[tuple[dict[str, Any], str]] = [
    ({"name": "bare", "sequence": 0}, "currently defined sequence 1 is larger than requested sequence 0"),
    ({"sequence": 0}, "requested sequence is 0, but first definable sequence number is 1"),
    ({"sequence": 2}, "requested sequence 2 is larger than the next available sequence number 1"),
    ({"sequence": -1}, "currently defined sequence 0 is larger than requested sequence -1"),
    ({"name": "bare", "sequence": 3}, "requested sequence 3 is larger than the next available sequence number 2"),
    (
        {"name": "bare", "version": "2.0"},
        "attempted to redefine the current committed sequence (1) for namespace bare with different parameters: "
        "expected Version '1.0' does not match passed Version '2.0'",
    ),
    ({"name": ""}, "error validating chaincode definition: invalid chaincode name ''."),
    ({"name": "_bad"}, "error validating chaincode definition: invalid chaincode name '_bad'."),
    ({"name": "a\n"}, "error validating chaincode definition: invalid chaincode name 'a\n'."),
    ({"name": "qscc"}, "error validating chaincode definition: chaincode name 'qscc' is the name of a system chain"),
    ({"version": "1 0"}, "error validating chaincode definition: invalid chaincode version '1 0'."),
]


@pytest.mark.parametrize(("fields", "text"), BAD_APPROVALS)
async def test_approvals_that_are_refused(net: Services, fields: dict[str, Any], text: str) -> None:
    response = await approve(net, "Org1MSP", **fields)
    assert (response.status, response.message[: len(APPROVE + text)]) == (500, APPROVE + text)


BAD_COLLECTIONS = [
    ([MINE, MINE], "collection-name: mine -- found duplicate in collection configuration"),
    ([collection("_x", "OR('Org1MSP.member')")], "invalid collection name '_x'."),
    (
        [collection("c", "OR('Org1MSP.member')", required_peer_count=2)],
        "collection-name: c -- maximum peer count (1) cannot be less than the required peer count (2)",
    ),
    (
        [collection("c", "OR('Org1MSP.member')", required_peer_count=-1)],
        "collection-name: c -- requiredPeerCount (-1) cannot be less than zero",
    ),
    (
        [collection("c", "OR('NoneMSP.member')")],
        "collection-name: c -- collection member 'NoneMSP' is not part of the channel",
    ),
    ([collection("c", "AND('Org1MSP.member', 'Org2MSP.member')")], "collection-name: c -- error in member org policy"),
    ([collection_pb2.StaticCollectionConfig(name="c")], "collection member policy is not set for collection 'c'"),
]


@pytest.mark.parametrize(("configs", "text"), BAD_COLLECTIONS)
async def test_collections_that_are_refused(
    net: Services, configs: list[collection_pb2.StaticCollectionConfig], text: str
) -> None:
    package = collection_pb2.CollectionConfigPackage(
        config=[collection_pb2.CollectionConfig(static_collection_config=config) for config in configs]
    )
    response = await approve(net, "Org1MSP", collections=package)
    expected = f"{APPROVE}error validating chaincode definition: {text}"
    assert (response.status, response.message[: len(expected)]) == (500, expected)


async def test_approval_mismatch_readiness_and_commit(net: Services) -> None:
    assert await readiness(net) == (dict.fromkeys(MSP_IDS, False), {key: ["ChaincodeParameters"] for key in MSP_IDS})
    assert await approved(net, "Org1MSP") == 0
    again = await approve(net, "Org1MSP")
    assert again.message == (
        f"{APPROVE}attempted to redefine uncommitted sequence (1) for namespace new with unchanged content"
    )
    assert await approved(net, "Org2MSP", version="1.1", init_required=True) == 0
    approvals, mismatches = await readiness(net)
    assert approvals == {"Org1MSP": True, "Org2MSP": False, "Org3MSP": False}
    assert "Org1MSP" not in mismatches
    assert mismatches["Org2MSP"] == ["EndorsementInfo"]
    assert mismatches["Org3MSP"] == ["ChaincodeParameters"]
    approvals, mismatches = await readiness(net, validation_parameter=b"other")
    assert mismatches["Org1MSP"] == ["ValidationInfo"]
    commit = definition(messages.CommitChaincodeDefinitionArgs)
    refused = await net.lifecycle("CommitChaincodeDefinition", commit, "Org2MSP")
    prefix = "failed to invoke backing implementation of 'CommitChaincodeDefinition': "
    assert refused.message == f"{prefix}chaincode definition not agreed to by this org (Org2MSP)"
    # Org1 alone agrees: its endorsement is no majority, and the commit is refused at validation.
    code = await net.lifecycle_transaction("CommitChaincodeDefinition", commit, ["Org1MSP"])
    assert code == CODES.ENDORSEMENT_POLICY_FAILURE
    assert await approved(net, "Org2MSP") == 0
    assert (await readiness(net))[0] == {"Org1MSP": True, "Org2MSP": True, "Org3MSP": False}
    assert await net.lifecycle_transaction("CommitChaincodeDefinition", commit, ["Org1MSP", "Org2MSP"]) == 0
    refused = await net.lifecycle("CommitChaincodeDefinition", commit)
    assert refused.message == f"{prefix}requested sequence is 1, but new definition must be sequence 2"
    check = definition(messages.CheckCommitReadinessArgs, sequence=3)
    refused = await net.lifecycle("CheckCommitReadiness", check)
    assert refused.message.endswith("requested sequence is 3, but new definition must be sequence 2")
    arguments = messages.QueryChaincodeDefinitionArgs(name="new")
    response = await net.lifecycle("QueryChaincodeDefinition", arguments)
    found = messages.QueryChaincodeDefinitionResult.FromString(response.payload)
    assert (found.sequence, found.version, found.validation_parameter) == (1, "1.0", ANY)
    assert (found.endorsement_plugin, found.validation_plugin) == ("escc", "vscc")
    assert found.approvals == {"Org1MSP": True, "Org2MSP": True, "Org3MSP": False}


async def test_two_commits_of_one_sequence_do_not_both_count(net: Services) -> None:
    for msp_id in MSP_IDS:
        assert await approved(net, msp_id, name="raced") == 0
    commit = definition(messages.CommitChaincodeDefinitionArgs, name="raced")
    sent = []
    for creator in (net.admin("Org1MSP"), net.admin("Org2MSP")):
        txid, signed = net.proposal(
            "CommitChaincodeDefinition", commit.SerializeToString(), chaincode="_lifecycle", creator=creator
        )
        responses = [await net.process(signed, msp_id) for msp_id in MSP_IDS]
        sent.append((txid, signed, responses, creator))
    codes = []
    for txid, signed, responses, creator in sent:
        endorsements = [response.endorsement for response in responses]
        envelope = assemble_envelope(signed.proposal_bytes, responses[0].payload, endorsements)
        sign_envelope(envelope, creator)
        await net.broadcast(envelope)
        codes.append((await net.status(txid))[0])
    assert codes == [CODES.VALID, CODES.MVCC_READ_CONFLICT]


async def test_defaults_and_their_spelling_are_the_same_definition(net: Services) -> None:
    assert await approved(net, "Org1MSP", name="plain", validation_parameter=b"") == 0
    spelled: dict[str, Any] = {"name": "plain", "endorsement_plugin": "escc", "validation_plugin": "vscc"}
    spelled["validation_parameter"] = reference_application_policy(DEFAULT_ENDORSEMENT_POLICY)
    approvals, _ = await readiness(net, **spelled)
    assert approvals["Org1MSP"]
    approvals, _ = await readiness(net, name="plain", validation_parameter=b"")
    assert approvals["Org1MSP"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "lifecycle scc must be invoked with arguments"),
        (("QueryChaincodeDefinitions",), "lifecycle scc operations require exactly two arguments but received 1"),
        (("a", "b", "c"), "lifecycle scc operations require exactly two arguments but received 3"),
        (("Nothing", b""), "Failed to authorize invocation due to failed ACL check: "),
        (("QueryChaincodeDefinition", b"\xff"), "failed to invoke backing implementation of 'QueryChaincodeDefinit"),
        (("InstallChaincode", b""), "failed to invoke backing implementation of 'InstallChaincode': "),
    ],
)
async def test_calls_that_are_refused(net: Services, args: tuple[str | bytes, ...], text: str) -> None:
    response = await net.system("_lifecycle", *args)
    assert (response.status, response.message[: len(text)]) == (500, text)


async def test_what_needs_an_administrator_of_the_peers_own_organisation(net: Services) -> None:
    queries = {
        "InstallChaincode": messages.InstallChaincodeArgs(),
        "QueryInstalledChaincodes": messages.QueryInstalledChaincodesArgs(),
        "ApproveChaincodeDefinitionForMyOrg": definition(messages.ApproveChaincodeDefinitionForMyOrgArgs),
        "QueryApprovedChaincodeDefinitions": messages.QueryApprovedChaincodeDefinitionsArgs(),
    }
    for function, arguments in queries.items():
        for creator in (net.client(), net.admin("Org2MSP")):
            data = arguments.SerializeToString()
            response = await net.system("_lifecycle", function, data, creator=creator)
            assert response.status == 500
            assert response.message.startswith("Failed to authorize invocation due to failed ACL check: "), function


async def test_what_is_not_there_is_404(net: Services) -> None:
    for function, arguments, text in (
        ("QueryChaincodeDefinition", messages.QueryChaincodeDefinitionArgs(name="no"), "namespace no is not defined"),
        (
            "QueryInstalledChaincode",
            messages.QueryInstalledChaincodeArgs(package_id="no:1"),
            "chaincode install package 'no:1' not found",
        ),
        (
            "GetInstalledChaincodePackage",
            messages.GetInstalledChaincodePackageArgs(package_id="no:1"),
            "chaincode install package 'no:1' not found",
        ),
    ):
        response = await net.lifecycle(function, arguments)
        assert (response.status, response.message) == (404, text)
    refused = await net.lifecycle(
        "QueryApprovedChaincodeDefinition", messages.QueryApprovedChaincodeDefinitionArgs(name="no")
    )
    assert refused.message.endswith(
        f"could not fetch approved chaincode definition (name: 'no', sequence: '0') on channel '{CHANNEL}'"
    )


async def test_packages_are_installed_once_listed_with_their_use_and_given_back(net: Services) -> None:
    package = build_package("spare", "golang", {"src/main.go": b"package main"})
    assert await net.install(package, ["Org2MSP"]) == package_id(package, "spare")
    install = messages.InstallChaincodeArgs(chaincode_install_package=package)
    again = await net.lifecycle("InstallChaincode", install, "Org2MSP", channel_id="")
    assert again.message == (
        "failed to invoke backing implementation of 'InstallChaincode': chaincode already successfully installed "
        f"(package ID '{package_id(package, 'spare')}')"
    )
    response = await net.lifecycle("QueryInstalledChaincodes", b"", "Org2MSP", channel_id="")
    listed = messages.QueryInstalledChaincodesResult.FromString(response.payload).installed_chaincodes
    used = {entry.label: {c: [u.name for u in r.chaincodes] for c, r in entry.references.items()} for entry in listed}
    assert used == {"two": {CHANNEL: ["two"]}, "third": {CHANNEL: ["third"]}, "spare": {}}
    arguments = messages.GetInstalledChaincodePackageArgs(package_id=package_id(package, "spare"))
    response = await net.lifecycle("GetInstalledChaincodePackage", arguments, "Org2MSP", channel_id="")
    assert messages.GetInstalledChaincodePackageResult.FromString(response.payload).chaincode_install_package == package
    for damaged in (b"", b"x", package[:-20]):
        broken = messages.InstallChaincodeArgs(chaincode_install_package=damaged)
        response = await net.lifecycle("InstallChaincode", broken, channel_id="")
        assert "could not parse as a chaincode install package" in response.message


async def test_init_runs_once_and_first_where_it_is_required(net: Services) -> None:
    await net.deploy("begun", "OR('Org1MSP.peer')", init_required=True)
    early = (await net.process(net.proposal("put", "a", "1", chaincode="begun")[1])).response
    assert "chaincode 'begun' has not been initialized for this version, must call as init first" in early.message
    _, code, _ = await net.transact("put", "a", "1", chaincode="begun", is_init=True)
    assert code == 0
    _, code, _ = await net.transact("put", "a", "2", chaincode="begun")
    assert code == 0
    again = (await net.process(net.proposal("put", "a", "1", chaincode="begun", is_init=True)[1])).response
    assert "chaincode 'begun' is already initialized but called as init" in again.message
    none = (await net.process(net.proposal("put", "a", "1", chaincode="two", is_init=True)[1])).response
    assert "chaincode 'two' does not require initialization but called as init" in none.message
