"""Runs the cases that `sovchain.chaincode.machinecases` makes of a state machine against its contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sovchain.chaincode import Operation
from sovchain.chaincode.machinecases import STRANGER, NegativeCase, Profile, negative_cases, positive_cases
from sovchain.testing.harness import Caller, ContractHarness, refused

__all__ = ["STRANGER", "NegativeCase", "Profile", "as_profile", "check_refused", "negative_cases", "positive_cases"]

Prepare = Callable[[ContractHarness, str, Mapping[str, str]], Awaitable[None]]
"""Brings the record into a state; the mapping gives what each holder's field must be."""
Calls = Mapping[str, tuple[Any, ...]]
"""For each action the operation and its arguments."""


def as_profile(harness: ContractHarness, profile: Profile) -> Caller:
    """A caller as a case wants it. The harness needs the organisation that the profile names."""
    return harness.caller(profile.msp_id.removesuffix("MSP"), attributes=dict(profile.attributes), unit=profile.unit)


async def check_refused(harness: ContractHarness, case: NegativeCase, prepare: Prepare, calls: Calls) -> None:
    """Check that the contract refuses a case with its code, and that nothing was written.

    Args:
        harness: with the organisations of the cases, `Stranger` among them.
        case: what must be refused.
        prepare: brings the record into the case's state; not called for a record that must not exist.
        calls: for each action, the operation and its arguments.
    """
    if case.state is not None:
        await prepare(harness, case.state, dict.fromkeys(case.caller.holds, case.caller.held))
    operation, *arguments = calls[case.action]
    assert isinstance(operation, Operation)
    height = harness.state.height
    with refused(case.code):
        await as_profile(harness, case.caller).submit(operation, *arguments)
    assert harness.state.height == height, "a refused action committed something"
