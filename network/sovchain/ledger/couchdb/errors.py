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


def term(value: object) -> str:
    """Return a JSON value as Erlang prints it with `~w`, which CouchDB's sentences do."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"<<{','.join(map(str, value.encode()))}>>"
    if isinstance(value, dict):
        return "{[" + ",".join(f"{{{term(key)},{term(entry)}}}" for key, entry in value.items()) + "]}"
    if isinstance(value, list):
        return "[" + ",".join(map(term, value)) + "]"
    return str(value)
