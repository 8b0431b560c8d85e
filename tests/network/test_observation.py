"""What was seen of a network tells what is wrong with it, whatever part could not be asked."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovchain.network.observation import (
    CertificateSeen,
    Chain,
    ChaincodeSeen,
    ChannelSeen,
    NodeSeen,
    Observation,
    ServiceSeen,
    agreement,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PEER = NodeSeen("peer0.a", "peer", "A", "localhost:1", answers=True, health="OK")
CHANNEL = ChannelSeen(
    "wide", ("A",), (Chain("peer0.a", 3, "aa"),), (Chain("orderer.a", 3, leads=True),), "same", "orderer.a"
)
WELL = Observation(
    NOW, "/network", "up", 1, "", "native", (PEER,), (CHANNEL,), (ChaincodeSeen("wide", "cc", "1.0", 1),),
    (ServiceSeen("chaincode cc of A", "localhost:2", answers=True),), (), 10,
)  # fmt: skip


def test_a_network_that_is_well_has_no_problems() -> None:
    assert WELL.problems() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nodes": (replace(PEER, answers=False, problem="refused"),)}, "peer0.a does not answer: refused"),
        ({"nodes": (replace(PEER, health="couchdb: down"),)}, "peer0.a is not well: couchdb: down"),
        ({"channels": (replace(CHANNEL, agreement="forked"),)}, "the peers of channel wide have different blocks"),
        ({"channels": (replace(CHANNEL, leader=""),)}, "no ordering node leads channel wide"),
        (
            {"channels": (replace(CHANNEL, peers=(Chain("peer0.a", problem="access denied"),)),)},
            "peer0.a on channel wide: access denied",
        ),
        (
            {"chaincodes": (ChaincodeSeen("wide", "cc", problem="no definition is committed"),)},
            "chaincode cc on channel wide: no definition is committed",
        ),
        (
            {"services": (ServiceSeen("chaincode cc of A", "localhost:2", answers=False, problem="refused"),)},
            "chaincode cc of A does not answer: refused",
        ),
        (
            {"certificates": (CertificateSeen("User1@a", "users/User1", NOW - timedelta(days=1), -1),)},
            "users/User1: the certificate has expired",
        ),
    ],
)
def test_each_thing_that_is_wrong_is_one_sentence(change: dict[str, object], words: str) -> None:
    assert replace(WELL, **change).problems() == [words]  # type: ignore[arg-type]  # fields by name


def test_a_silent_node_is_told_once_and_not_for_each_channel_again() -> None:
    silent = replace(PEER, answers=False, problem="refused")
    channel = replace(CHANNEL, peers=(Chain("peer0.a", problem="refused"),))
    assert replace(WELL, nodes=(silent,), channels=(channel,)).problems() == ["peer0.a does not answer: refused"]


def test_a_certificate_that_ends_soon_is_shown_and_is_no_problem_yet() -> None:
    soon = CertificateSeen("User1@a", "users/User1", NOW + timedelta(days=3), 3)
    assert replace(WELL, certificates=(soon,)).problems() == []


def test_the_document_holds_all_of_it_as_json() -> None:
    document = json.loads(json.dumps(WELL.as_document(), default=str))
    assert document["channels"]["wide"]["height"] == 3
    assert document["channels"]["wide"]["head"] == "aa"
    assert document["problems"] == []


@given(st.lists(st.sampled_from(["", "aa", "bb"]), max_size=6))
def test_peers_agree_only_when_each_shows_the_same_hash(hashes: list[str]) -> None:
    verdict = agreement(hashes)
    assert (verdict == "forked") == ({"aa", "bb"} <= set(hashes))
    assert (verdict == "same") == (len(hashes) > 1 and len(set(hashes)) == 1 and hashes[0] != "")
