"""The protocol's model holds, each of its guards is needed, and the contracts refuse what the model without one allows.

The model is docs/crossing.pml; Spin searches all of its states.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from crossing_world import World, pinned_world
from memory_ledger import MemoryLedger, admit_everyone
from views import Forgery, forge, view

from sovchain.chaincode import Chaincode, ContractError
from sovchain.contracts.core import Crossing, core_contracts

MODEL = Path(__file__).parents[2] / "docs" / "crossing.pml"
GUARDS = {
    "NO_OPEN": "E_STATE",
    "NO_HERE": "E_STATE",
    "NO_ONCE": "E_STATE",
    "NO_DEST": "E_NOT_FOUND",
    "NO_FINAL": "E_STATE",
    "NO_CANCEL": "E_STATE",
    "NO_KEY": "E_STATE",
    "NO_LOCK": "E_MISMATCH E_STATE E_NOT_FOUND",
}
"""The guards of the model, and the code with which the contracts keep each."""


def search(folder: Path, *options: str) -> tuple[int, int, str]:
    """Errors and states of the model, and the steps that lead to the first error."""
    for program in ("spin", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"missing program: {program}: apt-get install spin gcc")

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False).stdout

    shutil.copy(MODEL, folder)  # the trail of an error is written beside the model
    run("spin", "-a", *options, MODEL.name)
    run("cc", "-O2", "-DNFAIR=9", "-o", "pan", "pan.c")
    told = run("./pan", "-a", "-f", "-m1000000")
    errors, states = re.search(r"errors: (\d+)", told), re.search(r"(\d+) states, stored", told)
    assert errors, told
    trail = run("spin", "-t", *options, MODEL.name) if int(errors[1]) else ""
    return int(errors[1]), int(states[1]) if states else 0, trail


def test_the_model_holds(tmp_path: Path) -> None:
    errors, states, _ = search(tmp_path)
    assert (errors, states > 400) == (0, True)


@pytest.mark.long
def test_the_model_holds_for_three_challenges(tmp_path: Path) -> None:
    errors, states, _ = search(tmp_path, "-DN=3")
    assert (errors, states > 5_000) == (0, True)


@pytest.mark.parametrize("guard", GUARDS)
async def test_without_a_guard_the_model_fails_where_the_contracts_refuse(tmp_path: Path, guard: str) -> None:
    errors, _, trail = await asyncio.to_thread(search, tmp_path, f"-D{guard}")
    assert errors == 1
    steps = re.findall(r"^\s+((?:ask|told|send|accept|cancel|finalise|release)\b[a-z ]*) (\d)$", trail, re.MULTILINE)
    assert steps
    replay = Replay(await pinned_world())
    with pytest.raises(ContractError) as caught:
        await replay.steps([(step.strip(), int(number)) for step, number in steps])
    assert caught.value.code in GUARDS[guard].split(), caught.value


class Replay:
    """Does to the contracts what a trail of the model says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.challenges: dict[int, str] = {}
        self.views: dict[tuple[str, int], bytes] = {}
        self.elsewhere: MemoryLedger | None = None

    async def steps(self, steps: list[tuple[str, int]]) -> None:
        for step, number in steps:
            await self.step(step, number)

    async def step(self, step: str, number: int) -> None:
        world, source, destination = self.world, self.world.source, self.world.destination
        if step == "ask":
            self.challenges[number] = await world.asked()
            return
        challenge = self.challenges[number]
        if step.startswith("told"):
            # Once a view was collected it can be shown for ever.
            subject = step.removeprefix("told ")
            honest = world.outgoing(challenge) if subject == "sent" else self._challenge_view(challenge)
            self.views.setdefault((subject, number), (await honest).bytes())
        elif step == "send":
            await source.submit("Government", Crossing.send, "finance", self.views["asked", number])
        elif step == "accept":
            await destination.submit("Finance", Crossing.accept, challenge, self.views["sent", number])
        elif step == "accept elsewhere":
            await (await self._elsewhere()).submit("Finance", Crossing.accept, challenge, self.views["sent", number])
        elif step == "cancel":
            await destination.submit("Finance", Crossing.cancel, challenge, "a step of the trail")
        else:
            await self._settle(step, number)

    async def _settle(self, step: str, number: int) -> None:
        """Settle with the best view that there is; the model without its guard needs none."""
        operation, subject = (Crossing.finalise, "imported") if step == "finalise" else (Crossing.release, "cancelled")
        shown = [self.views[key] for key in ((subject, number), ("asked", number)) if key in self.views]
        given = (
            shown[0]
            if shown
            else await view(self.world.destination, self.world.peers, Crossing.view_challenge, self.challenges[number])
        )
        await self.world.source.submit("Government", operation, self.challenges[number], given)

    async def _challenge_view(self, challenge: str) -> Forgery:
        return await forge(self.world.destination, self.world.peers, Crossing.view_challenge, challenge)

    async def _elsewhere(self) -> MemoryLedger:
        """Another channel with the same contracts and the same anchor of the source."""
        from crossing_world import SEATS, ParcelsIn

        if self.elsewhere is None:
            contracts = core_contracts(SEATS, incoming=[ParcelsIn()])
            self.elsewhere = MemoryLedger(Chaincode(contracts, name="logistics"), "logistics")
            await admit_everyone(self.elsewhere)
            await self.world.pin(self.elsewhere, "government")
        return self.elsewhere
