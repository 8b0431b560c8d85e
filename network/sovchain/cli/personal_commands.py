"""`sovchain personal`: what a person sees, asks and takes along."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, As, Channel, Directory, Json, command, connected
from sovchain.cli.output import Output
from sovchain.cli.sharing_commands import refuse_existing, write_private

if TYPE_CHECKING:
    from sovchain.contracts.core.rights_records import RightsRequest
    from sovchain.sovereign import Recorded, RightsDesk

personal = typer.Typer(
    name="personal", help="A person's data: rights requests, complaints, answers, export.", no_args_is_help=True
)

Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="The person's pseudonym.")]
RightsId = Annotated[str, typer.Argument(metavar="REQUEST", help="The rights request's id.")]
Text = Annotated[Path, typer.Argument(help="A file with the text; only its addressee will read it.")]
Target = Annotated[Path, typer.Option("--output", help="Where to write it; it must not exist.")]
KINDS = ("access", "copy", "correct", "restrict", "erase", "object", "complaint")


@asynccontextmanager
async def desk(directory: Path, who: str, channel: str) -> AsyncIterator[RightsDesk]:
    """Rights requests of a channel, as `who`."""
    from sovchain.sovereign import RightsDesk

    async with connected(directory, who, channel) as (_, gateway):
        yield RightsDesk(gateway.network(channel), channel)


def _show(json_output: bool, done: Recorded[RightsRequest]) -> None:
    found = done.record
    Output(as_json=json_output).result(
        done.model_dump(mode="json"),
        f"request {found.id}",
        f"{found.filing.kind}: {found.state}{', late' if found.late else ''}, due {found.due:%Y-%m-%d %H:%M} UTC",
    )


@personal.command("file")
@command
async def file(
    subject: Subject,
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS))],
    text: Text,
    channel: Channel,
    who: As,
    handler: Annotated[str, typer.Option(help="MSP id of the organisation that is asked.")],
    dataset: Annotated[str | None, typer.Option(help="The data set that it is about.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Ask what the law lets a person ask, or complain. The text goes to the handler alone; its clock starts."""
    from sovchain.sovereign.sovereign import check_word

    check_word("kind of request", kind, KINDS)
    chosen: Any = kind
    async with desk(directory, who, channel) as office:
        done = await office.file(subject, chosen, handler, text.read_bytes(), dataset=dataset)
    _show(json_output, done)


@personal.command("answer")
@command
async def answer(
    subject: Subject,
    request_id: RightsId,
    text: Text,
    channel: Channel,
    who: As,
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse it, with --ground and --law.")] = False,
    ground: Annotated[str | None, typer.Option(help="Why it is refused; everyone on the channel reads it.")] = None,
    law: Annotated[str | None, typer.Option(help="The law that the refusal rests on.")] = None,
    replacement: Annotated[str | None, typer.Option(help="What replaces the data set that was wrong.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the handler: answer a request. The text goes to the subject's organisation alone."""
    async with desk(directory, who, channel) as office:
        done = await office.answer(
            subject,
            request_id,
            "refused" if refuse else "fulfilled",
            text.read_bytes(),
            ground=ground,
            law=law,
            replacement=replacement,
        )
    _show(json_output, done)


@personal.command("read")
@command
async def read(
    subject: Subject,
    request_id: RightsId,
    channel: Channel,
    who: As,
    output: Target,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the handler: read the text of a request. As the subject, its guardian or heir: the text of the answer."""
    async with desk(directory, who, channel) as office:
        found = await office.read(subject, request_id)
        asked = found.filing.handler == office.msp_id
        text = await (office.text if asked else office.answer_text)(subject, request_id)
    write_private(output, text)
    Output(as_json=json_output).result({"file": str(output), "bytes": len(text)}, f"{output}: {len(text)} bytes")


@personal.command("tick")
@command
async def tick(
    subject: Subject,
    request_id: RightsId,
    channel: Channel,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Find a request overdue, on record; anybody may."""
    async with desk(directory, who, channel) as office:
        done = await office.tick(subject, request_id)
    _show(json_output, done)


@personal.command("appeal")
@command
async def appeal(
    subject: Subject,
    request_id: RightsId,
    channel: Channel,
    who: As,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the subject: put what was refused or is overdue before the regulator."""
    async with desk(directory, who, channel) as office:
        done = await office.appeal(subject, request_id)
    _show(json_output, done)


@personal.command("rule")
@command
async def rule(
    subject: Subject,
    request_id: RightsId,
    decision: Annotated[str, typer.Argument(help="uphold or order.")],
    channel: Channel,
    reason: Annotated[str, typer.Option(help="The ground, which stays on record.")],
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As a judge or a supervisor: uphold a refusal, or order what was asked for."""
    if decision not in {"uphold", "order"}:
        raise problems.CommandError(f"unknown ruling {decision!r}", "it is uphold or order", "use one of them")
    async with desk(directory, who, channel) as office:
        done = await office.rule(subject, request_id, "order" if decision == "order" else "uphold", reason)
    _show(json_output, done)


@personal.command("list")
@command
async def listing(
    subject: Subject,
    channel: Channel,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """The requests that were filed for a person, and how they stand."""
    async with desk(directory, who, channel) as office:
        found = await office.listing(subject)
    Output(as_json=json_output).table(
        [one.model_dump(mode="json") for one in found],
        "rights requests",
        ("request", "kind", "handler", "state", "late", "due (UTC)"),
        [
            (
                one.id[:16],
                one.filing.kind,
                one.filing.handler,
                one.state,
                "yes" if one.late else "",
                f"{one.due:%Y-%m-%d}",
            )
            for one in found
        ],
    )


@personal.command("export")
@command
async def export(
    subject: Subject,
    channel: Channel,
    who: As,
    output: Target,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Everything that the ledger holds about a person, as one signed JSON document to take along."""
    refuse_existing(output)
    async with desk(directory, who, channel) as office:
        document = await office.export(subject)
    write_private(output, document)
    Output(as_json=json_output).result(
        {"file": str(output), "bytes": len(document)}, f"{output}: {len(document)} bytes, signed"
    )


@personal.command("check-export")
@command
async def check_export(
    document: Annotated[Path, typer.Argument(help="What `personal export` wrote.")],
    authority: Annotated[
        list[Path] | None, typer.Option(help="CA certificate that the signer's must be from. Repeatable.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Check the signature of an export, offline."""
    from sovchain.sovereign import check_export as checked

    found = checked(document.read_bytes(), [path.read_bytes() for path in authority or ()])
    Output(as_json=json_output).result(
        found.model_dump(mode="json"),
        f"exported {found.exported_at:%Y-%m-%d %H:%M:%S} UTC from {found.channel}, vouched for by {found.signer}"
        + ("" if authority else " (by its own word: give --authority)"),
        f"{len(found.file.accesses)} accesses, {len(found.file.consents)} consents, {len(found.rights)} rights requests",
    )
