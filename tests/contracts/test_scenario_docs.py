"""The tables and diagrams of docs/scenarios are those of the contracts, and every scenario has its page."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "scenario_docs.py"


def test_every_page_shows_the_tables_of_its_contracts() -> None:
    spec = importlib.util.spec_from_file_location("scenario_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    for name, parts in docs.declared().items():
        text = (docs.PAGES / f"{name}.md").read_text()
        assert docs.rewritten(text, parts) == text, f"{name}.md is out of date: run scripts/scenario_docs.py"
