"""The client for scripts and notebooks: the same classes and methods, without `await`.

    from sovchain.client.blocking import Gateway

    with Gateway.connect("connection.json", identity) as gateway:
        note = gateway.network("logistics").contract("logistics").evaluate(Waybills.read, "GY-000017")

It is made from the asynchronous client (scripts/make_blocking.py) and runs it in a thread of its own, so that it behaves as
that one does, and raises the same errors. Objects may be used from several threads. Identities, profiles, options,
checkpointers and errors are those of `sovchain.client`.
"""

from __future__ import annotations

from sovchain.client.blocking._contract import Contract
from sovchain.client.blocking._network import Gateway, Network
from sovchain.client.blocking._steps import Commit, PendingCommit, Proposal, Transaction
from sovchain.client.blocking._streams import BlocksRequest, BlockStream, ChaincodeEvents, EventsRequest

__all__ = [
    "BlockStream",
    "BlocksRequest",
    "ChaincodeEvents",
    "Commit",
    "Contract",
    "EventsRequest",
    "Gateway",
    "Network",
    "PendingCommit",
    "Proposal",
    "Transaction",
]
