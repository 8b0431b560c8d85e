"""A network takes requests from its own user through a socket in its directory, one at a time, and tells how it goes."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sovchain.network import ChangesRefused, NotUp
from sovchain.network.control import ApplyRequest, Progress, RemoteError, Request, ask, listening
from sovchain.network.errors import Refusal

Handler = Callable[[Request, Progress], Awaitable[dict[str, Any]]]


@pytest.fixture(params=["short", "x" * 90])
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A directory; the path of the second one's socket is longer than an address can be."""
    place = tmp_path / request.param
    (place / "run").mkdir(parents=True)
    return place


async def two_steps(request: Request, progress: Progress) -> dict[str, Any]:
    progress("first", 1, 2)
    progress("second", 2, 2)
    return {"topology": isinstance(request, ApplyRequest) and request.topology is not None}


async def test_progress_and_result_come_back(directory: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    async with listening(directory, two_steps):
        mode = (directory / "run/control.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        result = await ask(directory, ApplyRequest(), lambda *step: seen.append(step))
    assert result == {"topology": False}
    assert seen == [("first", 1, 2), ("second", 2, 2)]
    assert not (directory / "run/control.sock").exists()


async def test_what_is_refused_there_is_refused_here_with_all_fields(directory: Path) -> None:
    async def refuse(request: Request, progress: Progress) -> dict[str, Any]:
        raise ChangesRefused([Refusal("name", "it stays", "leave it")])

    async with listening(directory, refuse):
        with pytest.raises(RemoteError) as raised:
            await ask(directory, ApplyRequest())
    assert raised.value.kind == "ChangesRefused"
    assert (raised.value.why, raised.value.remedy) == ("it stays", "leave it")
    assert raised.value.details["refusals"] == [{"key": "name", "why": "it stays", "remedy": "leave it"}]


async def test_an_error_that_nobody_foresaw_is_told_too(directory: Path) -> None:
    async def fail(request: Request, progress: Progress) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    async with listening(directory, fail):
        with pytest.raises(RemoteError, match="No space left on device"):
            await ask(directory, ApplyRequest())


@pytest.mark.parametrize("line", [b"{}x\n", b'{"ask": "format-disk"}\n', b'{"protocol": 2}\n', b"\xff\n", b'{"ask": 1'])
async def test_what_is_no_request_is_answered_with_an_error(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "run").mkdir()
    async with listening(tmp_path, two_steps):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "run/control.sock"))
        writer.write(line)
        writer.write_eof()
        answer = json.loads(await reader.readline())
        writer.close()
    assert answer["event"] == "error"
    assert answer["what"] == "the request cannot be understood"


async def test_when_the_one_who_asked_goes_the_work_ends(directory: Path) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def forever(request: Request, progress: Progress) -> dict[str, Any]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    async with listening(directory, forever):
        asking = asyncio.create_task(ask(directory, ApplyRequest()))
        await started.wait()
        asking.cancel()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_when_the_network_ends_the_one_who_asked_is_told(directory: Path) -> None:
    started = asyncio.Event()

    async def forever(request: Request, progress: Progress) -> dict[str, Any]:
        started.set()
        await asyncio.Event().wait()
        return {}

    async with listening(directory, forever):
        asking = asyncio.create_task(ask(directory, ApplyRequest()))
        await started.wait()
    with pytest.raises(NotUp, match="before the change was completed"):
        await asking


async def test_where_nobody_listens_the_network_is_not_up(directory: Path) -> None:
    with pytest.raises(NotUp, match="takes no requests"):
        await ask(directory, ApplyRequest())
    async with listening(directory, two_steps):
        pass
    with pytest.raises(NotUp):
        await ask(directory, ApplyRequest())


async def test_a_socket_that_a_killed_process_left_is_replaced(directory: Path) -> None:
    (directory / "run/control.sock").touch()
    async with listening(directory, two_steps):
        assert await ask(directory, ApplyRequest()) == {"topology": False}
