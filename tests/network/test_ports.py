"""Ports are neighbours, kept, and tested before anything listens on them."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from sovchain.network import NoFreePorts, PortInUse, portclaims
from sovchain.network import ports as module
from sovchain.network.ports import allocate, authority_ports, check_free, is_free, node_ports, service_names
from sovchain.network.topology import Topology, default_topology


def test_without_a_base_a_block_of_free_neighbours_is_found() -> None:
    ports = allocate(["a", "b", "c"], None, {})
    assert list(ports.values()) == list(range(ports["a"], ports["a"] + 3))
    assert all(is_free(port) for port in ports.values())


def test_what_was_found_free_is_found_by_nobody_else_before_somebody_listens() -> None:
    services = [str(number) for number in range(20)]
    found = [port for _ in range(40) for port in allocate(services, None, {}).values()]
    assert len(set(found)) == len(found)


def test_a_claim_holds_against_other_processes_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portclaims, "_held", [])
    first = 8 * portclaims.GRAIN  # no network takes ports so low
    ask = [sys.executable, "-c", f"from sovchain.network.portclaims import claim; print(claim({first}, 1))"]

    def other() -> str:
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()

    assert portclaims.claim(first, 1)
    assert not portclaims.claim(first + 1, 1)
    assert other() == "False"
    monkeypatch.setattr(portclaims, "HELD_S", 0.0)
    assert portclaims.claim(first, 1)
    monkeypatch.setattr(portclaims, "HELD_S", -1.0)
    portclaims.claim(first + portclaims.GRAIN, 1)
    assert other() == "True"


def test_from_a_base_ports_follow_the_order_of_the_services() -> None:
    assert allocate(["a", "b"], 21000, {}) == {"a": 21000, "b": 21001}


def test_kept_ports_stay_and_new_services_come_after_them() -> None:
    assert allocate(["a", "b", "c"], 21000, {"a": 21000, "b": 21001}) == {"a": 21000, "b": 21001, "c": 21002}
    ports = allocate(["a", "b"], None, {"a": 25000})
    assert ports["a"] == 25000
    assert ports["b"] != 25000
    assert allocate(["a"], None, {"a": 25000, "gone": 25001}) == {"a": 25000}


def test_fixed_ports_are_taken_and_the_others_go_around_them() -> None:
    ports = allocate(["a", "b", "c"], 21000, {}, {"b": 21001, "unused": 21002})
    assert ports == {"a": 21000, "b": 21001, "c": 21003}
    assert allocate(["a"], None, {"a": 25000}, {"a": 26000}) == {"a": 25000}


def test_each_node_has_a_port_for_every_service_of_its_kind() -> None:
    document = default_topology().model_dump(mode="json") | {"state_database": "couchdb"}
    document["organizations"][0]["certificate_authority"] = "fabric-ca"
    topology = Topology.model_validate(document)
    peer, orderer = topology.nodes[0], topology.nodes[-1]
    assert list(node_ports(peer)) == ["main", "chaincode", "operations"]
    assert node_ports(peer, "couchdb")["couchdb"] == f"{peer.host}/couchdb"
    assert list(node_ports(orderer)) == ["main", "admin", "operations"]
    assert [len(authority_ports(part)) for part in topology.organizations] == [2, 0, 0, 0, 0]
    names = service_names(topology)
    assert names[: len(topology.nodes)] == [node.host for node in topology.nodes]
    assert len(set(names)) == len(names) == 5 * 4 + 3 * 3 + 2


def test_a_block_beyond_the_last_port_is_refused() -> None:
    with pytest.raises(PortInUse):
        allocate([str(number) for number in range(600)], 65000, {})


def test_a_port_on_which_somebody_listens_is_named_with_its_service() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(PortInUse) as caught:
            check_free({"peer0.finance.guiyang.example": port})
        assert (caught.value.port, caught.value.service) == (port, "peer0.finance.guiyang.example")
    check_free({"peer0.finance.guiyang.example": port})


def test_a_port_on_which_a_server_shares_its_address_counts_as_used() -> None:
    """gRPC servers of other programs set SO_REUSEPORT; that must not hide them."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert not is_free(other.getsockname()[1])


def test_no_free_block_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_free", lambda port: False)
    with pytest.raises(NoFreePorts):
        allocate(["a"], None, {})
