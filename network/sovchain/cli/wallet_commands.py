"""`sovchain personal open-wallet`, `consent`, `withdraw-consent` and `accesses`: a person's wallet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, As, Channel, Directory, Json, command, connected
from sovchain.cli.output import Output
from sovchain.cli.personal_commands import Subject, personal

if TYPE_CHECKING:
    from datetime import datetime

    from sovchain.sovereign import PersonalDataDesk


@asynccontextmanager
async def centre(directory: Path, who: str, channel: str) -> AsyncIterator[PersonalDataDesk]:
    """The personal data service centre of a channel, as `who`."""
    from sovchain.sovereign import PersonalDataDesk

    async with connected(directory, who, channel) as (_, gateway):
        yield PersonalDataDesk(gateway.network(channel), channel)


@personal.command("open-wallet")
@command
async def open_wallet(
    subject: Subject,
    channel: Channel,
    who: As,
    msp_id: Annotated[
        str, typer.Option("--msp", help="MSP id of the organisation that the person's identity belongs to.")
    ],
    identity: Annotated[str, typer.Option(help="The identity that acts for the person, as requests name it.")],
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As a caseworker or official: bind a pseudonym to the identity that acts for it; again when the person's key changes."""
    async with centre(directory, who, channel) as office:
        done = await office.open_wallet(subject, msp_id, identity)
    Output(as_json=json_output).result(
        done.model_dump(mode="json"), f"the wallet is open from block {done.committed.block_number} on"
    )


@personal.command("consent")
@command
async def consent(
    subject: Subject,
    channel: Channel,
    who: As,
    grantee: Annotated[str, typer.Option(help="MSP id of whoever may use the data.")],
    purpose: Annotated[list[str], typer.Option(help="What for. Repeatable.")],
    until: Annotated[str, typer.Option(help="The end, as 2026-12-31T00:00:00Z.")],
    begin: Annotated[str | None, typer.Option("--from", help="The beginning; without it now.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="A column. Repeatable; all if none.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the person, a guardian or an heir: consent to a use. It can be withdrawn at any time."""
    from datetime import UTC, datetime

    from pydantic import ValidationError

    from sovchain.contracts.core.order_records import ConsentTerms

    try:
        terms = ConsentTerms(
            grantee=grantee,
            purposes=tuple(sorted(set(purpose))),
            fields=tuple(field) if field else None,
            valid_from=datetime.now(UTC) if begin is None else _moment(begin),
            valid_until=_moment(until),
        )
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise problems.CommandError("the consent is malformed", said, "correct it") from None
    async with centre(directory, who, channel) as office:
        done = await office.consent(subject, terms)
    Output(as_json=json_output).result(done.model_dump(mode="json"), f"consent {done.record.id}")


@personal.command("withdraw-consent")
@command
async def withdraw_consent(
    subject: Subject,
    consent_id: Annotated[str, typer.Argument(metavar="CONSENT", help="The consent's id.")],
    channel: Channel,
    who: As,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the person, a guardian or an heir: withdraw a consent. Whatever rests on it ends with the next block."""
    async with centre(directory, who, channel) as office:
        done = await office.revoke(subject, consent_id)
    Output(as_json=json_output).result(
        done.model_dump(mode="json"), f"withdrawn in block {done.committed.block_number}"
    )


@personal.command("accesses")
@command
async def accesses(
    subject: Subject,
    channel: Channel,
    who: As,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Who asked for the person's data, denials and emergencies too."""
    async with centre(directory, who, channel) as office:
        found = await office.accesses(subject)
    Output(as_json=json_output).table(
        [one.model_dump(mode="json") for one in found],
        "accesses",
        ("decided (UTC)", "who", "action", "purpose", "basis", "decision", "emergency"),
        [
            (
                one.decided_at.strftime("%Y-%m-%d %H:%M:%S"),
                one.msp_id,
                one.action,
                one.purpose,
                one.legal_basis,
                one.decision if not one.code else f"{one.decision} {one.code}",
                "yes" if one.emergency else "",
            )
            for one in found
        ],
    )


def _moment(text: str) -> datetime:
    from datetime import datetime

    from sovchain.contracts.core.records import parse_time

    try:
        moment = parse_time(text)
    except ValueError as error:
        raise problems.CommandError("the time is malformed", str(error), "write it as 2026-12-31T00:00:00Z") from None
    assert isinstance(moment, datetime)  # a text went in
    return moment
