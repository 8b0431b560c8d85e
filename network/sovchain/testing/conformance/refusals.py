"""Typed errors with gRPC codes, and what each endorser said."""

from __future__ import annotations

import pytest

from sovchain.client import EndorseError, EvaluateError, EventsError, Gateway, OutcomeUnknown, SubmitError
from sovchain.client.errors import CommitStatusError
from sovchain.testing.conformance.chaincode import MISSING, Probe
from sovchain.testing.conformance.topology import NARROW, PROBE
from sovchain.testing.conformance.world import ConformanceNetwork, foreign_profile

REFUSAL = "E_ON_PURPOSE"
TOO_LARGE = 1_500_000
"""Eight values of this size exceed `absolute_max_bytes` of a block (10 MiB)."""


@pytest.mark.asyncio
class RefusalConformance:
    """What the client learns when a peer, a chaincode or an ordering node refuses."""

    async def test_a_refused_evaluation_tells_status_code_reason_and_fields(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """internal/pkg/gateway/evaluate.go, apiutils.go responseStatus: UNKNOWN, with the peer that was asked."""
        async with conformance_network.open() as world:
            with pytest.raises(EvaluateError) as caught:
                await world.alpha.contract().evaluate(Probe.get, world.key())
            error = caught.value
            assert error.status == "UNKNOWN"
            assert (error.chaincode_status, error.code, error.fields) == (400, MISSING, {"key": world.key()})
            assert [detail.msp_id for detail in error.details] == ["AlphaMSP"]
            assert error.details[0].message.startswith("chaincode response 400, E_MISSING: ")

    async def test_a_refused_submit_is_aborted_before_ordering_and_writes_nothing(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """internal/pkg/gateway/endorse.go planFromFirstEndorser: ABORTED, with the first endorser's words."""
        async with conformance_network.open() as world:
            with pytest.raises(EndorseError) as caught:
                await world.alpha.contract().submit(Probe.refuse, world.key(), REFUSAL, "as it was asked to")
            error = caught.value
            assert error.status == "ABORTED"
            assert (error.code, error.reason) == (REFUSAL, "as it was asked to")
            assert error.failure.message.startswith("failed to endorse transaction, see attached details")
            assert [detail.msp_id for detail in error.details] == ["AlphaMSP"]
            assert await world.alpha.contract().evaluate(Probe.scan, world.key(), world.key("~")) == []

    async def test_each_endorser_that_was_named_says_why_it_refuses(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """internal/pkg/gateway/endorse.go: ABORTED, one detail for each endorser with its address."""
        async with conformance_network.open() as world:
            everybody = world.alpha.contract().with_options(organizations=["AlphaMSP", "BetaMSP", "GammaMSP"])
            with pytest.raises(EndorseError) as caught:
                await everybody.submit(Probe.refuse, world.key(), REFUSAL, "as it was asked to")
            error = caught.value
            assert error.status == "ABORTED"
            assert error.failure.message.startswith("failed to collect enough transaction endorsements")
            assert sorted(detail.msp_id for detail in error.details) == ["AlphaMSP", "BetaMSP", "GammaMSP"]
            assert len({detail.address for detail in error.details}) == 3
            assert all(REFUSAL in detail.message for detail in error.details)

    async def test_an_unforeseen_failure_of_the_chaincode_keeps_its_text_to_itself(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            with pytest.raises(EndorseError) as caught:
                await world.alpha.contract().submit(Probe.fail, world.key())
            assert (caught.value.chaincode_status, caught.value.code) == (500, "E_INTERNAL")
            assert "on purpose" not in str(caught.value)

    async def test_an_unknown_function_is_refused_by_the_chaincode(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        async with conformance_network.open() as world:
            with pytest.raises(EvaluateError) as caught:
                await world.alpha.contract().evaluate("Probe:nothing")
            assert caught.value.code == "E_FUNCTION"

    async def test_a_chaincode_that_the_channel_does_not_have(self, conformance_network: ConformanceNetwork) -> None:
        """internal/pkg/gateway/registry.go: FAILED_PRECONDITION for evaluate and endorse."""
        async with conformance_network.open() as world:
            nothing = world.alpha.wide.contract("nothing")
            with pytest.raises(EvaluateError) as evaluated:
                await nothing.evaluate("Probe:get", world.key())
            assert evaluated.value.status == "FAILED_PRECONDITION"
            assert "no peers available to evaluate chaincode nothing in channel wide" in evaluated.value.failure.message
            with pytest.raises(EndorseError) as endorsed:
                await nothing.submit("Probe:put", world.key(), b"value")
            assert endorsed.value.status == "FAILED_PRECONDITION"

    async def test_evaluating_on_a_channel_that_the_peer_does_not_have(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """internal/pkg/gateway/evaluate.go, connectChannelPeers: UNAVAILABLE."""
        async with conformance_network.open() as world:
            with pytest.raises(EvaluateError) as caught:
                await world.gamma.gateway.network("nowhere").contract(PROBE).evaluate("Probe:get", world.key())
            assert caught.value.status == "UNAVAILABLE"

    async def test_submitting_on_a_channel_that_the_peer_does_not_have(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """internal/pkg/gateway/endorse.go planFromFirstEndorser: FAILED_PRECONDITION, whatever endorsementPlan says."""
        async with conformance_network.open() as world:
            with pytest.raises(EndorseError) as caught:
                await world.gamma.gateway.network("nowhere").contract(PROBE).submit("Probe:put", world.key(), b"value")
            assert caught.value.status == "FAILED_PRECONDITION"

    async def test_an_endorsing_organisation_that_there_is_not(self, conformance_network: ConformanceNetwork) -> None:
        """internal/pkg/gateway/registry.go planForOrgs, endorse.go: UNAVAILABLE, naming the organisation."""
        async with conformance_network.open() as world:
            with pytest.raises(EndorseError) as caught:
                await (
                    world.alpha.contract()
                    .with_options(organizations=["AlphaMSP", "NobodyMSP"])
                    .submit(Probe.put, world.key(), b"value")
                )
            assert caught.value.status == "UNAVAILABLE"
            assert "failed to find any endorsing peers for org(s): NobodyMSP" in caught.value.failure.message

    async def test_endorsers_that_disagree_are_no_endorsement(self, conformance_network: ConformanceNetwork) -> None:
        """internal/pkg/gateway/endorsement.go processEndorsement: ABORTED, for results that differ."""
        async with conformance_network.open() as world:
            with pytest.raises(EndorseError) as caught:
                await world.alpha.contract().submit(Probe.differ, world.key())
            assert caught.value.status == "ABORTED"
            assert any("ProposalResponsePayloads do not match" in detail.message for detail in caught.value.details)

    async def test_a_transaction_larger_than_a_block_may_be_is_refused_by_the_ordering_service(
        self, conformance_network: ConformanceNetwork
    ) -> None:
        """orderer/common/msgprocessor/sizefilter.go; a BFT gateway reports it as too few ordering nodes."""
        async with conformance_network.open() as world:
            keys = [world.key(str(number)) for number in range(8)]
            with pytest.raises((SubmitError, OutcomeUnknown)) as caught:
                await world.alpha.contract().submit(Probe.put_many, keys, b"x" * TOO_LARGE)
            assert isinstance(caught.value, SubmitError | OutcomeUnknown)
            failure = caught.value.failure
            refused = isinstance(caught.value, SubmitError)
            assert failure.status in (("ABORTED",) if refused else ("UNAVAILABLE", "DEADLINE_EXCEEDED"))
            said = [failure.message, *(detail.message for detail in failure.details)]
            assert any("exceeds maximum allowed" in text for text in said)
            assert await world.alpha.contract().evaluate(Probe.scan, world.key(), world.key("~")) == []

    async def test_a_stranger_may_neither_call_nor_listen(self, conformance_network: ConformanceNetwork) -> None:
        """Gamma is not on the channel `narrow`: its client at Alpha's peer satisfies none of the channel's policies.

        core/endorser/endorser.go preProcess; internal/pkg/gateway/commitstatus.go, chaincodeevents.go.
        """
        async with conformance_network.open() as world, conformance_network.attach() as network:
            done = await world.alpha.contract("inner").submit(Probe.put, world.key(), b"value")
            profile, stranger = foreign_profile(network, "Alpha", "Gamma"), network.identity("Gamma")
            async with Gateway.connect(profile, stranger) as gateway:
                narrow = gateway.network(NARROW)
                with pytest.raises(EvaluateError) as evaluated:
                    await narrow.contract("inner").evaluate(Probe.get, world.key())
                assert evaluated.value.status == "FAILED_PRECONDITION"
                assert "access denied" in evaluated.value.failure.message
                with pytest.raises(EndorseError) as endorsed:
                    await narrow.contract("inner").submit(Probe.put, world.key(), b"other")
                assert endorsed.value.status == "ABORTED"
                assert any("access denied" in detail.message for detail in endorsed.value.details)
                with pytest.raises(CommitStatusError) as asked:
                    await narrow.commit(done.transaction_id).status(timeout_s=5)
                assert asked.value.failure.status == "PERMISSION_DENIED"
                with pytest.raises(EventsError) as listened:
                    await anext(narrow.contract("inner").events(start=0))
                assert listened.value.status == "PERMISSION_DENIED"
