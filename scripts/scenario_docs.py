"""Write the tables and diagrams of docs/scenarios from the contracts, between their marks; with --check only compare.

    python scripts/scenario_docs.py [--check]

A page has `<!-- states: TITLE -->` where the table and diagram of the machine of that title go, up to `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sovchain.contracts import finance, government, logistics
from sovchain.contracts.scenario import Scenario

PAGES = Path(__file__).parents[1] / "docs" / "scenarios"
MARK = re.compile(r"<!-- states: (?P<title>[^>]+) -->\n.*?<!-- end -->\n", re.DOTALL)


def declared() -> dict[str, list[Scenario]]:
    """The parts of each scenario, by its name."""
    found: dict[str, list[Scenario]] = {}
    for one in (*government.SCENARIOS, *finance.SCENARIOS, *logistics.SCENARIOS):
        found.setdefault(one.name, []).append(one)
    return found


def rewritten(text: str, parts: list[Scenario]) -> str:
    """A page with what its machines say now. Raises ValueError for a machine without a place, or a place without one."""
    machines = {machine.title: machine for part in parts for machine in part.machines}
    marked = [found["title"] for found in MARK.finditer(text)]
    if sorted(marked) != sorted(machines):
        raise ValueError(f"the page has places for {marked}, the scenario has {[*machines]}")

    def block(found: re.Match[str]) -> str:
        machine = machines[found["title"]]
        diagram = f"```mermaid\n{machine.mermaid()}```\n"
        return f"<!-- states: {machine.title} -->\n{machine.markdown()}\n{diagram}<!-- end -->\n"

    return MARK.sub(block, text)


def main(check: bool) -> int:
    """Rewrite or compare all pages; say which differ."""
    differ = []
    for name, parts in declared().items():
        page = PAGES / f"{name}.md"
        text = page.read_text()
        new = rewritten(text, parts)
        if new != text:
            differ.append(page.name)
            if not check:
                page.write_text(new)
    if check and differ:
        print(f"out of date: {', '.join(differ)}; run scripts/scenario_docs.py")
    return int(check and bool(differ))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
