"""`sovchain evaluate` and `submit`: any function of any chaincode."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, As, Directory, Json, command, connected
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

Function = Annotated[str, typer.Argument(help="The function, for example Waybills:read.")]
Arguments = Annotated[list[str] | None, typer.Argument(help="Its arguments.")]
ChannelName = Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel.")]
Chaincode = Annotated[str | None, typer.Option(help="The chaincode; without it the one with the channel's name.")]
Transient = Annotated[
    list[str] | None,
    typer.Option("--transient", metavar="KEY=VALUE", help="Transient data, which stays off the ledger. Repeatable."),
]
Organizations = Annotated[
    list[str] | None, typer.Option("--endorser", help="MSP id of an organisation that must endorse. Repeatable.")
]


def _transient(pairs: list[str] | None) -> dict[str, bytes]:
    result = {}
    for pair in pairs or []:
        key, sign, value = pair.partition("=")
        if not key or not sign:
            # The text itself is not repeated: transient data does not belong into an error message.
            raise CommandError(
                "a --transient option cannot be used", "it is not written as KEY=VALUE", "write --transient KEY=VALUE"
            )
        result[key] = value.encode()
    return result


def _shown(payload: bytes) -> Any:
    """The payload as JSON if it is JSON, else as text, else as hex digits."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return {"hex": payload.hex()}
    try:
        return json.loads(text)
    except ValueError:
        return text


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@command
async def evaluate(
    channel: ChannelName,
    function: Function,
    arguments: Arguments = None,
    who: As = "Government",
    chaincode: Chaincode = None,
    transient: Transient = None,
    endorser: Organizations = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Call a function on one peer and print what it returns. Nothing is written to the ledger."""
    private = _transient(transient)
    async with connected(directory, who, channel) as (_, gateway):
        contract = gateway.network(channel).contract(chaincode or channel).with_options(organizations=endorser)
        payload = await contract.evaluate(function, *(arguments or []), transient=private)
    shown = _shown(payload)
    Output(as_json=json_output).result({"result": shown}, _line(shown))


@command
async def submit(
    channel: ChannelName,
    function: Function,
    arguments: Arguments = None,
    who: As = "Government",
    chaincode: Chaincode = None,
    transient: Transient = None,
    endorser: Organizations = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Submit a transaction, wait until it is committed, and print what it returned."""
    private = _transient(transient)
    async with connected(directory, who, channel) as (_, gateway):
        contract = gateway.network(channel).contract(chaincode or channel).with_options(organizations=endorser)
        done = await contract.submit(function, *(arguments or []), transient=private)
    shown = _shown(done.result)
    Output(as_json=json_output).result(
        {"result": shown, "transaction_id": done.transaction_id, "block": done.block_number},
        *([_line(shown)] if shown != "" else []),
        f"committed in block {done.block_number}, transaction {done.transaction_id}",
    )
