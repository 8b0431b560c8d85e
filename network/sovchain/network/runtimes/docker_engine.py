"""The Docker engine of this machine, through the programs `docker` and `docker-compose` (or `docker compose`)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sovchain.network.errors import EngineFailed, EngineUnavailable, ImagesMissing
from sovchain.network.runtimes.compose import STOP_S

COMMAND_TIMEOUT_S: Final = 60.0
"""How long one command may take; starting and stopping a network have their own limits."""
_ENGINE_LEAST: Final = (20, 10)
_COMPOSE_LEAST: Final = (1, 28)
"""The first with profiles."""
_PROJECT_LABEL: Final = "com.docker.compose.project"
_SERVICE_LABEL: Final = "com.docker.compose.service"


@dataclass(frozen=True)
class Engine:
    """An engine that answers, and what speaks to it.

    Attributes:
        docker: path of the program.
        compose: program and arguments that Compose begins with.
        version, compose_version: what they say of themselves.
        rootless: whether the engine runs as an ordinary user, whose own number is 0 in its containers.
    """

    docker: str
    compose: Sequence[str]
    version: str
    compose_version: str
    rootless: bool = False

    @classmethod
    async def find(cls) -> Engine:
        """Look for the programs and ask the engine. Raises EngineUnavailable."""
        docker = shutil.which("docker")
        if docker is None:
            raise EngineUnavailable("the program docker is not on PATH", "install Docker Engine 20.10 or later")
        host = os.environ.get("DOCKER_HOST", "")
        if host and not host.startswith("unix://"):
            raise EngineUnavailable(
                f"DOCKER_HOST names an engine on another host ({host[:100]})",
                "use the engine of this machine: containers mount the network's directory and publish on 127.0.0.1",
            )
        asked = (docker, "info", "--format", "{{.ServerVersion}} {{.SecurityOptions}}")
        answer, compose = await asyncio.gather(_run(asked), _compose(docker), return_exceptions=True)
        if isinstance(answer, EngineFailed):
            raise EngineUnavailable(
                f"the engine does not answer: {answer.why}",
                "start it (systemctl start docker), or become a member of the group docker",
            )
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(compose, BaseException):
            raise compose
        version, _, security = answer.strip().partition(" ")
        if _numbers(version) < _ENGINE_LEAST:
            raise EngineUnavailable(f"the engine is of version {version or 'unknown'}", "install 20.10 or later")
        command, compose_version = compose
        return cls(docker, command, version, compose_version, "rootless" in security)

    async def run(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run `docker` with these arguments and return what it prints. Raises EngineFailed."""
        return await _run((self.docker, *arguments), timeout_s)

    async def up(
        self,
        project: str,
        file: Path,
        profiles: Collection[str],
        services: Collection[str] = (),
        *,
        timeout_s: float = 180.0,
    ) -> None:
        """Create and start the containers of a Compose file, or of some of its services, without pulling or building.

        One that is there already is never made anew. Raises EngineFailed.
        """
        chosen = [word for profile in sorted(profiles) for word in ("--profile", profile)]
        command = (*self.compose, "--project-name", project, "--file", str(file), *chosen)
        await _run(
            (*command, "up", "--detach", "--no-build", "--no-recreate", *services), timeout_s, "docker-compose up"
        )

    async def check_images(self, images: Mapping[str, str]) -> None:
        """Raise ImagesMissing for those of the images that are not on this machine; `images` says how to get each."""
        listed = set((await self.run("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")).split())
        missing = {image: way for image, way in images.items() if image not in listed}
        # An image may also be named by its digest, or without a tag.
        for image in list(missing):
            if "@" in image or ":" not in image.rpartition("/")[2]:
                try:
                    await self.run("image", "inspect", image)
                except EngineFailed:
                    continue
                del missing[image]
        if missing:
            raise ImagesMissing(missing)

    async def containers(self, project: str, *, running: bool = False) -> dict[str, str]:
        """The containers of a project, or those that run: the identifier of each by the name of its service."""
        form = f'{{{{.Label "{_SERVICE_LABEL}"}}}} {{{{.ID}}}}'
        chosen = () if running else ("--all",)
        lines = await self.run("ps", *chosen, "--no-trunc", *_of(project), "--format", form)
        return dict(line.split() for line in lines.splitlines() if line.strip())

    async def labels(self, project: str, label: str) -> list[str]:
        """What a label says on the running containers of a project that have it. Raises EngineFailed."""
        lines = await self.run(
            "ps", *_of(project), "--filter", "status=running", "--filter", f"label={label}",
            "--format", f'{{{{.Label "{label}"}}}}',
        )  # fmt: skip
        return lines.splitlines()

    async def stop(self, containers: Collection[str], *, timeout_s: int = STOP_S) -> None:
        """Ask containers to end, and kill those that have not after `timeout_s` seconds. Raises EngineFailed."""
        if containers:
            await self.run("stop", "--time", str(timeout_s), *containers, timeout_s=timeout_s + COMMAND_TIMEOUT_S)

    async def remove_some(self, project: str, containers: Collection[str], volumes: Collection[str]) -> None:
        """Remove containers that have ended, and volumes by their names in the Compose file. Raises EngineFailed."""
        if containers:
            await self.run("rm", "--force", *containers)
        if volumes:
            await self.run("volume", "rm", "--force", *(f"{project}_{name}" for name in volumes))

    async def remove(self, project: str) -> bool:
        """Stop and remove all that a project has: containers, networks, volumes. Return whether there was anything.

        Raises EngineFailed.
        """
        containers = await self.containers(project)
        await self.stop(containers.values())
        if containers:
            await self.run("rm", "--force", "--volumes", *containers.values())
        networks, volumes = await asyncio.gather(
            self.run("network", "ls", "--quiet", *_of(project)), self.run("volume", "ls", "--quiet", *_of(project))
        )
        if networks.split():
            await self.run("network", "rm", *networks.split())
        if volumes.split():
            await self.run("volume", "rm", "--force", *volumes.split())
        return bool(containers or networks.split() or volumes.split())


def _of(project: str) -> tuple[str, str]:
    return "--filter", f"label={_PROJECT_LABEL}={project}"


async def _compose(docker: str) -> tuple[Sequence[str], str]:
    """How Compose is called, and its version. Raises EngineUnavailable."""
    separate = shutil.which("docker-compose")
    found = "none is installed"
    for command in ((docker, "compose"), *([(separate,)] if separate else [])):
        try:
            version = (await _run((*command, "version", "--short"))).strip().removeprefix("v")
        except EngineFailed as error:
            found = f"{error.command} says: {error.why}"
            continue
        if _numbers(version) >= _COMPOSE_LEAST:
            return command, version
        found = f"{' '.join(command)} is of version {version}"
    raise EngineUnavailable(f"there is no usable Docker Compose: {found}", "install Compose v2, or 1.28 and later")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


async def _run(command: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S, what: str = "") -> str:
    """Run a command and return what it prints. Raises EngineFailed, which calls it `what`."""
    what = what or f"{Path(command[0]).name} {command[1]}"
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # docker-compose 1 is a Python program with packages of its own.
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            start_new_session=True,  # a Ctrl-C is for this process, which lets the command end
        )
    except OSError as error:
        raise EngineFailed(what, str(error.strerror)) from None
    try:
        async with asyncio.timeout(timeout_s):
            out, complaint = await process.communicate()
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise EngineFailed(what, f"it did not end within {timeout_s:g} s") from None
        raise
    if process.returncode:
        raise EngineFailed(what, complaint.decode(errors="replace"))
    return out.decode(errors="replace")
