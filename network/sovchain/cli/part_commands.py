"""`sovchain audit projection`: check a part of a table that somebody shows."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Annotated

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, Directory, Json, command
from sovchain.cli.audit_commands import audit, chosen_channels, file_blocks
from sovchain.cli.output import Output, ProgressCallback


@audit.command("projection")
@command
async def projection(
    file: Annotated[Path, typer.Argument(help="The document that `sovchain open --proof` wrote.")],
    channel: Annotated[str, typer.Option(help="The channel.")],
    blocks: Annotated[
        Path | None, typer.Option(help="An exported block file instead of a network's directory.")
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> int | None:
    """Check that a part of a table is what was granted and delivered of the catalogue's. Exit code 5 when it is not."""
    from sovchain.audit import check_part
    from sovchain.network.stored import stored_blocks

    out = Output(as_json=json_output)
    try:
        document = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise problems.CommandError(f"cannot read {file}", str(error.strerror), "check the path") from None
    if blocks is None:
        chosen_channels(directory, [channel])
    source = file_blocks(blocks) if blocks is not None else stored_blocks(directory, channel)
    with out.progress("audit") as progress:
        found = await asyncio.to_thread(
            check_part, source, document, progress=functools.partial(_moved, progress, channel)
        )
    part = found.part
    shown = {
        "ok": found.ok,
        "grantee": found.grantee,
        "delivered": found.delivered,
        "dataset": part.dataset if part else "",
        "request": part.request if part else "",
        "columns": [column.name for column in part.columns] if part else [],
        "rows": len(part.columns[0].values) if part else 0,
        "rows_of_the_whole": part.rows if part else 0,
        "findings": list(found.findings),
    }
    lines = list(found.findings)
    if found.ok and part is not None:
        lines = [
            f"{len(part.columns)} of {part.width} columns, {len(part.columns[0].values)} of {part.rows} rows of data set "
            f"{part.dataset}",
            f"granted and delivered to {found.grantee} on request {part.request}",
        ]
    out.result(shown, *lines)
    return None if found.ok else problems.EXIT_FINDINGS


def _moved(progress: ProgressCallback, name: str, done: int) -> None:
    progress(name, done, None)
