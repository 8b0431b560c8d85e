"""What the wrappers return: the contracts' records, with the transactions that put them on the ledger."""

from __future__ import annotations

from typing import Generic, TypeVar

from sovchain.contracts.core.records import (
    Acknowledgement,
    BallotView,
    DataSet,
    LawDraft,
    PersonalKind,
    Receipt,
    Record,
)

T = TypeVar("T")


class Committed(Record):
    """A transaction that is on the ledger."""

    transaction_id: str
    block_number: int


class About(Record):
    """Whom data are about and where they come from, as `Publication` states it."""

    personal: PersonalKind = "none"
    subject: str | None = None
    origin: str | None = None
    sources: tuple[str, ...] = ()
    joint_owners: tuple[str, ...] = ()


class Proposed(Record):
    """A proposal under vote. `ballot` is what to vote for."""

    ballot: str
    committed: Committed


class ProposedLaw(Proposed):
    """A law under vote."""

    draft: LawDraft


class Voted(Record):
    """A vote and how the ballot stands after it."""

    view: BallotView
    committed: Committed

    @property
    def passed(self) -> bool:
        """Whether this vote completed the quorum."""
        return self.view.ballot.state == "passed"


class Shared(Record):
    """A data set that was deposited and published."""

    dataset: DataSet
    deposited: Committed
    published: Committed

    @property
    def id(self) -> str:
        """The data set's id."""
        return self.dataset.id


class Filed(Record):
    """A request on file. `request` is its id."""

    request: str
    committed: Committed


class Answer(Receipt):
    """The receipt on a request, with the two transactions that led to it."""

    filed: Committed
    decided: Committed

    @property
    def permitted(self) -> bool:
        """Whether the request was permitted."""
        return self.decision == "permit"


class Released(Record):
    """A delivery into the grantee's collection."""

    request: str
    grantee: str
    committed: Committed


class Fetched(Record):
    """A sealed payload that was opened into a file."""

    request: str
    dataset: str
    size_bytes: int


class Acknowledged(Record):
    """A public acknowledgement."""

    acknowledgement: Acknowledgement
    committed: Committed


class Recorded(Record, Generic[T]):
    """What stands on the ledger after a step, and the transaction that made it so."""

    record: T
    committed: Committed
