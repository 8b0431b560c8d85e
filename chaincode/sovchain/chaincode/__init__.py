"""Chaincode in Python: the contract API that people write in, and the runtime that a peer talks to.

General layout: `contract`, `operation`, `access`, `records`, `machine`, `context`, `stub` and `errors` are what a contract
imports; `values` and `shapes` turn annotations into codecs, `recordtypes` and `bookmarks` models into keys; `chaincode`
dispatches a call; `metadata`, `describe` and `machinecases` tell of it; `determinism` is the lint and the guard. Below
them `handler` speaks the peer's stream for `server` (the peer dials) and `connect` (the chaincode dials), over
`transport`, `http2` and `grpcstream`; `serve` and `__main__` are the command line.
Importing this package opens nothing, and none of it loads gRPC's library.
"""

from __future__ import annotations

from sovchain.chaincode.access import Requirement, attribute, holder, msp, role, unit
from sovchain.chaincode.chaincode import Chaincode
from sovchain.chaincode.context import ClientIdentity, Context
from sovchain.chaincode.contract import Contract
from sovchain.chaincode.errors import (
    AccessError,
    ArgumentError,
    CalledChaincodeError,
    ChaincodeError,
    ContractError,
    DefinitionError,
    DeterminismError,
    LedgerError,
    NotSupportedError,
    RecordError,
    ResultError,
    ServiceError,
    StreamError,
    StubUseError,
)
from sovchain.chaincode.machine import Given, Guard, StateMachine, To, guard
from sovchain.chaincode.operation import EncodedCall, Operation, Query, Transaction, Transient, query, transaction
from sovchain.chaincode.recordtypes import record
from sovchain.chaincode.stub import Items, KeyModification, KeyValue, Page, Response, Stub

__all__ = [
    "AccessError",
    "ArgumentError",
    "CalledChaincodeError",
    "Chaincode",
    "ChaincodeError",
    "ClientIdentity",
    "Context",
    "Contract",
    "ContractError",
    "DefinitionError",
    "DeterminismError",
    "EncodedCall",
    "Given",
    "Guard",
    "Items",
    "KeyModification",
    "KeyValue",
    "LedgerError",
    "NotSupportedError",
    "Operation",
    "Page",
    "Query",
    "RecordError",
    "Requirement",
    "Response",
    "ResultError",
    "ServiceError",
    "StateMachine",
    "StreamError",
    "Stub",
    "StubUseError",
    "To",
    "Transaction",
    "Transient",
    "attribute",
    "guard",
    "holder",
    "msp",
    "query",
    "record",
    "role",
    "transaction",
    "unit",
]
