"""`sovchain explain`: why a transaction is valid or not."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, Directory, Json, command
from sovchain.cli.audit_commands import Channels, chosen_channels
from sovchain.cli.output import Output


@command
async def explain(
    transaction_id: Annotated[str, typer.Argument(help="The transaction's id.", metavar="TXID")],
    directory: Directory = DEFAULT_DIRECTORY,
    channel: Channels = None,
    json_output: Json = False,
) -> int:
    """Say why a transaction is valid or not: the policy that was not met, or the key that another one wrote.

    Works on the blocks that the network's peers have stored, whatever runs it. Exit code 1 when it is not valid.
    """
    from sovchain.audit import explain as explain_in
    from sovchain.network.stored import stored_blocks

    out = Output(as_json=json_output)
    for name in chosen_channels(directory, channel):
        found = await asyncio.to_thread(explain_in, stored_blocks(directory, name), transaction_id)
        if found is None:
            continue
        out.result(
            asdict(found),
            f"{found.code}: transaction {found.position} of block {found.block} on channel {found.channel}",
            *([f"because {found.reason}"] if found.reason else []),
            *([f"the block says {found.recorded}"] if found.recorded != found.code else []),
            f"chaincode {found.chaincode or 'none'}, sent by {found.creator or 'nobody known'}, "
            f"endorsed by {', '.join(found.endorsers) or 'nobody'}",
            *(f"writes {write}" for write in found.writes),
        )
        return problems.EXIT_OK if found.is_valid else problems.EXIT_REFUSED
    raise problems.CommandError(
        f"no transaction {transaction_id[:80]}",
        "no stored block has it",
        "check the id; one that was only endorsed, or waits for its block, is in none",
    )
