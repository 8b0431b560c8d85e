"""Prometheus reads every node's metrics; the dashboard and the rules ask for what real nodes serve."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from commandline import Sovchain
from dockerimages import containers_of, docker

from sovchain.network import ImagesMissing, Network
from sovchain.network.runtimes.compose import project_name
from sovchain.network.runtimes.docker_engine import Engine
from sovchain.network.runtimes.docker_images import Images

SHIPPED = Path(__file__).parents[2] / "docker"
DASHBOARD = SHIPPED / "grafana/dashboards/fabric.json"
RULES = SHIPPED / "prometheus/rules/fabric.yml"
NOT_HERE = {
    # Served under BFT, or once something of the kind has happened.
    "consensus_BFT_is_leader", "consensus_BFT_cluster_size", "chaincode_execute_timeouts",
    "endorser_endorsement_failures", "endorser_proposal_validation_failures", "ALERTS",
}  # fmt: skip
METRIC = re.compile(r"\b(?:ledger|endorser|gossip|consensus|broadcast|chaincode|process|up)(?:_\w+)?\b(?!\s*\()")
WORDS = {"chaincode"}  # a label too


def dashboard_questions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def rule_questions() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


class Prometheus:
    """The HTTP interface of a Prometheus."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False, timeout=10)

    def ask(self, expression: str) -> list[dict[str, Any]]:
        answer = self._client.get("/query", params={"query": expression})
        assert answer.status_code == 200, (expression, answer.text)
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def names(self) -> set[str]:
        return set(self._client.get("/label/__name__/values").json()["data"])

    def up(self) -> int:
        try:
            return sum(int(found["value"][1]) for found in self.ask("up"))
        except httpx.TransportError:
            return 0


@pytest.fixture(scope="module")
def prometheus(engine: Engine, network: Sovchain) -> Iterator[Prometheus]:
    """The network's own Prometheus, started beside it, once it has asked every node twice. Others find it gone."""
    image = Images.choose("3.1", {}).prometheus
    try:
        asyncio.run(engine.check_images({image: f"docker pull {image}"}))
    except ImagesMissing as error:
        pytest.skip(f"missing program: prometheus in Docker: {error.remedy}")
    file = network.directory / "compose.yaml"
    command = [*engine.compose, "-p", project_name(network.directory), "-f", file, "up", "-d", "prometheus"]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    status = Network.status(network.directory)
    assert status.topology is not None
    found = Prometheus(status.ports["prometheus"])
    deadline = time.monotonic() + 60
    nodes = len(status.topology.nodes)
    while found.up() < nodes or len(found.ask("rate(process_cpu_seconds_total[1m])")) < nodes:
        assert time.monotonic() < deadline, docker("logs", containers_of(network.directory)["prometheus"])
        time.sleep(0.5)
    yield found
    docker("rm", "--force", containers_of(network.directory)["prometheus"])


@pytest.mark.timeout(180)
@pytest.mark.long
def test_every_node_is_asked_under_its_own_name(prometheus: Prometheus, network: Sovchain) -> None:
    topology = Network.status(network.directory).topology
    assert topology is not None
    seen = {found["metric"]["instance"]: found["metric"] for found in prometheus.ask("up == 1")}
    assert seen.keys() == {node.host for node in topology.nodes}
    for node in topology.nodes:
        assert (seen[node.host]["organization"], seen[node.host]["kind"]) == (node.organization, node.kind)


@pytest.mark.timeout(180)
@pytest.mark.long
def test_every_question_of_dashboard_and_rules_is_about_metrics_that_nodes_serve(prometheus: Prometheus) -> None:
    served = prometheus.names()
    for question in [*dashboard_questions(), *rule_questions()]:
        prometheus.ask(question)  # Prometheus understands it
        asked = set(METRIC.findall(re.sub(r"\{[^}]*\}|by \([^)]*\)|on \([^)]*\)", "", question))) - WORDS
        assert asked, question
        assert asked <= served | NOT_HERE, question
    answered = [question for question in dashboard_questions() if prometheus.ask(question)]
    assert len(answered) >= len(dashboard_questions()) - len(NOT_HERE)


@pytest.mark.timeout(180)
@pytest.mark.long
def test_the_rules_are_loaded_and_quiet_on_a_healthy_network(prometheus: Prometheus) -> None:
    assert [question for question in rule_questions() if prometheus.ask(question)] == []


@pytest.mark.long
def test_prometheus_is_as_confined_as_the_rest(prometheus: Prometheus, network: Sovchain) -> None:
    (found,) = json.loads(docker("inspect", containers_of(network.directory)["prometheus"]))
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["Config"]["User"].partition(":")[0] not in ("", "0", "root")
    docker("exec", found["Id"], *found["Config"]["Healthcheck"]["Test"][1:])


def test_the_rules_are_well_formed() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("missing program: promtool: apt-get install prometheus")
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_that_grafana_provisions() -> None:
    """Every panel asks the data source that is provisioned, has a place of its own and a title."""
    document = json.loads(DASHBOARD.read_text())
    sources = yaml.safe_load((SHIPPED / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert document["uid"]
    assert document["title"]
    identifiers = [panel["id"] for panel in document["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    places = set()
    for panel in document["panels"]:
        grid = panel["gridPos"]
        assert panel["title"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert (x, y) not in places, panel["title"]
                places.add((x, y))
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == sources[0]["uid"]
