"""The logs of all nodes read as one, whatever their lines hold, and go on after a rotation."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovchain.network import NetworkError, UnknownName
from sovchain.network.logs import rotate_log
from sovchain.network.nodelogs import (
    LEVELS,
    FollowedLogs,
    LogLine,
    choose_logs,
    parse_line,
    parse_since,
    read_logs,
    wanted_by,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def fabric(text: str, second: float, level: str = "info") -> bytes:
    document = {"level": level, "ts": NOON.timestamp() + second, "name": "gossip", "caller": "a.go:1", "msg": text}
    return json.dumps({**document, "channel": "wide"}).encode() + b"\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/peer0.a.log").write_bytes(b"".join(fabric(f"a{n}", 2 * n) for n in range(50)))
    (tmp_path / "logs/orderer.b.log").write_bytes(b"".join(fabric(f"b{n}", 2 * n + 1, "warn") for n in range(50)))
    return tmp_path


def texts(directory: Path, *names: str, **options: object) -> list[str]:
    return [line.text for line in read_logs(directory, names or ("peer0.a", "orderer.b"), **options)]  # type: ignore[arg-type]


def test_a_line_of_fabric_is_read() -> None:
    line = parse_line("peer0.a", fabric("hello", 1.5, "panic"))
    assert line == LogLine("peer0.a", NOON + timedelta(seconds=1.5), "fatal", "gossip", "hello", {"channel": "wide"})


def test_a_line_of_ours_is_read() -> None:
    line = parse_line("network", b'{"event": "up", "level": "error", "timestamp": "2026-01-01T12:00:00Z", "pid": 7}\n')
    assert line == LogLine("network", NOON, "error", "", "up", {"pid": 7})


@pytest.mark.parametrize(
    ("raw", "level", "text"),
    [
        (b"\x1b[34m2026-01-01 12:00:00.000 UTC 0001 WARN\x1b[0m [a] \x1b[1mb\x1b[0m -> c\n", "warning", "[a] b -> c"),
        (b"2026/01/01 12:00:00 http: TLS handshake error\n", "info", "http: TLS handshake error"),
        (b"panic: no more\n", "fatal", "panic: no more"),
        (b"Error: bad flag\n", "error", "Error: bad flag"),
        (b"goroutine 1 [running]:\n", "info", "goroutine 1 [running]:"),
        (b'{"level": 7}\n', "info", '{"level": 7}'),
    ],
)
def test_plain_words_keep_the_time_that_they_have_or_that_of_the_line_before(raw: bytes, level: str, text: str) -> None:
    line = parse_line("peer0.a", raw, before=NOON)
    assert (line.time, line.level, line.text) == (NOON, level, text)


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=10),
    lambda part: st.dictionaries(st.sampled_from(["ts", "msg", "level", "event", "timestamp", "name"]), part, max_size=5),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_line_is_too_strange(raw: bytes) -> None:
    line = parse_line("peer0.a", raw)
    assert line.level in LEVELS
    assert line.time.tzinfo is UTC


def test_lines_are_merged_by_time(directory: Path) -> None:
    assert texts(directory) == [f"{name}{n}" for n in range(50) for name in "ab"]


@pytest.mark.parametrize("last", [0, 1, 7, 99, 100, 1000])
def test_the_newest_lines_are_those_at_the_end_of_all(directory: Path, last: int) -> None:
    everything = texts(directory)
    assert texts(directory, last=last) == everything[max(len(everything) - last, 0) :]


def test_level_and_time_choose_lines(directory: Path) -> None:
    keep = wanted_by("warning", NOON + timedelta(seconds=95))
    assert texts(directory, keep=keep) == ["b47", "b48", "b49"]


def test_names_are_chosen_by_their_beginnings(directory: Path) -> None:
    assert choose_logs(directory, []) == ["orderer.b", "peer0.a"]
    assert choose_logs(directory, ["peer"]) == ["peer0.a"]
    with pytest.raises(UnknownName, match=r"unknown log 'pear'.*orderer\.b, peer0\.a"):
        choose_logs(directory, ["pear"])
    with pytest.raises(NetworkError, match="there are no logs"):
        choose_logs(directory / "nothing", [])


def test_moments_are_durations_or_dates() -> None:
    assert parse_since("90m", NOON) == NOON - timedelta(minutes=90)
    assert parse_since("2025-12-31", NOON) == datetime(2025, 12, 31, tzinfo=UTC)
    assert parse_since("2026-01-01T20:00:00+08:00", NOON) == NOON
    for wrong in ("yesterday", "-5m", "5", "999999999d", ""):
        with pytest.raises(NetworkError, match="write 30s, 10m"):
            parse_since(wrong, NOON)


async def test_following_goes_on_where_reading_ended_and_across_rotations(directory: Path) -> None:
    path = directory / "logs/peer0.a.log"
    followed = FollowedLogs(directory, ["peer0.a"])
    with path.open("ab", buffering=0) as log:  # as a node holds it
        log.write(fabric("first", 200))
        assert texts(directory, "peer0.a", until=followed.offsets)[-1] == "a49"
        lines = followed.lines()
        async with asyncio.timeout(10):
            assert (await anext(lines)).text == "first"
            rotate_log(path, max_bytes=0)
            log.write(fabric("second", 201)[:-5])  # a line that is not whole yet
            pending = asyncio.ensure_future(anext(lines))
            await asyncio.sleep(0.3)
            assert not pending.done()
            log.write(fabric("second", 201)[-5:])
            assert (await pending).text == "second"
    assert texts(directory, "peer0.a")[-2:] == ["first", "second"], "what was put aside is read too"
