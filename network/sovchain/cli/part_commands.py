"""`sovchain audit projection` and `rejudge`: a part of a table that somebody shows; what later law would have said."""

from __future__ import annotations

import asyncio
import dataclasses
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


@audit.command("rejudge")
@command
async def rejudge(
    channel: Annotated[str, typer.Option(help="The channel.")],
    law: Annotated[
        list[Path] | None,
        typer.Option(help="A law's text. Repeatable; without one the laws in force at the ledger's end."),
    ] = None,
    blocks: Annotated[
        Path | None, typer.Option(help="An exported block file instead of a network's directory.")
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> int | None:
    """What later law would have said of every decision. Nothing changes: a law does not reach back. Exit code 5 for a bad ledger."""
    from sovchain.audit import judge_again
    from sovchain.contracts.core.cedartext import TEXT_MAX_BYTES
    from sovchain.network.stored import stored_blocks
    from sovchain.sovereign import check_law, read_text_file

    out = Output(as_json=json_output)
    texts = [check_law(read_text_file(path, TEXT_MAX_BYTES)) for path in law or ()]
    if blocks is None:
        chosen_channels(directory, [channel])
    source = file_blocks(blocks) if blocks is not None else stored_blocks(directory, channel)
    with out.progress("rejudge") as progress:
        report, found = await asyncio.to_thread(
            judge_again, source, texts, progress=functools.partial(_moved, progress, channel)
        )
    changed = [one for one in found if one.changed]
    out.table(
        {
            "ok": report.ok,
            "decisions": len(found),
            "changed": len(changed),
            "rejudged": [dataclasses.asdict(one) for one in found],
            "findings": [str(finding) for finding in report.findings],
        },
        f"{len(changed)} of {len(found)} decisions on {channel} would have been others",
        ("block", "request", "who", "purpose", "decided", "would be", "because"),
        [
            (one.block, one.request[:16], one.msp_id, one.purpose, one.before, one.after, "; ".join(one.reasons))
            for one in changed
        ],
    )
    if not json_output:
        out.result(None, *(str(finding) for finding in report.findings))
    return None if report.ok else problems.EXIT_FINDINGS
