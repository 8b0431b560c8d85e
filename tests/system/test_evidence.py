"""Evidence of a decision is checked with the file alone, and whatever is altered in it is found."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from commandline import EXAMPLES, Sovchain

from sovchain.audit import EvidenceError, check_evidence


@pytest.fixture(scope="module")
def evidence(network: Sovchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence of a denial that another decision followed."""
    dataset = network.share(EXAMPLES / "data" / "sme-tax-credit.csv")["dataset"]["id"]
    as_finance = ("--channel", "finance", "--as", "Finance", "--json")
    denied = network.run("request", dataset, "--purpose", "marketing", *as_finance).json["request"]
    network.run("request", dataset, "--purpose", "credit-assessment", *as_finance)
    file = tmp_path_factory.mktemp("evidence") / "denial.zip"
    made = network.ok("audit", "evidence", denied, file, "--channel", "finance")
    assert (made["decision"], made["request"]) == ("deny", denied)
    assert made["signer"].startswith("SupervisorMSP")
    return file


def checked(file: Path, *options: str) -> tuple[int, Any]:
    command = [sys.executable, "-m", "sovchain.cli", "audit", "check-evidence", str(file), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=file.parent)
    return done.returncode, json.loads(done.stdout)


def test_it_holds_by_itself_and_against_the_first_block_from_elsewhere(evidence: Path) -> None:
    code, shown = checked(evidence)
    assert (code, shown["ok"]) == (0, True)
    assert checked(evidence, "--genesis", shown["statement"]["genesis_hash"])[0] == 0
    code, shown = checked(evidence, "--genesis", "00" * 32)
    assert code == 5
    assert "trusted hash" in shown["findings"][0]


def test_it_ends_with_the_decision(evidence: Path) -> None:
    """Later decisions are nobody's business."""
    found = check_evidence(evidence.read_bytes())
    assert [one.request for one in found.report.receipts] == [found.statement["request"]]


def test_whatever_is_altered_is_found(evidence: Path) -> None:
    with zipfile.ZipFile(evidence) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    chosen = random.Random(7)
    for name in members:
        for _ in range(3):
            altered = bytearray(members[name])
            altered[chosen.randrange(len(altered))] ^= 1 << chosen.randrange(8)
            try:
                assert not check_evidence(archive(members | {name: bytes(altered)})).ok, name
            except EvidenceError:
                assert name == "statement.json"
    swapped = json.loads(members["statement.json"]) | {"decision": "permit"}
    assert not check_evidence(archive(members | {"statement.json": json.dumps(swapped).encode()})).ok


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_evidence_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file.zip"
    file.write_bytes(content)
    code, shown = checked(file)
    assert code == 2
    assert shown["error"]["what"] == "this is no evidence"


def test_an_archive_with_other_members_is_refused() -> None:
    with pytest.raises(EvidenceError):
        check_evidence(archive({"statement.json": b"{}"}))


def test_there_is_no_evidence_of_what_was_not_decided(network: Sovchain, tmp_path: Path) -> None:
    done = network.run("audit", "evidence", "0" * 64, tmp_path / "none.zip", "--channel", "finance")
    assert done.code == 2
    assert "there is no such decision" in done.err
    assert not (tmp_path / "none.zip").exists()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return buffer.getvalue()
