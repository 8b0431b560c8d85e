"""`sovchain registry` and `sovchain law`: who is admitted, and what is law."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, As, Channel, Directory, Json, command, sovereign
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

if TYPE_CHECKING:
    from sovchain.contracts.core.calendar import Calendar
    from sovchain.contracts.core.records import BallotView, LawFinding, Organisation
    from sovchain.sovereign import Proposed

T = TypeVar("T")

law = typer.Typer(
    name="law", help="Laws on the ledger: check, enact, amend, repeal, list; calendars.", no_args_is_help=True
)
registry = typer.Typer(name="registry", help="The organisations that a channel has admitted.", no_args_is_help=True)

Voters = Annotated[
    str,
    typer.Option(
        "--as", help="Who proposes and votes, separated by commas; the first proposes. Each acts as its Admin."
    ),
]


def load_organisations(path: Path) -> list[Organisation]:
    """Read the organisations to admit from a YAML file. Raises CommandError."""
    from sovchain.contracts.core.records import Organisation

    return _load(path, list[Organisation], "write a list of organisations as in examples/registry/finance.yaml")


def _load(path: Path, kind: type[T], remedy: str) -> T:
    import yaml
    from pydantic import TypeAdapter, ValidationError

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(kind).validate_python(found)
    except FileNotFoundError:
        raise CommandError(f"cannot read {path}", "there is no such file", "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}", str(error), remedy) from None
    except yaml.YAMLError as error:
        raise CommandError(f"{path} is not YAML", str(error), remedy) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CommandError(f"{path} cannot be used", f"{place}: {first['msg']}", remedy) from None


def load_calendar(path: Path) -> Calendar:
    """Read a year's working-day calendar from a YAML file. Raises CommandError."""
    from sovchain.contracts.core.calendar import Calendar

    return _load(path, Calendar, "write a calendar as in examples/calendars/cn-2026.yaml")


async def _vote(
    directory: Path, channel: str, voters: list[str], proposed: Proposed
) -> tuple[BallotView, list[dict[str, Any]]]:
    """Have each voter (one at least) vote for a ballot: how it stands at the end, and what each vote left missing."""
    steps = []
    latest, view = proposed.committed, None
    for voter in voters:
        async with sovereign(directory, voter, channel, default_user="Admin") as office:
            await office.reached(latest)
            voted = await office.vote(proposed.ballot)
        latest, view = voted.committed, voted.view
        steps.append(
            {
                "voter": voter,
                "transaction_id": voted.committed.transaction_id,
                "block": voted.committed.block_number,
                "passed": voted.passed,
                "missing": list(voted.view.missing),
            }
        )
    assert view is not None
    return view, steps


def _voters(text: str) -> list[str]:
    voters = [part.strip() for part in text.split(",") if part.strip()]
    if not voters:
        raise CommandError(
            "nobody proposes", "--as names no organisation", "name at least one, for example --as Government"
        )
    return voters


def _show_ballot(
    out: Output,
    what: str,
    proposed: Proposed,
    view: BallotView,
    steps: list[dict[str, Any]],
    findings: Sequence[LawFinding] = (),
) -> None:
    data = {"ballot": proposed.ballot, "state": view.ballot.state, "missing": list(view.missing), "votes": steps}
    if findings:
        data["findings"] = [found.model_dump(mode="json", exclude_none=True) for found in findings]
    lines = [f"ballot {proposed.ballot}: {what}"]
    lines += [f"  {step['voter']} voted in block {step['block']}" for step in steps]
    lines.append(
        "passed" if view.ballot.state == "passed" else f"not passed: the vote of {', '.join(view.missing)} is missing"
    )
    out.result(data, *lines)


@registry.command("admit")
@command
async def admit(
    file: Annotated[Path, typer.Argument(help="YAML list of organisations, as in examples/registry.")],
    channel: Channel,
    who: Voters,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Propose the admission of organisations and vote for it. In force when each class of seat has voted."""
    organisations = load_organisations(file)
    voters = _voters(who)
    async with sovereign(directory, voters[0], channel, default_user="Admin") as office:
        proposed = await office.propose_admission(organisations)
    view, steps = await _vote(directory, channel, voters, proposed)
    names = ", ".join(organisation.name for organisation in organisations)
    _show_ballot(Output(as_json=json_output), f"admission of {names}", proposed, view, steps)


@registry.command("list")
@command
async def list_organisations(
    channel: Channel, who: As = "Supervisor", directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False
) -> None:
    """List the organisations that a channel has admitted."""
    async with sovereign(directory, who, channel) as office:
        found = await office.organisations()
    rows = [
        (
            entry.organisation.msp_id,
            entry.organisation.name,
            entry.organisation.jurisdiction,
            ", ".join(entry.organisation.roles),
            entry.organisation.clearance,
            entry.status,
        )
        for entry in found
    ]
    data = [entry.model_dump(mode="json") for entry in found]
    Output(as_json=json_output).table(
        data, f"registry of {channel}", ("MSP", "name", "jurisdiction", "roles", "clearance", "status"), rows
    )


@law.command("check")
@command
async def check(
    file: Annotated[Path, typer.Argument(help="A law in Cedar with its header comments.")], json_output: Json = False
) -> None:
    """Check a law's text without sending anything: syntax, header, annotations, schema, limits."""
    from sovchain.sovereign import check_law, read_text_file

    law_text = check_law(read_text_file(file, 1024 * 1024))
    header, clauses = law_text.header, law_text.clauses
    Output(as_json=json_output).result(
        {"header": header.model_dump(mode="json"), "clauses": [clause.model_dump(mode="json") for clause in clauses]},
        f"{header.law} version {header.version}: {header.title} ({header.level} law of {header.jurisdiction})",
        *(f"  line {clause.line}: {clause.effect}, clause {clause.clause}" for clause in clauses),
    )


@law.command("enact")
@command
async def enact(
    file: Annotated[Path, typer.Argument(help="A law in Cedar with its header comments.")],
    channel: Channel,
    who: Voters,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Propose a law and vote for it. It is enacted when legislator, regulator and sector have voted, and not before.

    What it would conflict with or change is shown first; `law lint` shows it without proposing anything.
    """
    from sovchain.contracts.core.cedartext import TEXT_MAX_BYTES
    from sovchain.sovereign import read_text_file

    voters, out = _voters(who), Output(as_json=json_output)
    async with sovereign(directory, voters[0], channel, default_user="Admin") as office:
        text = read_text_file(file, TEXT_MAX_BYTES)
        findings = await office.review_law(text)
        for found in findings:
            out.say(f"{file}, {found.text()}")
        proposed = await office.propose_law(text)
    view, steps = await _vote(directory, channel, voters, proposed)
    header = proposed.draft.header
    _show_ballot(out, f"{header.law} version {header.version}, {header.title}", proposed, view, steps, findings)


@law.command("repeal")
@command
async def repeal(
    name: Annotated[str, typer.Argument(metavar="LAW", help="The law's id, as `law list` prints it.")],
    channel: Channel,
    who: Voters,
    effective_from: Annotated[
        str, typer.Option("--from", help="When it ends, with its zone: 2026-03-01T00:00:00Z. Not before the last vote.")
    ],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Propose the end of a law and vote for it. What would be left without effect or without a law is shown first."""
    voters, out = _voters(who), Output(as_json=json_output)
    async with sovereign(directory, voters[0], channel, default_user="Admin") as office:
        findings = await office.review_repeal(name, effective_from)
        for found in findings:
            out.say(f"{found.law}, {found.text()}")
        proposed = await office.propose_repeal(name, effective_from)
    view, steps = await _vote(directory, channel, voters, proposed)
    _show_ballot(out, f"repeal of {name}", proposed, view, steps, findings)


@law.command("calendar")
@command
async def enact_calendar(
    file: Annotated[Path, typer.Argument(help="A year's working days in YAML, as in examples/calendars.")],
    channel: Channel,
    who: Voters,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Propose a year's working-day calendar and vote for it. Statutory periods are counted by what is enacted."""
    calendar = load_calendar(file)
    voters = _voters(who)
    async with sovereign(directory, voters[0], channel, default_user="Admin") as office:
        proposed = await office.propose_calendar(calendar)
    view, steps = await _vote(directory, channel, voters, proposed)
    what = f"calendar of {calendar.jurisdiction} for {calendar.year}, {len(calendar.holidays)} holidays"
    _show_ballot(Output(as_json=json_output), what, proposed, view, steps)


@law.command("vote")
@command
async def vote(
    ballot: Annotated[str, typer.Argument(help="The ballot, as `law enact` or `registry admit` printed it.")],
    channel: Channel,
    who: As,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Vote for a ballot on a law or an admission."""
    async with sovereign(directory, who, channel, default_user="Admin") as office:
        voted = await office.vote(ballot)
    Output(as_json=json_output).result(
        voted.model_dump(mode="json"),
        "passed" if voted.passed else f"not passed: the vote of {', '.join(voted.view.missing)} is missing",
    )


@law.command("list")
@command
async def list_laws(
    channel: Channel, who: As = "Supervisor", directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False
) -> None:
    """List the laws and drafts on a channel with their states."""
    async with sovereign(directory, who, channel) as office:
        found = await office.laws()
    rows = [
        (
            view.header.law,
            view.header.version,
            view.header.title,
            view.header.jurisdiction,
            view.state,
            ", ".join(view.missing),
        )
        for view in found
    ]
    data = [view.model_dump(mode="json") for view in found]
    Output(as_json=json_output).table(
        data, f"laws on {channel}", ("law", "version", "title", "jurisdiction", "state", "votes missing"), rows
    )
