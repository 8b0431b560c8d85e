"""The traps of Fabric, T-1 to T-31, each shown closed on the chaincode; docs/law-cases.md names the tests on real networks."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import policies_pb2
from law_world import BYTES, SPEC, LawWorld, organisation

import sovchain.contracts.core as core
from sovchain.chaincode import ArgumentError
from sovchain.client import CommitRejected, EndorseError
from sovchain.contracts import finance, government, logistics
from sovchain.contracts.core import Duties, Orders, Receipts, Registry, Sharing, receipts
from sovchain.contracts.core.engine import Decision
from sovchain.contracts.core.facts import DecisionInput
from sovchain.contracts.core.guarding import owner_and_guardian
from sovchain.contracts.core.records import Column, Publication
from sovchain.network import default_topology
from sovchain.protocol import policydsl
from sovchain.protocol.policies import satisfying_organisations
from sovchain.testing import ContractHarness, refused
from sovchain.testing.harness import Committed

ROOT = Path(core.__file__).parents[1]
SECRET = b"marker-a7c3"
KEY = bytes(range(32))


@pytest.fixture
async def world() -> LawWorld:
    return await LawWorld(SPEC.harness()).found()


async def delivered(world: LawWorld) -> tuple[str, str]:
    dataset = await world.share()
    receipt = await world.ask("Finance", dataset)
    await world.deliver(receipt.request, "Finance")
    await world.submit("Finance", Sharing.acknowledge, receipt.request)
    return dataset, receipt.request


def public(harness: ContractHarness) -> bytes:
    """Everything that every member's peer has: state, and the events of all transactions."""
    state = b"".join(
        key.encode() + (entry[0] or b"") for one in harness.state.public.values() for key, entry in one.entries.items()
    )
    return state + b"".join(event.payload for event in harness.events)


def operations() -> Iterator[Any]:
    for assembled in (finance, government, logistics):
        yield from assembled.chaincode.operations.values()


def calls(method: str) -> list[tuple[str, str]]:
    """File and function of each call of a method of this name in the contracts."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef):
                inner = [one.func for one in ast.walk(node) if isinstance(one, ast.Call)]
                if any(isinstance(one, ast.Attribute) and one.attr == method for one in inner):
                    found.append((path.name, node.name))
    return found


async def test_t01_public_state_and_events_hold_nothing_of_a_payload(world: LawWorld) -> None:
    await delivered(world)
    assert SECRET in BYTES
    assert SECRET not in public(world.harness)
    assert SECRET in b"".join(world.harness.held("Finance", "_implicit_org_FinanceMSP").values())
    for stranger in ("Supervisor", "Logistics", "Overseas"):
        assert not world.harness.held(stranger, "_implicit_org_FinanceMSP")


async def test_t02_a_query_gives_a_payload_only_against_a_committed_receipt(world: LawWorld) -> None:
    request = await world.file("Finance", await world.share())
    with refused("E_NOT_PERMITTED"):
        await world.evaluate("Government", Sharing.read_for_release, request, KEY)
    with refused("E_NOT_PERMITTED"):
        await world.evaluate("Finance", Sharing.open, request, KEY)
    await world.decide(request)
    assert await world.evaluate("Government", Sharing.read_for_release, request, KEY)


async def test_t03_a_denial_is_on_record_and_so_is_a_request_that_nobody_decides(world: LawWorld) -> None:
    dataset = await world.share()
    denied = await world.ask("Finance", dataset, "fraud-prevention")
    assert await world.evaluate("Overseas", Receipts.read, denied.request) == denied
    open_one = await world.file("Finance", dataset)
    listed = await world.evaluate("Overseas", Sharing.requests)
    assert {denied.request, open_one} == {one.id for one in listed.items}


async def test_t04_nothing_leaves_with_an_endorsement_before_the_commit(world: LawWorld) -> None:
    request = await world.file("Finance", await world.share())
    endorsed = await world.caller("Finance").endorse(Sharing.decide, request)
    assert endorsed.result.decision == "permit"
    with refused("E_NOT_PERMITTED", "not decided yet"):
        await world.evaluate("Government", Sharing.read_for_release, request, KEY)


def test_t05_a_transaction_never_returns_bytes() -> None:
    """What a submitted transaction returns is in its block: no payload is among it."""
    returned = {op.name: type(op.result).__name__ for op in operations() if not op.readonly}
    raw = {type(Sharing.open.result).__name__}
    assert len(returned) > 40
    assert not [name for name, kind in returned.items() if kind in raw]


async def test_t06_events_carry_ids_and_words_only(world: LawWorld) -> None:
    await delivered(world)
    await world.ask("Finance", await world.share(), "marketing")
    assert len(world.harness.events) > 10
    for event in world.harness.events:
        for value in json.loads(event.payload).values():
            assert isinstance(value, int) or (isinstance(value, str) and len(value) <= 64), event


async def test_t07_the_hash_of_a_guessable_file_gives_nothing_away(world: LawWorld) -> None:
    dataset = await world.share()
    entry = await world.evaluate("Overseas", Sharing.dataset, dataset)
    guesses = [b"id,name,score\n1,%s,%d\n" % (SECRET, score) for score in range(1000)]
    assert BYTES[32:] in guesses
    seen = public(world.harness)
    known = {entry.commitment}
    assert not [guess for guess in guesses if hashlib.sha256(guess).hexdigest().encode() in seen]
    assert not known & {hashlib.sha256(guess).hexdigest() for guess in guesses}
    with refused("E_PAYLOAD", "one byte repeated"):
        await world.submit("Government", Sharing.deposit, bytes(32) + guesses[0], endorsers=["Government"])


async def test_t08_a_role_that_a_members_own_ca_wrote_is_worth_nothing(world: LawWorld) -> None:
    dataset = await world.share()
    assert (await world.ask("Overseas", dataset, claims={"role": "supervisor"})).code == "E_ATTRIBUTE"
    for order in (Orders.hold, Orders.order_purge):
        with refused("E_ROLE"):
            await world.submit("Overseas", order, dataset, "forged", claims={"role": "judge"})


async def test_t09_a_client_cannot_date_a_decision_back_before_its_facts(world: LawWorld) -> None:
    from datetime import timedelta

    request = await world.file("Finance", await world.share())
    world.harness.now -= timedelta(hours=1)
    with refused("E_TIME"):
        await world.decide(request)


@pytest.mark.parametrize("assembled", [finance, government, logistics])
def test_t10_a_keys_own_policy_takes_the_owner_and_a_guardian(assembled: Any) -> None:
    for owner in ("GovernmentMSP", "FinanceMSP", "SupervisorMSP", "OverseasCarrierMSP"):
        policy = owner_and_guardian(owner, assembled.SEATS)
        groups = satisfying_organisations(policies_pb2.SignaturePolicyEnvelope.FromString(policy))
        assert groups
        guardians = {*assembled.SEATS.members["regulator"], *assembled.SEATS.members["legislator"]}
        assert all(len(group) == 2 and owner in group and group & guardians for group in groups)


async def test_t11_a_peers_endorsement_is_no_persons_signature(world: LawWorld) -> None:
    """The regulator's peer endorses the decision; what is missing is the signature of one of its officers."""
    request = await world.file("Finance", await world.share(data_class="important"))
    with refused("E_PENDING"):
        await world.submit("Finance", Sharing.decide, request, endorsers=["Supervisor", "Finance"])
    await world.bind_two()
    await world.submit("Supervisor", Duties.cosign, request, True)
    assert (await world.decide(request)).decision == "permit"


def permit_all(request: DecisionInput) -> Decision:
    """What an altered engine would say."""
    return Decision("permit", "", (), "0" * 64)


async def mutant(world: LawWorld, monkeypatch: pytest.MonkeyPatch, request: str, endorsers: list[str]) -> Any:
    """A decision whose first endorser runs an altered engine."""
    from sovchain.testing.harness import _Run

    sound = _Run.on

    async def on(self: _Run, msp_id: str, error: Any) -> Any:
        with monkeypatch.context() as altered:
            if msp_id == "FinanceMSP":
                altered.setattr(receipts, "decide", permit_all)
            return await sound(self, msp_id, error)

    monkeypatch.setattr(_Run, "on", on)
    return await world.caller("Finance", endorsers).endorse(Sharing.decide, request)


async def test_t12_a_peer_with_an_altered_engine_commits_nothing(
    world: LawWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await world.file("Finance", await world.share(), "fraud-prevention")
    with pytest.raises(EndorseError, match="do not match"):
        await mutant(world, monkeypatch, request, ["Finance", "Supervisor"])
    alone = await mutant(world, monkeypatch, request, ["Finance"])
    assert alone.result.decision == "permit"
    with pytest.raises(CommitRejected, match="ENDORSEMENT_POLICY_FAILURE"):
        alone.commit()


@pytest.mark.parametrize("pair", [["Finance", "Logistics"], ["Government", "Finance"], ["Overseas", "Finance"]])
async def test_t12_a_colluding_pair_below_the_quorum_commits_nothing(world: LawWorld, pair: list[str]) -> None:
    request = await world.file("Finance", await world.share())
    with pytest.raises(CommitRejected, match="ENDORSEMENT_POLICY_FAILURE"):
        await world.caller("Finance", pair).submit(Sharing.decide, request)


def test_t13_the_regulator_is_in_every_quorum_of_lifecycle_and_configuration() -> None:
    topology = default_topology()
    for channel in topology.channels:
        for text in (topology.lifecycle_endorsement(channel.name), topology.admins(channel.name)):
            groups = satisfying_organisations(policydsl.parse(text))
            assert groups
            assert all("SupervisorMSP" in group and len(group) > 1 for group in groups), (channel.name, text)


def test_t14_no_collection_can_ever_be_widened() -> None:
    """Private data lie in the organisations' own collections, whose membership nobody can change."""
    assert [spec.collections for spec in default_topology().chaincodes] == [()] * 3
    for assembled in (finance, government, logistics):
        source = "".join(path.read_text() for path in Path(str(assembled.__file__)).parent.glob("*.py"))
        assert "put_private_data" not in source or "implicit_collection" in source


async def test_t15_an_organisation_has_one_jurisdiction(world: LawWorld) -> None:
    with refused("E_INPUT", "each once"):
        await world.admit(organisation("Overseas"), organisation("Overseas", jurisdiction="CN"))
    entry = await world.evaluate("Finance", Registry.organisation, "OverseasMSP")
    assert entry.organisation.jurisdiction == "SG"


def test_t16_the_wrappers_name_who_endorses_private_data() -> None:
    """Transient data go to whoever is asked to endorse: every call that carries some is made at one organisation."""
    carry = {op.name.partition(":")[2] for op in operations() if any(one.transient for one in op.parameters)}
    assert {"deposit", "deliver", "open", "read_for_release"} <= carry
    source = inspect.getsource(__import__("sovchain.sovereign.sovereign", fromlist=["x"]))
    for name in ("deposit", "deliver", "open", "read_for_release"):
        (line,) = [line for line in source.splitlines() if f"Sharing.{name}," in line]
        assert ".at(" in line, line


def test_t17_payloads_and_keys_travel_in_transient_data_only() -> None:
    for op in operations():
        for one in op.parameters:
            if "bytes" in str(one.annotation) and one.name in {"payload", "key"}:
                assert one.transient, (op.name, one.name)


async def test_t18_only_grantee_and_owner_read_their_collections(world: LawWorld) -> None:
    _, request = await delivered(world)
    with refused("E_NOT_GRANTEE"):
        await world.evaluate("Overseas", Sharing.open, request, KEY)
    with refused("E_NOT_OWNER"):
        await world.evaluate("Finance", Sharing.read_for_release, request, KEY)


async def test_t19_a_purge_destroys_salt_and_value_and_leaves_the_record(world: LawWorld) -> None:
    dataset, request = await delivered(world)
    await world.submit("Government", Orders.order_purge, dataset, "retention ended")
    for holder in ("Finance", "Government"):
        await world.submit(holder, Orders.purge, dataset, endorsers=[holder])
        assert not world.harness.held(holder, f"_implicit_org_{holder}MSP")
        await world.submit(holder, Orders.confirm_purge, dataset)
    assert (await world.evaluate("Overseas", Receipts.read, request)).decision == "permit"
    with pytest.raises(Exception, match=r"E_NOT_DELIVERED|E_STATE|E_NOT_PERMITTED"):
        await world.evaluate("Finance", Sharing.open, request, KEY)


async def test_t20_a_suspension_counts_with_the_next_block(world: LawWorld) -> None:
    dataset = await world.share()
    request = await world.file("Finance", dataset)
    mine = await world.identity("Finance")
    suspend = ("Supervisor/admin", Registry.suspend_identity, ("FinanceMSP", mine, "lost key"))
    done = await world.together(suspend, ("Government", Sharing.decide, (request,)))
    assert done == ["", "MVCC_READ_CONFLICT"]
    assert (await world.decide(request, "Government")).code == "E_SUSPENDED"


def test_t21_no_contract_calls_another_channels_chaincode() -> None:
    assert calls("invoke_chaincode") == []


def test_t22_no_contract_decides_on_rich_queries_or_history() -> None:
    for method in ("rich_query", "rich_query_page", "private_rich_query", "history", "private_range"):
        assert calls(method) == [], method


def test_t23_committed_state_is_proved_by_endorsed_views_and_not_by_blocks() -> None:
    source = (ROOT / "core" / "crossing.py").read_text() + (ROOT / "core" / "anchors.py").read_text()
    assert "sovchain.protocol.views" in source
    assert "sovchain.protocol.blocks" not in source


async def test_t27_decisions_on_different_data_sets_share_no_key(world: LawWorld) -> None:
    requests = [await world.file("Finance", await world.share(personal="none")) for _ in range(5)]
    done = await world.together(*(("Finance", Sharing.decide, (request,)) for request in requests))
    assert done == [""] * 5


async def test_t28_every_endorser_comes_to_the_same_bytes(world: LawWorld) -> None:
    everyone = list(SPEC.organizations)
    dataset = await world.share()
    for purpose in ("statistics", "fraud-prevention"):
        request = await world.file("Finance", dataset, purpose)
        done = await world.caller("Finance", everyone).submit(Sharing.decide, request)
        assert isinstance(done, Committed)


def test_t29_no_transaction_reads_a_private_value() -> None:
    """Who is outside a collection could not endorse it: transactions compare hashes, queries alone read values."""
    queries = {op.attribute for op in operations() if op.readonly}
    reading = {name for _, name in calls("get_private_data")}
    assert reading
    assert reading <= queries


async def test_t31_a_payload_and_a_public_record_are_never_written_together(world: LawWorld) -> None:
    caller: Any = world.caller("Government", ["Government"])
    deposited = await caller.submit(Sharing.deposit, BYTES)
    assert deposited.writes() == {}
    receipt = await world.ask("Finance", await world.share())
    caller = world.caller("Government", ["Finance"])
    assert (await caller.submit(Sharing.deliver, receipt.request, BYTES)).writes() == {}


def test_a_publication_names_each_column_once() -> None:
    twice = (Column(name="id", type="text"),) * 2
    with pytest.raises((ValueError, ArgumentError)):
        Publication(
            name="x",
            data_class="general",
            jurisdiction="CN",
            residency=(),
            purposes=(),
            columns=twice,
            rows=0,
            size_bytes=1,
        )
