"""A submit ends in one of three ways: committed, rejected or refused, unknown. Every step has its deadline."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2
from fakegateway import FakeGateway, commit, fail, hang, profile_of

from sovchain.client import (
    CommitRejected,
    CommitStatusError,
    Contract,
    EndorseError,
    EvaluateError,
    Gateway,
    OutcomeUnknown,
    SigningIdentity,
    SubmitError,
    Timeouts,
)

SHORT_S = 0.3
CODE = grpc.StatusCode


async def test_a_submit_that_commits_returns_result_transaction_and_block(
    contract: Contract, fake: FakeGateway
) -> None:
    fake.script("CommitStatus", commit(0, 42))
    done = await contract.submit("make", "a")
    request = gateway_pb2.SubmitRequest.FromString(fake.requests["Submit"][0])
    assert (done.result, done.block_number, done.code) == (b"done", 42, 0)
    assert done.transaction_id == request.transaction_id


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (11, "MVCC_READ_CONFLICT"),
        (10, "ENDORSEMENT_POLICY_FAILURE"),
        (12, "PHANTOM_READ_CONFLICT"),
        (9, "DUPLICATE_TXID"),
        (255, "INVALID_OTHER_REASON"),
        (200, "200"),
    ],
)
async def test_a_rejected_transaction_is_told_with_its_code_and_block(
    contract: Contract, fake: FakeGateway, code: int, name: str
) -> None:
    fake.script("CommitStatus", commit(code, 3))
    with pytest.raises(CommitRejected) as caught:
        await contract.submit("make")
    assert (caught.value.code, caught.value.code_name, caught.value.block_number) == (code, name, 3)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("step", "method", "kind"),
    [
        ("evaluate_s", "Evaluate", EvaluateError),
        ("endorse_s", "Endorse", EndorseError),
        ("submit_s", "Submit", OutcomeUnknown),
        ("commit_s", "CommitStatus", OutcomeUnknown),
    ],
)
@pytest.mark.parametrize("over_all", [False, True], ids=["own deadline", "one over all"])
async def test_each_step_ends_at_its_deadline(
    contract: Contract,
    fake: FakeGateway,
    step: str,
    method: str,
    kind: type[EvaluateError | EndorseError | OutcomeUnknown],
    over_all: bool,
) -> None:
    view = contract.with_options(
        timeouts=None if over_all else Timeouts(**{step: SHORT_S}), timeout_s=SHORT_S if over_all else None
    )
    fake.script(method, hang())
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        await (view.evaluate if method == "Evaluate" else view.submit)("make")
    assert SHORT_S * 0.8 < time.monotonic() - started < 2.0
    assert caught.value.failure.status == "DEADLINE_EXCEEDED"
    await fake.until_idle()


async def test_waiting_for_a_free_slot_counts_against_the_deadline(fake: FakeGateway, user: SigningIdentity) -> None:
    fake.script("Evaluate", hang())
    async with Gateway.connect(profile_of(fake), user, max_in_flight=1) as gateway:
        contract = gateway.network("ch").contract("basic")
        slow = contract.with_options(timeouts=Timeouts(evaluate_s=2.0)).evaluate("hangs")
        first = asyncio.create_task(slow)
        await fake.until("Evaluate", 1)
        started = time.monotonic()
        with pytest.raises(EvaluateError) as caught:
            await contract.with_options(timeouts=Timeouts(evaluate_s=SHORT_S)).evaluate("waits")
        assert time.monotonic() - started < 1.0
        assert caught.value.timed_out
        first.cancel()


async def test_an_unknown_outcome_at_submit_can_be_asked_for_again(contract: Contract, fake: FakeGateway) -> None:
    fake.script("Submit", hang())
    fake.script("CommitStatus", commit(0, 5))
    with pytest.raises(OutcomeUnknown) as caught:
        await contract.with_options(timeouts=Timeouts(submit_s=SHORT_S)).submit("make")
    assert caught.value.phase == "submit"
    assert caught.value.commit is not None
    status = await caught.value.commit.status()
    assert (status.successful, status.block_number, status.transaction_id) == (True, 5, caught.value.transaction_id)


async def test_an_unknown_outcome_at_commit_can_be_asked_for_again(contract: Contract, fake: FakeGateway) -> None:
    fake.script("CommitStatus", hang(), commit(11, 5))
    with pytest.raises(OutcomeUnknown) as caught:
        await contract.with_options(timeouts=Timeouts(commit_s=SHORT_S)).submit("make")
    assert caught.value.phase == "commit"
    assert caught.value.commit is not None
    assert (await caught.value.commit.status()).code_name == "MVCC_READ_CONFLICT"


async def test_a_refused_commit_status_leaves_the_outcome_unknown(contract: Contract, fake: FakeGateway) -> None:
    fake.script("CommitStatus", fail(CODE.PERMISSION_DENIED, "no"))
    with pytest.raises(CommitStatusError) as caught:
        await contract.submit("make")
    assert isinstance(caught.value, OutcomeUnknown)
    assert caught.value.failure.status == "PERMISSION_DENIED"


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x01", b"\x12\x00"], ids=["empty", "random", "unset"])
async def test_a_commit_status_that_cannot_be_one_is_never_taken_for_valid(
    contract: Contract, fake: FakeGateway, data: bytes
) -> None:
    """An empty message reads as VALID in block 0, which holds the channel's configuration and nothing else."""
    fake.script("CommitStatus", data)
    with pytest.raises(OutcomeUnknown) as caught:
        await contract.submit("make")
    assert caught.value.phase == "commit"
    assert caught.value.commit is not None
    assert (await caught.value.commit.status()).successful


async def test_an_unavailable_submit_is_resent_with_the_same_bytes(contract: Contract, fake: FakeGateway) -> None:
    fake.script("Submit", fail(CODE.UNAVAILABLE, "no orderers"), fail(CODE.UNAVAILABLE, "no orderers"))
    await contract.submit("make")
    assert len(fake.requests["Submit"]) == 3
    assert len(set(fake.requests["Submit"])) == 1
    assert len(fake.requests["Endorse"]) == 1


@pytest.mark.parametrize("code", [CODE.ABORTED, CODE.FAILED_PRECONDITION, CODE.INVALID_ARGUMENT])
async def test_a_refused_submit_is_sent_once_and_is_no_unknown_outcome(
    contract: Contract, fake: FakeGateway, code: grpc.StatusCode
) -> None:
    fake.script("Submit", fail(code, "refused"))
    with pytest.raises(SubmitError) as caught:
        await contract.submit("make")
    assert caught.value.status == code.name
    assert len(fake.requests["Submit"]) == 1
    assert not fake.requests["CommitStatus"]


async def test_what_each_endorser_said_is_in_the_error(contract: Contract, fake: FakeGateway) -> None:
    said = [(f"peer{n}:7051", f"Org{n}MSP", f"reason {n}") for n in range(6)]
    fake.script("Endorse", fail(CODE.ABORTED, "failed to endorse", *said))
    with pytest.raises(EndorseError) as caught:
        await contract.submit("make")
    assert [(d.address, d.msp_id, d.message) for d in caught.value.details] == said
    assert "reason 3" in str(caught.value)
    assert "2 more" in str(caught.value)
    assert not fake.requests["Submit"]


@pytest.mark.parametrize("method", ["Evaluate", "Endorse"])
async def test_a_contracts_refusal_has_code_reason_and_fields(
    contract: Contract, fake: FakeGateway, method: str
) -> None:
    text = 'chaincode response 500, E_NOT_CUSTODIAN: only the custodian may {"number": "GY-1"}'
    fake.script(method, fail(CODE.UNKNOWN, "see details", ("peer0", "Org1MSP", text)))
    with pytest.raises((EvaluateError, EndorseError)) as caught:
        await (contract.evaluate if method == "Evaluate" else contract.submit)("move")
    error = caught.value
    assert (error.chaincode_status, error.code, error.reason) == (500, "E_NOT_CUSTODIAN", "only the custodian may")
    assert error.fields == {"number": "GY-1"}
