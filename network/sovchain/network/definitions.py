"""Public definitions: what one operator tells the others so that a network comes to be without anyone's keys travelling.

An operator is an organisation with a peer, together with the ordering organisations that it operates. Its definition holds
their roots, the addresses of their nodes and the nodes' certificates, all of which stand in the channels' configurations
anyway. From the definitions of all, everyone computes the same first block of each channel: the block's time and nonce
follow from them, so that equal definitions give equal bytes, and the hash can be compared over the telephone.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import rfc8785
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import common_pb2
from fabric_protos.msp import msp_config_pb2
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from sovchain.network.certificates import names_of
from sovchain.network.errors import DefinitionRefused
from sovchain.network.genesis import channel_definition
from sovchain.network.material import Material, OrganizationMaterial
from sovchain.network.material_layout import Holder, holders, public_msp
from sovchain.network.topology import AnyOrganization, Topology
from sovchain.protocol.channelconfig import msp_config
from sovchain.protocol.crypto import load_certificate
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.genesis import genesis_block
from sovchain.protocol.identity import parse_identity, serialize_identity
from sovchain.protocol.msp import Msp

FORMAT: Final = 1
MAX_BYTES: Final = 4 * 1024 * 1024
"""Largest definition that is read."""

Pem = Annotated[str, Field(max_length=64 * 1024)]
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeDefinition(_Part):
    """A node: under which address and port the others reach it, and its certificates (PEM)."""

    host: str
    address: Address
    port: Annotated[int, Field(ge=1, le=65535)]
    certificate: Pem
    tls_certificate: Pem


class OrganizationEntry(_Part):
    """An organisation or ordering organisation: its roots, what it has revoked (PEM), and its nodes."""

    name: str
    msp_id: str
    root: Pem
    tls_root: Pem
    revocation_lists: Annotated[tuple[Annotated[str, Field(max_length=1024 * 1024)], ...], Field(max_length=8)] = ()
    nodes: Annotated[tuple[NodeDefinition, ...], Field(min_length=1, max_length=16)]


class Definition(_Part):
    """What one operator tells the others.

    Attributes:
        format: version of this form.
        network: name of the network.
        topology: digest of the topology that all have agreed on.
        operator: the organisation with a peer.
        created_at: when it was made; the latest of all is the time of the channels' first blocks.
        organizations: the operator's organisation, then the ordering organisations that it operates.
    """

    format: Literal[1] = FORMAT
    network: str
    topology: str
    operator: str
    created_at: AwareDatetime
    organizations: Annotated[tuple[OrganizationEntry, ...], Field(min_length=1, max_length=64)]

    @property
    def digest(self) -> str:
        """SHA-256 of the definition (RFC 8785), hexadecimal: what operators compare."""
        return _digest(self.model_dump(mode="json"))

    @property
    def endpoints(self) -> dict[str, tuple[str, int]]:
        """Address and port of each node, by its host name."""
        return {node.host: (node.address, node.port) for part in self.organizations for node in part.nodes}


def _digest(document: Any) -> str:
    return hashlib.sha256(rfc8785.dumps(document)).hexdigest()


def topology_digest(topology: Topology) -> str:
    """SHA-256 of a topology (RFC 8785), hexadecimal. What only concerns a single host, its ports, is left out."""
    document = topology.model_dump(mode="json", exclude={"ports"})
    return _digest(json.loads(json.dumps(document), parse_float=str))


def operated_by(topology: Topology, operator: str) -> tuple[AnyOrganization, ...]:
    """The organisation of this name and the ordering organisations that it operates. Raises UnknownName."""
    own = topology.organization(operator)
    return (own, *(part for part in topology.ordering_organizations if part.operator == operator))


def operators_of(topology: Topology, channels: Iterable[str]) -> set[str]:
    """The operators whose definitions the first blocks of these channels are made from."""
    return {operator for channel in channels for operator in topology.operators(channel)}


def channels_of(topology: Topology, operator: str) -> list[str]:
    """The channels that an operator has a part in, as a member or by ordering for it."""
    return [channel.name for channel in topology.channels if operator in topology.operators(channel.name)]


def define(
    topology: Topology, operator: str, material: Material, endpoints: Mapping[str, tuple[str, int]], now: datetime
) -> Definition:
    """Make an operator's definition from its own folders. Raises UnknownName, InstanceDamaged."""
    return Definition(
        network=topology.name,
        topology=topology_digest(topology),
        operator=operator,
        created_at=now.replace(microsecond=0),
        organizations=tuple(
            _entry(material.organization(part.name), endpoints) for part in operated_by(topology, operator)
        ),
    )


def _entry(part: OrganizationMaterial, endpoints: Mapping[str, tuple[str, int]]) -> OrganizationEntry:
    return OrganizationEntry(
        name=part.organization.name,
        msp_id=part.msp_id,
        root=part.root_pem.decode(),
        tls_root=part.tls_root_pem.decode(),
        revocation_lists=tuple(pem.decode() for pem in part.revocation_lists),
        nodes=tuple(
            NodeDefinition(
                host=node.host,
                address=endpoints[node.host][0],
                port=endpoints[node.host][1],
                certificate=node.certificate_pem.decode(),
                tls_certificate=node.tls_certificate_pem.decode(),
            )
            for node in part.public_nodes()
        ),
    )


def write_definition(definition: Definition) -> bytes:
    """The definition as a file."""
    return definition.model_dump_json(indent=2).encode() + b"\n"


def read_definition(path: Path) -> Definition:
    """Read a file of `write_definition`. Raises DefinitionRefused; what it says is for `check_definition` to judge."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DefinitionRefused(str(path), f"it cannot be read ({error.strerror})") from None
    if len(content) > MAX_BYTES:
        raise DefinitionRefused(str(path), f"it has more than {MAX_BYTES} bytes")
    if b"PRIVATE KEY" in content:
        raise DefinitionRefused(
            str(path),
            "there is a private key in it",
            "have its sender replace the key, which is known to others now, and send the definition alone",
        )
    try:
        return Definition.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "the document"
        raise DefinitionRefused(str(path), f"{place}: {first['msg'].lower()}") from None


def check_definition(definition: Definition, topology: Topology, now: datetime, *, earlier: bool = False) -> None:
    """Check that a definition fits the topology and that the MSPs which it makes would accept its own nodes.

    With `earlier` it may have been made for a topology that came before this one: channels that exist are not made from it.
    Raises DefinitionRefused, which names what is wrong.
    """
    source = f"of {definition.operator}"
    if not earlier and definition.topology != topology_digest(topology):
        raise DefinitionRefused(
            source, "it was made for another topology", "agree on one topology file, and have the definition made again"
        )
    known = {organization.name for organization in topology.organizations}
    if definition.operator not in known:
        raise DefinitionRefused(source, f"the topology has no organisation {definition.operator}")
    expected = operated_by(topology, definition.operator)
    if [entry.name for entry in definition.organizations] != [part.name for part in expected]:
        names = ", ".join(part.name for part in expected)
        raise DefinitionRefused(source, f"it must define exactly {names}, in this order")
    for entry, part in zip(definition.organizations, expected, strict=True):
        _check_entry(source, entry, part, now)


def _check_entry(source: str, entry: OrganizationEntry, part: AnyOrganization, now: datetime) -> None:
    if entry.msp_id != part.msp_id:
        raise DefinitionRefused(source, f"{entry.name} has the MSP id {entry.msp_id}, in the topology {part.msp_id}")
    if [node.host for node in entry.nodes] != [node.host for node in part.all_nodes]:
        raise DefinitionRefused(source, f"its nodes of {entry.name} are not those of the topology")
    try:
        roots = {
            name: load_certificate(pem.encode()) for name, pem in (("root", entry.root), ("TLS root", entry.tls_root))
        }
        msp = Msp.from_config(_msp_config(entry))
    except ProtocolError as error:
        raise DefinitionRefused(source, f"the MSP of {entry.name} cannot be used: {error}") from None
    if roots["root"].public_key() == roots["TLS root"].public_key():
        raise DefinitionRefused(source, f"{entry.name} has one root for identities and for TLS")
    for name, root in roots.items():
        if not root.not_valid_before_utc <= now <= root.not_valid_after_utc:
            raise DefinitionRefused(
                source,
                f"the {name} of {entry.name} is valid from {root.not_valid_before_utc} to {root.not_valid_after_utc}",
                "have it made again, and check the clocks of both hosts",
            )
    kinds = {node.host: node.kind for node in part.all_nodes}
    for node in entry.nodes:
        try:
            identity = parse_identity(serialize_identity(entry.msp_id, node.certificate.encode()))
            msp.validate(identity)
            if msp.role(identity) != kinds[node.host]:
                raise DefinitionRefused(source, f"{node.host} has no certificate of a {kinds[node.host]}")
            server = load_certificate(node.tls_certificate.encode())
            server.verify_directly_issued_by(roots["TLS root"])
        except ProtocolError as error:
            raise DefinitionRefused(source, f"a certificate of {node.host} is refused: {error}") from None
        except (InvalidSignature, ValueError, TypeError):
            raise DefinitionRefused(source, f"the TLS certificate of {node.host} is of another authority") from None
        if not _covers(server, node.address):
            raise DefinitionRefused(source, f"the TLS certificate of {node.host} is not for {node.address}")


def _msp_config(entry: OrganizationEntry) -> msp_config_pb2.FabricMSPConfig:
    return msp_config(
        entry.msp_id,
        [entry.root.encode()],
        tls_roots=[entry.tls_root.encode()],
        crls=[pem.encode() for pem in entry.revocation_lists],
    )


def _covers(certificate: x509.Certificate, address: str) -> bool:
    try:
        wanted = str(ipaddress.ip_address(address))
    except ValueError:
        wanted = address.lower()
    return wanted in {name.lower() for name in names_of(certificate)}


def check_together(definitions: Iterable[Definition]) -> None:
    """Check that no two operators share an endpoint, a root or a name. Raises DefinitionRefused."""
    seen: dict[object, str] = {}
    for definition in definitions:
        claims: list[tuple[object, str]] = [(definition.operator, f"a definition of {definition.operator}")]
        claims += [(endpoint, f"the address {endpoint[0]}:{endpoint[1]}") for endpoint in definition.endpoints.values()]
        for entry in definition.organizations:
            for pem in (entry.root, entry.tls_root):
                claims.append((load_certificate(pem.encode()).public_bytes(Encoding.DER), f"a root of {entry.name}"))
        for claim, words in claims:
            if claim in seen:
                raise DefinitionRefused(f"of {definition.operator}", f"{seen[claim]} has {words} too")
            seen[claim] = definition.operator


def public_files(entry: OrganizationEntry, part: AnyOrganization) -> dict[str, bytes]:
    """The files of an organisation's folder that others have: the same names, and no key."""
    domain, root, tls_root = part.domain, entry.root.encode(), entry.tls_root.encode()
    files = {f"ca/ca.{domain}-cert.pem": root, f"tlsca/tlsca.{domain}-cert.pem": tls_root}
    files |= {f"msp/{name}": content for name, content in public_msp(domain, root, tls_root).items()}
    for index, crl in enumerate(entry.revocation_lists):
        files[f"msp/crls/{index}.pem"] = crl.encode()
    nodes: dict[str, Holder] = {holder.name: holder for holder in holders(part) if holder.user is None}
    for node in entry.nodes:
        holder = nodes[node.host]
        files[holder.certificate_file] = node.certificate.encode()
        files[f"{holder.tls_file}.crt"] = node.tls_certificate.encode()
        files[f"{holder.folder}/tls/ca.crt"] = tls_root
    return files


def first_block(
    topology: Topology, material: Material, definitions: Mapping[str, Definition], channel: str
) -> common_pb2.Block:
    """Make the first block of a channel from the definitions of those who have a part in it, by their names.

    The same definitions give the same bytes, on any machine. `material` has all their public folders. Raises UnknownName,
    InstanceDamaged, ConfigError.
    """
    parts = [definitions[name] for name in sorted(operators_of(topology, [channel]))]
    endpoints = {host: endpoint for part in parts for host, endpoint in part.endpoints.items()}
    seed = {"channel": channel, "definitions": [part.digest for part in parts], "topology": topology_digest(topology)}
    nonce = bytes.fromhex(_digest({"sovchain first block": seed}))[:24]
    moment = max(part.created_at for part in parts)
    return genesis_block(channel_definition(topology, material, endpoints, channel), timestamp=moment, nonce=nonce)
