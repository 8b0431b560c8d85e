"""`sovchain network define`, `bundle` and `assemble`: a network whose operators keep their keys to themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sovchain.cli.app import Json, command
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

if TYPE_CHECKING:
    from sovchain.network.bundle import Completed
    from sovchain.network.topology import Topology

Org = Annotated[str, typer.Option("--org", help="The organisation whose part of the network it is.")]
TopologyFile = Annotated[
    Path | None,
    typer.Option("--topology", help="The topology that all operators have agreed on; without it the default one."),
]
Address = Annotated[
    str, typer.Option("--address", help="Host name or address by which the other hosts reach this one.")
]
FirstPort = Annotated[int, typer.Option("--first-port", min=1, max=65000, help="Its nodes listen from this port on.")]
Runtime = Annotated[str, typer.Option("--runtime", help="What its nodes run on: native or docker.")]
Public = Annotated[
    list[Path] | None, typer.Option("--public", help="Another operator's public definition. May be given again.")
]
Blocks = Annotated[
    Path | None, typer.Option("--blocks", help="A folder of first blocks that another operator made, to compare with.")
]


def _topology(file: Path | None) -> Topology:
    from sovchain.network.topology import default_topology
    from sovchain.network.topologyfile import load_topology

    return load_topology(file) if file else default_topology()


@command
async def define(
    org: Org,
    address: Address,
    output: Annotated[Path, typer.Option("--output", help="The bundle's directory, new or empty.")],
    topology: TopologyFile = None,
    first_port: FirstPort = 7050,
    runtime: Runtime = "native",
    json_output: Json = False,
) -> None:
    """Make an organisation's own keys and its public definition, which the others need. Nothing else leaves this host."""
    from sovchain.network.bundle import complete, create_bundle

    directory, now = output.absolute(), datetime.now(UTC)
    await create_bundle(_topology(topology), org, directory, address, now, first_port=first_port, runtime=runtime)
    _show(Output(as_json=json_output), complete(directory, [], now))


@command
async def bundle(
    org: Org,
    output: Annotated[Path, typer.Option("--output", help="The bundle's directory.")],
    public: Public = None,
    topology: TopologyFile = None,
    address: Annotated[str, typer.Option("--address", help="As for define, where that is not done yet.")] = "",
    first_port: FirstPort = 7050,
    runtime: Runtime = "native",
    blocks: Blocks = None,
    founded: Annotated[
        Path | None,
        typer.Option("--founded", help="First blocks of channels that exist already: of one who joins them."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Write the folder from which an organisation runs its own nodes, from public definitions of the others only.

    With the definitions of all, the first block of each channel follows from them: compare its hash with the others', then
    run the nodes with `sovchain up --dir`.
    """
    from sovchain.network.bundle import complete, create_bundle
    from sovchain.network.definitions import read_definition
    from sovchain.network.instance import read_description

    directory, now = output.absolute(), datetime.now(UTC)
    received = [read_definition(path) for path in public or ()]
    found = read_description(directory) if directory.is_dir() else None
    if found is None or found.bundle is None or found.bundle.operator != org or topology is not None:
        if found is None and not address:
            raise CommandError(
                f"cannot make the bundle of {org}",
                f"{directory} holds none yet, and the address of this host is not given",
                "give --address, or define it first (sovchain network define)",
            )
        await create_bundle(
            _topology(topology), org, directory, address or "localhost", now, first_port=first_port, runtime=runtime
        )
    _show(Output(as_json=json_output), complete(directory, received, now, blocks, founded))


def _show(out: Output, found: Completed) -> None:
    data: dict[str, Any] = {
        "directory": str(found.directory),
        "operator": found.operator,
        "definition": str(found.definition),
        "digests": dict(found.digests),
        "missing": list(found.missing),
        "blocks": dict(found.blocks),
    }
    lines = [f"definition of {name}: {digest}" for name, digest in found.digests.items()]
    if found.missing:
        lines.append(f"send {found.definition} to the others; missing: {', '.join(found.missing)}")
    else:
        lines += [f"first block of channel {name}: {digest}" for name, digest in found.blocks.items()]
        lines.append(f"compare these hashes with the other operators, then: sovchain up --dir {found.directory}")
    out.result(data, *lines)


@command
async def assemble(
    public: Annotated[list[Path], typer.Option("--public", help="An operator's public definition. Give all.")],
    output: Annotated[Path, typer.Option("--output", help="A new folder for the blocks.")],
    topology: TopologyFile = None,
    json_output: Json = False,
) -> None:
    """Make the first blocks of the channels from public definitions alone; everyone gets the same bytes."""
    from sovchain.network import bundle as bundles
    from sovchain.network.definitions import read_definition

    hashes = bundles.assemble(
        _topology(topology), [read_definition(path) for path in public], output.absolute(), datetime.now(UTC)
    )
    lines = [f"first block of channel {name}: {digest}" for name, digest in hashes.items()]
    Output(as_json=json_output).result({"output": str(output), "blocks": hashes}, *lines)
