"""`sovchain plan` and `sovchain apply`, and their short forms for one organisation: changing a network that runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, Directory, Json, command
from sovchain.cli.output import Output

if TYPE_CHECKING:
    from sovchain.network import Network
    from sovchain.network.plan import Plan, Step
    from sovchain.network.topology import Topology

TopologyFile = Annotated[
    Path | None,
    typer.Option(help="A topology file; without it the one noted in the directory, to complete what was interrupted."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Also take what goes: organisations, nodes, their part in channels.")]
Save = Annotated[Path | None, typer.Option(help="Write the new topology into this file (YAML).")]
Channels = Annotated[list[str], typer.Option("--channel", help="A channel; may be repeated.")]
TAKES_AWAY = ("dismiss", "expel", "leave", "stop")
"""Steps after which somebody has less than before."""


@command
async def plan(
    directory: Directory = DEFAULT_DIRECTORY,
    topology: TopologyFile = None,
    check: Annotated[bool, typer.Option("--check", help="Exit code 5 when something differs.")] = False,
    json_output: Json = False,
) -> int | None:
    """Show what differs between a topology and the network that runs, as the steps that `apply` would take."""
    from sovchain.network import Network

    out = Output(as_json=json_output)
    async with Network.attach(directory) as network:
        found = await network.plan(topology)
    _show(out, found)
    return problems.EXIT_FINDINGS if check and found.steps else None


@command
async def apply(
    directory: Directory = DEFAULT_DIRECTORY,
    topology: TopologyFile = None,
    yes: Yes = False,
    json_output: Json = False,
) -> None:
    """Bring the network that runs to a topology. What was interrupted goes on; what is done already is left."""
    from sovchain.network import Network
    from sovchain.network.topologyfile import load_topology

    out = Output(as_json=json_output)
    wanted = load_topology(topology) if topology else None
    async with Network.attach(directory) as network:
        await _apply(out, network, wanted, yes=yes)


@command
async def add_org(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the organisation.")],
    channel: Channels,
    directory: Directory = DEFAULT_DIRECTORY,
    jurisdiction: Annotated[str, typer.Option(help="Such as CN-GZ-520100.")] = "",
    domain: Annotated[str, typer.Option(help="What its host names end in; without it below the network's.")] = "",
    peers: Annotated[int, typer.Option(help="How many peers it runs.")] = 1,
    attribute: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE in the certificates of its users; may be repeated.")
    ] = None,
    save: Save = None,
    json_output: Json = False,
) -> None:
    """Add an organisation with its peers to channels of the network that runs."""
    from sovchain.network import Network
    from sovchain.network.members import with_organization

    out = Output(as_json=json_output)
    async with Network.attach(directory) as network:
        wanted = with_organization(
            network.topology, name, channel, jurisdiction=jurisdiction, domain=domain, peers=peers,
            attributes=_attributes(attribute or []),
        )  # fmt: skip
        await _apply(out, network, wanted, yes=False, save=save)


@command
async def remove_org(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the organisation.")],
    directory: Directory = DEFAULT_DIRECTORY,
    channel: Annotated[
        list[str] | None, typer.Option(help="Only from this channel; may be repeated. Without it altogether.")
    ] = None,
    save: Save = None,
    json_output: Json = False,
) -> None:
    """Remove an organisation from channels of the network that runs, or altogether. Its keys and its ledger stay."""
    from sovchain.network import Network
    from sovchain.network.members import without_organization

    out = Output(as_json=json_output)
    async with Network.attach(directory) as network:
        wanted = without_organization(network.topology, name, channel or ())
        await _apply(out, network, wanted, yes=True, save=save)


@command
async def upgrade(
    chaincode: Annotated[str, typer.Argument(metavar="CHAINCODE", help="Name of the chaincode.")],
    version: Annotated[
        str | None, typer.Option(help="The new version: a new package, served by a new process.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Who must endorse from now on, in Fabric's policy language.")
    ] = None,
    collections: Annotated[
        Path | None, typer.Option(help="A YAML list of all its private data collections from now on.")
    ] = None,
    module: Annotated[
        str | None, typer.Option(help="Where the code of the new version is: package.module:object.")
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    save: Save = None,
    json_output: Json = False,
) -> None:
    """Upgrade a chaincode of the network that runs: approved by each organisation, committed as the next sequence."""
    from sovchain.network import Network
    from sovchain.network.upgrades import read_collections, with_upgrade

    if (version, policy, collections, module) == (None, None, None, None):
        raise problems.CommandError(
            f"nothing to change in chaincode {chaincode}",
            "none of --version, --policy, --collections and --module is given",
            "say what is to be different",
        )
    out = Output(as_json=json_output)
    declared = read_collections(collections) if collections else None
    async with Network.attach(directory) as network:
        wanted = with_upgrade(
            network.topology, chaincode, version=version, endorsement_policy=policy, collections=declared, module=module
        )
        await _apply(out, network, wanted, yes=False, save=save)


async def _apply(
    out: Output, network: Network, wanted: Topology | None, *, yes: bool, save: Path | None = None
) -> None:
    found = await network.plan(wanted)
    taken = [step for step in found.steps if step.action in TAKES_AWAY]
    if taken and not yes:
        _confirm(out, taken)
    with out.progress("apply") as progress:
        applied = await network.apply(wanted, progress=progress)
    if save is not None and wanted is not None:
        _save(save, wanted)
    steps = applied.steps
    lines = [step.text for step in steps] or ["nothing to do: the network is as the topology says"]
    out.result({"steps": [{"action": s.action, "text": s.text, "details": list(s.details)} for s in steps]}, *lines)


def _confirm(out: Output, steps: list[Step]) -> None:
    """Ask before somebody loses something; where nobody can be asked, refuse."""
    for step in steps:
        out.say(f"  {step.text}")
    if sys.stdin.isatty() and not out.as_json and typer.confirm("Take these steps too?"):
        return
    raise problems.CommandError(
        "nothing was changed",
        f"{len(steps)} steps take something away, such as: {steps[0].text}",
        "look at them (sovchain plan), then apply with --yes",
        problems.EXIT_USAGE,
    )


def _show(out: Output, found: Plan) -> None:
    lines: list[str] = []
    for number, step in enumerate(found.steps, 1):
        lines.append(f"{number:3}. {step.text}")
        lines += [f"       {detail}" for detail in step.details]
    out.result({"steps": found.as_document()}, *(lines or ["nothing differs: the network is as the topology says"]))


def _attributes(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise problems.CommandError(
                f"cannot use the attribute {text!r}", "it has no equals sign", "write it as NAME=VALUE"
            )
        found[name] = value
    return found


def _save(path: Path, topology: Topology) -> None:
    from sovchain.network.topologywriter import to_yaml

    path.write_text(to_yaml(topology), encoding="utf-8")
