"""An organisation's Fabric CA in a container of its own, from which its nodes and users have their certificates."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from dockerimages import authority_image, containers_of, docker, left_over

from sovchain.network import Network
from sovchain.network.runtimes.docker_engine import Engine
from sovchain.testing.conformance.topology import conformance_topology


@pytest.mark.timeout(240)
async def test_nodes_and_users_enrol_at_a_server_that_is_confined(engine: Engine, tmp_path: Path) -> None:
    await asyncio.to_thread(authority_image, engine)
    topology = conformance_topology("3.1", "raft")
    first, *others = topology.organizations
    own = first.model_copy(update={"certificate_authority": "fabric-ca"})
    topology = topology.model_copy(update={"organizations": (own, *others)})
    directory = tmp_path / "network"
    async with Network.up(topology, "docker", directory) as network:
        (found,) = json.loads(docker("inspect", containers_of(directory)[f"ca.{own.name}"]))
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["Config"]["User"].partition(":")[0] not in ("", "0", "root")
        async with network.connect(own.name) as gateway:
            info = await gateway.network(topology.channels[0].name).chain_info()
            assert info.height > 1
    assert "POST /api/v1/enroll 201" in (directory / f"logs/ca.{own.domain}.log").read_text()
    assert left_over(directory) == []
