"""The main job, by the demonstration and by hand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from commandline import EXAMPLES, ROOT, Sovchain

CSV = "enterprise,tax_paid_fen,credit\nNanming Noodles,120000,A\nWudang Tools,340000,B\n"


@pytest.mark.timeout(300)
def test_the_demonstration_shows_every_step(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(CSV)
    done = subprocess.run(
        [ROOT / "scripts" / "demo", "--file", file, "--json"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert shown["ok"]
    outcomes = {step["step"]: step["outcome"] for step in shown["steps"]}
    assert "sector is missing" in outcomes["Supervisor votes"]
    assert "every class of seat has voted" in outcomes["Finance votes"]
    assert outcomes["Finance asks for credit assessment"].startswith("permit: ")
    for refused in (
        "Finance asks for marketing",
        "the carrier asks, unknown to the registry",
        "the carrier asks again",
    ):
        assert outcomes[refused].startswith("deny: "), refused
    assert "GY-" in outcomes["Finance asks for marketing"]
    assert "GY-" in outcomes["the carrier asks again"]
    assert "engine:" in outcomes["the carrier asks, unknown to the registry"]
    assert len({access["decision"] for access in shown["accesses"]}) == 2
    assert all(channel["ok"] for channel in shown["audit"]["channels"])
    assert all(check["recomputed"] for channel in shown["audit"]["channels"] for check in channel["receipts"])
    assert shown["audit"]["flipped"]["findings"]


@pytest.mark.timeout(240)
def test_the_same_by_hand(empty: Sovchain, tmp_path: Path) -> None:
    """Every command of the README's tour, in its order, across a stop and a kill."""
    described = empty.up()
    assert set(described["channels"]) == {"government", "finance", "logistics"}
    two = empty.ok(
        "law",
        "enact",
        EXAMPLES / "laws" / "guiyang-data-sharing.cedar",
        "--channel",
        "finance",
        "--as",
        "Government,Supervisor",
    )
    assert (two["state"], two["missing"]) == ("open", ["sector"])
    voted = empty.ok("law", "vote", two["ballot"], "--channel", "finance", "--as", "Finance")
    assert voted["view"]["ballot"]["state"] == "passed"
    empty.ok(
        "registry",
        "admit",
        EXAMPLES / "registry" / "finance.yaml",
        "--channel",
        "finance",
        "--as",
        "Government,Supervisor,Finance",
    )
    file = tmp_path / "mine.csv"
    file.write_text(CSV)
    dataset = empty.share(file)["dataset"]["id"]

    empty.down()
    assert empty.run("status").code == 3
    empty.up()
    answer = empty.ok("request", dataset, "--channel", "finance", "--as", "Finance", "--purpose", "credit-assessment")
    assert answer["decision"] == "permit"
    empty.ok("release", answer["request"], "--channel", "finance", "--as", "Government")

    empty.kill()
    empty.up()
    target = tmp_path / "received.csv"
    opened = empty.ok("open", answer["request"], "--channel", "finance", "--as", "Finance", "--output", target)
    assert opened["hash_checked"]
    assert target.read_text() == CSV
    assert target.stat().st_mode & 0o777 == 0o600
    denied = empty.run(
        "request", dataset, "--channel", "finance", "--as", "Finance", "--purpose", "marketing", "--json"
    )
    assert (denied.code, denied.json["decision"]) == (4, "deny")
    listed = empty.ok("receipts", "--channel", "finance")
    assert [access["decision"] for access in listed] == ["permit", "deny"]
    assert listed[0]["acknowledged_at"]
    assert empty.ok("evaluate", "finance", "Receipts:read", answer["request"])["result"]["decision"] == "permit"
    assert empty.ok("audit", "verify")["ok"]
    status = empty.ok("status")
    assert status["state"] == "up"
    empty.down()
    assert empty.ok("audit", "verify")["ok"], "the audit needs no running network"
