"""`sovchain order`: what persons do on record besides asking: hold, lift, co-sign, decide, and who they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, As, Channel, Directory, Json, command, connected
from sovchain.cli.output import Output

if TYPE_CHECKING:
    from sovchain.sovereign import Authority

order = typer.Typer(
    name="order", help="Orders and signatures of persons: hold, lift, co-sign, decide.", no_args_is_help=True
)

Target = Annotated[str, typer.Argument(help="A data set's id, or a person's pseudonym.")]
RequestId = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id.")]
Because = Annotated[str, typer.Option("--reason", help="The ground, which stays on record.")]


@asynccontextmanager
async def authority(
    directory: Path, who: str, channel: str, *, default_user: str = "User1"
) -> AsyncIterator[Authority]:
    """Orders and signatures on a channel, as `who`."""
    from sovchain.sovereign import Authority

    async with connected(directory, who, channel, default_user=default_user) as (_, gateway):
        yield Authority(gateway.network(channel), channel)


@order.command("hold")
@command
async def hold(
    target: Target,
    channel: Channel,
    reason: Because,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Hold a data set or everything about a person: nothing is permitted, delivered or opened until it is lifted."""
    async with authority(directory, who, channel) as office:
        done = await office.hold(target, reason)
    Output(as_json=json_output).result(
        done.model_dump(mode="json"), f"order {done.record.id}", f"held from block {done.committed.block_number} on"
    )


@order.command("lift")
@command
async def lift(
    target: Target,
    held: Annotated[str, typer.Argument(metavar="ORDER", help="The hold, as `order hold` printed it.")],
    channel: Channel,
    reason: Because,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Lift a hold; only the organisation that ordered it may."""
    async with authority(directory, who, channel) as office:
        done = await office.lift(target, held, reason)
    Output(as_json=json_output).result(
        done.model_dump(mode="json"), f"lifted in block {done.committed.block_number} by order {done.record.id}"
    )


@order.command("cosign")
@command
async def cosign(
    request: RequestId,
    channel: Channel,
    who: As = "Supervisor",
    approve: Annotated[bool, typer.Option("--approve/--refuse", help="Sign for or against it.")] = True,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Sign for or against a request on file, for the regulator or as a joint owner."""
    async with authority(directory, who, channel) as office:
        done = await office.cosign(request, approve=approve)
    said = "signed for" if approve else "signed against"
    Output(as_json=json_output).result(
        done.model_dump(mode="json"), f"{said} by {done.record.who} in block {done.committed.block_number}"
    )


@order.command("decide")
@command
async def decide(
    request: RequestId, channel: Channel, who: As, directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False
) -> int | None:
    """Have a request on file decided, once it is co-signed; exit code 4 when it is denied."""
    async with authority(directory, who, channel) as office:
        done = await office.decide(request)
    receipt = done.record
    Output(as_json=json_output).result(
        done.model_dump(mode="json"),
        f"{receipt.decision}: request {request}",
        *(f"  {reason.text()}" for reason in receipt.reasons),
        f"receipt {receipt.id}, committed in block {done.committed.block_number}",
    )
    return None if receipt.decision == "permit" else problems.EXIT_DENIED


@order.command("whoami")
@command
async def whoami(
    channel: Channel, who: As, directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False
) -> None:
    """Show how the ledger knows an identity, and the person that it is bound to."""
    async with authority(directory, who, channel) as office:
        caller = await office.whoami()
    Output(as_json=json_output).result(
        caller.model_dump(mode="json"),
        f"{caller.msp_id}, role {caller.role or 'none'}, clearance {caller.clearance or 'none'}",
        f"identity {caller.identity}",
        f"person {caller.person or 'none: an admin binds it with `sovchain order bind`'}",
    )


@order.command("bind")
@command
async def bind(
    identity: Annotated[str, typer.Argument(help="The identity, as `order whoami` printed it.")],
    person: Annotated[str, typer.Argument(help="The person's pseudonym: 64 hexadecimal digits.")],
    channel: Channel,
    who: As,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As an organisation's Admin: bind one of its identities to a person, so that it can be one of four eyes."""
    async with authority(directory, who, channel, default_user="Admin") as office:
        done = await office.bind_person(identity, person)
    Output(as_json=json_output).result(
        done.model_dump(mode="json"), f"bound in block {done.committed.block_number}, for good"
    )
