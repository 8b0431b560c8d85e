"""A topology file is read whole or refused with the key, the line and the allowed values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sovchain.network import Topology, TopologyError, default_topology, load_topology, parse_topology
from sovchain.network.topologyfile import MAX_BYTES, format_key

SMALL = """\
name: pair
organizations:
  - name: Alpha
    msp_id: AlphaMSP
    domain: alpha.example
  - name: Beta
    msp_id: BetaMSP
    domain: beta.example
    users:
      - {name: Admin, role: admin}
      - name: Clerk
        attributes: {role: analyst}
ordering_organizations:
  - {name: One, msp_id: OneMSP, domain: orderer.one.example, operator: Alpha}
  - {name: Two, msp_id: TwoMSP, domain: orderer.two.example, operator: Beta}
channels:
  - name: shared
    members: [Alpha, Beta]
chaincodes:
  - name: notes
    module: notes.chaincode:notes
    channels: [shared]
    endorsement_policy: AND('AlphaMSP.peer', 'BetaMSP.peer')
"""


def test_a_file_gives_the_topology_that_it_describes(tmp_path: Path) -> None:
    file = tmp_path / "network.yaml"
    file.write_text(SMALL)
    topology = load_topology(file)
    assert topology.name == "pair"
    assert topology.organization("Beta").user("Clerk").attributes == {"role": "analyst"}
    assert [user.name for user in topology.organization("Alpha").users] == ["Admin", "User1"]
    assert topology.chaincode("notes").label == "notes_1.0"


def test_the_default_topology_survives_being_written_and_read() -> None:
    text = yaml.safe_dump(default_topology().model_dump(mode="json"))
    assert parse_topology(text) == default_topology()


# A key that is not in the document is reported at the line of the part that lacks it.
ELSEWHERE = {
    "channels[0].lifecycle_endorsement": "- name: shared",
    "ordering_organizations": "ordering_organizations:",
    "organizations[1].users": "users:",
    "chaincodes[0].module": "- name: notes",
}


def line_of(word: str) -> int:
    return SMALL[: SMALL.index(word)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "key", "problem", "allowed"),
    [
        ("members: [Alpha, Beta]", "members: [Alpha, Gamma]", "channels[0].members[1]", "Gamma", ("Alpha", "Beta")),
        ("members: [Alpha, Beta]", "members: [Alpha, Alpha]", "channels[0].members[1]", "used already", ()),
        ("members: [Alpha, Beta]", "members: [Alpha]", "channels[0].lifecycle_endorsement", "alone", ()),
        ("operator: Beta}", "operator: Gamma}", "ordering_organizations[1].operator", "Gamma", ("Alpha", "Beta")),
        ("operator: Beta}", "operator: Alpha}", "ordering_organizations", "Alpha runs 2 of the 2", ()),
        ("msp_id: BetaMSP", "msp_id: AlphaMSP", "organizations[1].msp_id", "organizations[0].msp_id", ()),
        ("    domain: beta.example", "    domain: alpha.example", "organizations[1].domain", "used already", ()),
        ("{name: Admin, role: admin}", "{name: Admin}", "organizations[1].users", "admin", ()),
        ("name: Clerk", "name: admin", "organizations[1].users[1].name", "used already", ()),
        ("role: admin}", "role: boss}", "organizations[1].users[0].role", "'boss'", ("admin", "client")),
        ("channels: [shared]", "channels: [shed]", "chaincodes[0].channels[0]", "shed", ("shared",)),
        ("AND('AlphaMSP.peer', 'BetaMSP.peer')", "OR('AlphaMSP.peer', 'BetaMSP.peer')", "chaincodes[0].endorsement_policy", "alone", ()),
        ("AND('AlphaMSP.peer', 'BetaMSP.peer')", "AND('AlphaMSP.peer', 'GammaMSP.peer')", "chaincodes[0].endorsement_policy", "GammaMSP", ("AlphaMSP", "BetaMSP")),
        ("AND('AlphaMSP.peer', 'BetaMSP.peer')", "AND('AlphaMSP.peer'", "chaincodes[0].endorsement_policy", "cannot be read", ()),
        ("  - name: shared", "  - name: Shared_1", "channels[0].name", "'Shared_1'", ()),
        ("    module: notes.chaincode:notes", "    module: notes", "chaincodes[0].module", "'notes'", ()),
        ("    module: notes.chaincode:notes", "    modul: notes.chaincode:notes", "chaincodes[0].module", "missing", ()),
        ("name: pair", "nom: pair", "nom", "no such key", ("channels", "name", "organizations")),
        ("name: pair", "name: pair\nname: again", "name", "twice", ()),
        ("name: pair", "name: pair\nports: {base: 80}", "ports.base", "80", ()),
        ("name: pair", "name: pair\nports: {base: soon}", "ports.base", "'soon'", ()),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key_and_line(
    old: str, new: str, key: str, problem: str, allowed: tuple[str, ...]
) -> None:
    assert SMALL.count(old) == 1
    text = SMALL.replace(old, new)
    with pytest.raises(TopologyError) as caught:
        parse_topology(text, source="network.yaml")
    error = caught.value
    assert error.key == key
    assert problem in error.problem
    assert set(allowed) <= set(error.allowed)
    assert "network.yaml" in str(error)
    missing = problem in ("missing", "admin") or "alone" in problem or "runs" in problem
    place = ELSEWHERE[key] if missing and key in ELSEWHERE else old
    assert error.line == line_of(place) + (0 if missing else new.count("\n"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("a: [1, 2", "not YAML"),
        ("- 1\n- 2\n", "does not fit"),
        ("x: &a {y: 1}\nz: *a\n", "alias"),
        ("? [1, 2]\n: 3\n", "not a text"),
        ("<<: {name: pair}\n", "merge key"),
        ("a: " + "[" * 40 + "]" * 40, "nested"),
        ("a: " + "[" * 20_000, "nested"),
        ("#" * (MAX_BYTES + 1), "larger"),
        ("name: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("name: 2026-01-01\n", "does not fit"),
        ("name: 2026-13-01\n", "not YAML"),
    ],
)
def test_what_is_no_topology_at_all_is_refused(text: str, problem: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse_topology(text)
    assert problem in caught.value.problem


def test_a_key_that_appears_twice_is_told_with_both_lines() -> None:
    text = SMALL.replace("name: pair", "name: pair\nname: again\nname: third").replace(
        "    domain: beta.example", "    domain: beta.example\n    domain: gamma.example"
    )
    with pytest.raises(TopologyError) as caught:
        parse_topology(text)
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (2, "name"), (3, "name"), (11, "organizations[1].domain"),
    ]  # fmt: skip
    assert "in line 10 and in line 11" in caught.value.problems[2].problem


def test_a_cycle_is_refused() -> None:
    with pytest.raises(TopologyError, match="alias"):
        parse_topology("organizations: &a\n  - *a\n")


def test_all_problems_are_told_in_the_order_of_the_file() -> None:
    text = (
        SMALL.replace("role: admin}", "role: boss}").replace("name: pair", "nam: pair").replace("notes.chaincode:", "")
    )
    with pytest.raises(TopologyError) as caught:
        parse_topology(text, source="network.yaml")
    problems = caught.value.problems
    assert [problem.key for problem in problems] == ["nam", "organizations[1].users[0].role", "chaincodes[0].module"]
    assert [problem.line for problem in problems] == sorted(problem.line or 0 for problem in problems)
    assert "2 more problems" in str(caught.value)
    assert problems[0].remedy == "write name"


@pytest.mark.parametrize(
    ("line", "key"),
    [("    jurisdiction: NO", "jurisdiction"), ("    attributes: {since: 2026-01-01}", "attributes.since")],
)
def test_what_yaml_takes_for_something_else_than_text_is_to_be_quoted(line: str, key: str) -> None:
    text = SMALL.replace("    domain: alpha.example", f"    domain: alpha.example\n{line}")
    with pytest.raises(TopologyError) as caught:
        parse_topology(text)
    problem = next(problem for problem in caught.value.problems if problem.key == f"organizations[0].{key}")
    assert "quotation marks" in problem.remedy
    assert parse_topology(SMALL.replace("name: pair", "name: pair\nfabric_version: 2.5")).fabric_version == "2.5"


def test_numbers_are_refused_with_their_limits() -> None:
    with pytest.raises(TopologyError) as caught:
        parse_topology(SMALL.replace("domain: orderer.one.example", "domain: orderer.one.example, nodes: 99"))
    assert (caught.value.key, caught.value.allowed) == ("ordering_organizations[0].nodes", ("1 to 16",))


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    with pytest.raises(TopologyError, match="alias"):
        parse_topology("\n".join(lines))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_an_unreadable_file_is_a_topology_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "network.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TopologyError):
        load_topology(file)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(where=st.sampled_from(["name", "organizations", "channels", "chaincodes", "ports", "other"]), value=plain)
def test_any_value_in_any_place_is_accepted_or_refused_with_a_topology_error(where: str, value: Any) -> None:
    document = yaml.safe_load(SMALL) | {where: value}
    try:
        assert isinstance(parse_topology(yaml.safe_dump(document)), Topology)
    except TopologyError as error:
        assert error.key or error.problem


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_accepted_or_refused_with_a_topology_error(text: str) -> None:
    with pytest.raises(TopologyError):
        parse_topology(text)


def test_a_place_is_written_as_a_path() -> None:
    assert format_key(("channels", 1, "members", 0)) == "channels[1].members[0]"
