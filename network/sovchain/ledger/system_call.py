"""What a system chaincode is given, and how it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fabric_protos.peer import proposal_response_pb2

from sovchain.ledger.chainview import ChainView
from sovchain.ledger.simulator import TxSimulator
from sovchain.protocol.policies import SignedData

if TYPE_CHECKING:
    from sovchain.ledger.peer import Peer
    from sovchain.ledger.registry import Registry

OK: Final = 200
NOT_FOUND: Final = 404
ERROR: Final = 500


@dataclass(frozen=True)
class SystemCall:
    """One invocation of a system chaincode on one peer.

    Attributes:
        registry: the ledger's channels and peers.
        peer: the peer that runs it.
        channel: the channel of the call, None without one.
        arguments: function name and parameters.
        signed: the client's signed proposal, for access checks; its signature is checked.
        invoked: chaincode that the proposal names; differs when a chaincode calls the system chaincode.
        simulator: collects reads and writes; None without a channel.
    """

    registry: Registry
    peer: Peer
    channel: ChainView | None
    arguments: tuple[bytes, ...]
    signed: SignedData
    invoked: str
    simulator: TxSimulator | None


SystemChaincode = Callable[[SystemCall], Awaitable[proposal_response_pb2.Response]]
"""Runs one invocation. It raises nothing but defects: refusals are responses."""


def success(payload: bytes) -> proposal_response_pb2.Response:
    """Return a response with status 200."""
    return proposal_response_pb2.Response(status=OK, payload=payload)


def failure(message: str, status: int = ERROR) -> proposal_response_pb2.Response:
    """Return a response that says why the call failed."""
    return proposal_response_pb2.Response(status=status, message=message)
