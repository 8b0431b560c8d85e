"""A submit from end to end: its steps, its retries, and what the journal knows of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from fabric_protos.common import common_pb2

from sovchain.client.commit import Commit, CommitStatus, Submitted, code_name, leave
from sovchain.client.errors import (
    CommitRejected,
    EndorseError,
    IdempotencyKeyReused,
    JournalError,
    OutcomeUnknown,
    SubmitError,
)
from sovchain.client.journal import COMMITTED, KEY_MOST, REJECTED, Journal, JournalEntry
from sovchain.client.proposal import Proposal
from sovchain.client.session import Session
from sovchain.client.transaction import Transaction
from sovchain.protocol.proposals import Invocation
from sovchain.protocol.transactions import parse_transaction

R = TypeVar("R")

NOT_VALIDATED: Final = 254
"""TxValidationCode of a transaction that no peer has judged: the ordering service refused it."""
_DISAGREEMENT: Final = "ProposalResponsePayloads do not match"


class Submitting:
    """One submit. `key` makes it happen once, across processes, with the session's journal."""

    def __init__(
        self, session: Session, invocation: Invocation, decode: Callable[[bytes], Any], key: str | None
    ) -> None:
        self._session = session
        self._invocation = invocation
        self._decode = decode
        self._key = key or ""
        self._journal = _journal_for(session, key)
        self._fingerprint = fingerprint(invocation) if key is not None else ""
        self._replaces = ""
        self._sent = False
        self._end = session.end()

    async def run(self) -> Submitted[Any]:
        """Submit, or find out what became of it. Raises as `Contract.submit`."""
        if self._journal is not None and (entry := await self._journal.get(self._key)) is not None:
            done = await self._resume(entry)
            if done is not None:
                return done
        policy = self._session.retry
        conflicts = 0
        while True:
            transaction = await self._endorsed()
            try:
                return await self._send(transaction)
            except CommitRejected as rejected:
                self._replaces = rejected.transaction_id
                if rejected.code_name not in policy.conflict_codes or conflicts >= policy.conflict_retries:
                    raise
                conflicts += 1
            await asyncio.sleep(policy.pause(conflicts))

    async def _endorsed(self) -> Transaction[Any]:
        policy, tries = self._session.retry, 0
        while True:
            try:
                proposal = Proposal.build(self._session, self._invocation, self._decode, end=self._end)
                return await proposal.endorse()
            except EndorseError as error:
                differ = any(_DISAGREEMENT in detail.message for detail in error.details)
                if not differ or tries >= policy.disagreement_retries:
                    raise
                tries += 1
            await asyncio.sleep(policy.pause(tries))

    async def _send(self, transaction: Transaction[Any]) -> Submitted[Any]:
        if self._journal is not None:
            await transaction.sign()
            entry = JournalEntry(
                self._key,
                self._session.channel_id,
                self._fingerprint,
                transaction.transaction_id,
                transaction.envelope_bytes,
            )
            there = await self._journal.record(entry, instead_of=self._replaces)
            if there.transaction_id != entry.transaction_id:
                # Another process was first: this one's transaction is thrown away unsent.
                done = await self._resume(there)
                if done is None:
                    raise CommitRejected(
                        there.code,
                        code_name(there.code),
                        transaction_id=there.transaction_id,
                        block_number=there.block_number,
                    )
                return done
        return await self._settled(transaction)

    async def _settled(self, transaction: Transaction[Any]) -> Submitted[Any]:
        """Send, wait, and record the outcome; after an unknown one ask first, and then send the same bytes again."""
        try:
            return await self._until_settled(transaction)
        except asyncio.CancelledError as cancelled:
            if self._sent:
                leave(cancelled, Commit(self._session, transaction.transaction_id))
            raise

    async def _until_settled(self, transaction: Transaction[Any]) -> Submitted[Any]:
        policy, resends = self._session.retry, 0
        self._sent = False
        while True:
            try:
                pending = await transaction.submit()
                self._sent = True
                status = await pending.status()
            except OutcomeUnknown as unknown:
                self._sent = True
                if resends >= policy.unknown_resends:
                    raise
                asked = await self._ask(unknown)
                if asked is None:
                    resends += 1
                    await asyncio.sleep(policy.pause(resends))
                    continue
                status = asked
            except SubmitError:
                if self._journal is not None:
                    await self._journal.settle(self._key, transaction.transaction_id, NOT_VALIDATED, 0)
                raise
            return await self._outcome(status, transaction.result)

    async def _ask(self, unknown: OutcomeUnknown) -> CommitStatus | None:
        assert unknown.commit is not None
        try:
            return await unknown.commit.status(timeout_s=self._session.retry.ask_s)
        except OutcomeUnknown:
            return None

    async def _outcome(self, status: CommitStatus, result: Any) -> Submitted[Any]:
        if self._journal is not None:
            await self._journal.settle(self._key, status.transaction_id, status.code, status.block_number)
        if not status.successful:
            raise CommitRejected(
                status.code,
                status.code_name,
                transaction_id=status.transaction_id,
                block_number=status.block_number,
                reason=status.reason,
            )
        return Submitted(result, status.transaction_id, status.block_number, status.code)

    async def _resume(self, entry: JournalEntry) -> Submitted[Any] | None:
        """What became of an earlier submit under the key; None if it was rejected, so that it had no effect."""
        if entry.channel_id != self._session.channel_id or entry.fingerprint != self._fingerprint:
            raise IdempotencyKeyReused(self._key, entry.transaction_id)
        if entry.state == REJECTED:
            self._replaces = entry.transaction_id
            return None
        transaction = load_envelope(self._session, entry.envelope, self._decode, end=self._end)
        if entry.state == COMMITTED:
            return Submitted(transaction.result, entry.transaction_id, entry.block_number, entry.code)
        commit = Commit(self._session, entry.transaction_id)
        try:
            status = await commit.status(timeout_s=self._session.retry.ask_s)
        except OutcomeUnknown:
            # Nobody knows it: perhaps it was never sent. The same bytes again can at most make it happen once.
            pass
        else:
            return await self._resumed(status, transaction)
        try:
            return await self._settled(transaction)
        except CommitRejected as rejected:
            self._replaces = rejected.transaction_id
            return None

    async def _resumed(self, status: CommitStatus, transaction: Transaction[Any]) -> Submitted[Any] | None:
        try:
            return await self._outcome(status, transaction.result)
        except CommitRejected as rejected:
            self._replaces = rejected.transaction_id
            return None


def load_envelope(
    session: Session, envelope_bytes: bytes, decode: Callable[[bytes], R], *, end: float | None
) -> Transaction[R]:
    """A transaction from its envelope. Raises DecodeError, ProtocolError, ResultError, ValueError."""
    parsed = parse_transaction(envelope_bytes)
    envelope = common_pb2.Envelope.FromString(envelope_bytes)
    result = decode(parsed.response.payload)
    return Transaction(session, parsed.transaction_id, envelope.payload, result, signature=envelope.signature, end=end)


def fingerprint(invocation: Invocation) -> str:
    """What tells one request from another: chaincode, arguments and transient data, each with its length."""
    digest = hashlib.sha256()
    transient = [part for pair in sorted(invocation.transient.items()) for part in (pair[0].encode(), pair[1])]
    for part in (invocation.chaincode.encode(), len(invocation.args).to_bytes(8, "big"), *invocation.args, *transient):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _journal_for(session: Session, key: str | None) -> Journal | None:
    if key is None:
        return None
    if session.journal is None:
        raise JournalError("there is none: pass journal= to Gateway.connect", source="<none>")
    if not 0 < len(key) <= KEY_MOST:
        raise ValueError(f"an idempotency key has from 1 to {KEY_MOST} characters")
    return session.journal
