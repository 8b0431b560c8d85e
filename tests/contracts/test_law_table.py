"""docs/law-cases.md names a test for every case of the law, and all of them exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "law-cases.md").read_text(encoding="utf-8")
FILES = {
    "engine": "tests/contracts/test_law_cases_engine.py",
    "chaincode": "tests/contracts/test_law_cases.py",
    "traps": "tests/contracts/test_traps.py",
}
OPEN: frozenset[str] = frozenset()
"""What the page itself calls open."""


def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def rows() -> dict[str, str]:
    return {match[1]: match[2] for match in re.finditer(r"^\| ([DT]-\d+) \|(.*)$", PAGE, re.MULTILINE)}


def test_every_id_has_a_row_with_a_test_or_says_that_it_is_open() -> None:
    found = rows()
    assert set(found) == {f"D-{number}" for number in range(1, 53)} | {f"T-{number}" for number in range(1, 32)}
    for name, row in found.items():
        assert ("`test" in row) != (name in OPEN), name
        assert ("open:" in row) == (name in OPEN), name


def test_every_test_that_is_named_exists() -> None:
    here = set().union(*(functions_of(file) for file in FILES.values()))
    for row in rows().values():
        for named in re.findall(r"`(tests?[^`]+)`", row):
            file, _, name = named.rpartition("::")
            assert name in (functions_of(file) if file else here), named


def test_every_test_named_after_an_id_stands_in_its_row() -> None:
    found = rows()
    for file in FILES.values():
        for name in functions_of(file):
            numbered = re.match(r"test_([dt])(\d\d)_", name)
            if numbered:
                assert name in found[f"{numbered[1].upper()}-{int(numbered[2])}"], name
