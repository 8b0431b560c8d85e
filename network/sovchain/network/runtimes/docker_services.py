"""The containers of a network: nodes, chaincodes, databases and authorities, with their configuration.

DIR/nodes/<host>/config/      a node's configuration, mounted with its MSP and TLS files
DIR/nodes/<host>/data/        what it keeps, where a native node keeps it too
DIR/nodes/<host>/couchdb/     a peer's CouchDB: its data and its account
DIR/chaincode/<Org>/          TLS and configuration of an organisation's chaincodes
DIR/authorities/<Org>/        home of an organisation's Fabric CA
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sovchain.network.authorities import AuthorityPlace, authority_files, registrar_secret
from sovchain.network.files import clean, make_folder, write_file
from sovchain.network.material import OrganizationMaterial
from sovchain.network.material_layout import AUTHORITY_FOLDER
from sovchain.network.ports import authority_ports, node_ports
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.chaincodes import ChaincodeTls, build_package, serve_configuration, served_by
from sovchain.network.runtimes.compose import ComposeFile, Container, answers_http, health, mount
from sovchain.network.runtimes.couchdb import logging_spec
from sovchain.network.runtimes.docker_images import Images
from sovchain.network.runtimes.settings import CouchDb, NodePlace, as_yaml, orderer_settings, peer_settings
from sovchain.network.topology import AnyOrganization, ChaincodeSpec, Node, Organization

LOG_VARIABLE: Final = "FABRIC_LOGGING_SPEC"
METRICS_ROOT: Final = "metrics-ca.crt"
"""File among a node's configuration with the root of those who watch the whole network."""
CHAINCODES_LABEL: Final = "org.sovchain.chaincodes"
"""Label of a container with the ports of the chaincodes that it serves, separated by commas."""

_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104  in a container, whose networks are its own
_CONFIG: Final = "/etc/hyperledger/fabric"
CONTAINER_DATA: Final = "/var/hyperledger"
"""Where a node in a container keeps what stands in `DIR/nodes/<host>/data`."""
_BUILDER: Final = "/opt/hyperledger/ccaas_builder"
"""The external builder that Fabric's peer image brings (images/peer/Dockerfile)."""
_CHAINCODE: Final = "/etc/chaincode"
_AUTHORITY_HOME: Final = "/etc/hyperledger/fabric-ca-server"
_AUTHORITY_ORGANIZATION: Final = "/etc/hyperledger/organization"
_COUCHDB_PORT: Final = 5984
_COUCHDB_USER: Final = "peer"
_MEMORY_MIB: Final = {"peer": 1024, "orderer": 1024, "chaincode": 512, "ca": 256, "couchdb": 1024}


def node_service(host: str) -> str:
    """Return the service of a node. No two hosts share one, because a host name has no underscore."""
    return host.replace(".", "_")


def chaincode_service(organization: Organization, further: str = "") -> str:
    """Return the service that runs an organisation's chaincodes; `further` is the label of the first that came later."""
    return f"chaincode.{organization.name}" + (f".{re.sub('[^a-zA-Z0-9._-]', '_', further)}" if further else "")


def authority_service(organization: AnyOrganization) -> str:
    """Return the service of an organisation's Fabric CA."""
    return f"ca.{organization.name}"


def chaincode_packages(site: Site, organization: Organization, now: datetime) -> dict[str, bytes]:
    """Write the TLS files of an organisation's chaincodes; return their packages by name, of the newest versions.

    `now` (UTC) is when new certificates begin.
    """
    folder, host = site.directory / "chaincode" / organization.name, _chaincode_host(organization)
    make_folder(folder)
    clean(folder)
    ChaincodeTls.create(folder / "tls", now, (host, f"*.{host}"))
    return {
        spec.name: _package(site, organization, spec, service)
        for spec, service in served_by(site.topology, organization)
    }


def _package(site: Site, organization: Organization, spec: ChaincodeSpec, service: str) -> bytes:
    tls = ChaincodeTls(site.directory / "chaincode" / organization.name / "tls")
    port = site.ports[service]
    return build_package(spec, [f"{_alias(organization, port)}:{port}"], tls)


def _chaincode_host(organization: Organization) -> str:
    return f"chaincode.{organization.domain}"


def _alias(organization: Organization, port: int) -> str:
    """Host name of one chaincode. Its port stays, whichever container serves it, and so does the package that names both."""
    return f"{port}.{_chaincode_host(organization)}"


def listens(port: int) -> tuple[str, ...]:
    """The command by which the chaincode image finds out whether its chaincode listens; it has no shell."""
    code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 3).close()"
    return "/usr/local/bin/python3", "-I", "-S", "-c", code


@dataclass(frozen=True)
class Containers:
    """Adds the containers of a network to a Compose file and writes what they are configured with.

    Attributes:
        site: the network.
        images: which images.
        file: the Compose file.
        metrics_root: root of those who may read all metrics.
    """

    site: Site
    images: Images
    file: ComposeFile
    metrics_root: bytes

    def add_node(self, part: OrganizationMaterial, node: Node) -> None:
        """Add a peer or an ordering node, and the peer's CouchDB where the topology wants one."""
        ports, folder = node_ports(node), self.site.directory / "nodes" / node.host
        # The mount points of the two folders, which are mounted into this one.
        for name in ("msp", "tls"):
            make_folder(folder / "config" / name)
        clean(folder / "config")
        place = NodePlace(
            host=self.site.endpoints[node.host][0],
            listen=_EVERYWHERE,
            port=self.site.ports[ports["main"]],
            operations_port=self.site.ports[ports["operations"]],
            second_port=self.site.ports[ports["chaincode" if node.kind == "peer" else "admin"]],
            msp=f"{_CONFIG}/msp",
            tls=f"{_CONFIG}/tls",
            data=CONTAINER_DATA,
            metrics_roots=(f"{_CONFIG}/{METRICS_ROOT}",),
        )
        write_file(folder / "config" / METRICS_ROOT, self.metrics_root, durable=False)
        name = "orderer.yaml" if node.kind == "orderer" else "core.yaml"
        write_file(folder / "config" / name, self._settings(part, node, place, folder), durable=False)
        # Nobody dials the port on which chaincode would register that the peer starts itself.
        published = [place.operations_port, *([place.second_port] if node.kind == "orderer" else [])]
        public = bool(self.site.operator)
        own = part.node_folder(node.host)
        container = Container(
            kind=node.kind,
            image=self.images.orderer if node.kind == "orderer" else self.images.peer,
            host=node.host,
            memory_mib=_MEMORY_MIB[node.kind],
            mounts=[
                mount(folder / "config", _CONFIG),
                mount(own / "msp", f"{_CONFIG}/msp"),
                mount(own / "tls", f"{_CONFIG}/tls"),
                self.file.volume(f"data.{node_service(node.host)}", folder / "data", CONTAINER_DATA),
            ],
            ports=published if public else [place.port, *published],
            public_ports=[place.port] if public else [],
            more={
                "environment": {
                    "FABRIC_CFG_PATH": _CONFIG,
                    "FABRIC_LOGGING_FORMAT": "json",
                    LOG_VARIABLE: logging_spec(
                        os.environ.get(LOG_VARIABLE, "info"),
                        account=node.kind == "peer" and self.site.topology.state_database == "couchdb",
                    ),
                    # Go gives memory back in time instead of being killed at the container's limit.
                    "GOMEMLIMIT": f"{_MEMORY_MIB[node.kind] * 9 // 10}MiB",
                },
                "healthcheck": answers_http(place.operations_port),
            },
        )
        self.file.add(node_service(node.host), container)

    def _settings(self, part: OrganizationMaterial, node: Node, place: NodePlace, folder: Path) -> bytes:
        if node.kind == "orderer":
            return as_yaml(orderer_settings(part.msp_id, place))
        first = part.organization.all_nodes[0].host
        couchdb = self._add_couchdb(node, folder) if self.site.topology.state_database == "couchdb" else None
        host, port = self.site.endpoints[first]
        bootstrap = f"{host}:{port}"
        return as_yaml(
            peer_settings(
                node.host,
                self.site.topology,
                part.msp_id,
                place,
                builder=_BUILDER,
                bootstrap=bootstrap,
                couchdb=couchdb,
            )
        )

    def _add_couchdb(self, node: Node, folder: Path) -> CouchDb:
        """Add a peer's CouchDB, which only the network's containers reach, with an account that is made once."""
        make_folder(folder / "couchdb")
        account = folder / "couchdb/account.env"
        if not account.exists():
            content = f"COUCHDB_USER={_COUCHDB_USER}\nCOUCHDB_PASSWORD={secrets.token_hex(16)}\n"
            write_file(account, content.encode())
        password = account.read_text().strip().rpartition("=")[2]
        host = f"couchdb.{node.host}"
        container = Container(
            kind="couchdb",
            image=self.images.couchdb,
            host=host,
            memory_mib=_MEMORY_MIB["couchdb"],
            mounts=[
                self.file.volume(f"couchdb.{node_service(node.host)}", folder / "couchdb/data", "/opt/couchdb/data")
            ],
            # The image writes the account into its configuration at each start (docker-entrypoint.sh).
            scratch=("/tmp", "/opt/couchdb/etc/local.d"),  # noqa: S108  paths in the container
            more={
                "profiles": ["couchdb"],
                "env_file": [str(account)],
                "healthcheck": health("curl", "--silent", "--fail", f"http://127.0.0.1:{_COUCHDB_PORT}/_up"),
            },
        )
        self.file.add(f"couchdb.{node_service(node.host)}", container)
        return CouchDb(f"{host}:{_COUCHDB_PORT}", _COUCHDB_USER, password)

    def add_chaincodes(
        self,
        organization: Organization,
        code: Mapping[str, Path],
        served: Sequence[tuple[ChaincodeSpec, str]],
        *,
        further: bool = False,
    ) -> str:
        """Add a container that serves chaincodes of an organisation, and return its service.

        Args:
            organization: the organisation; `chaincode_packages` has been called for it.
            code: what the image does not hold, by where it goes.
            served: the chaincodes, each with the name of its port (`served_by`).
            further: whether another container serves the organisation's other chaincodes.
        """
        folder = self.site.directory / "chaincode" / organization.name
        label = served[0][0].label if further else ""
        tls = [mount(folder / "tls" / name, f"{_CHAINCODE}/tls/{name}") for name in _SERVER_FILES]
        ports = [self.site.ports[service] for _, service in served]
        services = [
            (spec, _package(self.site, organization, spec, service), f"{_EVERYWHERE}:{port}")
            for (spec, service), port in zip(served, ports, strict=True)
        ]
        content = json.dumps(serve_configuration(services, ChaincodeTls(Path(_CHAINCODE) / "tls")), indent=2)
        config = folder / (f"{label}.json" if further else "serve.json")
        write_file(config, content.encode(), durable=False)
        container = Container(
            kind="chaincode",
            image=self.images.chaincode,
            host="" if further else _chaincode_host(organization),
            aliases=[_alias(organization, port) for port in ports],
            memory_mib=_MEMORY_MIB["chaincode"],
            mounts=[
                mount(config, f"{_CHAINCODE}/serve.json"),
                *tls,
                *(mount(source, target) for target, source in code.items()),
            ],
            labels={CHAINCODES_LABEL: ",".join(map(str, ports))},
            more={"healthcheck": health(*listens(ports[0]))},
        )
        name = chaincode_service(organization, label)
        self.file.add(name, container)
        return name

    def add_authority(self, part: OrganizationMaterial) -> None:
        """Add an organisation's Fabric CA, which reads the organisation's two roots and nothing else of it."""
        organization, ports = part.organization, authority_ports(part.organization)
        home = self.site.directory / "authorities" / organization.name
        make_folder(home / "tlsca")
        place = AuthorityPlace(
            _EVERYWHERE,
            self.site.ports[ports["main"]],
            self.site.ports[ports["operations"]],
            _AUTHORITY_ORGANIZATION,
            _AUTHORITY_HOME,
        )
        for name, content in authority_files(organization.domain, registrar_secret(part), place).items():
            write_file(home / name, content, durable=False)
        folders = ("ca", "tlsca", f"{AUTHORITY_FOLDER}/tls")
        container = Container(
            kind="ca",
            image=self.images.ca,
            host=f"ca.{organization.domain}",
            memory_mib=_MEMORY_MIB["ca"],
            mounts=[
                *(mount(part.folder / name, f"{_AUTHORITY_ORGANIZATION}/{name}") for name in folders),
                self.file.volume(authority_service(organization), home, _AUTHORITY_HOME),
            ],
            ports=[place.port, place.operations_port],
            more={
                "profiles": ["ca"],
                "command": ["fabric-ca-server", "start"],
                "environment": {"FABRIC_CA_SERVER_HOME": _AUTHORITY_HOME},
                "healthcheck": answers_http(place.operations_port),
            },
        )
        self.file.add(authority_service(organization), container)


_SERVER_FILES: Final = ("ca.crt", "server.crt", "server.key")
