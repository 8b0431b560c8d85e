"""`sovchain law export` and `import`: laws as ODRL policies, and back."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, As, Directory, Json, command, sovereign
from sovchain.cli.law_commands import law
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

if TYPE_CHECKING:
    from sovchain.contracts.core.records import LawHeader

_DOCUMENT_MAX_BYTES = 1024 * 1024


class Format(StrEnum):
    """Forms that laws are exchanged in."""

    odrl = "odrl"


_REMEDY = "see docs/odrl.md for what maps"
AsFormat = Annotated[Format, typer.Option("--format", help="The form of the document.")]
Target = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of standard output.")]


def _written(text: str, target: Path | None, json_output: bool, what: str) -> None:
    if target is not None:
        target.write_text(text, encoding="utf-8")
        Output(as_json=json_output).result({"written": str(target)}, f"{what} written to {target}")
    else:
        typer.echo(text, nl=not text.endswith("\n"))


@law.command("export")
@command
async def export(
    source: Annotated[str, typer.Argument(metavar="LAW", help="A law's file; with --channel, its id on the ledger.")],
    form: AsFormat = Format.odrl,
    channel: Annotated[str | None, typer.Option("--channel", help="Take the newest version on this channel.")] = None,
    target: Target = None,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Write a law as an ODRL policy in JSON-LD. A clause that ODRL cannot say is refused with its place and the reason."""
    from sovchain.sovereign import check_law, read_text_file
    from sovchain.sovereign.odrl import OdrlError, export_odrl

    if channel is None:
        text = read_text_file(Path(source), _DOCUMENT_MAX_BYTES)
    else:
        async with sovereign(directory, who, channel) as office:
            found = [one for one in await office.laws() if one.header.law == source]
            if not found:
                remedy = "see `sovchain law list`"
                raise CommandError(f"there is no law {source}", f"{channel} has none of that id", remedy)
            text = await office.law_text(found[-1].text_hash)
    try:
        document = export_odrl(check_law(text))
    except OdrlError as error:
        raise CommandError(f"{source} has no form in {form.value.upper()}", str(error), _REMEDY) from None
    _written(json.dumps(document, ensure_ascii=False, indent=2) + "\n", target, json_output, "policy")


@law.command("import")
@command
async def import_policy(
    file: Annotated[Path, typer.Argument(help="An ODRL policy in JSON-LD.")],
    form: AsFormat = Format.odrl,
    target: Target = None,
    law_id: Annotated[
        str | None, typer.Option("--law", help="The law's id, for a policy that is no exported law.")
    ] = None,
    version: Annotated[int, typer.Option("--law-version", help="Its version.")] = 1,
    title: Annotated[str, typer.Option("--title", help="Its title.")] = "imported from ODRL",
    jurisdiction: Annotated[str | None, typer.Option("--jurisdiction", help="Its place, such as CN-GZ-520100.")] = None,
    effective_from: Annotated[
        str | None, typer.Option("--effective-from", help="Its beginning, with its zone: 2026-01-01T00:00:00Z.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Write an ODRL policy as a law. Whatever has no meaning for a law is refused with its JSON path and the reason."""
    from sovchain.sovereign import check_law, read_text_file
    from sovchain.sovereign.odrl import OdrlError, import_odrl

    document = read_text_file(file, _DOCUMENT_MAX_BYTES)
    given = (law_id, jurisdiction, effective_from)
    header = None
    if any(value is not None for value in given):
        header = _header(law_id, version, title, jurisdiction, effective_from)
    try:
        text = import_odrl(document, header)
    except OdrlError as error:
        raise CommandError(f"{file} is no law", str(error), _REMEDY) from None
    check_law(text)
    _written(text, target, json_output, "law")


def _header(
    law_id: str | None, version: int, title: str, jurisdiction: str | None, effective_from: str | None
) -> LawHeader:
    from pydantic import ValidationError

    from sovchain.contracts.core.codes import level_of
    from sovchain.contracts.core.records import LawHeader

    what, remedy = "the law's header is not complete", "state --law, --jurisdiction and --effective-from"
    try:
        return LawHeader.model_validate(
            {
                "law": law_id,
                "version": version,
                "title": title,
                "level": level_of(jurisdiction or ""),
                "jurisdiction": jurisdiction,
                "effective_from": datetime.fromisoformat(effective_from) if effective_from else None,
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CommandError(what, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", remedy) from None
    except ValueError as error:
        raise CommandError(what, str(error), remedy) from None
