"""`sovchain topology`: what a network consists of, checked, shown, and described for editors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sovchain.cli.app import Json, command
from sovchain.cli.output import Output
from sovchain.cli.problems import EXIT_USAGE

topology = typer.Typer(help="The topology: what a network consists of.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A topology in YAML.", show_default=False)]
OptionalFile = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="A topology in YAML; without it the default network.")
]
Full = Annotated[bool, typer.Option("--full", help="With all defaults spelled out.")]


@topology.command()
@command
async def check(file: File, json_output: Json = False) -> int:
    """Check a topology file and name every problem with its line, its key, and what would be right."""
    from sovchain.network.errors import TopologyError
    from sovchain.network.topologyfile import load_topology

    out = Output(as_json=json_output)
    try:
        found = load_topology(file)
    except TopologyError as error:
        if json_output:
            raise
        for problem in error.problems:
            rule = f" [{problem.rule}]" if problem.rule else ""
            out.problem(f"{error.place_of(problem)}{rule}", problem.problem, problem.act, code=EXIT_USAGE)
        return EXIT_USAGE
    summary: dict[str, Any] = {
        "name": found.name,
        "fabric_version": found.fabric_version,
        "consensus": found.consensus,
        "organizations": len(found.organizations),
        "peers": sum(node.kind == "peer" for node in found.nodes),
        "ordering_nodes": sum(node.kind == "orderer" for node in found.nodes),
        "channels": [channel.name for channel in found.channels],
        "chaincodes": [chaincode.name for chaincode in found.chaincodes],
        "accept": list(found.accept),
    }
    accepted = f"; set aside: {', '.join(found.accept)}" if found.accept else ""
    out.result(
        {"ok": True, **summary},
        f"{file} can be used: network {found.name} on Fabric {found.fabric_version} with {found.consensus}, "
        f"{_count(summary['peers'], 'peer')} of {_count(summary['organizations'], 'organisation')}, "
        f"{_count(summary['ordering_nodes'], 'ordering node')}, {_count(len(found.channels), 'channel')}, "
        f"{_count(len(found.chaincodes), 'chaincode')}{accepted}",
    )
    return 0


@topology.command()
@command
async def show(file: OptionalFile = None, full: Full = False, json_output: Json = False) -> None:
    """Print a topology as short as it can be written, or with all defaults; without FILE the default network."""
    from sovchain.network.topology import default_topology
    from sovchain.network.topologyfile import load_topology
    from sovchain.network.topologywriter import as_document, to_yaml

    found = load_topology(file) if file else default_topology()
    if json_output:
        Output(as_json=True).result(as_document(found, full=full))
    else:
        sys.stdout.write(to_yaml(found, full=full))


@topology.command()
@command
async def schema(json_output: Json = False) -> None:
    """Print the JSON Schema of topology files, by which editors complete and check them."""
    from sovchain.network.topologywriter import json_schema

    # The schema is JSON either way.
    Output(as_json=True).result(json_schema())


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
