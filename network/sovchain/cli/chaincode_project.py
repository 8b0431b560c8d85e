"""A chaincode project on disk: made from the template, and what its `pyproject.toml` says."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from sovchain.cli.problems import CommandError

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_SUFFIX: Final = ".tmpl"
_RENAMED: Final = {"gitignore": ".gitignore"}


def create_project(folder: Path, name: str) -> list[Path]:
    """Write a new project into a folder that is new or empty; return its files.

    Raises:
        CommandError: the name cannot be a chaincode's and a package's, or the folder holds something.
    """
    if _NAME.fullmatch(name) is None or len(name) > 40:
        raise CommandError(
            f"{name} cannot be the name of a project",
            "a chaincode has lower-case letters, digits, - and _, and begins with a letter",
            "choose another name, such as city-permits",
        )
    package = name.replace("-", "_")
    if package in sys.stdlib_module_names or package == "sovchain":
        raise CommandError(
            f"{name} cannot be the name of a project", "Python has a module of this name", "choose another"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} is not empty", "a new project overwrites nothing", "name a new folder")
    words = {
        "@@name@@": name,
        "@@package@@": package,
        "@@network@@": package.replace("_", "-"),
        "@@Contract@@": "".join(part.capitalize() for part in package.split("_")),
    }
    written = []
    for source, path in _templates(files("sovchain.cli") / "template", Path()):
        text = source.read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        target = folder / path.parent / _RENAMED.get(path.stem, path.stem)
        if path.parts[0] == "package":
            target = folder / package / path.stem
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return sorted(written)


def chaincode_of(folder: Path) -> str:
    """The chaincode that the project in a folder names, as `module:attribute`.

    Raises:
        CommandError: there is no such project.
    """
    path = folder / "pyproject.toml"
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("sovchain", {}).get("chaincode")
    except OSError:
        said = None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read", str(error), "correct it") from None
    if not isinstance(said, str) or not said:
        raise CommandError(
            "no chaincode is named",
            f"{path} has no [tool.sovchain] with chaincode",
            "name it as module:attribute, or go into a project that `sovchain chaincode init` made",
        )
    return said


def _templates(folder: Traversable, path: Path) -> list[tuple[Traversable, Path]]:
    found: list[tuple[Traversable, Path]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _templates(entry, path / entry.name)
        elif entry.name.endswith(_SUFFIX):
            found.append((entry, path / entry.name))
    return found
