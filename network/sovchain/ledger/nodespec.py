"""What a node of the embedded ledger is made from, and whether it can be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sovchain.ledger.access import load_msp
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.orderer import SigningNode
from sovchain.ledger.peer import Peer
from sovchain.ledger.registry import Registry
from sovchain.protocol.crypto import load_private_key
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.identity import parse_identity, serialize_identity

_PORT: Final = re.compile(r"[0-9]{1,5}")


class NodeConfigurationError(LedgerError):
    """A node's description cannot be used. `node` is its host name, `reason` says what is wrong."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"cannot start {node}: {reason}; correct the node's certificates, keys or address")
        self.node = node
        self.reason = reason


@dataclass(frozen=True)
class NodeSpec:
    """One peer or ordering node: its identity, its TLS certificate and the address it listens on.

    Attributes:
        msp_id: MSP id of the organisation that owns the node.
        host: host name in the node's TLS certificate, for example "peer0.finance.guiyang.example".
        listen: "address:port"; port 0 lets the system choose (see `EmbeddedLedger.address_of`).
        certificate_pem: enrolment certificate of the node (NodeOU peer or orderer).
        private_key_pem: PKCS#8 private key of `certificate_pem`. Never logged, left out of the repr.
        tls_certificate_pem: TLS server certificate, with its chain.
        tls_private_key_pem: private key of `tls_certificate_pem`. Never logged, left out of the repr.
        tls_root_pems: TLS roots of the node's organisation; client certificates are checked against them when
            `client_auth` is set.
        client_auth: demand a TLS client certificate (mutual TLS); deliver requests are then bound to it.
        msp_config: serialised msp.FabricMSPConfig of the organisation, which judges proposals without a channel
            (package installation, list of channels). Without it, the MSP of the first joined channel is used, and
            such proposals are refused until a channel is joined.
        operations_listen: "address:port" of health, version, metrics and log levels over HTTPS; empty: none.
        seed: what the node's nonces come from, its signatures without a random part; for golden tests only. Left out of
            the repr.
        admin_listen: "address:port" of an ordering node's administration of its channels; empty: none.
    """

    msp_id: str
    host: str
    listen: str
    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)
    tls_certificate_pem: bytes
    tls_private_key_pem: bytes = field(repr=False)
    tls_root_pems: bytes
    client_auth: bool = False
    msp_config: bytes = field(default=b"", repr=False)
    operations_listen: str = ""
    admin_listen: str = ""
    seed: bytes = field(default=b"", repr=False)


def check_specs(peers: Sequence[NodeSpec], orderers: Sequence[NodeSpec]) -> None:
    hosts: set[str] = set()
    for spec in [*peers, *orderers]:
        if spec.host in hosts:
            raise NodeConfigurationError(spec.host, "two nodes have this host name")
        hosts.add(spec.host)
        address, separator, port = spec.listen.rpartition(":")
        if not separator or not address or not _PORT.fullmatch(port) or int(port) > 65535:
            raise NodeConfigurationError(spec.host, f"listen address {spec.listen[:80]!r} is not address:port")
    if not orderers:
        raise NodeConfigurationError("the ledger", "there is no ordering node")


def signing_node(spec: NodeSpec) -> SigningNode:
    try:
        return SigningNode.from_pem(spec.msp_id, spec.certificate_pem, spec.private_key_pem, spec.seed)
    except ProtocolError as error:
        raise NodeConfigurationError(spec.host, str(error)) from error


def make_peer(spec: NodeSpec, registry: Registry, packages: Path, execute_timeout_s: float) -> Peer:
    try:
        identity = serialize_identity(spec.msp_id, spec.certificate_pem)
        parse_identity(identity)
        key = load_private_key(spec.private_key_pem)
        msp = load_msp(spec.msp_config) if spec.msp_config else None
    except (ProtocolError, ValueError) as error:
        raise NodeConfigurationError(spec.host, str(error)) from error
    return Peer(
        registry,
        msp_id=spec.msp_id,
        host=spec.host,
        address=spec.listen,
        identity=identity,
        key=key,
        packages=packages,
        msp=msp,
        execute_timeout_s=execute_timeout_s,
        deterministic=bool(spec.seed),
    )
