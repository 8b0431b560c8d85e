"""`sovchain audit`: recompute a ledger from its own bytes, and export those bytes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, As, Directory, Json, actor, command
from sovchain.cli.output import Output, ProgressCallback

audit = typer.Typer(
    name="audit", help="Recompute decisions and blocks from the ledger's own bytes.", no_args_is_help=True
)

Channels = Annotated[list[str] | None, typer.Option("--channel", help="Only this channel. Repeatable.")]


def chosen_channels(directory: Path, chosen: list[str] | None) -> list[str]:
    """The channels of a network's directory, or the chosen ones of them. Raises CommandError."""
    from sovchain.network.stored import stored_channels

    held = stored_channels(directory)
    if not held:
        raise problems.CommandError(
            f"there is no ledger in {directory}",
            "no channel is stored below it",
            "give the network's directory with --dir",
        )
    unknown = sorted(set(chosen or ()) - set(held))
    if unknown:
        raise problems.CommandError(
            f"unknown channel {', '.join(unknown)}",
            f"the ledger in {directory} has no such channel",
            f"use one of: {', '.join(held)}",
        )
    return sorted(chosen) if chosen else held


def file_blocks(path: Path) -> Iterator[bytes]:
    """The blocks of an exported file. A torn or damaged frame is given as it is, so that the audit names its place."""
    from sovchain.protocol.blocks import iter_block_file

    try:
        return iter_block_file(path.read_bytes())
    except FileNotFoundError:
        raise problems.CommandError(f"cannot read {path}", "there is no such file", "check the path") from None


@audit.command("verify")
@command
async def verify(
    directory: Directory = DEFAULT_DIRECTORY,
    channel: Channels = None,
    blocks: Annotated[
        Path | None, typer.Option(help="Verify an exported block file instead of a network's directory.")
    ] = None,
    genesis: Annotated[str | None, typer.Option(help="Hash of block 0 that you trust from elsewhere (hex).")] = None,
    json_output: Json = False,
) -> int | None:
    """Recompute every receipt, hash, signature, endorsement policy and validation code, and compare what is stored with it.

    Exit code 5 when something is wrong.
    """
    from sovchain.audit import verify_channel
    from sovchain.network.stored import stored_blocks, stored_faults

    out = Output(as_json=json_output)
    if blocks is not None:
        sources = [(blocks.name, file_blocks(blocks))]
    else:
        sources = [(name, stored_blocks(directory, name)) for name in chosen_channels(directory, channel)]
    reports, stored = [], []
    with out.progress("audit") as progress:
        for name, source in sources:
            step = functools.partial(_moved, progress, name)
            reports.append(await asyncio.to_thread(verify_channel, source, genesis_hash=genesis, progress=step))
            if blocks is None:
                stored += await asyncio.to_thread(stored_faults, directory, name)
    rows = [
        (
            report.channel,
            report.blocks,
            f"{report.transactions} ({report.valid_transactions} valid)",
            report.endorsements,
            f"{sum(check.recomputed for check in report.receipts)} of {len(report.receipts)}",
            report.head_hash[:16],
            "in order" if report.ok else f"{len(report.findings)} findings",
        )
        for report in reports
    ]
    ok = all(report.ok for report in reports) and not stored
    data = {"ok": ok, "channels": [report.to_json() for report in reports], "stored": stored}
    columns = ("channel", "blocks", "transactions", "endorsements", "receipts recomputed", "head", "result")
    out.table(data, "audit", columns, rows)
    if not json_output:
        out.result(None, *(str(finding) for report in reports for finding in report.findings), *stored)
    return None if ok else problems.EXIT_FINDINGS


def _moved(progress: ProgressCallback, name: str, done: int) -> None:
    progress(name, done, None)


@audit.command("export")
@command
async def export(
    output: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    channel: Annotated[str, typer.Option(help="The channel.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Write a channel's blocks to a file: each block behind its length as a varint, as in Fabric's block files."""
    from sovchain.network.stored import stored_blocks
    from sovchain.protocol.blocks import frame_block

    chosen_channels(directory, [channel])
    if output.exists():
        raise problems.CommandError(f"{output} exists", "it would be overwritten", "give another path")
    part = output.with_name(output.name + ".part")
    with part.open("xb") as file:
        count = sum(bool(file.write(frame_block(block))) for block in stored_blocks(directory, channel))
    part.rename(output)
    Output(as_json=json_output).result({"file": str(output), "blocks": count}, f"{output}: {count} blocks")


@audit.command("evidence")
@command
async def evidence(
    request: Annotated[str, typer.Argument(help="The request whose decision is to be shown.")],
    output: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    channel: Annotated[str, typer.Option(help="The channel.")],
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Write the evidence of one decision: a signed file that a court can check with nothing else at hand."""
    from sovchain.audit import make_evidence
    from sovchain.network import Network
    from sovchain.network.files import write_file
    from sovchain.network.stored import stored_blocks

    out = Output(as_json=json_output)
    chosen_channels(directory, [channel])
    if output.exists():
        raise problems.CommandError(f"{output} exists", "it would be overwritten", "give another path")
    async with Network.attach(directory) as network:
        signer = network.identity(*actor(who))
    with out.progress("evidence") as progress:
        step = functools.partial(_moved, progress, channel)
        archive, judgement = await asyncio.to_thread(
            make_evidence, stored_blocks(directory, channel), request, signer, progress=step
        )
    write_file(output, archive)
    shown = {"file": str(output), "size_bytes": len(archive), **judgement.statement, "signer": judgement.signer}
    out.result(
        shown,
        f"{output}: {judgement.statement['decision']} in block {judgement.statement['block']} of {channel}, "
        f"vouched for by {judgement.signer}",
    )


@audit.command("check-evidence")
@command
async def check_evidence(
    file: Annotated[Path, typer.Argument(help="A file that `audit evidence` wrote.")],
    genesis: Annotated[str | None, typer.Option(help="Hash of block 0 that you trust from elsewhere (hex).")] = None,
    json_output: Json = False,
) -> int | None:
    """Check the evidence of a decision, offline and with the file alone. Exit code 5 when something is wrong."""
    from sovchain import audit as auditing

    out = Output(as_json=json_output)
    try:
        content = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise problems.CommandError(f"cannot read {file}", str(error.strerror), "check the path") from None
    with out.progress("check") as progress:
        step = functools.partial(_moved, progress, file.name)
        found = await asyncio.to_thread(auditing.check_evidence, content, genesis_hash=genesis, progress=step)
    lines = [
        f"{found.statement.get('decision')} on request {found.statement.get('request')}",
        *(f"  because {reason}" for reason in (found.receipt.reasons if found.receipt else ())),
        f"  {found.report.blocks} blocks of channel {found.report.channel} replayed, decision recomputed",
        f"  vouched for by {found.signer or 'nobody who counts'}",
        f"  first block {found.report.genesis_hash}" + ("" if genesis else ": compare it with one from elsewhere"),
        *(f"found: {finding}" for finding in found.findings),
        "in order" if found.ok else "not in order",
    ]
    data = {"ok": found.ok, "statement": found.statement, "signer": found.signer, "findings": list(found.findings)}
    out.result(data, *lines)
    return None if found.ok else problems.EXIT_FINDINGS
