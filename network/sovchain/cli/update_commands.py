"""`sovchain network update`: a channel is changed by organisations that keep their keys to themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, Channel, Directory, Json, command
from sovchain.cli.output import Output

if TYPE_CHECKING:
    from sovchain.network.updates import ChannelUpdate, Standing

update = typer.Typer(
    help="Change a channel together: one proposes, each signs where its keys are, one submits.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The update, as it goes from one to the other.")]
As = Annotated[str, typer.Option("--as", help="The organisation; without it the one whose bundle it is.")]


@update.command()
@command
async def propose(
    channel: Channel,
    topology: Annotated[Path, typer.Option("--topology", help="The topology that is agreed on.")],
    output: Annotated[Path, typer.Option("--output", help="The file to write, which must not be there.")],
    public: Annotated[
        list[Path] | None, typer.Option("--public", help="Public definition of an operator who comes. Repeatable.")
    ] = None,
    as_: As = "",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Write the update that brings a channel to what a topology says of it, signed by the organisation that proposes.

    Ordering nodes come and go one at a time: propose again until nothing differs.
    """
    from sovchain.network import Network
    from sovchain.network.definitions import read_definition
    from sovchain.network.topologyfile import load_topology
    from sovchain.network.updates import propose as compute
    from sovchain.network.updates import seat, sign, standing, write_update
    from sovchain.protocol.configupdate import NothingChanges

    if output.exists():
        raise problems.CommandError(f"cannot write to {output}", "there is something already", "give another name")
    out, target = Output(as_json=json_output), load_topology(topology)
    received = [read_definition(path) for path in public or ()]
    async with seat(Network.status(directory), channel, as_) as place:
        try:
            proposed = await compute(place, target, received)
        except NothingChanges:
            out.result({"output": None, "changes": []}, f"nothing differs: channel {channel} is as the topology says")
            return
        bundle, _ = await place.configuration.current()
        signed = sign(proposed, bundle, place.administrators)
        write_update(output, signed, place.administrators[0])
        _show(out, signed, standing(signed, bundle), output)


@update.command()
@command
async def show(
    file: File, as_: As = "", directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False
) -> int | None:
    """Show what an update makes of the configuration in force, who has signed it, and who else must.

    Exit codes: 0 it can be submitted, 5 signatures are missing.
    """
    from sovchain.network import Network
    from sovchain.network.updates import read_update, seat, standing

    found = read_update(file)
    async with seat(Network.status(directory), found.channel, as_) as place:
        bundle, _ = await place.configuration.current()
        result = standing(found, bundle, str(file))
    _show(Output(as_json=json_output), found, result, file)
    return problems.EXIT_FINDINGS if result.missing else None


@update.command()
@command
async def sign(
    file: File,
    as_: As = "",
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked: you have looked at it.")] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Add the organisation's signature to an update, in place. What it changes is shown first."""
    from sovchain.network import Network
    from sovchain.network.updates import read_update, seat, standing, write_update
    from sovchain.network.updates import sign as add

    out, found = Output(as_json=json_output), read_update(file)
    async with seat(Network.status(directory), found.channel, as_) as place:
        bundle, _ = await place.configuration.current()
        changes = standing(found, bundle, str(file)).changes
        if not yes:
            _confirm(out, found, changes)
        signed = add(found, bundle, place.administrators)
        write_update(file, signed, place.administrators[0])
        _show(out, signed, standing(signed, bundle, str(file)), file)


@update.command()
@command
async def submit(file: File, as_: As = "", directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """Send an update that has its signatures for ordering, and wait until the organisation's peers have it."""
    from sovchain.network import Network
    from sovchain.network.updates import read_update, seat
    from sovchain.network.updates import submit as send

    found = read_update(file)
    async with seat(Network.status(directory), found.channel, as_) as place:
        done = await send(found, place)
    Output(as_json=json_output).result(
        {"channel": done.channel, "sequence": done.sequence, "signed": list(done.signers), "digest": found.digest},
        f"configuration {done.sequence} of channel {done.channel} is in force, signed by {', '.join(done.signers)}",
    )


def _confirm(out: Output, found: ChannelUpdate, changes: tuple[str, ...]) -> None:
    """Ask before the organisation gives its word; where nobody can be asked, refuse."""
    for line in changes:
        out.say(f"  {line}")
    if sys.stdin.isatty() and not out.as_json and typer.confirm(f"Sign update {found.digest[:16]}?"):
        return
    raise problems.CommandError(
        "nothing was signed",
        f"the update changes {len(changes)} things, such as: {changes[0]}",
        "look at it (sovchain network update show), then sign with --yes",
        problems.EXIT_USAGE,
    )


def _show(out: Output, found: ChannelUpdate, result: Standing, file: Path) -> None:
    data: dict[str, Any] = {
        "output": str(file),
        "channel": found.channel,
        "digest": found.digest,
        "sequence": result.sequence,
        "changes": list(result.changes),
        "signed": list(result.signed),
        "missing": {path: list(names) for path, names in result.missing.items()},
    }
    lines = [f"update {found.digest} of channel {found.channel}, configuration {result.sequence}:"]
    lines += [f"  {change}" for change in result.changes]
    lines.append(f"signed by {', '.join(result.signed) or 'nobody'}")
    lines += [f"{path} lacks {' and '.join(names) or 'signatures'}" for path, names in result.missing.items()]
    lines.append(
        f"send {file} to those who are missing: sovchain network update sign"
        if result.missing
        else f"it can be submitted: sovchain network update submit {file}"
    )
    out.result(data, *lines)
