"""The containers of a test network as pytest-docker has them: ports, commands in them, waiting for them."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sovchain.network.runtimes.compose import project_name
from sovchain.network.runtimes.docker import FILE
from sovchain.network.runtimes.docker_engine import Engine

if TYPE_CHECKING:
    from pytest_docker.plugin import Services


def services_of(directory: Path) -> Services:
    """Return the services of the network in a directory, whose runtime is docker.

    Raises EngineUnavailable, and ModuleNotFoundError without pytest-docker.
    """
    from pytest_docker.plugin import DockerComposeExecutor, Services

    compose = shlex.join(asyncio.run(Engine.find()).compose)
    return Services(DockerComposeExecutor(compose, str(directory / FILE), project_name(directory)))
