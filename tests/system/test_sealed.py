"""A payload of any kind is sealed into a store, its key released after a permit, and neither is found anywhere else."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from commandline import Sovchain

CHANNEL = ("--channel", "finance")
FINANCE = (*CHANNEL, "--as", "Finance")


@pytest.mark.long  # its short form is in test_secrecy
@pytest.mark.timeout(180)
def test_a_sealed_payload_and_its_key_are_found_nowhere_else(
    empty: Sovchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOVCHAIN_LOG_LEVEL", "debug")
    empty.up()
    empty.found()
    marker = f"MARKER{secrets.token_hex(8)}"
    file, store, target = tmp_path / "scan.pdf", tmp_path / "store", tmp_path / "got.pdf"
    file.write_bytes(b"%PDF " + marker.encode() + secrets.token_bytes(100_000))
    journal = tmp_path / "scan.pdf.sealing"
    sealed = ("data", "seal", file, "--store", store, "--purpose", "credit-assessment")
    unknown = empty.run(*sealed, *CHANNEL, "--as", "OverseasCarrier", "--json")
    assert unknown.code != 0, "who is not in the registry seals nothing"
    assert not store.exists()
    # Interrupted after sealing and before the deposit: the journal still has the key, and the next attempt takes it.
    interrupted = json.dumps(
        {"size_bytes": file.stat().st_size, "chunk_bytes": 8 * 2**20, "key": "ab" * 32, "prefix": "cd" * 7}
    )
    journal.write_text(interrupted + "\n")
    shared = empty.ok(*sealed, *CHANNEL, "--as", "Government")["dataset"]
    assert not journal.exists()
    assert (shared["entry"]["media_type"], shared["entry"]["size_bytes"]) == ("application/pdf", file.stat().st_size)
    dataset = shared["id"]
    assert empty.ok("data", "check", dataset, *CHANNEL, "--store", store)["chunks"] == 1

    answer = empty.ok("request", dataset, *FINANCE, "--purpose", "credit-assessment")["request"]
    fetch = ("data", "fetch", answer, *FINANCE, "--output", target, "--store", store)
    early = empty.run(*fetch, "--json")
    assert (early.code, early.json["error"]["code"]) == (1, "E_NOT_DELIVERED")
    empty.ok("release", answer, *CHANNEL, "--as", "Government")
    refused = empty.run("open", answer, *FINANCE, "--output", target, "--json")
    assert "sealed in a store" in refused.json["error"]["what"]
    assert "--store" in empty.run(*fetch[:-2], "--json").json["error"]["do"]
    assert empty.ok(*fetch)["acknowledged"]
    assert target.read_bytes() == file.read_bytes()

    blob = max((path for path in store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    target.unlink()
    altered = empty.run(*fetch, "--json")
    assert (altered.code, "other bytes" in altered.json["error"]["what"]) == (1, True)
    said = [refused.out, refused.err, early.out, early.err, altered.out, altered.err, empty.run("status").out]
    exported = tmp_path / "finance.blocks"
    empty.ok("audit", "export", exported, *CHANNEL)
    empty.down()

    key = "ab" * 32
    forms = {"payload": [marker.encode()], "key": [key.encode(), bytes.fromhex(key), key.encode().hex().encode()]}
    holders = {
        (what, path.relative_to(empty.directory).as_posix().removesuffix("-wal"))
        for path in empty.directory.rglob("*")
        if path.is_file()
        for what, shapes in forms.items()
        if any(form in path.read_bytes() for form in shapes)
    }
    assert holders == {("key", f"ledger/finance/private/{msp}.sqlite") for msp in ("GovernmentMSP", "FinanceMSP")}
    for form in (form for shapes in forms.values() for form in shapes):
        assert form not in exported.read_bytes()
        assert not any(form in path.read_bytes() for path in store.rglob("*") if path.is_file())
        assert not any(form.decode("latin-1") in text for text in said)
