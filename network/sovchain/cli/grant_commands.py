"""`sovchain grant`: permits in use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, As, Channel, Directory, Json, command, connected
from sovchain.cli.output import Output
from sovchain.cli.sharing_commands import RequestId

if TYPE_CHECKING:
    from sovchain.sovereign import GrantDesk

grant = typer.Typer(name="grant", help="Permits in use: how they stand, reports, revocation.", no_args_is_help=True)


@asynccontextmanager
async def desk(directory: Path, who: str, channel: str) -> AsyncIterator[GrantDesk]:
    """The permits of a channel, as `who`."""
    from sovchain.sovereign import GrantDesk

    async with connected(directory, who, channel) as (_, gateway):
        yield GrantDesk(gateway.network(channel), channel)


@grant.command("show")
@command
async def show(
    request_id: RequestId,
    channel: Channel,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """How a permit stands now: what stands against a release on it, and what the grantee owes."""
    async with desk(directory, who, channel) as office:
        state = await office.state(request_id)
    Output(as_json=json_output).result(
        state.model_dump(mode="json"),
        f"permit of {state.grantee} since {state.permitted_at:%Y-%m-%d %H:%M:%S} UTC on data set {state.dataset}",
        "delivered" if state.delivered else "not delivered",
        *(f"  {problem}" for problem in state.problems),
        *(
            f"  to {duty.kind} by {duty.due:%Y-%m-%d %H:%M:%S} UTC" + (", done" if duty.done_at else "")
            for duty in state.duties
        ),
        *([f"  reported on {state.reported_at:%Y-%m-%d %H:%M:%S} UTC"] if state.reported_at else []),
    )


@grant.command("revoke")
@command
async def revoke(
    request_id: RequestId,
    channel: Channel,
    who: As,
    reason: Annotated[str, typer.Option(help="The ground, which stays on record.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the owner, a judge or a supervisor: end a permit. What was delivered on it must be deleted."""
    async with desk(directory, who, channel) as office:
        done = await office.revoke(request_id, reason)
    Output(as_json=json_output).result(done.model_dump(mode="json"), f"revoked in block {done.committed.block_number}")


@grant.command("report")
@command
async def report(
    request_id: RequestId,
    file: Annotated[Path, typer.Argument(help="The report; only the owner will read it.")],
    channel: Channel,
    who: As,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the grantee: report the use. The text goes to the owner alone, its salted hash on record; a duty to report is fulfilled."""
    async with desk(directory, who, channel) as office:
        done = await office.report(request_id, file.read_bytes())
    Output(as_json=json_output).result(done.model_dump(mode="json"), f"reported in block {done.committed.block_number}")


@grant.command("read-report")
@command
async def read_report(
    request_id: RequestId,
    channel: Channel,
    who: As,
    output: Annotated[Path, typer.Option("--output", help="Where to write it; it must not exist.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the owner: read the report on a permit's use."""
    from sovchain.cli.sharing_commands import write_private

    async with desk(directory, who, channel) as office:
        text = await office.read_report(request_id)
    write_private(output, text)
    Output(as_json=json_output).result({"file": str(output), "bytes": len(text)}, f"{output}: {len(text)} bytes")


@grant.command("products")
@command
async def products(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The data set's id.")],
    channel: Channel,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """The data sets that were made from one: a withdrawal of it suspends them all."""
    async with desk(directory, who, channel) as office:
        found = await office.products(dataset)
    Output(as_json=json_output).result(found, *found)
