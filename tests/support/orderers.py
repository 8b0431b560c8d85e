"""Real ordering nodes of Hyperledger Fabric, started from a network's material, for tests."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sovchain.network.material import Material
from sovchain.network.ports import node_ports
from sovchain.network.topology import Node, Topology

DEADLINE_S = 60.0
_PAUSE_S = 0.03


@dataclass
class Orderer:
    """A running ordering node."""

    node: Node
    process: subprocess.Popen[bytes]
    log: Path
    admin_port: int
    operations_port: int
    context: ssl.SSLContext

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        """Call the participation API with the administrator's TLS certificate."""
        connection = http.client.HTTPSConnection("localhost", self.admin_port, context=self.context, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def join(self, block: bytes) -> dict[str, Any]:
        """Join a channel by its first block."""
        edge = "sovchain-boundary"
        body = (
            f'--{edge}\r\nContent-Disposition: form-data; name="config-block"; filename="config.block"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        body += block + f"\r\n--{edge}--\r\n".encode()
        status, answer = self.request(
            "POST", "/participation/v1/channels", body, f"multipart/form-data; boundary={edge}"
        )
        assert status == 201, (status, answer, self.tail())
        return json.loads(answer)  # type: ignore[no-any-return]

    def channel(self, name: str) -> dict[str, Any]:
        """What the node says about a channel."""
        status, answer = self.request("GET", f"/participation/v1/channels/{name}")
        assert status == 200, (status, answer, self.tail())
        return json.loads(answer)  # type: ignore[no-any-return]

    def metrics(self) -> dict[str, float]:
        """The node's metrics by name and labels."""
        connection = http.client.HTTPConnection("localhost", self.operations_port, timeout=10)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def tail(self) -> str:
        """The end of the node's log."""
        return self.log.read_text(errors="replace")[-3000:]

    def wait(self, condition: Any, what: str) -> Any:
        """Ask `condition` until it gives something; fail when the node ends or after `DEADLINE_S`."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert self.process.poll() is None, f"{self.node.host} ended: {self.tail()}"
            try:
                found = condition()
            except OSError:
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, f"{self.node.host}: {what} did not come: {self.tail()}"
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """Ask the node to end and wait for it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_orderer(
    program: Path, topology: Topology, material: Material, ports: Mapping[str, int], node: Node, folder: Path
) -> Orderer:
    """Start one ordering node in a folder of its own."""
    part = material.organization(node.organization)
    home, numbers = part.node_folder(node.host), node_ports(node)
    folder.mkdir(parents=True)
    (folder / "orderer.yaml").write_text(yaml.safe_dump(_configuration(part.msp_id, home, numbers, ports, folder)))
    log = folder / "orderer.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [program],
            env={"FABRIC_CFG_PATH": str(folder), "PATH": "/usr/bin:/bin"},
            stdout=file,
            stderr=file,
            cwd=folder,
        )
    admin = part.user_msp("Admin").parent / "tls"
    context = ssl.create_default_context(cadata=part.tls_root_pem.decode())
    context.load_cert_chain(admin / "client.crt", admin / "client.key")
    return Orderer(node, process, log, ports[numbers["admin"]], ports[numbers["operations"]], context)


def _configuration(
    msp_id: str, home: Path, numbers: Mapping[str, str], ports: Mapping[str, int], folder: Path
) -> dict[str, Any]:
    tls = {"Certificate": f"{home}/tls/server.crt", "PrivateKey": f"{home}/tls/server.key"}
    roots = [str(path) for path in sorted(home.parents[2].glob("*/tlsca/*.pem"))]
    return {
        "General": {
            "ListenAddress": "127.0.0.1",
            "ListenPort": ports[numbers["main"]],
            "TLS": {"Enabled": True, **tls, "RootCAs": [f"{home}/tls/ca.crt"]},
            "Cluster": {
                "SendBufferSize": 100,
                "ClientCertificate": tls["Certificate"],
                "ClientPrivateKey": tls["PrivateKey"],
                "RootCAs": roots,
            },
            "BootstrapMethod": "none",
            "LocalMSPDir": f"{home}/msp",
            "LocalMSPID": msp_id,
            "BCCSP": {"Default": "SW", "SW": {"Hash": "SHA2", "Security": 256}},
            "Authentication": {"TimeWindow": "15m"},
        },
        "FileLedger": {"Location": f"{folder}/ledger"},
        "Operations": {"ListenAddress": f"127.0.0.1:{ports[numbers['operations']]}"},
        "Metrics": {"Provider": "prometheus"},
        "Admin": {
            "ListenAddress": f"127.0.0.1:{ports[numbers['admin']]}",
            "TLS": {"Enabled": True, **tls, "ClientAuthRequired": True, "ClientRootCAs": [f"{home}/tls/ca.crt"]},
        },
        "ChannelParticipation": {"Enabled": True, "MaxRequestBodySize": "10 MB"},
        "Consensus": {"WALDir": f"{folder}/wal", "SnapDir": f"{folder}/snap"},
    }
