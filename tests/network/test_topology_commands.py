"""`sovchain topology`: checks, shows and describes; and what is written about topologies can be used as it stands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sovchain.network.topology import Topology, default_topology
from sovchain.network.topologyfile import load_topology, parse_topology
from sovchain.network.topologyparts import Part
from sovchain.network.topologywriter import json_schema, to_yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples/topologies").glob("*.yaml"))


def sovchain(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sovchain.cli", "topology", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_can_be_used(file: Path) -> None:
    topology = load_topology(file)
    assert parse_topology(to_yaml(topology)) == topology
    assert not topology.accept


def test_there_are_the_three_examples_and_the_default_one_is_the_default_network() -> None:
    assert {file.stem for file in EXAMPLES} == {"bft", "default", "minimal"}
    assert load_topology(ROOT / "examples/topologies/default.yaml") == default_topology()


def test_the_default_network_takes_about_thirty_lines_and_the_page_has_them() -> None:
    shown = to_yaml(default_topology())
    assert len(shown.splitlines()) <= 34
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/topology.md").read_text(), re.DOTALL)
    assert block == shown


def test_the_page_names_every_key_and_every_rule() -> None:
    page = (ROOT / "docs/topology.md").read_text()
    keys = {name for kind in Part.__subclasses__() for name in kind.model_fields}
    assert not [name for name in keys if f"`{name}`" not in page]
    rules = re.findall(
        r"^    ([a-z-]+) {2,}\S", (ROOT / "network/sovchain/network/checks.py").read_text(), re.MULTILINE
    )
    assert len(rules) > 12
    assert not [rule for rule in rules if f"`{rule}`" not in page]


def test_a_file_that_can_be_used_is_summed_up() -> None:
    done = sovchain("check", ROOT / "examples/topologies/bft.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 peers of 4 organisations, 4 ordering nodes" in done.stdout
    document = json.loads(sovchain("check", ROOT / "examples/topologies/bft.yaml", "--json").stdout)
    assert (document["ok"], document["peers"], document["channels"]) == (True, 5, ["cargo"])


WRONG = """\
name: pair
domain: pair.example
fabric_version: 3.1
consensus: pbft
organizations:
  - {name: Alpha, peer: 2}
  - {name: Beta, peers: 20}
ordering_organizations:
  - {operator: Alpha}
channels:
  - {name: shared, members: [Alpha, Beta]}
"""


def test_every_problem_of_a_file_is_told_with_its_line_and_what_would_be_right(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(WRONG)
    done = sovchain("check", file)
    assert (done.returncode, done.stdout) == (2, "")
    told = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert [re.findall(r"cannot be used: (\S+) in .*, line (\d+)", line) for line in told] == [
        [("consensus", "4")],
        [("organizations[0].peer", "6")],
        [("organizations[1].peers", "7")],
    ]
    assert "allowed: raft, bft" in done.stderr
    assert "write peers" in done.stderr
    assert "1 to 16" in done.stderr
    error = json.loads(sovchain("check", file, "--json").stdout)["error"]
    assert error["exit_code"] == 2
    assert [problem["line"] for problem in error["problems"]] == [4, 6, 7]


def test_a_rule_that_is_broken_is_named(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(WRONG.replace("pbft", "raft").replace(", peer: 2", "").replace("20", "2"))
    done = sovchain("check", file)
    assert done.returncode == 2
    assert "[ordering-majority]" in done.stderr
    assert "accept" in done.stderr


def test_a_file_that_is_not_there_is_a_problem_of_the_input(tmp_path: Path) -> None:
    done = sovchain("check", tmp_path / "nothing.yaml")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_show_prints_what_can_be_read_again(tmp_path: Path) -> None:
    for arguments in ((), ("--full",)):
        done = sovchain("show", *arguments)
        assert done.returncode == 0
        assert parse_topology(done.stdout) == default_topology()
        document = json.loads(sovchain("show", *arguments, "--json").stdout)
        assert Topology.model_validate(document) == default_topology()
    full = yaml.safe_load(sovchain("show", ROOT / "examples/topologies/minimal.yaml", "--full").stdout)
    assert full["organizations"][0]["users"][1]["name"] == "User1"
    assert full["channels"][0]["batch"]["timeout_s"] == 0.02


def test_the_schema_describes_every_part_and_its_keys() -> None:
    schema: dict[str, Any] = json.loads(sovchain("schema").stdout)
    assert schema == json_schema()
    parts = {"Topology": schema, **schema["$defs"]}
    assert {"Organization", "Channel", "Collection"} <= parts.keys()
    assert all(part["description"] for part in parts.values())
    assert "description" in parts["Channel"]["properties"]["regulator"]
    assert schema["required"] == ["organizations", "ordering_organizations", "channels"]
    assert set(schema["properties"]["consensus"]["enum"]) == {"raft", "bft"}
