"""Refusals of a rich query: CouchDB's own answers, and what Fabric refuses before it asks CouchDB."""

from __future__ import annotations

from sovchain.ledger.errors import SimulationError


class FindRefused(SimulationError):
    """A query that Fabric does not hand on to CouchDB, or that is larger than this ledger takes."""


class FindError(SimulationError):
    """CouchDB's refusal of a query, in the words in which a peer reports it (statecouchdb/couchdb.go handleRequest).

    Attributes:
        status: HTTP status.
        error: CouchDB's word for the error, such as `no_usable_index`.
        reason: CouchDB's sentence (src/mango/src/mango_error.erl).
    """

    def __init__(self, error: str, reason: str, status: int = 400) -> None:
        super().__init__(f"error handling CouchDB request. Error:{error},  Status Code:{status},  Reason:{reason}")
        self.status = status
        self.error = error
        self.reason = reason


def term(value: object, *, readable: bool = False) -> str:
    """Return a JSON value as Erlang prints it with `~w`, which CouchDB's sentences do; `readable` is its `~p`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        if readable and value.isascii() and value.isprintable() and value:
            return f'<<"{value}">>'
        return f"<<{','.join(map(str, value.encode()))}>>"
    if isinstance(value, dict):
        return (
            "{["
            + ",".join(
                f"{{{term(key, readable=readable)},{term(entry, readable=readable)}}}" for key, entry in value.items()
            )
            + "]}"
        )
    if isinstance(value, list):
        return "[" + ",".join(term(entry, readable=readable) for entry in value) + "]"
    return float_text(value) if isinstance(value, float) else str(value)


def float_text(number: float) -> str:
    """Return a float as Erlang writes it: the shortest digits that read back to it."""
    mantissa, sign, exponent = repr(number).partition("e")
    if not sign:
        return mantissa
    whole = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{whole}e{int(exponent)}"
