"""Studying law by the command line: what a decision rests on, what an amendment changes, what it would have changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import EXAMPLES, LAW, Sovchain

SHARED = EXAMPLES / "data" / "sme-tax-credit.csv"


@pytest.fixture(scope="module")
def decided(network: Sovchain) -> dict[str, str]:
    """A request that was permitted and one that was denied."""
    dataset = network.share(SHARED)["dataset"]["id"]
    answers = {
        purpose: network.run(
            "request", dataset, "--channel", "finance", "--as", "Finance", "--purpose", purpose, "--json"
        )
        for purpose in ("credit-assessment", "marketing")
    }
    return {purpose: answer.json["request"] for purpose, answer in answers.items()}


def amended(tmp_path: Path, old: str, new: str) -> Path:
    text = LAW.read_text().replace("// version: 1", "// version: 2").replace('@version("1")', '@version("2")')
    assert old in text
    file = tmp_path / "draft.cedar"
    file.write_text(text.replace(old, new))
    return file


def test_a_decision_is_explained_by_the_text_of_its_clause(network: Sovchain, decided: dict[str, str]) -> None:
    shown = network.ok("law", "explain", decided["credit-assessment"], "--channel", "finance")
    (reason,) = shown["reasons"]
    assert (shown["decision"], reason["clause"]) == ("permit", "art. 7")
    assert reason["text"].startswith('@law("GY-DS-2026")')
    assert 'Purpose::"credit-assessment"' in reason["text"]
    said = network.run("law", "explain", decided["marketing"], "--channel", "finance").out
    assert "E_DEFAULT_DENY" in said
    assert "engine:purpose-limit: the catalogue entry does not offer the data for marketing" in said


def test_a_draft_shows_which_decisions_it_would_have_changed(
    network: Sovchain, decided: dict[str, str], tmp_path: Path
) -> None:
    draft = amended(
        tmp_path, 'context.purpose == Purpose::"credit-assessment" &&', 'context.purpose == Purpose::"statistics" &&'
    )
    shown = network.ok("law", "what-if", draft, "--channel", "finance")
    (changed,) = shown["shown"]
    assert (changed["request"], changed["before"], changed["after"]) == (decided["credit-assessment"], "permit", "deny")
    assert (shown["ok"], shown["changed"]) == (True, 1)
    same = network.ok("law", "what-if", LAW, "--channel", "finance", "--all")
    assert same["changed"] == 0
    assert {one["before"] for one in same["shown"]} == {"permit", "deny"}


def test_versions_are_compared_clause_by_clause(tmp_path: Path) -> None:
    draft = amended(tmp_path, '@clause("art. 9")', '@clause("art. 10")')
    text = draft.read_text().replace('Purpose::"marketing"', 'Purpose::"statistics"')
    draft.write_text(text)
    command = [sys.executable, "-m", "sovchain.cli", "law", "diff", str(LAW), str(draft), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    changes = {(one["clause"], one["change"]) for one in json.loads(done.stdout)["changes"]}
    assert changes == {("art. 9", "removed"), ("art. 10", "added"), ("art. 13", "changed")}


def test_a_bad_draft_is_refused_with_its_place(network: Sovchain, tmp_path: Path) -> None:
    draft = amended(tmp_path, "permit (\n", "permit \n")
    done = network.run("law", "what-if", draft, "--channel", "finance")
    assert done.code == 2
    assert "line 13" in done.err or "line 14" in done.err
    assert "Traceback" not in done.err


NATIONAL = """// law: CN-DS-2026
// version: 1
// title: a national law that forbids what the city permits
// level: nation
// jurisdiction: CN
// effective-from: 2026-01-01T00:00:00+08:00

@law("CN-DS-2026") @version("1") @clause("art. 2")
forbid (principal, action, resource) when { context.purpose == Purpose::"credit-assessment" };
"""


def test_conflicts_are_shown_with_file_and_place_and_repeal_is_a_command(network: Sovchain, tmp_path: Path) -> None:
    national = tmp_path / "national.cedar"
    national.write_text(NATIONAL)
    together = network.run("law", "lint", LAW, national)
    assert together.code == 5
    first = together.out.splitlines()[0]
    assert first.startswith(f"{LAW}, line 11, column 1: error, art. 7: it can never take effect: ")
    assert first.endswith("CN-DS-2026 version 1, art. 2")
    told = network.ok("law", "lint", national, "--channel", "finance")
    assert [(one["severity"], one["kind"], one["line"]) for one in told["findings"]] == [("warning", "disables", 8)]
    ended = network.ok(
        "law", "repeal", "GY-DS-2026", "--channel", "finance", "--as", "Government", "--from", "2099-01-01T00:00:00Z"
    )
    assert (ended["state"], ended["missing"]) == ("open", ["regulator", "sector"])
    assert {one["kind"] for one in ended["findings"]} == {"unlegislated"}


def test_a_law_goes_to_odrl_and_back_by_command(network: Sovchain, tmp_path: Path) -> None:
    policy, back = tmp_path / "policy.jsonld", tmp_path / "law.cedar"
    network.ok("law", "export", "GY-DS-2026", "--channel", "finance", "--output", policy)
    # These commands are about files and take no --dir.
    run = [sys.executable, "-m", "sovchain.cli", "law"]
    done = subprocess.run(
        [*run, "import", policy, "--output", back], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    again = subprocess.run([*run, "export", back], capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(again.stdout) == json.loads(policy.read_text())
    policy.write_text(policy.read_text().replace('"credit-assessment"', '"advertising"'))
    refused = subprocess.run([*run, "import", policy], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "why: $.permission[0].constraint[0].rightOperand: 'advertising' is not in the code list" in refused.stderr


def test_a_calendar_is_enacted_from_a_file_and_a_wrong_file_says_where(network: Sovchain, tmp_path: Path) -> None:
    file, who = (
        EXAMPLES / "calendars" / "cn-2026.yaml",
        ("--channel", "finance", "--as", "Government,Supervisor,Finance"),
    )
    enacted = network.ok("law", "calendar", file, *who)
    assert (enacted["state"], enacted["missing"]) == ("passed", [])
    wrong = tmp_path / "calendar.yaml"
    wrong.write_text(file.read_text().replace("year: 2026", "year: 2027"))
    done = network.run("law", "calendar", wrong, *who)
    assert done.code == 2
    assert "2026-01-01 is no day of 2027" in done.err
