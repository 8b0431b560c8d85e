"""What is tried again is what the policy says, and an unknown outcome is asked for before anything is sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2
from fakegateway import FakeGateway, commit, fail, hang, profile_of
from hypothesis import given
from hypothesis import strategies as st

from sovchain.client import (
    CommitRejected,
    Contract,
    EndorseError,
    Gateway,
    OutcomeUnknown,
    RetryPolicy,
    SigningIdentity,
    Timeouts,
)

MVCC, PHANTOM, POLICY = 11, 12, 10


@pytest.fixture
async def contract(fake: FakeGateway, user: SigningIdentity) -> AsyncIterator[Contract]:
    timeouts = Timeouts(submit_s=0.4, commit_s=0.4)
    async with Gateway.connect(profile_of(fake), user, timeouts=timeouts, commit_stream=False) as gateway:
        yield gateway.network("ch").contract("basic")


def submitted_ids(fake: FakeGateway) -> list[str]:
    return [gateway_pb2.SubmitRequest.FromString(request).transaction_id for request in fake.requests["Submit"]]


async def test_without_a_policy_a_conflict_is_raised(contract: Contract, fake: FakeGateway) -> None:
    fake.script("CommitStatus", commit(MVCC))
    with pytest.raises(CommitRejected):
        await contract.submit("make")
    assert len(fake.requests["Endorse"]) == 1


async def test_conflicts_are_endorsed_anew_under_new_ids(contract: Contract, fake: FakeGateway) -> None:
    fake.script("CommitStatus", commit(MVCC), commit(PHANTOM), commit(0, 9))
    policy = RetryPolicy(conflict_retries=3, pause_s=0.001)
    assert (await contract.with_options(retry=policy).submit("make")).block_number == 9
    assert len(set(submitted_ids(fake))) == 3
    assert len(fake.requests["Endorse"]) == 3


async def test_retries_end_and_other_rejections_are_not_retried(contract: Contract, fake: FakeGateway) -> None:
    policy = RetryPolicy(conflict_retries=2, pause_s=0.001)
    fake.script("CommitStatus", *[commit(MVCC)] * 3)
    with pytest.raises(CommitRejected):
        await contract.with_options(retry=policy).submit("make")
    assert len(fake.requests["Endorse"]) == 3
    fake.script("CommitStatus", commit(POLICY))
    with pytest.raises(CommitRejected) as caught:
        await contract.with_options(retry=policy).submit("make")
    assert caught.value.code_name == "ENDORSEMENT_POLICY_FAILURE"
    assert len(fake.requests["Endorse"]) == 4


async def test_endorsers_that_disagree_are_asked_again_if_the_policy_says_so(
    contract: Contract, fake: FakeGateway
) -> None:
    differ = fail(grpc.StatusCode.ABORTED, "failed", ("p:1", "Org2MSP", "ProposalResponsePayloads do not match"))
    fake.script("Endorse", differ, differ)
    policy = RetryPolicy(disagreement_retries=2, pause_s=0.001)
    assert (await contract.with_options(retry=policy).submit("make")).result == b"done"
    fake.script("Endorse", differ)
    with pytest.raises(EndorseError):
        await contract.submit("make")


@pytest.mark.parametrize("arrived", [True, False])
async def test_after_an_unknown_outcome_it_asks_and_sends_the_same_bytes(
    contract: Contract, fake: FakeGateway, arrived: bool
) -> None:
    policy = RetryPolicy(unknown_resends=2, conflict_retries=5, ask_s=0.2, pause_s=0.001)
    fake.script("Submit", hang())
    if not arrived:
        fake.script("CommitStatus", hang())
    done = await contract.with_options(retry=policy).submit("make")
    assert set(submitted_ids(fake)) == {done.transaction_id}
    assert len(fake.requests["Submit"]) == (1 if arrived else 2)
    assert len(set(fake.requests["Submit"])) == 1
    assert len(fake.requests["Endorse"]) == 1


async def test_an_outcome_that_stays_unknown_is_never_endorsed_anew(contract: Contract, fake: FakeGateway) -> None:
    policy = RetryPolicy(unknown_resends=1, conflict_retries=5, ask_s=0.1, pause_s=0.001)
    fake.script("Submit", *[hang()] * 9)
    fake.script("CommitStatus", *[hang()] * 9)
    with pytest.raises(OutcomeUnknown):
        await contract.with_options(retry=policy).submit("make")
    assert len(fake.requests["Endorse"]) == 1
    assert len(fake.requests["Submit"]) == 2


async def test_a_refusal_after_an_attempt_without_answer_is_no_proof(contract: Contract, fake: FakeGateway) -> None:
    """The first attempt may have come through, whatever the second one hears."""
    fake.script(
        "Submit",
        fail(grpc.StatusCode.UNAVAILABLE, "the connection broke"),
        fail(grpc.StatusCode.ABORTED, "no", ("orderer", "O", "BAD_REQUEST")),
    )
    with pytest.raises(OutcomeUnknown):
        await contract.submit("make")


@given(st.integers(1, 10_000), st.floats(0, 10), st.floats(0, 10))
def test_pauses_are_bounded_whatever_the_policy(tries: int, first_s: float, most_s: float) -> None:
    assert 0 <= RetryPolicy(pause_s=first_s, pause_most_s=most_s).pause(tries) <= most_s


@pytest.mark.parametrize(
    "wrong", [{"conflict_retries": -1}, {"unknown_resends": 10**6}, {"pause_s": -0.1}, {"ask_s": float("inf")}]
)
def test_a_policy_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)
