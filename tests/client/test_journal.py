"""One effect for each idempotency key, whatever dies between the steps and whoever asks again."""

from __future__ import annotations

import asyncio
import json
import secrets
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fakegateway import FakeGateway, LiveAuthority, commit, fail, hang, key_pem, profile_of
from pki import Signer, pem

from sovchain.client import (
    CommitRejected,
    Contract,
    Gateway,
    IdempotencyKeyReused,
    JournalError,
    OutcomeUnknown,
    RetryPolicy,
    SigningIdentity,
    SqliteJournal,
    SubmitError,
    Timeouts,
)
from sovchain.protocol.transactions import parse_transaction

SUPPORT = Path(__file__).parents[1] / "support"


class Ledger:
    """Commits each transaction id once, as peers do, and tells only of those that it has."""

    def __init__(self, fake: FakeGateway) -> None:
        self.committed: dict[str, int] = {}
        self.copies = 0
        fake.healthy_hook = self.answer

    def answer(self, method: str, request: bytes) -> Any:
        if method == "Submit":
            envelope = gateway_pb2.SubmitRequest.FromString(request).prepared_transaction
            transaction = parse_transaction(envelope.SerializeToString())
            self.copies += transaction.transaction_id in self.committed
            self.committed.setdefault(transaction.transaction_id, len(self.committed) + 1)
            return b""
        if method == "CommitStatus":
            signed = gateway_pb2.SignedCommitStatusRequest.FromString(request)
            transaction_id = gateway_pb2.CommitStatusRequest.FromString(signed.request).transaction_id
            block = self.committed.get(transaction_id)
            return hang() if block is None else commit(0, block)
        return None


@pytest.fixture
def ledger(fake: FakeGateway) -> Ledger:
    return Ledger(fake)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


QUICK = RetryPolicy(ask_s=0.2)


@pytest.fixture
async def contract(fake: FakeGateway, user: SigningIdentity, path: Path) -> AsyncIterator[Contract]:
    journal = SqliteJournal(path)
    timeouts = Timeouts(submit_s=0.5, commit_s=1)
    async with Gateway.connect(
        profile_of(fake), user, journal=journal, retry=QUICK, timeouts=timeouts, commit_stream=False
    ) as gateway:
        yield gateway.network("ch").contract("basic")
    journal.close()


async def test_a_second_request_under_the_key_gets_the_first_ones_result(
    contract: Contract, fake: FakeGateway, ledger: Ledger, path: Path
) -> None:
    first = await contract.submit_once("order-17", "make", "a")
    again = await contract.submit_once("order-17", "make", "a")
    assert again == first
    assert len(fake.requests["Submit"]) == len(fake.requests["Endorse"]) == 1
    other = await contract.submit_once("order-18", "make", "a")
    assert other.transaction_id != first.transaction_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "call",
    [
        lambda contract: contract.submit_once("order-17", "make", "b"),
        lambda contract: contract.submit_once("order-17", "makea"),
        lambda contract: contract.submit_once("order-17", "make", "a", transient={"x": "y"}),
    ],
    ids=["other argument", "same bytes, other arguments", "transient data"],
)
async def test_a_key_stands_for_one_request(contract: Contract, ledger: Ledger, call: Any) -> None:
    await contract.submit_once("order-17", "make", "a")
    with pytest.raises(IdempotencyKeyReused):
        await call(contract)
    assert len(ledger.committed) == 1


async def test_an_unknown_outcome_is_settled_by_asking_again(
    contract: Contract, fake: FakeGateway, ledger: Ledger
) -> None:
    """Once it had arrived and once it had not: the transaction id stays the same, and one commits."""

    async def arrives_unanswered(request: bytes, context: Any) -> bytes:
        ledger.answer("Submit", request)
        return await hang()(request, context)

    for key, answer in (("arrived", arrives_unanswered), ("lost", hang())):
        fake.script("Submit", answer)
        with pytest.raises(OutcomeUnknown) as caught:
            await contract.submit_once(key, "make", key)
        done = await contract.submit_once(key, "make", key)
        assert done.transaction_id == caught.value.transaction_id
    assert len(ledger.committed) == 2


async def test_what_was_rejected_may_be_asked_for_again(contract: Contract, fake: FakeGateway, ledger: Ledger) -> None:
    """Nothing was written, so that a second attempt under the same key is a first effect."""
    fake.script("CommitStatus", commit(11, 5))
    with pytest.raises(CommitRejected) as caught:
        await contract.submit_once("order-17", "make", "a")
    done = await contract.submit_once("order-17", "make", "a")
    assert done.transaction_id != caught.value.transaction_id
    assert await contract.submit_once("order-17", "make", "a") == done


async def test_what_the_ordering_service_refused_may_be_asked_for_again(
    contract: Contract, fake: FakeGateway, ledger: Ledger
) -> None:
    fake.script("Submit", fail(grpc.StatusCode.ABORTED, "no", ("orderer", "O", "BAD_REQUEST")))
    with pytest.raises(SubmitError) as caught:
        await contract.submit_once("order-17", "make", "a")
    done = await contract.submit_once("order-17", "make", "a")
    assert done.transaction_id != caught.value.transaction_id
    assert list(ledger.committed) == [done.transaction_id]


async def test_many_who_ask_at_once_share_one_effect(contract: Contract, fake: FakeGateway, ledger: Ledger) -> None:
    done = await asyncio.gather(*(contract.submit_once("order-17", "make", "a") for _ in range(20)))
    assert len({one.transaction_id for one in done}) == 1
    assert set(ledger.committed) == {done[0].transaction_id}


async def test_what_is_missing_is_said_before_anything_is_sent(
    fake: FakeGateway, user: SigningIdentity, contract: Contract, tmp_path: Path
) -> None:
    async with Gateway.connect(profile_of(fake), user) as gateway:
        with pytest.raises(JournalError, match="journal="):
            await gateway.network("ch").contract("basic").submit_once("key", "make")
    with pytest.raises(ValueError, match="200 characters"):
        await contract.submit_once("k" * 201, "make")
    with pytest.raises(JournalError):
        SqliteJournal(tmp_path / "nowhere" / "journal")
    (tmp_path / "text").write_text("this is no database" * 100)
    with pytest.raises(JournalError):
        SqliteJournal(tmp_path / "text")
    assert not fake.requests["Endorse"]


async def test_settled_entries_can_be_listed_and_forgotten(
    contract: Contract, fake: FakeGateway, ledger: Ledger, path: Path
) -> None:
    await contract.submit_once("done", "make", "a")
    fake.script("Submit", hang())
    with pytest.raises(OutcomeUnknown):
        await contract.submit_once("open", "make", "b")
    journal = SqliteJournal(path)
    (entry,) = await journal.unsettled()
    assert (entry.key, entry.state) == ("open", "sent")
    assert parse_transaction(entry.envelope).transaction_id == entry.transaction_id
    assert common_pb2.Envelope.FromString(entry.envelope).signature
    assert await journal.forget(older_than_s=0) == 1
    assert await journal.get("done") is None
    assert await journal.get("open") is not None
    journal.close()


@pytest.mark.parametrize("die_before", ["Endorse", "Submit", "CommitStatus"])
async def test_a_process_that_was_killed_asks_again_and_never_sends_twice(
    fake: FakeGateway, ledger: Ledger, authority: LiveAuthority, path: Path, die_before: str
) -> None:
    """Ten keys; each process is killed before that call, and the next one finishes what it began."""
    signer: Signer = authority.issue("user", "client")
    task = {
        "profile": profile_of(fake),
        "certificate": pem(signer.certificate).decode(),
        "key": key_pem(signer).decode(),
        "journal": str(path),
    }

    async def submit(key: str, die_before: str) -> tuple[int, str]:
        argument = json.dumps({**task, "once": key, "die_before": die_before})
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(SUPPORT / "dying_submitter.py"), argument,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode().strip() or err.decode()

    key = secrets.token_hex(4)
    code, text = await submit(key, die_before)
    assert code == -9, text
    in_flight = dict(ledger.committed)
    code, transaction_id = await submit(key, "")
    assert code == 0, transaction_id
    assert list(ledger.committed) == [transaction_id], "one effect"
    assert not in_flight or list(in_flight) == [transaction_id], "what was sent first is what counts"
    assert (await submit(key, ""))[1] == transaction_id
