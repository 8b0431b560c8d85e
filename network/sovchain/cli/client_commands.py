"""`sovchain client`: typed clients for chaincodes that describe themselves."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, As, Directory, Json, command, connected
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

client = typer.Typer(help="Typed clients for chaincodes.", no_args_is_help=True)


@client.callback()
def _group() -> None:
    """Typed clients for chaincodes."""


@client.command()
@command
async def generate(
    channel: Annotated[str, typer.Argument(metavar="[CHANNEL]", help="The channel.")] = "",
    chaincode: Annotated[str, typer.Option(help="The chaincode; without it the one with the channel's name.")] = "",
    metadata: Annotated[
        Path | None, typer.Option(help="Read the metadata from this file instead of asking a network.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the module here, not to the screen.")
    ] = None,
    who: As = "Government",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Write a Python module with typed methods for a chaincode's functions, from its own metadata."""
    from sovchain.client.generate import fetch_metadata, module_source, parse_metadata

    name = chaincode or channel or (metadata.stem if metadata is not None else "")
    if not name:
        raise CommandError("no chaincode is named", "neither CHANNEL nor --metadata is given", "give one of them")
    if metadata is not None:
        try:
            found = parse_metadata(await asyncio.to_thread(metadata.read_bytes))
        except OSError as error:
            raise CommandError(f"{metadata} cannot be read", str(error.strerror), "check the path") from error
    else:
        async with connected(directory, who, channel) as (_, gateway):
            found = await fetch_metadata(gateway.network(channel).contract(name))
    source = module_source(found, chaincode=name)
    if output is None:
        sys.stdout.write(source)
        return
    try:
        await asyncio.to_thread(output.write_text, source)
    except OSError as error:
        raise CommandError(f"{output} cannot be written", str(error.strerror), "check the path") from error
    Output(as_json=json_output).result({"chaincode": name, "path": str(output)}, f"wrote {output}")
