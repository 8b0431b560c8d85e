"""What integrators' type checkers see: every public name of the client is typed and documented."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import sovchain.client
import sovchain.client.ca
import sovchain.client.hfc
import sovchain.sovereign

ROOT = Path(__file__).parents[2]


PACKAGES = ("sovchain.client", "sovchain.sovereign")
"""What integrators import; pyright goes through everything below them."""


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("package", PACKAGES)
def test_pyright_finds_every_type_complete_and_every_name_documented(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--verifytypes", package, "--ignoreexternal", "--outputjson"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)["typeCompleteness"]
    assert report["completenessScore"] == 1
    assert report["missingFunctionDocStringCount"] == report["missingClassDocStringCount"] == 0


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions, classes and methods whose names do not begin with an underscore, with their dotted names."""
    following: list[tuple[str, ast.AST]] = [("", tree)]
    while following:
        prefix, node = following.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
                yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    following.append((f"{prefix}{child.name}.", child))


@pytest.mark.parametrize("folder", ["client/sovchain/client", "client/sovchain/sovereign"])
def test_every_public_definition_is_documented_and_typed(folder: str) -> None:
    """The short form of pyright's: docstrings, and annotations of parameters and results."""
    found, wanting = 0, []
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for name, node in public_definitions(tree):
            assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            found += 1
            decorators = [ast.unparse(one) for one in node.decorator_list]
            if not ast.get_docstring(node) and "overload" not in decorators:
                wanting.append(f"{path.name}: {name} has no docstring")
            if isinstance(node, ast.ClassDef):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            unnamed = {"self", "cls"}
            if node.returns is None or any(one.annotation is None and one.arg not in unnamed for one in arguments):
                wanting.append(f"{path.name}: {name} lacks an annotation")
    assert found > 50
    assert wanting == []


@pytest.mark.parametrize(
    "module", [sovchain.client.ca, sovchain.client.hfc, sovchain.sovereign], ids=lambda m: m.__name__
)
def test_what_a_module_exports_is_listed_and_documented(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        assert value.__doc__ or (not inspect.isroutine(value) and not inspect.isclass(value)), name


def test_what_the_package_exports_is_listed_and_sorted() -> None:
    listed = sovchain.client.__all__
    constants = [name for name in listed if name.isupper()]
    assert listed == sorted(constants) + sorted(set(listed) - set(constants))
    assert all(hasattr(sovchain.client, name) for name in listed)
