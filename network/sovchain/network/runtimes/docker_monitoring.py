"""Prometheus, which asks every node of a network, and Grafana with a dashboard of them: profile `monitoring`.

DIR/monitoring/tls/           the certificate that nodes know as one that may read metrics, and its root
DIR/monitoring/roots/         TLS roots of the organisations
DIR/monitoring/prometheus.yml whom Prometheus asks
DIR/monitoring/data/          what both keep
"""

from __future__ import annotations

import secrets
import sysconfig
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from sovchain.network.certificates import CertificateAuthority, Validity
from sovchain.network.files import make_folder, write_file, write_tree
from sovchain.network.material import Material
from sovchain.network.ports import node_ports
from sovchain.network.runtimes import Site, own_part
from sovchain.network.runtimes.compose import ComposeFile, Container, health, mount
from sovchain.network.runtimes.docker_images import Images

PROFILE: Final = "monitoring"
PROMETHEUS: Final = "prometheus"
GRAFANA: Final = "grafana"
SERVICES: Final = (PROMETHEUS, GRAFANA)
"""Names of the services, and of their ports."""

_VALID_DAYS: Final = 3650
_KEPT: Final = "15d"
_ADMIN_FILE: Final = "grafana.env"
_CONFIG: Final = "/etc/prometheus"


def metrics_root(site: Site, now: datetime) -> bytes:
    """Make the certificate that reads metrics, if it is not there, and return its root. `now` is UTC."""
    folder = site.directory / "monitoring/tls"
    if not folder.exists():
        validity = Validity.starting(now, days=_VALID_DAYS)
        authority = CertificateAuthority.create("metrics-ca", "monitoring", "", validity)
        client = authority.tls(PROMETHEUS, "", validity)
        files = {"client.crt": client.certificate_pem, "client.key": client.private_key_pem}
        write_tree(folder, {"ca.crt": authority.certificate_pem, **files})
    return (folder / "ca.crt").read_bytes()


def prometheus_config(site: Site) -> bytes:
    """Return whom Prometheus asks: one job for each organisation, whose nodes one root vouches for."""
    jobs = []
    for organization in own_part(site.topology, site.operator).everyone:
        nodes = organization.all_nodes
        # Containers reach each other by their host names, also where other hosts reach a node by an address.
        targets = [f"{node.host}:{site.ports[node_ports(node)['operations']]}" for node in nodes]
        labels = {"organization": organization.name, "kind": nodes[0].kind}
        jobs.append(
            {
                "job_name": organization.name,
                "scheme": "https",
                "tls_config": {
                    "ca_file": f"{_CONFIG}/roots/{organization.name}.pem",
                    "cert_file": f"{_CONFIG}/tls/client.crt",
                    "key_file": f"{_CONFIG}/tls/client.key",
                },
                "static_configs": [{"targets": targets, "labels": labels}],
                # The host name alone is what people know a node by.
                "relabel_configs": [{"source_labels": ["__address__"], "regex": "(.*):.*", "target_label": "instance"}],
            }
        )
    config = {
        "global": {"scrape_interval": "10s", "external_labels": {"network": site.topology.name}},
        "rule_files": [f"{_CONFIG}/rules/*.yml"],
        "scrape_configs": jobs,
    }
    return yaml.safe_dump(config, sort_keys=False).encode()


def watch(site: Site, material: Material) -> None:
    """Write whom Prometheus asks, and what vouches for them; it reads that when it starts."""
    folder = site.directory / "monitoring"
    make_folder(folder / "roots")
    for name in {node.organization for node in site.nodes}:
        write_file(folder / f"roots/{name}.pem", material.organization(name).tls_root_pem, durable=False)
    write_file(folder / "prometheus.yml", prometheus_config(site), durable=False)


def add_monitoring(file: ComposeFile, site: Site, material: Material, images: Images) -> None:
    """Add both services to a Compose file and write what they are configured with."""
    watch(site, material)
    folder = site.directory / "monitoring"
    if not (folder / _ADMIN_FILE).exists():
        write_file(folder / _ADMIN_FILE, f"GF_SECURITY_ADMIN_PASSWORD={secrets.token_hex(16)}\n".encode())
    shipped = shipped_folder()
    port = site.ports[PROMETHEUS]
    prometheus = Container(
        kind=PROMETHEUS,
        image=images.prometheus,
        host=PROMETHEUS,
        memory_mib=512,
        mounts=[
            mount(folder / "prometheus.yml", f"{_CONFIG}/prometheus.yml"),
            mount(folder / "roots", f"{_CONFIG}/roots"),
            mount(folder / "tls", f"{_CONFIG}/tls"),
            mount(shipped / "prometheus/rules", f"{_CONFIG}/rules"),
            file.volume(PROMETHEUS, folder / "data/prometheus", "/prometheus"),
        ],
        ports=[port],
        more={
            "profiles": [PROFILE],
            "command": [
                f"--config.file={_CONFIG}/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                f"--storage.tsdb.retention.time={_KEPT}",
                f"--web.listen-address=0.0.0.0:{port}",
            ],
            "healthcheck": health("wget", "-q", "-O", "-", f"http://127.0.0.1:{port}/-/healthy"),
        },
    )
    file.add(PROMETHEUS, prometheus)
    port = site.ports[GRAFANA]
    grafana = Container(
        kind=GRAFANA,
        image=images.grafana,
        host=GRAFANA,
        memory_mib=512,
        mounts=[
            mount(shipped / "grafana/provisioning", "/etc/grafana/provisioning"),
            mount(shipped / "grafana/dashboards", "/etc/sovchain/dashboards"),
            file.volume(GRAFANA, folder / "data/grafana", "/var/lib/grafana"),
        ],
        ports=[port],
        more={
            "profiles": [PROFILE],
            "env_file": [str(folder / _ADMIN_FILE)],
            "environment": _grafana(port, site.ports[PROMETHEUS]),
            "healthcheck": health("wget", "-q", "-O", "-", f"http://127.0.0.1:{port}/api/health"),
        },
    )
    file.add(GRAFANA, grafana)


def _grafana(port: int, prometheus_port: int) -> Mapping[str, Any]:
    """Whoever reaches the loopback port may look; the administrator's password is in DIR/monitoring/grafana.env."""
    return {
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_LOG_MODE": "console",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/etc/sovchain/dashboards/fabric.json",
        "PROMETHEUS_URL": f"http://{PROMETHEUS}:{prometheus_port}",
    }


def shipped_folder() -> Path:
    """The folder `docker` of this project: in the checkout, or where an installed package has put it."""
    checkout = Path(__file__).resolve().parents[4] / "docker"
    return checkout if checkout.is_dir() else Path(sysconfig.get_path("data")) / "share/sovchain/docker"
