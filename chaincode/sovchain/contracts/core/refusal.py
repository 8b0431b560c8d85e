"""How the contracts refuse: every message says what happened, why, and what to do."""

from __future__ import annotations

from typing import Any

from sovchain.chaincode import ContractError


def refusal(code: str, what: str, why: str, do: str, **fields: Any) -> ContractError:
    """A contract error with the text `what: why; do`.

    `what` holds no colon and `do` no semicolon, so that a client can take the text apart again.
    """
    return ContractError(code, f"{what}: {why}; {do}", **fields)


def parts(message: str) -> tuple[str, str, str]:
    """What, why and what to do, from a message that `refusal` made; the last two are empty for any other text."""
    what, _, rest = message.partition(": ")
    why, separator, do = rest.rpartition("; ")
    return (what, why, do) if separator else (message, "", "")
