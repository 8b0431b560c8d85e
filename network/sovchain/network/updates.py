"""Changing a channel together where nobody holds another's keys: an update as a file, signed by one after the other.

The file is Fabric's own form of an update (common.Envelope with a common.ConfigUpdateEnvelope): `peer channel signconfigtx`
signs it, and `peer channel update` submits it, too. One organisation proposes what a topology says; each looks at what the
update makes of the configuration in force, and signs; when the signatures are enough, anyone submits it. An update fits
one configuration only: when another change comes first, it is proposed again.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fabric_protos.common import common_pb2, configtx_pb2
from google.protobuf.message import DecodeError

from sovchain.network.configuration import (
    LISTED_MAX,
    ChannelConfiguration,
    Configured,
    is_satisfied,
    missing_signers,
)
from sovchain.network.definitions import Definition, check_definition, operated_by, public_files
from sovchain.network.differences import consenter_changes, differences
from sovchain.network.errors import DefinitionsMissing, NetworkError, NotUp, SignaturesMissing, UpdateRefused
from sovchain.network.files import write_file, write_tree
from sovchain.network.genesis import channel_definition
from sovchain.network.instance import Status
from sovchain.network.material import Material
from sovchain.network.material_layout import folder_of
from sovchain.network.nodes import Administrator
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.access import administered_peer, administrator_of, site_of
from sovchain.network.startup import ordering_nodes
from sovchain.network.topology import AnyOrganization, Topology
from sovchain.network.transition import check_changes
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.configedit import next_configuration, read_consenters, write_consenters
from sovchain.protocol.configupdate import (
    compute_update,
    required_policies,
    resulting_group,
    sign_update,
    signed_envelope,
    update_of,
)
from sovchain.protocol.crypto import sha256
from sovchain.protocol.errors import ConfigError
from sovchain.protocol.genesis import channel_group
from sovchain.protocol.policies import SignedData, verified_identities

MAX_BYTES: Final = 4 * 1024 * 1024
"""Largest file that is read."""
_SIGNATURES_MAX: Final = 256

Group = configtx_pb2.ConfigGroup


@dataclass(frozen=True)
class ChannelUpdate:
    """An update with the signatures that it has so far.

    Attributes:
        channel: the channel.
        content: the update as it is signed (common.ConfigUpdate).
        signatures: those that were given, good or not.
    """

    channel: str
    content: bytes
    signatures: tuple[configtx_pb2.ConfigSignature, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the content, hexadecimal: the same for all who sign, to be compared over the telephone."""
        return sha256(self.content).hex()

    @property
    def update(self) -> configtx_pb2.ConfigUpdate:
        """The content. `read_update` has seen that it can be decoded."""
        return configtx_pb2.ConfigUpdate.FromString(self.content)

    def envelope(self, sender: Administrator) -> common_pb2.Envelope:
        """What is stored, and what is sent for ordering: handed over by `sender`, which says nothing for the update."""
        return signed_envelope(
            common_pb2.CONFIG_UPDATE,
            self.channel,
            configtx_pb2.ConfigUpdateEnvelope(config_update=self.content, signatures=self.signatures),
            creator=sender.creator,
            nonce=secrets.token_bytes(24),
            timestamp=datetime.now(UTC),
            sign=sender.sign,
        )

    def evidence(self) -> list[SignedData]:
        """The signatures as policies take them; what cannot be read proves nothing."""
        found = []
        for signature in self.signatures:
            try:
                creator = common_pb2.SignatureHeader.FromString(signature.signature_header).creator
            except DecodeError:
                continue
            found.append(SignedData(signature.signature_header + self.content, creator, signature.signature))
        return found


@dataclass(frozen=True)
class Standing:
    """What an update would do to the configuration in force, and whose signatures it has and lacks.

    Attributes:
        sequence: the configuration in force.
        changes: one line for each thing that it changes.
        signed: MSP ids of those whose signatures are good.
        missing: MSP ids that would do besides, by the path of each policy that is not satisfied.
    """

    sequence: int
    changes: tuple[str, ...]
    signed: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Seat:
    """Where one organisation stands to change a channel: with its own peers and keys, and nobody else's.

    Attributes:
        site: the network, or the organisation's part of it.
        configuration: what is in force, as the organisation's peers say.
        administrators: those of the organisation and of the ordering organisations that it operates; the first hands over.
    """

    site: Site
    configuration: ChannelConfiguration
    administrators: tuple[Administrator, ...]


@asynccontextmanager
async def seat(status: Status, channel: str, organization: str = "") -> AsyncIterator[Seat]:
    """The seat of an organisation on a channel for the length of the block; without a name that of the bundle's operator.

    `status` is of the network's directory. Raises UnknownName, KeysElsewhere, NotUp, NetworkError where the organisation
    is no member of the channel.
    """
    if status.topology is None:
        raise NotUp(status.directory)
    site = site_of(status)
    name = organization or site.operator
    if not name:
        raise NetworkError(
            "nobody is named whose word it is", "all organisations are in this directory", "name one (--as)"
        )
    topology, material = site.topology, Material(site.topology, site.directory / "organizations")
    member = topology.organization(name)
    if name not in topology.channel(channel).members:
        raise NetworkError(
            f"{name} cannot tell the configuration of channel {channel}", "it is no member", "ask one who is"
        )
    people = [administrator_of(material, member)]
    for part in topology.orderers(channel):
        own = material.organization(part.name)
        if part.operator == name and own.has_keys:
            credential = own.user("Admin")
            people.append(Administrator.from_pem(part.msp_id, credential.certificate_pem, credential.private_key_pem))
    async with AsyncExitStack() as stack:
        orderers = ordering_nodes(site, material, channel)
        stack.push_async_callback(orderers.close)
        peers = [administered_peer(site, material, member, node.host) for node in member.all_nodes]
        for peer in peers:
            stack.push_async_callback(peer.close)
        yield Seat(site, ChannelConfiguration(channel, peers, orderers, people), tuple(people))


def read_update(path: Path) -> ChannelUpdate:
    """Read an update from a file. Raises UpdateRefused, OSError."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UpdateRefused(str(path), f"it is larger than {MAX_BYTES} bytes")
    try:
        inner = update_of(common_pb2.Envelope.FromString(content))
        channel = configtx_pb2.ConfigUpdate.FromString(inner.config_update).channel_id
    except (DecodeError, ConfigError) as error:
        raise UpdateRefused(str(path), f"it is no update of a configuration ({error or 'not decoded'})") from None
    if not channel or len(inner.signatures) > _SIGNATURES_MAX:
        raise UpdateRefused(str(path), "it names no channel" if not channel else "it has too many signatures")
    return ChannelUpdate(channel, inner.config_update, tuple(inner.signatures))


def write_update(path: Path, update: ChannelUpdate, sender: Administrator) -> None:
    """Write an update into a file, in place of what is there. Raises OSError."""
    write_file(path, update.envelope(sender).SerializeToString())


def standing(update: ChannelUpdate, bundle: ChannelBundle, source: str = "") -> Standing:
    """Say what an update does and what it lacks. Raises UpdateRefused when it does not fit the configuration in force."""
    source = source or f"of channel {update.channel}"
    if update.channel != bundle.channel_id:
        raise UpdateRefused(source, f"it is of channel {update.channel}, not of {bundle.channel_id}")
    try:
        following = resulting_group(update.update, bundle)
        policies = required_policies(update.update, bundle)
        changes = tuple(described(bundle.config.channel_group, following))
    except ConfigError as error:
        raise UpdateRefused(
            source, f"it does not fit the configuration in force ({bundle.sequence}): {error}"
        ) from None
    if not changes:
        # Whoever signs must know what for.
        raise UpdateRefused(source, "it changes nothing that can be told")
    evidence = update.evidence()
    signed = tuple(dict.fromkeys(identity.msp_id for identity in verified_identities(evidence, bundle.msps)))
    lacking = [path for path in dict.fromkeys(policies.values()) if not is_satisfied(bundle, path, evidence)]
    return Standing(bundle.sequence, changes, signed, {path: missing_signers(bundle, path, signed) for path in lacking})


def described(current: Group, following: Group) -> Iterator[str]:
    """Every difference of two root groups in words: also ordering nodes, and who may change what."""
    yield from differences(current, following)
    come, go = consenter_changes(current, following)
    yield from (f"ordering node {node.host}:{node.port} comes" for node in come)
    yield from (f"ordering node {node.host}:{node.port} goes" for node in go)
    before = {(node.host, node.port): node for node in read_consenters(current.groups["Orderer"])}
    for node in read_consenters(following.groups["Orderer"]):
        if before.get((node.host, node.port), node) != node:
            yield f"ordering node {node.host}:{node.port} gets other certificates"
    yield from _guards("channel", current, following)


def _guards(place: str, current: Group, following: Group) -> Iterator[str]:
    """Differences in the policies that guard elements which stay."""
    if current.mod_policy != following.mod_policy:
        yield f"{place}: is changed under {following.mod_policy or 'no policy'} from now on, not {current.mod_policy}"
    for kind in ("values", "policies"):
        old, new = getattr(current, kind), getattr(following, kind)
        for key in sorted(old.keys() & new.keys()):
            if old[key].mod_policy != new[key].mod_policy:
                now = new[key].mod_policy or "no policy"
                yield f"{place}: {key} is changed under {now} from now on, not {old[key].mod_policy}"
    for name in sorted(current.groups.keys() & following.groups.keys()):
        yield from _guards(f"{place}/{name}", current.groups[name], following.groups[name])


def sign(update: ChannelUpdate, bundle: ChannelBundle, administrators: Iterable[Administrator]) -> ChannelUpdate:
    """Add the signatures of those administrators whose word the update takes and does not have yet.

    Raises UpdateRefused: the update does not fit, or takes the word of none of them.
    """
    found = standing(update, bundle)
    counting = _counting(update, bundle)
    able = [person for person in administrators if counting is None or person.msp_id in counting]
    if not able:
        raise UpdateRefused(
            f"of channel {update.channel}",
            f"it takes the signatures of {', '.join(sorted(counting or ()))} only, whose keys are not here",
            "send it to one of these",
        )
    added = [
        sign_update(update.content, creator=person.creator, nonce=secrets.token_bytes(24), sign=person.sign)
        for person in able
        if person.msp_id not in found.signed
    ]
    return replace(update, signatures=(*update.signatures, *added))


def _counting(update: ChannelUpdate, bundle: ChannelBundle) -> set[str] | None:
    """MSP ids of those whose signatures can count for an update; None where they are too many to tell."""
    if len(bundle.msps.msp_ids) > LISTED_MAX:
        return None
    paths = set(required_policies(update.update, bundle).values())
    return {name for path in paths for group in bundle.policies.satisfying_organisations(path) for name in group}


async def submit(update: ChannelUpdate, place: Seat) -> Configured:
    """Send an update that has its signatures for ordering, and wait until the peers that can be asked have it.

    Raises SignaturesMissing, UpdateRefused, ConfigurationRefused, LifecycleError, ConfigError.
    """
    bundle, _ = await place.configuration.current()
    found = standing(update, bundle)
    for element, path in required_policies(update.update, bundle).items():
        if path in found.missing:
            raise SignaturesMissing(update.channel, element, path, found.signed, found.missing[path])
    done = await place.configuration.send(bundle, update.envelope(place.administrators[0]))
    return replace(done, signers=found.signed)


async def propose(place: Seat, target: Topology, received: Iterable[Definition] = ()) -> ChannelUpdate:
    """Compute the update that brings the channel to what a topology says of it, or one step of the way there.

    Ordering nodes come and go one at a time. Of organisations that are on the channel already only the own ones get what
    stands in this directory: the others see to their certificates themselves. `received` are the public definitions of
    those who come.

    Raises:
        NothingChanges: the channel is as the topology says.
        ChangesRefused: a running network does not take the change.
        DefinitionRefused, DefinitionsMissing: one who comes is not known.
        ConfigError: the configuration cannot become that.
    """
    site, channel = place.site, place.configuration.channel
    check_changes(site.topology, target)
    definitions = {found.operator: found for found in received}
    for definition in definitions.values():
        check_definition(definition, target, datetime.now(UTC))
    endpoints = dict(site.endpoints)
    for definition in definitions.values():
        endpoints |= definition.endpoints
    with _public_folders(site, target, definitions) as root:
        parts: list[AnyOrganization] = [*target.members(channel), *target.orderers(channel)]
        missing = sorted({part.name for part in parts if not (root / folder_of(part)).exists()})
        hosts = {node.host for part in parts for node in part.all_nodes}
        missing += sorted(host for host in hosts if host not in endpoints)
        if missing:
            raise DefinitionsMissing(site.directory, missing)
        wanted = channel_group(channel_definition(target, Material(target, root), endpoints, channel))
    bundle, _ = await place.configuration.current()
    current = bundle.config.channel_group
    _leave_others(current, wanted, {person.msp_id for person in place.administrators})
    config = configtx_pb2.Config(sequence=bundle.sequence)
    config.channel_group.CopyFrom(next_configuration(current, wanted))
    update = compute_update(channel, bundle.config, config)
    return ChannelUpdate(channel, update.SerializeToString(deterministic=True))


@contextmanager
def _public_folders(site: Site, target: Topology, definitions: Mapping[str, Definition]) -> Iterator[Path]:
    """The public folders of all organisations that are known: those in the directory, and those that come."""
    with TemporaryDirectory(prefix="sovchain-") as place:
        root, kept = Path(place), site.directory / "organizations"
        for part in target.everyone:
            folder = root / folder_of(part)
            if (kept / folder_of(part)).exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.symlink_to(kept / folder_of(part))
        for definition in definitions.values():
            for entry, part in zip(definition.organizations, operated_by(target, definition.operator), strict=True):
                if not (root / folder_of(part)).exists():
                    write_tree(root / folder_of(part), public_files(entry, part))
        yield root


def _leave_others(current: Group, wanted: Group, own: set[str]) -> None:
    """Take over what others have put into the configuration about themselves: their MSPs, their nodes' certificates."""
    for kind in ("Application", "Orderer"):
        for name in current.groups[kind].groups.keys() & wanted.groups[kind].groups.keys():
            if name not in own and "MSP" in current.groups[kind].groups[name].values:
                group = wanted.groups[kind].groups[name]
                group.values["MSP"].CopyFrom(current.groups[kind].groups[name].values["MSP"])
    have = {(node.host, node.port): node for node in read_consenters(current.groups["Orderer"])}
    nodes = [have.get((node.host, node.port), node) for node in read_consenters(wanted.groups["Orderer"])]
    write_consenters(wanted.groups["Orderer"], nodes, {})
