"""Turns every error of the product into one line what, one line why, one line what to do, and an exit code.

Exit codes of the `sovchain` command:

    0  done
    1  refused: by a contract, a peer, an ordering node or the file system
    2  the command line or an input file cannot be used
    3  the network is not up, already up, or cannot be reached
    4  the law denied the request; the denial and its receipt are committed
    5  an audit, or a look at the network's state, found something
    6  the outcome is unknown: the transaction may or may not be committed
    70 an error of sovchain itself
    130 interrupted
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NETWORK = 3
EXIT_DENIED = 4
EXIT_FINDINGS = 5
EXIT_UNKNOWN = 6
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


_USAGE = frozenset({"TopologyError", "UnknownName", "RuntimeUnavailable", "TopologyChanged", "ChangesRefused"})
_REFUSED = frozenset(
    {"LifecycleError", "ChaincodeFailed", "ConfigurationRefused", "SignaturesMissing", "ApplyUnderWay", "ConfigError"}
)
"""Errors of the network room, by name: the input cannot be used, or somebody refuses."""


class CommandError(Exception):
    """Raised by commands for input that cannot be used: `what` happened, `why`, and the `remedy`."""

    def __init__(self, what: str, why: str, remedy: str, code: int = EXIT_USAGE) -> None:
        super().__init__(f"{what}: {why}; {remedy}")
        self.what = what
        self.why = why
        self.remedy = remedy
        self.code = code


@dataclass(frozen=True)
class Problem:
    """One error as the user reads it."""

    what: str
    why: str
    remedy: str
    code: int
    details: Mapping[str, Any] = field(default_factory=dict)


def describe(error: Exception) -> Problem | None:
    """What to tell the user about `error`; None when it is no error that a user can cause."""
    # Imported here: a command that ends well needs none of them.
    from sovchain.audit.evidence import EvidenceError
    from sovchain.client import errors as client
    from sovchain.ledger.errors import LedgerError
    from sovchain.network import errors as network
    from sovchain.protocol.errors import ProtocolError
    from sovchain.sovereign.errors import SovereignError

    match error:
        case CommandError():
            return Problem(error.what, error.why, error.remedy, error.code)
        case EvidenceError():
            return Problem(error.what, error.why, error.remedy, EXIT_USAGE)
        case network.NetworkError():
            # What another process has refused has the name of its error.
            kinds = {getattr(error, "kind", ""), *(kind.__name__ for kind in type(error).__mro__)}
            code = EXIT_USAGE if kinds & _USAGE else EXIT_REFUSED if kinds & _REFUSED else EXIT_NETWORK
            return Problem(error.what, error.why, error.remedy, code, error.details)
        case SovereignError():
            return _sovereign_problem(error)
        case client.FabricError():
            return _client_problem(error)
        case LedgerError() | ProtocolError():
            what, _, why = str(error).partition(": ")
            return Problem(what, why or what, "correct the cause and try again", EXIT_REFUSED)
        case OSError():
            name = f" {error.filename}" if error.filename else ""
            return Problem(
                f"cannot use the file{name}",
                error.strerror or str(error),
                "check the path and its permissions",
                EXIT_USAGE,
            )
    return None


def _sovereign_problem(error: Any) -> Problem:
    from sovchain.sovereign import errors as sovereign

    if isinstance(error, sovereign.ContractRefusal):
        return Problem(error.what, error.why, error.do, EXIT_REFUSED, {"code": error.code, "fields": error.fields})
    refused = isinstance(error, sovereign.NothingToOpen | sovereign.IntegrityError)
    place = {
        key: getattr(error, key) for key in ("line", "column", "clause", "offset", "known") if getattr(error, key, None)
    }
    return Problem(error.what, error.why, error.do, EXIT_REFUSED if refused else EXIT_USAGE, place)


def _client_problem(error: Any) -> Problem:
    from sovchain.client import errors as client
    from sovchain.client.ca.errors import CaError, CaRefused

    fields = (
        "transaction_id",
        "code",
        "code_name",
        "block_number",
        "chaincode_status",
        "status",
        "endpoint",
        "source",
        "line",
        "column",
    )
    details = {name: value for name in fields if (value := getattr(error, name, None)) not in (None, "", 0)}
    match error:
        case CaError():
            code = EXIT_REFUSED if isinstance(error, CaRefused) else EXIT_NETWORK
            return Problem(error.what, error.why, error.remedy, code, details)
        case client.OutcomeUnknown():
            return Problem(
                f"the outcome of transaction {error.transaction_id} is unknown",
                str(error),
                f"look for it before you send anything like it: sovchain evaluate {error.channel_id} GetTransactionByID "
                f"{error.channel_id} {error.transaction_id} --chaincode qscc",
                EXIT_UNKNOWN,
                details,
            )
        case client.CommitRejected():
            return Problem(
                f"transaction {error.transaction_id} is on the ledger and invalid",
                f"the peers marked it {error.code_name} in block {error.block_number}, so it changed nothing"
                + (f": {error.reason}" if error.reason else ""),
                "give the command again after a read conflict; otherwise read what the code means",
                EXIT_REFUSED,
                details,
            )
        case client.ProfileError() | client.IdentityError():
            return Problem(
                "the connection cannot be made", str(error), "correct the file that it names", EXIT_NETWORK, details
            )
        case client.ConnectError():
            return Problem(
                "the network cannot be reached",
                str(error),
                "check that it is up: sovchain status",
                EXIT_NETWORK,
                details,
            )
        case client.GatewayError() if error.chaincode_message:
            return Problem(
                "the contract refused the call",
                error.chaincode_message,
                "correct what it names and try again",
                EXIT_REFUSED,
                details,
            )
    return Problem(
        "the network refused the call", str(error), "correct what it names and try again", EXIT_REFUSED, details
    )
