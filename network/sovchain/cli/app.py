"""What all commands share: their options, and how an error becomes three lines and an exit code."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from sovchain.cli import problems
from sovchain.cli.output import Output

if TYPE_CHECKING:
    from sovchain.client import Gateway
    from sovchain.network import Network
    from sovchain.sovereign import Sovereign

P = ParamSpec("P")

Directory = Annotated[
    Path, typer.Option("--dir", envvar="SOVCHAIN_DIR", help="The network's directory.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Channel = Annotated[str, typer.Option("--channel", help="The channel.")]
As = Annotated[str, typer.Option("--as", help="Who acts: an organisation, or organisation/user.")]
DEFAULT_DIRECTORY = Path("sovchain-network")


def command(function: Callable[P, Coroutine[Any, Any, int | None]]) -> Callable[P, None]:
    """Make a command from an async function: it runs in an event loop, and its errors are worded for people.

    The function returns its exit code, or None for 0.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        out = Output(as_json=bool(kwargs.get("json_output", False)))
        try:
            code = asyncio.run(function(*args, **kwargs)) or problems.EXIT_OK
        except KeyboardInterrupt:
            out.say("interrupted")
            code = problems.EXIT_INTERRUPTED
        except Exception as error:
            code = report(out, error)
        raise typer.Exit(code)

    return run


def report(out: Output, error: Exception) -> int:
    """Print `error` as a problem and return its exit code. An unforeseen one goes to a file, with its traceback."""
    found = problems.describe(error)
    if found is None:
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"sovchain-error-{os.getpid()}.log"  # noqa: S108  named in the message
        path.touch(mode=0o600)
        path.write_text("".join(traceback.format_exception(error)))
        found = problems.Problem(
            f"sovchain failed: {type(error).__name__}",
            "this is an error of sovchain, not of your input",
            f"report it with {path}",
            problems.EXIT_INTERNAL,
        )
    out.problem(found.what, found.why, found.remedy, found.details, found.code)
    return found.code


def actor(text: str, default_user: str = "User1") -> tuple[str, str]:
    """Split `Finance` or `Finance/Admin` into organisation and user."""
    organization, _, user = text.partition("/")
    return organization, user or default_user


@asynccontextmanager
async def connected(
    directory: Path, who: str, channel: str, *, default_user: str = "User1"
) -> AsyncIterator[tuple[Network, Gateway]]:
    """A running network and a gateway connection of `who`; the channel's name is checked before anything is sent."""
    from sovchain.network import Network

    organization, user = actor(who, default_user)
    async with Network.attach(directory) as network:
        network.topology.channel(channel)
        async with network.connect(organization, user) as gateway:
            yield network, gateway


@asynccontextmanager
async def sovereign(
    directory: Path, who: str, channel: str, *, default_user: str = "User1"
) -> AsyncIterator[Sovereign]:
    """The sovereign core of a channel, as `who`. The channel's chaincode has the channel's name."""
    from sovchain.sovereign import Sovereign

    async with connected(directory, who, channel, default_user=default_user) as (_, gateway):
        yield Sovereign(gateway.network(channel), channel)


def flush() -> None:
    """Write out what is buffered, before this process goes on without a terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
