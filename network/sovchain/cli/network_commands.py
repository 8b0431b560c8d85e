"""`sovchain up` and `down`, and the group `sovchain network` of those who operate a network."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, Directory, Json, command, flush, report
from sovchain.cli.output import Output

network = typer.Typer(help="Operate a network: how it is, what its nodes say.", no_args_is_help=True)

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""How much the process in the background may say of itself."""

_GARBAGE_AFTER = 20_000
"""New objects after which garbage is looked for: a call makes hundreds, of which nothing is left when it has ended."""

T = TypeVar("T")


@command
async def up(
    directory: Directory = DEFAULT_DIRECTORY,
    runtime: Annotated[
        str | None, typer.Option(help="What it runs on: embedded, native or docker; without it as before, or embedded.")
    ] = None,
    topology: Annotated[
        Path | None, typer.Option(help="A topology file; without it the stored or the default one.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is up and leave it running.")] = False,
    seed: Annotated[
        str | None,
        typer.Option(help="Make all keys from this text: the same each time, FOR TESTS ONLY, on the embedded ledger."),
    ] = None,
    keys_of: Annotated[
        Path | None,
        typer.Option(
            help="Begin with the keys and first blocks of the network in this directory, to import its blocks."
        ),
    ] = None,
    json_output: Json = False,
    ready_fd: Annotated[int, typer.Option(hidden=True)] = -1,
) -> int | None:
    """Bring the network up in a directory: in the foreground until it is interrupted, or in the background."""
    out = Output(as_json=json_output)
    if detach:
        return await _detach(out, directory, runtime, topology, {"--seed": seed, "--keys-of": keys_of})
    options = {"seed": seed, "keys_of": keys_of}
    return await _foreground(out, directory, runtime, topology, options, ready_fd)


async def _foreground(
    out: Output, directory: Path, runtime: str | None, topology: Path | None, options: dict[str, Any], ready_fd: int
) -> int | None:
    gc.disable()  # until it is up: next to nothing of what is made until then is garbage
    from sovchain.network import Network

    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    try:
        with out.progress("up") as progress:
            context = Network.up(topology, runtime, directory, progress=progress, **options)
            network = await _unless(asked, context.__aenter__())
    except Exception as error:
        gc.enable()
        found = problems.describe(error)
        _tell_parent(ready_fd, {"error": vars(found) if found else None, "text": repr(error)})
        return report(out, error)
    gc.freeze()
    gc.set_threshold(_GARBAGE_AFTER)
    gc.enable()
    try:
        described = _described(network)
        if ready_fd >= 0:
            _tell_parent(ready_fd, {"up": described})
            _leave_terminal(network.directory)
        else:
            out.result(
                described,
                f"up: {', '.join(described['channels'])} in {described['directory']} (process {described['pid']}); "
                "Ctrl-C or `sovchain down` stops it",
            )
            _say_unfinished(out, described)
            flush()
        await asked.wait()
    finally:
        await context.__aexit__(None, None, None)
    out.say("down")
    return None


async def _unless(asked: asyncio.Event, start: Awaitable[T]) -> T:
    """Return what `start` does. Once `asked` is set it is cancelled, cleans up behind itself, and CommandError is raised."""
    starting = asyncio.ensure_future(start)
    asking = asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait((starting, asking), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        return await starting
    except asyncio.CancelledError:
        if not asked.is_set():
            raise
        raise problems.CommandError(
            "the start was interrupted",
            "a signal asked for it",
            "give the command again: it goes on where it was",
            problems.EXIT_INTERRUPTED,
        ) from None
    finally:
        asking.cancel()


def _described(network: Any) -> dict[str, Any]:
    from sovchain.network.seed import seed_of

    return {
        "directory": str(network.directory),
        "pid": os.getpid(),
        "organizations": list(network.organizations),
        "channels": list(network.channels),
        "connections": {name: str(network.profile(name)) for name in network.organizations},
        "changing": network.status(network.directory).changing,
        "test_only_seed": seed_of(network.directory) is not None,
    }


def _say_unfinished(out: Output, described: dict[str, Any]) -> None:
    if described["test_only_seed"]:
        out.say("FOR TESTS ONLY: every key of this network comes from a seed; whoever knows it has them all")
    if described["changing"]:
        out.say(f"a change was interrupted; go on with it: sovchain apply --dir {described['directory']}")


def _tell_parent(ready_fd: int, message: dict[str, Any]) -> None:
    """Tell the process that waits, if there is one, how the start has ended. It may have been killed meanwhile."""
    if ready_fd < 0:
        return
    with contextlib.suppress(BrokenPipeError), os.fdopen(ready_fd, "w") as pipe:
        pipe.write(json.dumps(message, default=str) + "\n")


def _leave_terminal(directory: Path) -> None:
    """Send what this process still writes to the network's log folder."""
    flush()
    log = os.open(directory / "logs" / "network.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


async def _detach(
    out: Output, directory: Path, runtime: str | None, topology: Path | None, options: dict[str, object]
) -> int | None:
    """Start this command again in a session of its own and wait until it says that the network is up.

    When this process is interrupted, so is the start.
    """
    read, write = os.pipe()
    arguments = ["up", "--dir", str(directory), "--ready-fd", str(write)]
    if runtime is not None:
        arguments += ["--runtime", runtime]
    if topology is not None:
        arguments += ["--topology", str(topology)]
    for option, value in options.items():
        if value is not None:
            arguments += [option, str(value)]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sovchain.cli", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(write,),
    )
    os.close(write)
    try:
        line = await _first_line(read)
    except asyncio.CancelledError:
        child.terminate()
        await child.wait()
        raise
    if not line:
        raise problems.CommandError(
            "the network did not come up",
            f"its process ended with status {await child.wait()} without a word",
            f"run it in the foreground to see why: sovchain up --dir {directory}",
            problems.EXIT_INTERNAL,
        )
    message = json.loads(line)
    if "up" not in message:
        told = message["error"]
        await child.wait()
        if told is None:
            raise problems.CommandError(
                "the network did not come up",
                message["text"],
                f"run it in the foreground: sovchain up --dir {directory}",
                problems.EXIT_INTERNAL,
            )
        out.problem(told["what"], told["why"], told["remedy"], told["details"], told["code"])
        return int(told["code"])
    described = message["up"]
    out.result(
        described,
        f"up: {', '.join(described['channels'])} in {described['directory']} (process {described['pid']}); "
        f"stop it with: sovchain down --dir {directory}",
    )
    _say_unfinished(out, described)
    return None


async def _first_line(descriptor: int) -> bytes:
    """The first line that comes through a pipe, which is closed then; nothing when the other end is closed before."""
    reader = asyncio.StreamReader(limit=_MAX_MESSAGE_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb"))
    try:
        return await reader.readline()
    finally:
        transport.close()


@command
async def down(directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """Stop the network that runs in a directory. What is committed stays."""
    from sovchain.network import Network

    pid = await Network.down(directory)
    Output(as_json=json_output).result(
        {"directory": str(directory), "pid": pid, "state": "down"}, f"down: process {pid} has ended"
    )
