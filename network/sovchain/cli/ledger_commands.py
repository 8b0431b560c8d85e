"""`sovchain ledger`: snapshots, dumps, time, block cutting, lagging peers and faults of a network on the embedded ledger."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, Channel, Directory, Json, command
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

if TYPE_CHECKING:
    from sovchain.ledger.faults import Action
    from sovchain.ledger.snapshots import LedgerSnapshot
    from sovchain.network.ledgertools import NetworkLedger

ledger = typer.Typer(
    help="What only the embedded ledger can: snapshots, dumps, time, blocks by hand, lagging peers, faults.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the snapshot.")]
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


@asynccontextmanager
async def _ledger(directory: Path) -> AsyncIterator[NetworkLedger]:
    from sovchain.network import Network

    async with Network.attach(directory) as network:
        yield network.ledger


def _heights(snapshot: LedgerSnapshot) -> str:
    return ", ".join(f"{name} at height {saved.height}" for name, saved in snapshot.channels.items()) or "no channels"


def _document(found: Any) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(found)


@ledger.command()
@command
async def snapshot(name: Name, directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """Keep all that is committed now, on all channels, under a name."""
    async with _ledger(directory) as found:
        taken = await found.snapshot(name)
    Output(as_json=json_output).result(_document(taken), f"snapshot {name}: {_heights(taken)}")


@ledger.command()
@command
async def snapshots(directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """List the snapshots, oldest first."""
    async with _ledger(directory) as found:
        there = await found.snapshots()
    Output(as_json=json_output).table(
        _document(there),
        f"{len(there)} snapshots",
        ("name", "taken at", "channels"),
        [(one.name, one.taken_at.isoformat(timespec="seconds"), _heights(one)) for one in there],
    )


@ledger.command()
@command
async def revert(name: Name, directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """Go back to a snapshot: blocks, state, private data, installed packages and time. What came later is lost."""
    async with _ledger(directory) as found:
        reverted = await found.revert(name)
    Output(as_json=json_output).result(_document(reverted), f"back to {name}: {_heights(reverted)}")


@ledger.command()
@command
async def drop(name: Name, directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """Delete a snapshot."""
    async with _ledger(directory) as found:
        await found.drop_snapshot(name)
    Output(as_json=json_output).result({"dropped": name}, f"snapshot {name} is deleted")


@ledger.command()
@command
async def dump(
    file: Annotated[Path, typer.Argument(help="The file to write, which does not exist yet.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Write all that is committed now into one file. It holds private data: only its owner may read it."""
    async with _ledger(directory) as found:
        written = await found.dump(file)
    Output(as_json=json_output).result(_document(written), f"{file}: {_heights(written)}")


@ledger.command()
@command
async def load(
    file: Annotated[Path, typer.Argument(help="A file that `dump` wrote.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Take over what a dump holds instead of what is here, which is lost. The network must have the same keys."""
    async with _ledger(directory) as found:
        loaded = await found.load(file)
    Output(as_json=json_output).result(_document(loaded), f"loaded {file}: {_heights(loaded)}")


@ledger.command()
@command
async def advance(
    duration: Annotated[str, typer.Argument(metavar="DURATION", help="Such as 90s, 36h, 30d, or 1w2d12h.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Move the ledger's time forward: certificates end, and contracts are told a later time."""
    seconds = _seconds(duration)
    async with _ledger(directory) as found:
        now = await found.advance(seconds)
    Output(as_json=json_output).result(_document(now), f"the ledger's time is {now.now.isoformat(timespec='seconds')}")


def _seconds(duration: str) -> float:
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise CommandError(
            f"{duration!r} is no duration", "it has no number with a unit", "give one such as 36h or 30d"
        )
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


@ledger.command()
@command
async def status(directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """Show the ledger's time, and for each channel its height, what is pending, and how blocks are cut."""
    async with _ledger(directory) as found:
        now, chains = await found.time(), await found.chains()
    Output(as_json=json_output).table(
        {"time": _document(now), "channels": _document(chains)},
        f"the ledger's time is {now.now.isoformat(timespec='seconds')}, {now.shift_s:g} s ahead",
        ("channel", "height", "pending", "cutting"),
        [(name, chain.height, chain.pending, _cutting(asdict(chain.cutting))) for name, chain in chains.items()],
    )


def _cutting(found: dict[str, Any]) -> str:
    if found["held"]:
        return "by hand"
    return ", ".join(f"{key} {value}" for key, value in found.items() if value) or "as configured"


@ledger.command()
@command
async def cut(channel: Channel, directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """Cut a block from the transactions that are pending, and wait until it is committed."""
    async with _ledger(directory) as found:
        height = await found.cut(channel)
    Output(as_json=json_output).result({"channel": channel, "height": height}, f"{channel} is at height {height}")


@ledger.command()
@command
async def cutting(
    channel: Channel,
    hold: Annotated[bool, typer.Option("--hold", help="Cut by hand only, with `cut`.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Transactions of a block; 1 cuts each at once.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Bytes of a block.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds that a transaction waits at most.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Say when blocks are cut, until the network goes down; without options, as the channel's configuration says."""
    async with _ledger(directory) as found:
        chain = await found.set_cutting(
            channel, held=hold, max_message_count=count, preferred_max_bytes=size, timeout_s=timeout
        )
    Output(as_json=json_output).result(
        {"channel": channel, **_document(chain)}, f"{channel}: {_cutting(asdict(chain.cutting))}"
    )


@ledger.command()
@command
async def lag(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="Host name of the peer, as `status` shows it.")],
    blocks: Annotated[int | None, typer.Option(min=1, help="How many blocks behind; default: it stands still.")] = None,
    channel: Annotated[str, typer.Option(help="Only on this channel; default: on all of its channels.")] = "",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Have a peer fall behind: it answers, endorses and delivers as of an earlier block, until `catch-up`."""
    async with _ledger(directory) as found:
        state = await found.lag(peer, blocks=blocks, channel=channel)
    how = "stands still" if blocks is None else f"stays {blocks} block{'s' if blocks > 1 else ''} behind"
    at = ", ".join(f"{name} at height {state.heights[name]}" for name in state.lagging)
    Output(as_json=json_output).result(_document(state), f"{peer} {how}: {at or 'it has no channel'}")


@ledger.command(name="catch-up")
@command
async def catch_up(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="Host name of the peer.")],
    channel: Annotated[str, typer.Option(help="Only on this channel; default: on all of its channels.")] = "",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Have a peer that lags catch up."""
    async with _ledger(directory) as found:
        state = await found.catch_up(peer, channel=channel)
    at = ", ".join(f"{name} at height {height}" for name, height in state.heights.items())
    Output(as_json=json_output).result(_document(state), f"{peer}: {at or 'it has no channel'}")


@ledger.command(name="end")
@command
async def end_node(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Host name of a peer or an ordering node.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """End a peer or an ordering node at once, as when its process dies; `begin` starts it again."""
    async with _ledger(directory) as found:
        states = await found.end_node(node)
    Output(as_json=json_output).result(_document(states), f"{node} is down")


@ledger.command(name="begin")
@command
async def begin_node(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Host name of a node that was ended.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Start a node that was ended, on the same addresses."""
    async with _ledger(directory) as found:
        states = await found.begin_node(node)
    Output(as_json=json_output).result(_document(states), f"{node} is up")


@ledger.command()
@command
async def nodes(directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """List peers and ordering nodes: who runs, who lags, and what each has of its channels."""
    async with _ledger(directory) as found:
        states = await found.nodes()
    Output(as_json=json_output).table(
        _document(states),
        "nodes",
        ("node", "organisation", "kind", "state", "heights", "lags on"),
        [
            (
                state.host, state.msp_id, state.kind, "up" if state.running else "down",
                ", ".join(f"{name} {height}" for name, height in state.heights.items()), ", ".join(state.lagging),
            )
            for state in states
        ],
    )  # fmt: skip


@ledger.command()
@command
async def fault(
    point: Annotated[str, typer.Argument(help="Where, such as gateway.submit or ordering.batch.")],
    action: Annotated[str, typer.Argument(help="drop, delay, error or reorder.")],
    org: Annotated[str, typer.Option(help="MSP id of the organisation at whose nodes; default: all.")] = "",
    channel: Annotated[str, typer.Option(help="Only on this channel; default: all.")] = "",
    times: Annotated[int | None, typer.Option(min=1, help="How often; default: until it is cleared.")] = None,
    delay: Annotated[float, typer.Option(min=0, help="Seconds of a delay.")] = 0.0,
    code: Annotated[str, typer.Option(help="gRPC code of an error.")] = "UNAVAILABLE",
    text: Annotated[str, typer.Option(help="Text of an error.")] = "fault on request",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Have something go wrong at a point of the ledger, each time or a number of times."""
    options = {
        "msp_id": org, "channel": channel, "times": times, "delay_s": delay, "code": code, "text": text,
    }  # fmt: skip
    async with _ledger(directory) as found:
        asked = await found.add_fault(point, cast("Action", action), **options)
    Output(as_json=json_output).result(_document(asked), f"{action} at {point}; {len(asked)} asked for")


@ledger.command()
@command
async def faults(
    clear: Annotated[bool, typer.Option("--clear", help="Take them all back.")] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """List the faults that are asked for, or take them back."""
    from sovchain.ledger.faults import POINTS

    out = Output(as_json=json_output)
    async with _ledger(directory) as found:
        if clear:
            count = await found.clear_faults()
            out.result({"cleared": count}, f"{count} faults are taken back")
            return
        asked = await found.faults()
    out.table(
        {"asked": _document(asked), "points": {point: sorted(actions) for point, actions in POINTS.items()}},
        f"{len(asked)} faults are asked for; points: {', '.join(POINTS)}",
        ("point", "action", "organisation", "channel", "times", "delay s", "error"),
        [
            (
                one.point, one.action, one.msp_id or "all", one.channel or "all", one.times or "each time",
                one.delay_s if one.action == "delay" else "", f"{one.code}: {one.text}" if one.action == "error" else "",
            )
            for one in asked
        ],
    )  # fmt: skip


@ledger.command(name="export")
@command
async def export_blocks(
    channel: Channel,
    folder: Annotated[Path, typer.Argument(help="A new folder for the blocks.")],
    start: Annotated[int, typer.Option(min=0, help="The first block.")] = 0,
    stop: Annotated[int | None, typer.Option(min=0, help="The last block; default: the last there is.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Write blocks with a peer's metadata as NUMBER.block, for other programs (`configtxlator`, `audit verify`)."""
    async with _ledger(directory) as found:
        count = await found.export_blocks(channel, folder, start, stop)
    Output(as_json=json_output).result({"folder": str(folder), "blocks": count}, f"{count} blocks in {folder}")


@ledger.command(name="import")
@command
async def import_blocks(
    channel: Channel,
    files: Annotated[list[Path], typer.Argument(help="Block files in their order, or a folder of NUMBER.block.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Judge and append blocks of the same channel on another network, such as `peer channel fetch` writes."""
    paths = [path for given in files for path in _block_files(given)]
    async with _ledger(directory) as found:
        height = await found.import_blocks(channel, paths)
    Output(as_json=json_output).result({"channel": channel, "height": height}, f"{channel} is at height {height}")


def _block_files(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    found = [path for path in given.glob("*.block") if path.stem.isdecimal()]
    if not found:
        raise CommandError(f"there are no blocks in {given}", "it has no file NUMBER.block", "give block files")
    return sorted(found, key=lambda path: int(path.stem))
