"""Calling the contracts: refusals become this package's errors, and a conflict at commit is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, ParamSpec, TypeVar

from sovchain.chaincode import ArgumentError, Operation
from sovchain.client import CommitRejected, Contract, EndorseError, GatewayError, Submitted
from sovchain.contracts.core import refusal
from sovchain.contracts.core.records import Page
from sovchain.sovereign.errors import ContractRefusal, InvalidInput, LawTextError, NothingToOpen, SovereignError
from sovchain.sovereign.results import Committed

ATTEMPTS: Final = 4
"""How often a submit is made whose transaction lost against another one in its block, or came before its endorsers' state."""
PAUSE_S: Final = 0.15
"""Pause before the second attempt, in seconds; it doubles with each further one."""

_CONFLICTS: Final = frozenset({"MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT"})
LAGGING: Final = frozenset({"E_NOT_FOUND", "E_NOT_PERMITTED", "E_NOT_DELIVERED"})
"""What a peer refuses with that lacks the block before."""

P = ParamSpec("P")
R = TypeVar("R")


class Calls:
    """A chaincode as the wrappers call it. `at` chooses the one organisation whose peer runs the call."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract

    def at(self, msp_id: str) -> Calls:
        """The same, endorsed or evaluated by one organisation only."""
        return Calls(self._contract.with_options(organizations=[msp_id]))

    async def evaluate(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Evaluate. Raises SovereignError for a refusal, and the client's errors."""
        try:
            return await self._contract.evaluate(operation, *args, **kwargs)
        except ArgumentError as error:
            raise invalid_argument(error) from None
        except GatewayError as error:
            refused(error)

    async def submit(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Submitted[R]:
        """Submit. A transaction that a conflict invalidated, or on which its endorsers did not agree, has changed nothing
        and is made again, `ATTEMPTS` times at most.

        Raises SovereignError for a refusal, and the client's errors.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._contract.submit(operation, *args, **kwargs)
            except ArgumentError as error:
                raise invalid_argument(error) from None
            except EndorseError as error:
                # Endorsers one block apart give different answers. Nothing was sent for ordering yet.
                if error.code is not None or error.status != "ABORTED" or attempt == ATTEMPTS:
                    refused(error)
            except GatewayError as error:
                refused(error)
            except CommitRejected as error:
                if error.code_name not in _CONFLICTS or attempt == ATTEMPTS:
                    raise
            await asyncio.sleep(PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")

    async def submit_after_own(self, operation: Operation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Submitted[R]:
        """Submit what builds on a transaction that this client has just committed.

        Another organisation's peer may not have that block yet and refuse for it: such a refusal is waited out.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self.submit(operation, *args, **kwargs)
            except ContractRefusal as error:
                if error.code not in LAGGING or attempt == ATTEMPTS:
                    raise
            await asyncio.sleep(PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")


def committed(done: Submitted[R]) -> Committed:
    """The transaction of a submit."""
    return Committed(transaction_id=done.transaction_id, block_number=done.block_number)


async def all_pages(read: Callable[[str], Awaitable[Page[R]]]) -> list[R]:
    """The items of all pages, each read with the bookmark of the one before."""
    items: list[R] = []
    bookmark = ""
    while True:
        page = await read(bookmark)
        items.extend(page.items)
        bookmark = page.bookmark
        if not bookmark:
            return items


def invalid_argument(error: ArgumentError) -> InvalidInput:
    """A value that does not have the form that the contract declares."""
    what = f"the {error.parameter.replace('_', ' ')} is malformed" if error.parameter else "the call is malformed"
    return InvalidInput(what, error.reason, "correct it and try again")


def refused(error: GatewayError) -> NoReturn:
    """Raise the contract's refusal as this package's error; what no contract said is raised as it is."""
    if error.code is None or error.reason is None:
        raise error
    raise _translated(error.code, error.reason, dict(error.fields)) from error


def _translated(code: str, reason: str, fields: dict[str, object]) -> SovereignError:
    what, why, do = refusal.parts(reason)
    why, do = why or "the contract refuses", do or "correct the call"
    if code == "E_LAW":
        line, column = fields.get("line", 0), fields.get("column", 0)
        return LawTextError(
            what,
            why,
            do,
            line=line if isinstance(line, int) else 0,
            column=column if isinstance(column, int) else 0,
            clause=str(fields.get("clause", "")),
        )
    if code == "E_NOT_DELIVERED":
        return NothingToOpen(what, why, do, code=code, fields=fields)
    return ContractRefusal(what, why, do, code=code, fields=fields)
