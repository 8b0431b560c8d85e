"""Finding Fabric's programs on this machine."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sovchain.network.errors import ProgramsMissing

FOLDER_VARIABLE: Final = "SOVCHAIN_FABRIC_BIN"
"""Environment variable that names the folder with Fabric's programs. It is looked in before all others."""
CACHE: Final = Path("~/.cache/sovchain/fabric")
"""Where installed releases are looked for, each in `VERSION/bin`."""

_VERSION: Final = re.compile(r"^\s*Version:\s*v?(\S+)", re.MULTILINE)
_ANSWER_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Programs:
    """Programs of one release of Fabric, in one folder.

    Attributes:
        folder: where they are.
        version: what they say of themselves, such as 3.1.5.
        paths: each program by its name.
    """

    folder: Path
    version: str
    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> str:
        return str(self.paths[name])


async def find_programs(
    version: str, names: Sequence[str] = ("peer", "orderer"), *, product: str = "Fabric", any_folder: bool = False
) -> Programs:
    """Find programs of a version such as 3.1, whose release may be any of 3.1.x.

    Looks in `FOLDER_VARIABLE`, along PATH, then in `CACHE`, newest release first. Each program is asked for its version,
    because a folder's name proves nothing. With `any_folder` the folders of all releases in `CACHE` are looked in: those
    of Fabric CA (the `product`) have numbers of their own, and lie with Fabric's. Raises ProgramsMissing, which says what
    was found where.
    """
    looked: dict[str, str] = {}
    for place, folder in _places("" if any_folder else version, names[0]):
        paths = {name: folder / name for name in names}
        absent = [name for name, path in paths.items() if not os.access(path, os.X_OK) or path.is_dir()]
        if absent:
            looked[place] = f"no {' and no '.join(absent)}"
            continue
        versions = await asyncio.gather(*(_version(path) for path in paths.values()))
        if all(matches(found, version) for found in versions):
            return Programs(folder, versions[0], paths)
        looked[place] = ", ".join(f"{name} {found}" for name, found in zip(names, versions, strict=True))
    raise ProgramsMissing(names, version, looked, product=product)


def matches(found: str, version: str) -> bool:
    """Whether a release such as 3.1.5 is one of a version such as 3.1."""
    return found == version or found.startswith((f"{version}.", f"{version}-"))


def _places(version: str, name: str) -> Iterator[tuple[str, Path]]:
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        yield f"{FOLDER_VARIABLE} ({named})", Path(named).expanduser()
    along_path = shutil.which(name)
    if along_path:
        yield f"PATH ({Path(along_path).parent})", Path(along_path).parent
    else:
        yield "PATH", Path("/nonexistent")
    cache = CACHE.expanduser()
    releases = [entry.name for entry in cache.iterdir() if entry.is_dir()] if cache.is_dir() else []
    fitting = sorted(
        (release for release in releases if not version or matches(release, version)), key=_order, reverse=True
    )
    for release in fitting:
        folder = cache / release / "bin"
        yield str(folder), folder
    if not fitting:
        yield str(cache), Path("/nonexistent")


def _order(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release))


async def _version(program: Path) -> str:
    """What a program answers to `version`; a text that is no version when it does not answer."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # peer reads its configuration even for this; without a folder of its own it complains and ends.
            env={"PATH": os.environ.get("PATH", ""), "HOME": "/", "FABRIC_CFG_PATH": str(program.parent)},
        )
    except OSError as error:
        return f"cannot be started ({error.strerror})"
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            answer, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return "does not answer"
    found = _VERSION.search(answer.decode(errors="replace"))
    return found.group(1) if found else "of an unknown version"


def main(version: str) -> int:
    """Print where the programs of a version are, or in one line why they are not found; 0 or 1."""
    try:
        programs = asyncio.run(find_programs(version))
    except ProgramsMissing as error:
        print(f"{error.why}; {error.remedy}")  # noqa: T201  # this is a program's answer
        return 1
    print(f"Fabric {programs.version}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
