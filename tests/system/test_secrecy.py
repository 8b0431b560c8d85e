"""The file's bytes, and the key of a sealed one, are in the two parties' private stores and nowhere else."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from commandline import Sovchain

from sovchain.sovereign.sealedfile import CHUNK_BYTES, journal_of


def everything_said(sovchain: Sovchain, answer: str, dataset: str) -> list[str]:
    """What commands print and complain about, with people asking for what is not theirs."""
    said = []
    for arguments in (
        ("receipts", "--channel", "finance"),
        ("audit", "verify"),
        ("status",),
        ("evaluate", "finance", "Sharing:catalogue"),
        ("evaluate", "finance", "Sharing:open", answer, "--as", "Supervisor"),
        ("evaluate", "finance", "Sharing:open", answer, "--as", "Supervisor", "--endorser", "FinanceMSP"),
        ("evaluate", "finance", "Sharing:read_own", dataset, "--as", "Finance", "--endorser", "GovernmentMSP"),
        ("release", answer, "--channel", "finance", "--as", "Finance"),
        ("release", "0" * 64, "--channel", "finance", "--as", "Government"),
    ):
        done = sovchain.run(*arguments, "--json")
        said += [done.out, done.err]
    return said


@pytest.mark.timeout(180)
def test_a_planted_marker_is_found_nowhere_else(
    empty: Sovchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOVCHAIN_LOG_LEVEL", "debug")
    empty.up()
    empty.found()
    marker = f"MARKER{secrets.token_hex(8)}"
    file = tmp_path / "mine.csv"
    file.write_text(f"enterprise,note\nNanming Noodles,{marker}\n")
    dataset = empty.share(file)["dataset"]["id"]
    answer = empty.ok("request", dataset, "--channel", "finance", "--as", "Finance", "--purpose", "credit-assessment")
    empty.ok("release", answer["request"], "--channel", "finance", "--as", "Government")
    target = tmp_path / "received.csv"
    empty.ok("open", answer["request"], "--channel", "finance", "--as", "Finance", "--output", target)
    scan, store, fetched, key = (
        tmp_path / "scan.pdf",
        tmp_path / "store",
        tmp_path / "fetched.pdf",
        secrets.token_hex(32),
    )
    scan.write_text(f"%PDF {marker}")
    # A journal as an interrupted sealing leaves it, so that the key is known here.
    head = {"size_bytes": scan.stat().st_size, "chunk_bytes": CHUNK_BYTES, "key": key, "prefix": "ab" * 7}
    journal_of(scan).write_text(json.dumps(head) + "\n")
    purpose = ("--channel", "finance", "--purpose", "credit-assessment")
    sealed = empty.ok("data", "seal", scan, "--store", store, "--as", "Government", *purpose)["dataset"]["id"]
    granted = empty.ok("request", sealed, "--as", "Finance", *purpose)["request"]
    empty.ok("release", granted, "--channel", "finance", "--as", "Government")
    fetch = ("data", "fetch", granted, "--channel", "finance", "--as", "Finance", "--store", store, "--no-acknowledge")
    empty.ok(*fetch, "--output", fetched)
    assert fetched.read_bytes() == scan.read_bytes()
    assert not journal_of(scan).exists()
    said = everything_said(empty, answer["request"], dataset)
    exported = tmp_path / "finance.blocks"
    empty.ok("audit", "export", exported, "--channel", "finance")
    empty.down()

    forms = [marker.encode(), marker.encode().hex().encode(), marker[::-1].encode(), key.encode(), bytes.fromhex(key)]
    assert not any(form in path.read_bytes() for form in forms for path in store.rglob("*") if path.is_file())
    holders = set()
    for path in empty.directory.rglob("*"):
        if path.is_file() and any(form in path.read_bytes() for form in forms):
            holders.add(path.relative_to(empty.directory).as_posix().removesuffix("-wal"))
    assert holders == {f"ledger/finance/private/{msp}.sqlite" for msp in ("GovernmentMSP", "FinanceMSP")}
    assert target.read_text().count(marker) == 1
    for form in forms:
        assert form not in exported.read_bytes()
        assert not any(form.decode("latin-1") in text for text in said)
    # The search itself works: the same walk finds what is public.
    assert any(dataset.encode() in path.read_bytes() for path in empty.directory.rglob("ledger.sqlite*"))
