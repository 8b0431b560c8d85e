"""`sovchain network snapshot` and `join`: a channel's state, taken by peers, compared, and joined from."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, Channel, Directory, Json, command
from sovchain.cli.output import Output
from sovchain.cli.problems import EXIT_FINDINGS, EXIT_OK, CommandError

Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peer", help="A peer's host, or an organisation for its first peer. Repeatable; default: all members."
    ),
]


@command
async def snapshot(
    channel: Channel,
    peer: Peers = None,
    block: Annotated[
        int | None, typer.Option(min=0, help="After this block, which may be one to come; default: the last.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also copy it into this new folder.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> int:
    """Have peers write a snapshot of a channel's state, and compare what the organisations' peers have written.

    Exit codes: 0 all are the same, 5 two differ.
    """
    from sovchain.network import Network
    from sovchain.network.snapshots import agreeing, copy_snapshot

    if output is not None and output.exists():
        raise CommandError(f"cannot write to {output}", "there is something already", "give a folder that is not there")
    async with Network.attach(directory) as network:
        taken = await network.snapshot(channel, peer or (), block)
    same = agreeing(list(taken.values()))
    first = next(iter(taken.values()))
    if output is not None and same:
        first = await asyncio.to_thread(copy_snapshot, first, output.absolute())
    Output(as_json=json_output).table(
        {
            "channel": channel,
            "block_number": first.block_number,
            "agree": same,
            "hash": first.hash if same else None,
            "output": str(first.folder) if output is not None and same else None,
            "snapshots": {host: asdict(found) for host, found in taken.items()},
        },
        f"channel {channel} after block {first.block_number}: "
        + ("all the same" if same else "THE SNAPSHOTS DIFFER")
        + (f", copied to {output}" if output is not None and same else ""),
        ("peer", "hash", "state database", "bytes", "folder"),
        [(host, found.hash, found.state_database, found.size_bytes, found.folder) for host, found in taken.items()],
    )
    return EXIT_OK if same else EXIT_FINDINGS


@command
async def join(
    peer: Annotated[str, typer.Option(help="The peer's host, or an organisation for its first peer.")],
    snapshot_folder: Annotated[Path, typer.Option("--snapshot", help="Folder of a snapshot.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Have a peer join a channel from a snapshot, after its files have been compared with their hashes."""
    from sovchain.network import Network

    async with Network.attach(directory) as network:
        height = await network.join_by_snapshot(peer, snapshot_folder)
    Output(as_json=json_output).result(
        {"peer": peer, "height": height}, f"{peer} has joined from the snapshot and is at height {height}"
    )
