"""The Python on the pages of docs/contracts runs, and the tutorial's project passes its tests."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sovchain.chaincode.determinism.rules import RULES
from sovchain.cli.chaincode_project import create_project

PAGES = sorted((Path(__file__).parents[2] / "docs" / "contracts").glob("*.md"))
BLOCK = re.compile(r"(?:<!-- file: (\S+) -->\n)?```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem not in ("tutorial", "README")], ids=lambda page: page.stem
)
def test_the_code_of_a_page_runs(page: Path) -> None:
    """All blocks of a page make one module, whose tests are run."""
    module = ModuleType(f"docs_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module
    try:
        source = "\n\n".join(code for _, code in BLOCK.findall(page.read_text()))
        exec(compile(source, str(page), "exec"), vars(module))
        tests = [value for name, value in vars(module).items() if name.startswith("test_")]
        assert tests
        for test in tests:
            outcome = test()
            if inspect.iscoroutine(outcome):
                asyncio.run(outcome)
    finally:
        del sys.modules[module.__name__]


def test_the_tutorial_leads_to_a_contract_that_passes_its_tests(tmp_path: Path) -> None:
    tutorial = next(page for page in PAGES if page.stem == "tutorial").read_text()
    project = tmp_path / "city-library"
    create_project(project, "city-library")
    (project / "tests" / "test_states.py").unlink()
    files = {path: code for path, code in BLOCK.findall(tutorial) if path}
    assert sorted(files) == ["city_library/contract.py", "tests/test_contract.py"]
    for path, code in files.items():
        assert (project / path).exists()
        (project / path).write_text(code)
    for command in (["lint"], ["test", "-q", "-p", "no:cacheprovider"], ["metadata"]):
        done = subprocess.run(
            [sys.executable, "-m", "sovchain.cli", "chaincode", *command],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+\.md)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_rule_of_the_lint_is_explained() -> None:
    text = next(page for page in PAGES if page.stem == "determinism").read_text()
    assert [rule for rule in RULES if f"`{rule}`" not in text] == []
