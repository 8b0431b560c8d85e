"""A Docker engine with the images of Fabric for tests, where this machine has them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from sovchain.network import EngineUnavailable, ImagesMissing
from sovchain.network.runtimes.compose import project_name
from sovchain.network.runtimes.docker_engine import Engine
from sovchain.network.runtimes.docker_images import Images

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.11-slim-bookworm"
CHAINCODE_VARIABLE = "SOVCHAIN_IMAGE_CHAINCODE"


async def _look(version: str) -> Engine:
    engine = await Engine.find()
    images = Images.choose(version, {})
    await engine.check_images({name: f"docker pull {name}" for name in (images.peer, images.orderer, BASE)})
    return engine


def docker_engine(version: str = "3.1") -> Engine:
    """An engine with the images of a version of Fabric; the test is skipped without them."""
    try:
        return asyncio.run(_look(version))
    except EngineUnavailable as error:
        pytest.skip(f"missing program: docker with compose: {error.why}; {error.remedy}")
    except ImagesMissing as error:
        pytest.skip(f"missing program: images of Fabric {version}: {error.remedy}")


def authority_image(engine: Engine) -> None:
    """The test is skipped without the image of Fabric CA."""
    image = Images.choose("3.1", {}).ca
    try:
        asyncio.run(engine.check_images({image: f"docker pull {image}"}))
    except ImagesMissing as error:
        pytest.skip(f"missing program: fabric-ca in Docker: {error.remedy}")


def chaincode_image() -> str:
    """The chaincode image of this checkout, built if need be, and chosen for the networks that come up from now on."""
    if CHAINCODE_VARIABLE not in os.environ:
        done = subprocess.run(
            [ROOT / "scripts/chaincode-image", "--checkout"], capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        os.environ[CHAINCODE_VARIABLE] = done.stdout.strip()
    return os.environ[CHAINCODE_VARIABLE]


def docker(*arguments: str) -> str:
    """Run docker and return what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def containers_of(directory: Path) -> dict[str, str]:
    """The containers of the network in a directory, running or not: identifiers by service."""
    form = '{{.Label "com.docker.compose.service"}} {{.ID}}'
    found = docker("ps", "--all", "--filter", _label(directory), "--format", form)
    return dict(line.split() for line in found.splitlines())


def left_over(directory: Path) -> list[str]:
    """Containers, networks and volumes that the network in a directory has."""
    listed = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
    return [name for what in listed for name in docker(*what, "--quiet", "--filter", _label(directory)).split()]


def _label(directory: Path) -> str:
    return f"label=com.docker.compose.project={project_name(directory)}"
