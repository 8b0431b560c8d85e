"""Bad input: one line what, one line why, one line what to do, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from certificates import expire
from commandline import LAW, Sovchain


def three_lines(sovchain: Sovchain, *arguments: str | Path) -> tuple[int, str]:
    """Run a command that must fail with what, why and do; its exit code and text. A traceback is a failure."""
    done = sovchain.run(*arguments)
    assert done.code != 0, done.out
    assert "Traceback" not in done.out + done.err
    lines = done.err.strip().splitlines()
    assert [line.strip().split(":")[0] for line in lines] == ["error", "why", "do"], done.err
    assert all(line.split(":", 1)[1].strip() for line in lines)
    return done.code, done.err


def heights(sovchain: Sovchain) -> dict[str, int]:
    return {name: channel["height"] for name, channel in sovchain.ok("status")["channels"].items()}


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("missing.csv", None, "missing.csv"),
        ("empty.csv", b"", "empty"),
        ("binary.csv", b"\x7fELF\x00\x01\x02\x00" * 50, "binary"),
        ("wrong.csv", b"name,value\n\xff\xfe\xff,1\n", "offset"),
        ("ragged.csv", b"a,b\n1,2\n3\n", "line 3"),
        ("twice.csv", b"a,a\n1,2\n", "a"),
    ],
)
def test_a_file_that_cannot_be_shared(
    network: Sovchain, tmp_path: Path, name: str, content: bytes | None, word: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    before = heights(network)
    code, text = three_lines(
        network, "share", file, "--channel", "finance", "--as", "Government", "--purpose", "statistics"
    )
    assert code == 2
    assert word in text.lower()
    assert heights(network) == before


def test_a_file_of_200_megabytes_is_refused_without_reading_it(network: Sovchain, tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    with file.open("wb") as target:
        target.write(b"a,b\n")
        target.truncate(200 * 1024 * 1024)
    code, text = three_lines(
        network, "share", file, "--channel", "finance", "--as", "Government", "--purpose", "statistics"
    )
    assert code == 2
    assert "16" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--channel", "marine", "--as", "Government", "--purpose", "statistics"), ("marine", "finance")),
        (("--channel", "finance", "--as", "Navy", "--purpose", "statistics"), ("Navy", "Government")),
        (("--channel", "finance", "--as", "Government/Nobody", "--purpose", "statistics"), ("Nobody", "User1")),
        (("--channel", "finance", "--as", "Government", "--purpose", "gossip"), ("gossip", "statistics")),
        (
            ("--channel", "finance", "--as", "Government", "--purpose", "statistics", "--class", "secret"),
            ("secret", "important"),
        ),
        (("--channel", "finance", "--as", "Government", "--purpose", "statistics", "--residency", "CN-GΖ"), ("CN-G",)),
    ],
)
def test_an_unknown_word_names_the_known_ones(
    network: Sovchain, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("a,b\n1,2\n")
    before = heights(network)
    code, text = three_lines(network, "share", file, *arguments)
    assert code == 2
    assert all(word in text for word in words), text
    assert heights(network) == before


def test_malformed_cedar_is_refused_with_its_position(network: Sovchain, tmp_path: Path) -> None:
    lines = LAW.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if line.lstrip().startswith(("permit", "forbid")))
    lines[place] = lines[place].replace("permit", "permitt").replace("forbid", "forbidd")
    law = tmp_path / "bad.cedar"
    law.write_text("\n".join(lines) + "\n")
    before = heights(network)
    _, text = three_lines(network, "law", "enact", law, "--channel", "finance", "--as", "Government")
    assert f"line {place + 1}" in text, text
    assert heights(network) == before


def test_a_law_that_the_quorum_did_not_enact_decides_nothing(empty: Sovchain, tmp_path: Path) -> None:
    empty.up()
    empty.ok(
        "registry",
        "admit",
        LAW.parents[1] / "registry" / "finance.yaml",
        "--channel",
        "finance",
        "--as",
        "Government,Supervisor,Finance",
    )
    empty.ok("law", "enact", LAW, "--channel", "finance", "--as", "Government,Supervisor")
    file = tmp_path / "mine.csv"
    file.write_text("a,b\n1,2\n")
    dataset = empty.share(file)["dataset"]["id"]
    done = empty.run(
        "request", dataset, "--channel", "finance", "--as", "Finance", "--purpose", "credit-assessment", "--json"
    )
    assert done.code == 4
    assert [reason["rule"] for reason in done.json["reasons"] if reason["rule"]]
    assert not any(reason["law"] for reason in done.json["reasons"])


def test_a_command_without_a_network(empty: Sovchain) -> None:
    assert three_lines(empty, "down")[0] == 3
    assert three_lines(empty, "receipts", "--channel", "finance")[0] == 3
    assert three_lines(empty, "audit", "verify")[0] == 2


def test_a_network_that_is_already_up(network: Sovchain) -> None:
    code, text = three_lines(network, "up", "--detach")
    assert code == 3
    assert "already up" in text


def test_a_directory_that_holds_something_else(empty: Sovchain) -> None:
    empty.directory.mkdir()
    (empty.directory / "thesis.txt").write_text("mine")
    assert three_lines(empty, "up", "--detach")[0] == 3
    assert [path.name for path in empty.directory.iterdir()] == ["thesis.txt"]


def test_a_directory_of_another_version(empty: Sovchain) -> None:
    empty.up()
    empty.down()
    file = empty.directory / "network.json"
    document = json.loads(file.read_text())
    key = next(key for key in document if "format" in key or "version" in key)
    document[key] = 999
    file.write_text(json.dumps(document))
    code, text = three_lines(empty, "up", "--detach")
    assert code == 3
    assert "999" in text


def test_a_port_in_use(empty: Sovchain, tmp_path: Path) -> None:
    empty.up()
    empty.down()
    profile = json.loads((empty.directory / "connections" / "Finance.json").read_text())
    (peer,) = profile["peers"].values()
    port = int(peer["url"].rsplit(":", 1)[1])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        code, text = three_lines(empty, "up", "--detach")
        assert code == 3
        assert str(port) in text
    empty.up()


def test_an_expired_certificate(empty: Sovchain) -> None:
    """The certificate of User1 is replaced by one that has ended, made by the same authority."""
    empty.up()
    expire(empty.directory / "organizations/peerOrganizations/finance.guiyang.example", "User1@finance.guiyang.example")
    _, text = three_lines(empty, "receipts", "--channel", "finance", "--as", "Finance")
    assert "expired" in text


def test_a_wrong_tls_root(empty: Sovchain) -> None:
    """Finance's profile names Government's TLS authority: the server cannot be trusted and the error says so."""
    empty.up()
    connections = empty.directory / "connections"
    finance = json.loads((connections / "Finance.json").read_text())
    government = json.loads((connections / "Government.json").read_text())
    (theirs,), (others,) = finance["peers"].values(), government["peers"].values()
    theirs["tlsCACerts"] = others["tlsCACerts"]
    (connections / "Finance.json").write_text(json.dumps(finance))
    code, text = three_lines(empty, "receipts", "--channel", "finance", "--as", "Finance")
    assert code == 3
    assert "tls" in text.lower()


def test_killed_in_the_middle_of_commits_nothing_is_lost(empty: Sovchain, tmp_path: Path) -> None:
    """A network killed while transactions commit comes up again with every acknowledged one, and the audit agrees."""
    empty.up()
    writer = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("writer.py"), empty.directory], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(40)]
    empty.kill()
    # It waits for the outcome of its last transactions as long as it may; what was acknowledged is written already.
    writer.kill()
    acknowledged += [line.strip() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    writer.wait()
    empty.up()
    assert len(acknowledged) >= 40
    for number in (acknowledged[0], *acknowledged[-3:]):
        assert (
            empty.ok("evaluate", "logistics", "Waybills:read", number, "--as", "Logistics")["result"]["number"]
            == number
        )
    assert empty.ok("audit", "verify", "--channel", "logistics")["ok"]
    # A copy of the directory as it stood at the kill is of the same use.
    empty.down()
    shutil.copytree(empty.directory, tmp_path / "copy")
    assert Sovchain(tmp_path / "copy").ok("audit", "verify", "--channel", "logistics")["ok"]
