"""The auditor finds whatever was altered in a copy of the blocks, and where."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from commandline import Sovchain

from sovchain.audit import verify_channel
from sovchain.protocol.blocks import iter_block_file, write_block_file


@pytest.fixture(scope="module")
def blocks(network: Sovchain, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The finance channel's blocks with a permit and a denial in them."""
    folder = tmp_path_factory.mktemp("audit")
    file = folder / "mine.csv"
    file.write_text("a,b\n1,2\n")
    dataset = network.share(file)["dataset"]["id"]
    for purpose, code in (("credit-assessment", 0), ("marketing", 4)):
        done = network.run(
            "request", dataset, "--channel", "finance", "--as", "Finance", "--purpose", purpose, "--json"
        )
        assert done.code == code, done.out
    network.ok("audit", "export", folder / "finance.blocks", "--channel", "finance")
    return list(iter_block_file((folder / "finance.blocks").read_bytes()))


def test_the_untouched_blocks_are_in_order(blocks: list[bytes]) -> None:
    report = verify_channel(blocks)
    assert report.ok, report.findings
    assert [(check.decision, check.recomputed) for check in report.receipts] == [("permit", True), ("deny", True)]
    assert verify_channel(blocks, genesis_hash=report.genesis_hash).ok
    assert not verify_channel(blocks, genesis_hash="00" * 32).ok


@pytest.mark.parametrize("count", [150, pytest.param(5_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_every_flipped_bit_is_found_in_its_block(blocks: list[bytes], count: int) -> None:
    """Bits drawn with a fixed seed over all blocks; each is named with its block or the one that follows it."""
    draw = random.Random(20261124 + count)
    missed = []
    for _ in range(count):
        number = draw.randrange(len(blocks))
        altered = bytearray(blocks[number])
        position = draw.randrange(len(altered))
        altered[position] ^= 1 << draw.randrange(8)
        report = verify_channel([*blocks[:number], bytes(altered), *blocks[number + 1 :]])
        if not report.findings or min(finding.block for finding in report.findings) not in (number, number + 1):
            missed.append((number, position, [str(finding) for finding in report.findings]))
    assert missed == []


def test_a_block_that_is_missing_moved_or_cut_off_is_found(blocks: list[bytes]) -> None:
    assert not verify_channel([*blocks[:5], *blocks[6:]]).ok
    assert not verify_channel([*blocks[:5], blocks[6], blocks[5], *blocks[7:]]).ok
    assert not verify_channel([]).ok
    torn = write_block_file(blocks)[:-7]
    assert not verify_channel(iter_block_file(torn)).ok


def test_the_command_says_so_with_its_exit_code(network: Sovchain, blocks: list[bytes], tmp_path: Path) -> None:
    altered = bytearray(write_block_file(blocks))
    altered[len(altered) // 2] ^= 1
    file = tmp_path / "altered.blocks"
    file.write_bytes(altered)
    done = network.run("audit", "verify", "--blocks", file)
    assert done.code == 5
    assert "block " in done.out


def test_what_is_stored_otherwise_than_the_blocks_say_is_found(
    network: Sovchain, blocks: list[bytes], tmp_path: Path
) -> None:
    """A row of the state, in a copy of what the nodes keep; the copy as it is, is in order."""
    copy = tmp_path / "copy"
    shutil.copytree(network.directory / "ledger" / "finance", copy / "ledger" / "finance")
    assert Sovchain(copy).run("audit", "verify").code == 0
    path = copy / "ledger" / "finance" / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE state SET value = x'00' WHERE rowid = (SELECT max(rowid) FROM state)")
        connection.commit()
    done = Sovchain(copy).run("audit", "verify")
    assert done.code == 5
    assert f"{path}: table state: " in done.out.replace("\n", "")
