"""One operator's part of a network that spans hosts: a directory with its own keys, and of the others what is public.

    DIR/network.json        as in every network's directory, with the operator and everyone's endpoints
    DIR/organizations/      the operator's folders with their keys; the others' folders with certificates only
    DIR/definitions/        the public definition of each operator, its own among them
    DIR/channels/           the first block of each of its channels, as it follows from the definitions

Each operator calls `define` on its own host and sends its definition to the others; with the definitions of all, `complete`
makes the blocks. `sovchain up --dir DIR` then runs the operator's nodes. Every step can be repeated: what is there is kept.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sovchain.network import material_enrolment
from sovchain.network.authorities import organizations_with_authority
from sovchain.network.definitions import (
    Definition,
    channels_of,
    check_definition,
    check_together,
    define,
    first_block,
    operated_by,
    operators_of,
    public_files,
    read_definition,
    write_definition,
)
from sovchain.network.errors import (
    BlocksDiffer,
    DefinitionRefused,
    DefinitionsMissing,
    DirectoryRefused,
    InstanceDamaged,
    NetworkError,
    RuntimeUnavailable,
)
from sovchain.network.files import make_folder, write_file, write_tree
from sovchain.network.instance import (
    FORMAT,
    BundlePart,
    Description,
    Instance,
    open_instance,
    read_description,
    write_description,
)
from sovchain.network.material import Material, create_organization
from sovchain.network.material_layout import folder_of
from sovchain.network.ports import allocate, authority_ports
from sovchain.network.runtimes import Site, create_runtime, own_part
from sovchain.network.topology import AnyOrganization, Topology
from sovchain.protocol.blocks import parse_block
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import ProtocolError

FIRST_PORT: Final = 7050
"""The operator's peers and ordering nodes listen on the ports from this one on, unless another is given."""

_RUNTIMES: Final = ("native", "docker")


@dataclass(frozen=True)
class Completed:
    """State of a bundle.

    Attributes:
        directory: where it is.
        operator: whose it is.
        definition: the file to send to the others.
        digests: digest of each definition that is there, by its operator.
        missing: operators whose definitions are needed and not there.
        blocks: SHA-256 of the first block of each of its channels, hexadecimal; empty while definitions are missing.
    """

    directory: Path
    operator: str
    definition: Path
    digests: Mapping[str, str]
    missing: tuple[str, ...]
    blocks: Mapping[str, str]


async def create_bundle(
    topology: Topology,
    operator: str,
    directory: Path,
    address: str,
    now: datetime,
    *,
    first_port: int = FIRST_PORT,
    runtime: str = "native",
) -> None:
    """Make an operator's keys and its definition in a directory; what is there is kept.

    Args:
        address: host name or address under which the other operators' nodes reach this host.
        now: start of all validities (UTC).
        first_port: its peers listen on the ports from this one on, then its ordering nodes.
        runtime: "native" or "docker": what the operator's nodes run on; the others need not know.

    Raises:
        UnknownName: the topology has no such operator.
        RuntimeUnavailable: the topology asks for what a bundle cannot have.
        DirectoryRefused, AlreadyUp, InstanceDamaged, VersionMismatch, TopologyChanged: see `instance`.
        ProgramsMissing, EngineUnavailable, ImagesMissing, EngineFailed, NodeFailed, CaError: the operator's Fabric CA
            does not start, or refuses.
    """
    own = operated_by(topology, operator)
    _check_address(address)
    if runtime not in _RUNTIMES:
        raise RuntimeUnavailable(runtime, "a bundle runs real nodes, which other hosts can reach", _RUNTIMES)
    with open_instance(directory) as instance:
        if instance.description is None:
            # First, so that a repetition goes on with the same ports and address where this is interrupted.
            write_description(directory, _describe(topology, operator, address, now, first_port, runtime))
        else:
            _same(instance, topology, operator, runtime)
        if _definition_file(directory, operator).exists():
            return
        description = read_description(directory)
        assert description is not None
        assert description.bundle is not None
        endpoints = description.bundle.endpoints
        for part in own:
            further = {node.host: (endpoints[node.host][0],) for node in part.all_nodes}
            create_organization(part, directory / "organizations", now, further)
        material = Material(topology, directory / "organizations")
        await _enrol(Site(directory, topology, description.ports, endpoints, operator), material, runtime)
        definition = define(topology, operator, material, endpoints, now)
        make_folder(directory / "definitions")
        write_file(_definition_file(directory, operator), write_definition(definition))


def _describe(
    topology: Topology, operator: str, address: str, now: datetime, first_port: int, runtime: str
) -> Description:
    """What the bundle consists of, with the ports of the operator's nodes and authorities."""
    hosts = [node.host for node in own_part(topology, operator).nodes]
    ports = {host: first_port + index for index, host in enumerate(hosts)}
    authorities = [name for part in operated_by(topology, operator) for name in authority_ports(part).values()]
    return Description(
        format=FORMAT,
        runtime=runtime,
        topology=topology,
        ports=ports | allocate(authorities, None, ports),
        created_at=now,
        bundle=BundlePart(operator=operator, endpoints={host: (address, port) for host, port in ports.items()}),
    )


async def _enrol(site: Site, material: Material, runtime_name: str) -> None:
    """Have the operator's Fabric CAs, if it has any, issue what its definition tells of; they end with it."""
    if not organizations_with_authority(material):
        return
    runtime = create_runtime(runtime_name)
    try:
        await runtime.release(site)
        await runtime.start_authorities(site, material)
        await material_enrolment.complete(site, material)
    finally:
        await runtime.stop()


def _check_address(address: str) -> None:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        refused = not all(part and part.replace("-", "").isalnum() and part.isascii() for part in address.split("."))
        why = "it is neither an address nor a host name"
    else:
        refused, why = found.is_unspecified or found.version != 4, "it is no IPv4 address of a host"
    if refused:
        raise NetworkError(f"cannot use the address {address!r}", why, "give what the other hosts reach this one by")


def _same(instance: Instance, topology: Topology, operator: str, runtime: str) -> None:
    description = instance.description
    assert description is not None
    if description.bundle is None or description.bundle.operator != operator:
        held = description.bundle.operator if description.bundle else "a whole network"
        raise DirectoryRefused(instance.directory, f"it holds {held}, not the bundle of {operator}")
    instance.compare(topology, runtime)


def complete(
    directory: Path,
    received: Iterable[Definition],
    now: datetime,
    blocks: Path | None = None,
    founded: Path | None = None,
) -> Completed:
    """Take other operators' definitions in, and make the first blocks when all are there; tell what stands.

    A definition that is there already must be the same.

    Args:
        blocks: a folder with blocks that another operator has made, `<channel>.block`, to compare with.
        founded: the same of channels that exist already, to be taken in place of making them: for one who joins. The
            definitions may then be those for the topology of before.

    Raises:
        DefinitionRefused: a definition cannot be used; nothing of it is kept. Or a block in `founded` is no first block.
        BlocksDiffer: a block in `blocks` is another one.
        DirectoryRefused, AlreadyUp, InstanceDamaged, VersionMismatch: see `instance`.
    """
    with open_instance(directory) as instance:
        description = instance.description
        if description is None or description.bundle is None:
            raise DirectoryRefused(directory, "it holds no bundle; sovchain network define makes one")
        topology, operator = description.topology, description.bundle.operator
        definitions = _definitions(directory, topology)
        new = _checked(definitions, received, topology, now, earlier=founded is not None)
        for definition in new:
            for part, files in _folders(definition, topology):
                folder = directory / "organizations" / folder_of(part)
                if not folder.exists():
                    write_tree(folder, files)
            # Last: what is listed here is all there.
            write_file(_definition_file(directory, definition.operator), write_definition(definition))
            definitions[definition.operator] = definition
        endpoints = {host: place for found in definitions.values() for host, place in found.endpoints.items()}
        bundle = BundlePart(operator=operator, endpoints=endpoints)
        write_description(directory, description.model_copy(update={"bundle": bundle}))
        channels = channels_of(topology, operator)
        missing = sorted(operators_of(topology, channels) - definitions.keys())
        if founded is not None:
            _take_blocks(directory, channels, founded)
        made = {} if missing else _store_blocks(directory, topology, definitions, channels)
        if blocks is not None and not missing:
            compare_blocks(made, blocks)
        digests = {name: definition.digest for name, definition in sorted(definitions.items())}
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
        return Completed(directory, operator, _definition_file(directory, operator), digests, tuple(missing), hashes)


def _definition_file(directory: Path, operator: str) -> Path:
    return directory / "definitions" / f"{operator}.json"


def _definitions(directory: Path, topology: Topology) -> dict[str, Definition]:
    found = {}
    for organization in topology.organizations:
        path = _definition_file(directory, organization.name)
        if path.exists():
            try:
                found[organization.name] = read_definition(path)
            except DefinitionRefused as error:
                raise InstanceDamaged(directory, path, error.why) from None
    return found


def _checked(
    kept: Mapping[str, Definition],
    received: Iterable[Definition],
    topology: Topology,
    now: datetime,
    *,
    earlier: bool = False,
) -> list[Definition]:
    """The definitions among `received` that are new, all of which can be used."""
    new: list[Definition] = []
    for definition in received:
        check_definition(definition, topology, now, earlier=earlier)
        known = kept.get(definition.operator)
        if known is None:
            new.append(definition)
        elif known.digest != definition.digest:
            raise DefinitionRefused(
                f"of {definition.operator}",
                f"another one is there already: {known.digest[:16]}, this is {definition.digest[:16]}",
                "ask its operator which one holds; to start again, use an empty directory",
            )
    check_together([*kept.values(), *new])
    return new


def _folders(definition: Definition, topology: Topology) -> list[tuple[AnyOrganization, dict[str, bytes]]]:
    parts = operated_by(topology, definition.operator)
    return [(part, public_files(entry, part)) for entry, part in zip(definition.organizations, parts, strict=True)]


def _store_blocks(
    directory: Path, topology: Topology, definitions: Mapping[str, Definition], channels: Sequence[str]
) -> dict[str, bytes]:
    material = Material(topology, directory / "organizations")
    made = {}
    for channel in channels:
        path = _block_file(directory, channel)
        if path.exists():
            # Certificates that were renewed since then make another block; the channel keeps its first one.
            made[channel] = path.read_bytes()
            continue
        made[channel] = first_block(topology, material, definitions, channel).SerializeToString(deterministic=True)
        make_folder(path.parent)
        write_file(path, made[channel])
    return made


def _take_blocks(directory: Path, channels: Sequence[str], founded: Path) -> None:
    """Keep the first blocks of channels that exist already, where there are none yet. Raises UpdateRefused."""
    for channel in channels:
        path, source = _block_file(directory, channel), founded / f"{channel}.block"
        if path.exists() or not source.exists():
            continue
        content = source.read_bytes()
        try:
            block = parse_block(content)
            if block.header.number != 0 or ChannelBundle.from_block(block).channel_id != channel:
                raise DefinitionRefused(str(source), f"it is not the first block of channel {channel}", "take another")
        except ProtocolError as error:
            raise DefinitionRefused(
                str(source), f"it is no block of a configuration: {error}", "take another"
            ) from None
        make_folder(path.parent)
        write_file(path, content)


def _block_file(directory: Path, channel: str) -> Path:
    return directory / "channels" / f"{channel}.block"


def assemble(topology: Topology, received: Iterable[Definition], output: Path, now: datetime) -> dict[str, str]:
    """Make the first blocks of the channels whose definitions are all there, without any key; return their SHA-256.

    They are written to the new folder `output` as `<channel>.block`. Anyone can do it, and all get the same bytes. Raises
    DefinitionRefused, DefinitionsMissing when none can be made, FileExistsError.
    """
    definitions = {found.operator: found for found in _checked({}, received, topology, now)}
    channels = [
        channel.name for channel in topology.channels if operators_of(topology, [channel.name]) <= definitions.keys()
    ]
    if not channels:
        names = operators_of(topology, [channel.name for channel in topology.channels[:1]])
        raise DefinitionsMissing(output, sorted(names - definitions.keys()))
    with TemporaryDirectory(prefix="sovchain-") as place:
        root = Path(place)
        for definition in definitions.values():
            for part, files in _folders(definition, topology):
                write_tree(root / folder_of(part), files)
        material = Material(topology, root)
        blocks = {
            name: first_block(topology, material, definitions, name).SerializeToString(deterministic=True)
            for name in channels
        }
    write_tree(output, {f"{name}.block": content for name, content in blocks.items()})
    return {name: hashlib.sha256(content).hexdigest() for name, content in blocks.items()}


def compare_blocks(made: Mapping[str, bytes], folder: Path) -> None:
    """Compare blocks with those of a folder. Raises BlocksDiffer, OSError."""
    for channel, content in made.items():
        path = folder / f"{channel}.block"
        if path.exists() and path.read_bytes() != content:
            hashes = [hashlib.sha256(found).hexdigest() for found in (content, path.read_bytes())]
            raise BlocksDiffer(channel, *hashes)


def check_complete(site: Site) -> None:
    """Refuse to run a bundle that lacks definitions. Raises DefinitionsMissing, InstanceDamaged."""
    channels = channels_of(site.topology, site.operator)
    definitions = _definitions(site.directory, site.topology)
    missing = sorted(operators_of(site.topology, channels) - definitions.keys())
    if missing:
        raise DefinitionsMissing(site.directory, missing)


def stored_blocks(site: Site) -> dict[str, bytes]:
    """The first blocks of the operator's channels, in the topology's order. Raises InstanceDamaged."""
    found = {}
    for channel in channels_of(site.topology, site.operator):
        path = _block_file(site.directory, channel)
        try:
            found[channel] = path.read_bytes()
        except OSError as error:
            raise InstanceDamaged(site.directory, path, f"it cannot be read ({error.strerror})") from None
    return found
