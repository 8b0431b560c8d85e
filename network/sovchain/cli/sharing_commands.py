"""`sovchain share`, `request`, `release`, `open` and `receipts`: data under law."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, As, Channel, Directory, Json, command, sovereign
from sovchain.cli.output import Output

DataClass = Annotated[str, typer.Option("--class", help="general, important or core.")]
RequestId = Annotated[
    str, typer.Argument(metavar="REQUEST", help="The request's id, as `sovchain request` printed it.")
]


@command
async def share(
    file: Annotated[Path, typer.Argument(help="A CSV file with a header row, UTF-8 or GB18030, at most 16 MiB.")],
    channel: Channel,
    who: As,
    purpose: Annotated[list[str], typer.Option(help="A purpose that the data may be used for. Repeatable.")],
    data_class: DataClass = "general",
    jurisdiction: Annotated[
        str | None, typer.Option(help="Whose data it is; without it the owner's jurisdiction.")
    ] = None,
    residency: Annotated[
        list[str] | None,
        typer.Option(help="Where the data may be kept. Repeatable; without it the jurisdiction alone."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name in the catalogue; without it the file's name.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Share a file: its bytes into the owner's private collection, its description and salted hash into the catalogue."""
    async with sovereign(directory, who, channel) as office:
        shared = await office.share(
            file, name=name, data_class=data_class, jurisdiction=jurisdiction, residency=residency, purposes=purpose
        )
    entry = shared.dataset.entry
    Output(as_json=json_output).result(
        shared.model_dump(mode="json"),
        f"data set {shared.id}",
        f"{entry.name}: {entry.rows} rows, {len(entry.columns)} columns, class {entry.data_class}, {entry.jurisdiction}",
        f"salted hash {shared.dataset.commitment}, published in block {shared.published.block_number}",
    )


@command
async def request(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="The data set's id, as `sovchain share` printed it.")
    ],
    channel: Channel,
    who: As,
    purpose: Annotated[str, typer.Option(help="What it will be used for.")],
    action: Annotated[str, typer.Option(help="read, derive, share or export.")] = "read",
    legal_basis: Annotated[str, typer.Option(help="The basis that the requester states.")] = "unstated",
    destination: Annotated[str | None, typer.Option(help="Jurisdiction that the data will be kept in.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="A column that is asked for. Repeatable; all if none.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only rows with this value, as COLUMN=VALUE. Repeatable. Everyone on the channel reads it."),
    ] = None,
    reference: Annotated[str | None, typer.Option(help="The warrant or emergency that the basis rests on.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> int | None:
    """Ask for a data set. The decision is committed with a receipt; exit code 4 when it is a denial."""
    async with sovereign(directory, who, channel) as office:
        answer = await office.request(
            dataset,
            purpose,
            action=action,
            legal_basis=legal_basis,
            destination=destination,
            fields=field,
            rows=_rows(where or []),
            reference=reference,
        )
    Output(as_json=json_output).result(
        answer.model_dump(mode="json"),
        f"{answer.decision}: request {answer.request}",
        *(f"  {reason.text()}" for reason in answer.reasons),
        *([f"  columns {', '.join(answer.fields)}"] if answer.fields is not None else []),
        *(f"  {mask.column}: {mask.function} {mask.argument or ''}".rstrip() for mask in answer.masks or ()),
        *(f"  rows where {rule.column} is {' or '.join(rule.values)}" for rule in answer.rows or ()),
        f"receipt {answer.id}, committed in block {answer.decided.block_number}",
    )
    return None if answer.permitted else problems.EXIT_DENIED


def _rows(stated: list[str]) -> dict[str, set[str]]:
    rows: dict[str, set[str]] = {}
    for one in stated:
        column, separator, value = one.partition("=")
        if not separator or not column:
            raise problems.CommandError(f"{one!r} chooses no rows", "it has no column or no =", "write COLUMN=VALUE")
        rows.setdefault(column, set()).add(value)
    return rows


@command
async def release(
    request_id: RequestId,
    channel: Channel,
    who: As,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the owner: deliver the data of a permitted request into the requester's private collection."""
    async with sovereign(directory, who, channel) as office:
        released = await office.release(request_id)
    Output(as_json=json_output).result(
        released.model_dump(mode="json"), f"delivered in block {released.committed.block_number}"
    )


@command
async def open_(
    request_id: RequestId,
    channel: Channel,
    who: As,
    output: Annotated[Path, typer.Option("--output", help="Where to write the file; it must not exist.")],
    proof: Annotated[
        Path | None,
        typer.Option(help="Write the document that proves a part of a table too; see `audit projection`."),
    ] = None,
    acknowledge: Annotated[bool, typer.Option(help="Commit an acknowledgement after the hash was checked.")] = True,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the requester: open what was delivered, check its hash against the ledger, and acknowledge it."""
    for path in (output, proof):
        if path is not None:
            refuse_existing(path)
    async with sovereign(directory, who, channel) as office:
        data = await office.open(request_id)
        if proof is not None:
            write_private(proof, await office.open_part(request_id))
        write_private(output, data)
        acknowledged = await office.acknowledge(request_id) if acknowledge else None
    Output(as_json=json_output).result(
        {
            "file": str(output),
            "bytes": len(data),
            "hash_checked": True,
            "acknowledged": acknowledged.model_dump(mode="json") if acknowledged else None,
        },
        f"{output}: {len(data)} bytes, checked against the ledger",
        *([f"acknowledged in block {acknowledged.committed.block_number}"] if acknowledged else []),
    )


def refuse_existing(path: Path) -> None:
    """Raise CommandError for a path that something is at."""
    if path.exists():
        raise problems.CommandError(f"{path} exists", "it would be overwritten", "give another path")


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all. Raises CommandError where one is."""
    refuse_existing(path)
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@command
async def receipts(
    channel: Channel,
    who: As = "Supervisor",
    dataset: Annotated[str | None, typer.Option(help="Only decisions on this data set.")] = None,
    msp_id: Annotated[str | None, typer.Option("--msp", help="Only requests of this organisation.")] = None,
    decision: Annotated[str | None, typer.Option(help="permit or deny.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Who saw what under which law: every decision with its reasons, delivery and acknowledgement."""
    chosen: Literal["permit", "deny"] | None
    if decision not in (None, "permit", "deny"):
        raise problems.CommandError(f"unknown decision {decision!r}", "a decision is permit or deny", "use one of them")
    chosen = "permit" if decision == "permit" else "deny" if decision == "deny" else None
    async with sovereign(directory, who, channel) as office:
        found = await office.who_saw(dataset, msp_id=msp_id, decision=chosen)
    rows = [
        (
            access.decided_at.strftime("%Y-%m-%d %H:%M:%S"),
            access.msp_id,
            access.dataset_name,
            access.purpose,
            access.decision,
            "; ".join(reason.text() for reason in access.reasons),
            "yes" if access.acknowledged_at else "delivered" if access.delivered else "no",
            access.receipt[:12],
        )
        for access in found
    ]
    Output(as_json=json_output).table(
        [access.model_dump(mode="json") for access in found],
        f"decisions on {channel}",
        ("decided (UTC)", "who", "data set", "purpose", "decision", "because", "received", "receipt"),
        rows,
    )
