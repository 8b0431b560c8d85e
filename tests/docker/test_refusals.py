"""A machine that cannot run containers is told what is missing, in one line, before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from commandline import Sovchain
from dockerimages import left_over

from sovchain.network import EngineUnavailable, ImagesMissing, Network, PortInUse, ports
from sovchain.network.runtimes.docker_engine import Engine
from sovchain.network.runtimes.docker_images import Images
from sovchain.testing.conformance.topology import conformance_topology


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


async def refused(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin" if folder.exists() else str(folder))
    with pytest.raises(EngineUnavailable) as caught:
        await Engine.find()
    assert "\n" not in str(caught.value)
    return caught.value.why


INFO = 'case "$1" in info) echo "{}";; *) exit 1;; esac'


async def test_no_docker_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert await refused(monkeypatch, tmp_path / "empty") == "the program docker is not on PATH"


async def test_an_engine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    assert "Cannot connect to the Docker daemon" in await refused(monkeypatch, tmp_path / "bin")


async def test_an_engine_that_is_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", INFO.format("19.03.15 []"))
    program(tmp_path / "bin", "docker-compose", "echo 1.29.2")
    assert await refused(monkeypatch, tmp_path / "bin") == "the engine is of version 19.03.15"


async def test_compose_that_is_too_old_or_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", INFO.format("24.0.7 []"))
    program(tmp_path / "bin", "docker-compose", "echo 1.21.0")
    assert "docker-compose is of version 1.21.0" in await refused(monkeypatch, tmp_path / "bin")
    program(tmp_path / "bin", "docker-compose", "echo 'error: no module named yaml' >&2; exit 1")
    assert "no module named yaml" in await refused(monkeypatch, tmp_path / "bin")


async def test_an_engine_on_another_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", INFO.format("24.0.7 []"))
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere.example")
    assert "another host (ssh://somewhere.example)" in await refused(monkeypatch, tmp_path / "bin")


async def test_compose_2_and_a_rootless_engine_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = 'case "$1" in info) echo "28.3.0 [name=seccomp name=rootless]";; compose) echo v2.39.1;; esac'
    program(tmp_path / "bin", "docker", text)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    engine = await Engine.find()
    assert (engine.version, engine.compose_version, engine.rootless) == ("28.3.0", "2.39.1", True)
    assert list(engine.compose) == [str(tmp_path / "bin/docker"), "compose"]


async def test_images_that_are_missing_are_named_with_the_way_to_get_them(engine: Engine) -> None:
    absent = {"hyperledger/fabric-peer:9.9.9": "docker pull hyperledger/fabric-peer:9.9.9"}
    there = Images.choose("3.1", {}).peer
    with pytest.raises(ImagesMissing) as caught:
        await engine.check_images({**absent, there: "docker pull it"})
    assert caught.value.images == absent
    assert caught.value.remedy == "get it: docker pull hyperledger/fabric-peer:9.9.9"


def test_a_missing_image_ends_the_start_before_it_begins(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOVCHAIN_IMAGE_ORDERER", "nobody/orderer:1.2.3")
    sovchain = Sovchain(tmp_path / "network")
    done = sovchain.run("up", "--detach", "--runtime", "docker", "--json")
    assert done.code == 3
    assert done.json["error"]["why"] == "nobody/orderer:1.2.3 is not on this machine"
    assert not (tmp_path / "network/compose.yaml").exists()
    assert left_over(sovchain.directory) == []


async def test_a_port_that_is_taken_meanwhile_is_named_and_nothing_is_left(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose itself meets the port here: the check before it is switched off."""
    monkeypatch.setattr(ports, "check_free", lambda *_: None)
    wanted = conformance_topology("3.1", "raft").model_copy(update={"chaincodes": ()})
    service = f"{wanted.ordering_organizations[0].orderer_host}/admin"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wanted = wanted.model_copy(update={"ports": wanted.ports.model_copy(update={"fixed": {service: port}})})
        with pytest.raises(PortInUse) as caught:
            async with Network.up(wanted, "docker", tmp_path / "network"):
                raise AssertionError("it came up on a port that is taken")
    assert (caught.value.port, caught.value.service) == (port, service)
    assert left_over(tmp_path / "network") == []
