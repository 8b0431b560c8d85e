"""What would make two peers differ is named by the lint, refused on a running peer, and caught by the test ledger."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import planted
import pytest
from fabricprograms import fabric_programs
from hypothesis import given
from hypothesis import strategies as st
from planted import Planted

from sovchain.chaincode import Chaincode, Context, Contract, DefinitionError, query
from sovchain.chaincode.determinism.lint import Finding, lint_paths, lint_source
from sovchain.chaincode.determinism.rules import FORBIDDEN, RULES
from sovchain.chaincode.serve import DETERMINISM_VARIABLE
from sovchain.client import EndorseError
from sovchain.network import Network, Topology
from sovchain.network.topology import ChaincodeSpec, Channel, OrderingOrganization, Organization
from sovchain.testing import ContractHarness, HostedNetwork, refused

ROOT = Path(__file__).parents[2]
SOURCE = Path(planted.__file__)
BUGS = {
    number: match[1]
    for number, line in enumerate(SOURCE.read_text().splitlines(), 1)
    if (match := re.search(r"# BUG: ([a-z-]+)$", line))
}


# -- the lint ------------------------------------------------------------------------------------------------------------


def test_every_planted_bug_is_named_on_its_line_and_nothing_else_is() -> None:
    found = {(finding.line, finding.rule) for finding in lint_source(SOURCE.read_bytes(), str(SOURCE))}
    assert len(BUGS) >= 20
    assert found == set(BUGS.items())
    assert set(BUGS.values()) == set(RULES)


@pytest.mark.parametrize(
    "folder", ["chaincode/sovchain/contracts", "examples/testing-project", "tests/support/lending.py"]
)
def test_no_false_alarm_on_the_projects_own_contracts(folder: str) -> None:
    assert [str(finding) for finding in lint_paths([ROOT / folder])] == []


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import time as t\nx = t.monotonic()", "clock"),
        ("from random import *\n", "random"),
        ("from datetime import date\nf = date.today", "clock"),
        ("import numpy.random\nnumpy.random.rand()", "random"),
        ("from random import Random\nRandom(3)", "random"),
        ("import os.path\nos.path.exists('x')", "files"),
        ("def f(names: frozenset[str]):\n    return list(names)", "set-order"),
        ("def f(names: 'set[str]'):\n    return [*names]", "set-order"),
        ("def g() -> set[str]: ...\ndef f():\n    return tuple(g())", "set-order"),
        ("class A:\n    names: set[str]\ndef f(a):\n    return {n: 1 for n in a.names}", "set-order"),
        ("def f(a):\n    b = set(a) | {1}\n    return list(map(str, b))", "set-order"),
        ("def f(ctx):\n    return list(ctx.stub.transient)", "map-order"),
        ("def f(count: int):\n    count /= 2", "float"),
        ("def f(a):\n    return len(a) / 2", "float"),
        ("class A:\n    price: float", "float"),
        ("def f(price: 'float | None' = None): ...", ""),
        ("def f(a):\n    return a.total_seconds()", "float"),
        ("import itertools\nN = itertools.count()\ndef f():\n    return next(N)", "globals"),
        ("class C(Contract):\n    cache = {}\n    def f(self):\n        self.cache['a'] = 1", "globals"),
        ("class C(Contract):\n    def f(self):\n        self.last = 1", "globals"),
        ("import importlib\nimportlib.import_module('x')", "dynamic"),
        ("x = (1", "syntax"),
        ("x = 1\x00", "syntax"),
    ],
)
def test_bugs_in_other_dress(source: str, rule: str) -> None:
    assert [finding.rule for finding in lint_source(source)] == ([rule] if rule else [])


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime, UTC\nx = datetime(2026, 1, 1, tzinfo=UTC)",
        "import time\ndef f(time):\n    return 1",
        "from decimal import Decimal\ndef f(a: Decimal):\n    return a / 3",
        "from datetime import timedelta\ndef f(a: timedelta):\n    return a / timedelta(seconds=1)",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from random import Random\ndef f(r: Random): ...",
        "if __name__ == '__main__':\n    import time\n    time.time()",
        "def f(names: set[str]):\n    return sorted(n.lower() for n in names) + [len(names)] if 'x' in names else []",
        "def f(a: set[str], b: set[str]):\n    return {n for n in a | b} | {*a}",
        "CODES = {'a': 1}\ndef f(x):\n    return CODES[x]",
        "def f():\n    found = {}\n    found['a'] = 1\n    found.update(b=2)\n    return found",
        "class C(Contract):\n    def __init__(self):\n        self.limit = 3\n    def f(self):\n        return self.limit",
        "class M:\n    id: str\n    hash: str\n    def hash(self): ...\ndef f(m):\n    return m.hash(), m.id",
        "def f(x):\n    return isinstance(x, float)",
        "import hashlib, uuid\nx = uuid.uuid5(uuid.NAMESPACE_DNS, 'a')",
        "import asyncio\nasync def f(ctx):\n    await asyncio.gather(ctx.a(), ctx.b())",
        "import json\nx = json.dumps({}, sort_keys=True)",
    ],
)
def test_what_is_deterministic_is_not_named(source: str) -> None:
    assert [str(finding) for finding in lint_source(source)] == []


def test_a_finding_says_where_what_and_what_to_use() -> None:
    (finding,) = lint_source("import time\n\nx = [time.time()]\n", "pay/contract.py")
    assert finding == Finding(
        "pay/contract.py", 3, 6, "clock", "time.time: each peer has its own clock", "use ctx.timestamp"
    )
    assert str(finding).startswith("pay/contract.py:3:6: clock: time.time")


def test_importing_everything_brings_in_every_rule() -> None:
    assert [one.rule for one in lint_source("from time import *")] == ["clock", "locale"]


def test_a_line_is_excused_with_a_reason_only() -> None:
    line = "import time\nx = time.time()  # sovchain: allow[{}] {}\n"
    assert lint_source(line.format("clock", "logged only")) == []
    assert {one.rule for one in lint_source(line.format("clock", ""))} == {"clock", "suppression"}
    assert {one.rule for one in lint_source(line.format("random", "logged only"))} == {"clock", "suppression"}
    assert {one.rule for one in lint_source(line.format("weather", "logged only"))} == {"clock", "suppression"}


def test_folders_are_read_without_tests_and_environments(tmp_path: Path) -> None:
    for name in ("a/b.py", "a/tests/c.py", "a/test_d.py", "a/conftest.py", ".venv/e.py", "a/build/f.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("import time\ntime.time()\n")
    assert [finding.path for finding in lint_paths([tmp_path])] == [str(tmp_path / "a" / "b.py")]
    with pytest.raises(OSError, match="nothing-here"):
        lint_paths([tmp_path / "nothing-here"])


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_breaks_the_lint(text: str | bytes) -> None:
    try:
        data = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        return
    lint_source(data)


# -- on a running peer -----------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Iterator[ModuleType]:
    """The planted module, loaded once more under another name, with the guard on."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("planted_guarded", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


SEEN_AT_RUN_TIME = {"clock", "random", "uuid", "environment", "files", "network", "threads", "hash-seed", "dynamic"}


def bug_of(method: str) -> str:
    """The rule that a planted transaction breaks."""
    if method == "uuid_default":
        return "uuid"
    source = SOURCE.read_text()
    body = source[source.index(f"async def {method}(") :].split("@transaction")[0]
    matched = re.search(r"# BUG: ([a-z-]+)", body)
    return matched[1] if matched else ""


METHODS = [name for name in Planted.operations() if name != "steady"]


@pytest.mark.parametrize("method", [name for name in METHODS if bug_of(name) in SEEN_AT_RUN_TIME])
async def test_a_guarded_chaincode_refuses_it_by_name(guarded: ModuleType, method: str) -> None:
    harness = ContractHarness(Chaincode([guarded.Planted()], determinism="refuse"))
    operation = guarded.Planted.operations()[method]
    for _ in range(2):
        with refused("E_DETERMINISM") as refusal:
            await harness.caller("Org1").submit(operation)
        assert refusal.fields == {"rule": bug_of(method)}
    assert harness.state.height == 1


async def test_a_guarded_chaincode_runs_what_is_deterministic(guarded: ModuleType) -> None:
    harness = ContractHarness(Chaincode([guarded.Planted()], determinism="refuse"))
    plain = ContractHarness(planted.chaincode)
    done = await harness.caller("Org1").submit(guarded.Planted.steady)
    assert done.result == (await plain.caller("Org1").submit(Planted.steady)).result


async def test_warnings_let_the_call_pass(guarded: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    harness = ContractHarness(Chaincode([guarded.Planted()], determinism="warn"))
    await harness.caller("Org1").submit(guarded.Planted.clock_time)
    assert "not deterministic" in capsys.readouterr().out


async def test_outside_a_transaction_the_stand_ins_do_what_the_originals_do(guarded: ModuleType) -> None:
    import datetime
    import os
    import time

    Chaincode([guarded.Planted()], determinism="refuse")
    assert abs(guarded.clock.time_ns() - time.time_ns()) < 10**10
    assert isinstance(guarded.dt.datetime.now(datetime.UTC), datetime.datetime)
    assert isinstance(datetime.datetime(2026, 1, 1), guarded.datetime)
    assert guarded.datetime(2026, 1, 2) == datetime.datetime(2026, 1, 2)
    assert guarded.random.randint(3, 3) == 3
    assert guarded.os.environ is os.environ
    assert guarded.Ticket().id


async def test_a_contract_that_swallows_the_refusal_is_refused_at_the_end() -> None:
    class Sly(Contract):
        @query
        async def read(self, ctx: Context) -> str:
            try:
                return str(planted_clock.time())
            except Exception:
                return "nothing happened"

    import time as planted_clock

    from sovchain.chaincode.determinism.guard import GuardedModule

    planted_clock = GuardedModule(planted_clock)  # type: ignore[assignment]  # as the module of a contract sees it
    harness = ContractHarness(Chaincode([Sly()], determinism="refuse"))
    with refused("E_DETERMINISM"):
        await harness.caller("Org1").evaluate(Sly.read)


async def test_whoever_runs_it_makes_a_chaincode_stricter_and_never_laxer(guarded: ModuleType) -> None:
    chaincode = Chaincode([guarded.Planted()])
    for mode, stands in (("off", "off"), ("refuse", "refuse"), ("warn", "refuse"), ("off", "refuse")):
        chaincode.guard(mode)  # type: ignore[arg-type]  # text from a table
        assert chaincode.determinism == stands
    with refused("E_DETERMINISM"):
        await ContractHarness(chaincode).caller("Org1").submit(guarded.Planted.clock_time)


def test_another_mode_is_refused() -> None:
    with pytest.raises(DefinitionError, match="off, warn, refuse"):
        Chaincode([Planted()], determinism="sometimes")  # type: ignore[arg-type]


def test_every_forbidden_name_of_the_standard_library_exists() -> None:
    """A misspelt name would never be found."""
    missing = []
    for dotted in FORBIDDEN:
        parts = dotted.split(".")
        if parts[0] not in sys.stdlib_module_names:
            continue
        for cut in range(len(parts), 0, -1):
            try:
                found: object = importlib.import_module(".".join(parts[:cut]))
            except ImportError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part, None)
            if found is None:
                missing.append(dotted)
            break
    assert missing == []


# -- on the test ledger ----------------------------------------------------------------------------------------------------

SAME_ON_ONE_MACHINE = {"environment_variable", "environment_host", "file_path", "network_call", "locale_zone"}
"""Both instances see the same home, host, files and time zone."""
SAME_IN_TWO_PROCESSES = {
    "thread_order",  # each thread is waited for
    "task_order",
    "map_order",  # the call sends no transient data
    "json_order",
    "float_division",
    "float_constant",
    "global_count",  # both count alike, until one of them is restarted
    "global_cache",
    "own_cache",
    "dynamic_code",
}


def planted_topology(*modules: str, fabric_version: str = "3.1") -> Topology:
    """Three organisations, and a chaincode from each of these modules of the same name."""
    members = ("North", "South", "East")
    return Topology(
        name="planted",
        domain="planted.example",
        fabric_version=fabric_version,
        organizations=tuple(Organization(name=name) for name in members),
        ordering_organizations=tuple(OrderingOrganization(operator=name) for name in members),
        channels=(Channel(name="rooms", members=members),),
        chaincodes=tuple(
            ChaincodeSpec(
                name=name.removeprefix("planted_"),
                module=f"{name}:chaincode",
                channels=("rooms",),
                endorsement_policy="AND('NorthMSP.peer','SouthMSP.peer')",
            )
            for name in modules
        ),
    )


@pytest.fixture(scope="module")
def test_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedNetwork]:
    topology = planted_topology("planted", "planted_guarded")
    with HostedNetwork(tmp_path_factory.mktemp("planted") / "network", "embedded", topology) as network:
        yield network


async def test_what_shows_between_two_processes_is_caught_by_the_double_run(test_ledger: HostedNetwork) -> None:
    caught, passed = set(), set()
    async with Network.attach(test_ledger.directory) as network, network.connect("North") as gateway:
        contract = gateway.network("rooms").contract("planted")
        await contract.submit(Planted.steady)
        for method in METHODS:
            arguments = ["3"] if method.startswith("float") else ["k"] if method.endswith("_cache") else []
            try:
                await contract.submit(f"Planted:{method}", *arguments)
                passed.add(method)
            except EndorseError as error:
                assert "is not deterministic" in str(error), error
                caught.add(method)
    assert passed == SAME_ON_ONE_MACHINE | SAME_IN_TWO_PROCESSES
    assert caught == set(METHODS) - passed


async def test_a_guarded_chaincode_refuses_on_the_peers_of_a_network(test_ledger: HostedNetwork) -> None:
    async with Network.attach(test_ledger.directory) as network, network.connect("North") as gateway:
        contract = gateway.network("rooms").contract("guarded")
        await contract.submit(Planted.steady)
        for operation, rule in (
            (Planted.clock_now, "clock"),
            (Planted.file_read, "files"),
            (Planted.address, "hash-seed"),
        ):
            with refused("E_DETERMINISM") as refusal:
                await contract.submit(operation.name)
            assert refusal.fields == {"rule": rule}


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["2.5", "3.1"])
async def test_whoever_runs_real_peers_can_have_a_chaincode_guarded(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chaincode says nothing about it: the operator's variable alone has every planted bug refused by its rule."""
    await asyncio.to_thread(fabric_programs, version)
    monkeypatch.setenv(DETERMINISM_VARIABLE, "refuse")
    topology = planted_topology("planted", fabric_version=version)
    named = [method for method in METHODS if bug_of(method) in SEEN_AT_RUN_TIME]
    with HostedNetwork(tmp_path / "network", "native", topology) as hosted:
        async with Network.attach(hosted.directory) as network, network.connect("North") as gateway:
            contract = gateway.network("rooms").contract("planted")
            await contract.submit(Planted.steady)
            for method in named:
                with refused("E_DETERMINISM") as refusal:
                    await contract.submit(f"Planted:{method}")
                assert refusal.fields == {"rule": bug_of(method)}, method
    assert len(named) > 10
