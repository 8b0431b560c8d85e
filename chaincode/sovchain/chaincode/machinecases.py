"""The negative tests of a state machine: every pair that its table does not have, every caller that may not.

    @pytest.mark.parametrize("case", negative_cases(Waybills.custody), ids=str)
    async def test_what_the_table_does_not_have_is_refused(case: NegativeCase) -> None: ...

`sovchain.testing.machines` runs a case against a contract.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

from sovchain.chaincode.access import Attribute, Holder, Msp, Requirement, Unit
from sovchain.chaincode.errors import E_NOT_FOUND, E_STATE, DefinitionError
from sovchain.chaincode.machine import ABSENT, StateMachine

STRANGER: Final = "StrangerMSP"
"""The MSP of a caller that the table names nowhere."""
MAX_ATOMS: Final = 10


@dataclass(frozen=True)
class Profile:
    """A caller as a case wants it.

    Attributes:
        msp_id: its MSP.
        attributes: what its certificate claims.
        unit: its organisational unit.
        holds: the record's fields that name it; other fields must name others.
        within: the attribute that names it within its MSP; empty if the fields hold MSPs.
    """

    msp_id: str = STRANGER
    attributes: Mapping[str, str] = field(default_factory=dict)
    unit: str = "client"
    holds: frozenset[str] = frozenset()
    within: str = ""

    @property
    def held(self) -> str:
        """What the fields that it holds say: its MSP, with its value of the attribute `within` if there is one."""
        return f"{self.msp_id}/{self.attributes[self.within]}" if self.within else self.msp_id

    def __str__(self) -> str:
        parts = [] if self.msp_id == STRANGER else [self.msp_id]
        parts += [f"{name}={value}" for name, value in self.attributes.items()]
        parts += [] if self.unit == "client" else [self.unit]
        parts += [f"holder of {name}" for name in sorted(self.holds)]
        return " ".join(parts) or "a stranger"

    def meets(self, requirement: Requirement | None) -> bool:
        """Whether such a caller meets a requirement."""
        if requirement is None:
            return True
        return requirement.met_by(_Identity(self), _Record(self))  # type: ignore[arg-type]  # has what requirements read


@dataclass(frozen=True)
class NegativeCase:
    """Something that must be refused.

    Attributes:
        state: the state that the record is in; None: it does not exist.
        action: what is tried.
        caller: by whom.
        code: code of the refusal.
    """

    state: str | None
    action: str
    caller: Profile
    code: str

    def __str__(self) -> str:
        return f"{self.action} when {self.state or ABSENT} by {self.caller}: {self.code}"


class _Identity:
    """What requirements read of an identity."""

    def __init__(self, profile: Profile) -> None:
        self.msp_id = profile.msp_id
        self.attributes = profile.attributes
        self.organizational_units = (profile.unit,)


class _Record:
    """A record whose fields name the caller's MSP where the profile says so."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def __getattr__(self, name: str) -> str:
        return self._profile.held if name in self._profile.holds else ""


def negative_cases(machine: StateMachine[Any]) -> list[NegativeCase]:
    """Everything that the machine must refuse, each once."""
    found: list[NegativeCase] = []
    profiles = list(_profiles(machine))
    for action in machine.actions:
        rows = {state: row for (state, name), row in machine.table.items() if name == action}
        for state in (None, *machine.states):
            row = rows.get(state)
            if row is not None:
                found += [NegativeCase(state, action, one, row.code) for one in profiles if not one.meets(row.requires)]
            elif state is None:
                found.append(NegativeCase(None, action, profiles[0], E_NOT_FOUND))
            else:
                # By somebody who may do it in another state, so that the state alone is why it is refused.
                someone = _first(profiles, *(other.requires for other in rows.values()))
                found.append(NegativeCase(state, action, someone, E_STATE))
    # A record that does not exist has no holder.
    return [case for case in found if case.state is not None or not case.caller.holds]


def positive_cases(machine: StateMachine[Any]) -> list[tuple[str | None, str, Profile]]:
    """For each row, a caller that may, as (state, action, caller)."""
    profiles = list(_profiles(machine))
    return [(state, action, _first(profiles, row.requires)) for (state, action), row in machine.table.items()]


def _first(profiles: list[Profile], *requirements: Requirement | None) -> Profile:
    """The poorest caller that meets one of these. Raises DefinitionError if nobody can."""
    for profile in profiles:
        if any(profile.meets(requirement) for requirement in requirements):
            return profile
    raise DefinitionError(f"nobody can meet {' or '.join(map(str, requirements))}")


def _profiles(machine: StateMachine[Any]) -> Iterator[Profile]:
    """A stranger, whoever has one thing that the table speaks of, and whoever has several; the poorest first."""
    atoms = list(
        dict.fromkeys(
            atom for row in machine.table.values() if row.requires is not None for atom in row.requires.atoms()
        )
    )[:MAX_ATOMS]
    seen: list[Profile] = []
    for size in range(len(atoms) + 1):
        for chosen in combinations(atoms, size):
            profile = _with(chosen)
            if profile is not None and profile not in seen:
                seen.append(profile)
                yield profile


def _with(atoms: tuple[Requirement, ...]) -> Profile | None:
    """A caller that has all of these; None if nobody can."""
    msp_id, unit, within = STRANGER, "client", ""
    holds: set[str] = set()
    attributes: dict[str, str] = {}
    for atom in atoms:
        if isinstance(atom, Msp):
            if msp_id != STRANGER:
                return None
            msp_id = atom.names[0]
        elif isinstance(atom, Unit):
            if unit != "client":
                return None
            unit = atom.names[0]
        elif isinstance(atom, Attribute):
            if atom.name in attributes:
                return None
            attributes[atom.name] = atom.values[0] if atom.values else "1"
        elif isinstance(atom, Holder):
            if holds and within != atom.within:
                return None
            holds.add(atom.field)
            within = atom.within
    if within:
        attributes.setdefault(within, "1")
    return Profile(msp_id, attributes, unit, frozenset(holds), within)
