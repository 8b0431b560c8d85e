"""The ledger's time: the system's, moved forward on request, so that statutory periods pass within a test.

Clients sign their own clock's time into a proposal. Where the ledger's time was moved, what chaincode is shown is the
client's time moved as far: contracts see the time pass whatever language client and chaincode are written in. What is
signed, ordered and stored stays as the client made it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2
from google.protobuf.message import DecodeError

from sovchain.ledger.errors import LedgerError

LONGEST_SHIFT: Final = timedelta(days=366 * 100)


class TimeRefused(LedgerError):
    """The ledger's time cannot be moved as asked. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the ledger's time cannot be moved: {reason}")
        self.reason = reason


class LedgerClock:
    """The system's clock and how far the ledger is ahead of it."""

    def __init__(self, shift: timedelta = timedelta(0)) -> None:
        self.shift = shift

    def now(self) -> datetime:
        """The ledger's time."""
        return datetime.now(UTC) + self.shift

    def advance(self, by: timedelta) -> datetime:
        """Move the time forward and return it. Raises TimeRefused for a step back or beyond a hundred years."""
        if by < timedelta(0):
            raise TimeRefused("it does not go back; revert to a snapshot instead")
        if self.shift + by > LONGEST_SHIFT:
            raise TimeRefused(f"it is at most {LONGEST_SHIFT.days} days ahead of the system's")
        self.shift += by
        return self.now()

    def ledger_time(self, told: datetime) -> datetime:
        """The ledger's time for what a client's clock says: moved, unless the client has moved its own clock."""
        if not self.shift:
            return told
        system = datetime.now(UTC)
        return told + self.shift if abs(told - system) < abs(told - system - self.shift) else told


def with_time(signed: proposal_pb2.SignedProposal, told: datetime) -> proposal_pb2.SignedProposal:
    """A proposal as chaincode is shown it where the time was moved; the signature is still that of the original."""
    try:
        proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
        header = common_pb2.Header.FromString(proposal.header)
        channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
    except DecodeError as error:
        raise LedgerError(f"a proposal that was checked cannot be decoded: {error}") from error
    channel_header.timestamp.FromDatetime(told)
    header.channel_header = channel_header.SerializeToString()
    proposal.header = header.SerializeToString()
    return proposal_pb2.SignedProposal(proposal_bytes=proposal.SerializeToString(), signature=signed.signature)
