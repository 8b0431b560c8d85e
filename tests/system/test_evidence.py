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
from sovchain.audit.evidence import _archive


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


def test_whatever_byte_is_altered_is_found(evidence: Path) -> None:
    """Of each member and of the archive around them."""
    content = evidence.read_bytes()
    with zipfile.ZipFile(evidence) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
        starts = [info.header_offset for info in opened.infolist()]
    chosen = random.Random(7)
    places = {start + chosen.randrange(30) for start in starts}
    places |= {content.index(member) + chosen.randrange(len(member)) for member in members.values()}
    places |= {chosen.randrange(content.index(b"PK\x01\x02"), len(content)) for _ in range(12)}
    places |= {chosen.randrange(len(content)) for _ in range(4)}
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1 << chosen.randrange(8)
        try:
            assert not check_evidence(bytes(altered)).ok, place
        except EvidenceError:
            continue
    for more in (content + b"x", b"x" + content):
        try:
            assert not check_evidence(more).ok
        except EvidenceError:
            continue


def test_a_court_reads_the_law_the_request_and_the_receipt(evidence: Path) -> None:
    with zipfile.ZipFile(evidence) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    (law,) = [name for name in members if name.startswith("laws/")]
    text = next((EXAMPLES / "laws").glob("guiyang-data-sharing.cedar")).read_bytes()
    assert (law, members[law]) == ("laws/GY-DS-2026@1.cedar", text)
    assert json.loads(members["request.json"])["purpose"] == "marketing"
    assert json.loads(members["receipt.json"])["decision"] == "deny"
    for name in ("request.json", "receipt.json", law):
        judged = check_evidence(packed(members | {name: members[name].replace(b"e", b"a", 1)}))
        assert judged.findings == (f"{name} is not what the blocks hold",)
    del members[law]
    assert check_evidence(packed(members)).findings == (f"{law} is not what the blocks hold",)
    swapped = json.loads(members["statement.json"]) | {"decision": "permit"}
    assert not check_evidence(packed(members | {"statement.json": json.dumps(swapped).encode()})).ok


def packed(members: dict[str, bytes]) -> bytes:
    """The archive that evidence of these members would be: only its content tells."""
    return _archive(members)


def test_later_law_would_have_said_otherwise(network: Sovchain, evidence: Path, tmp_path: Path) -> None:
    same = network.ok("audit", "rejudge", "--channel", "finance")
    assert (same["ok"], same["changed"]) == (True, 0)
    later = tmp_path / "later.cedar"
    text = (EXAMPLES / "laws" / "guiyang-data-sharing.cedar").read_text().replace("// version: 1", "// version: 2")
    later.write_text(text.replace('@version("1")', '@version("2")').replace("permit (", "forbid ("))
    found = network.ok("audit", "rejudge", "--channel", "finance", "--law", later)
    assert found["changed"] == sum(one["before"] == "permit" for one in found["rejudged"]) > 0


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
