"""Errors of the wrappers: what, why, what to do, each on one line, and refusals of the contract taken apart."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sovchain.chaincode import ArgumentError
from sovchain.client import GatewayError
from sovchain.client.errors import RpcFailure
from sovchain.contracts.core.codes import ACTIONS, DATA_CLASSES, LEGAL_BASES, PURPOSES
from sovchain.contracts.core.records import Page
from sovchain.contracts.core.refusal import parts, refusal
from sovchain.contracts.core.sealing import KEY_BYTES, seal, unseal
from sovchain.sovereign import (
    ContractRefusal,
    InvalidInput,
    LawTextError,
    NothingToOpen,
    SovereignError,
    UnknownWord,
    check_law,
)
from sovchain.sovereign.calls import all_pages, invalid_argument, refused
from sovchain.sovereign.sovereign import check_jurisdiction, check_word


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
def test_every_part_of_an_error_stays_on_its_line(what: str, why: str, do: str) -> None:
    error = SovereignError(what, why, do)
    for part in (error.what, error.why, error.do, str(error)):
        assert part.isprintable()
        part.encode()
    if (what + why + do).isprintable():
        assert (error.what, error.why, error.do) == (what, why, do)


@pytest.mark.parametrize(
    ("kind", "known"),
    [("purpose", PURPOSES), ("action", ACTIONS), ("legal basis", LEGAL_BASES), ("data class", DATA_CLASSES)],
)
@pytest.mark.parametrize("word", ["gossip", "", "Statistics", "statistics\n", "st\u0430tistics"])
def test_an_unknown_word_lists_the_known_ones(kind: str, known: Mapping[str, str], word: str) -> None:
    with pytest.raises(UnknownWord) as caught:
        check_word(kind, word, known)
    error = caught.value
    assert (error.kind, error.word, error.known) == (kind, word, tuple(known))
    assert all(one in error.do for one in known)
    assert str(error).isprintable()


@pytest.mark.parametrize("code", ["CN-GΖ", "cn", "", "CN-", "CN-GZ-520100-1", "CN\n", "C", "CHN"])
def test_a_malformed_jurisdiction_is_refused_with_an_example(code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_jurisdiction("destination", code)
    assert "CN-GZ" in caught.value.do
    assert caught.value.what.isascii()


def test_a_law_is_checked_before_it_is_sent() -> None:
    with pytest.raises(LawTextError) as caught:
        check_law("// law: T-1\npermitt")
    assert (caught.value.line, caught.value.column) == (1, 1)
    assert "line 1, column 1" in caught.value.why


def translated(code: str) -> SovereignError:
    """What the wrappers make of a contract's refusal that came through a gateway."""
    said = refusal(code, "it happened", "line 3: because of a; and b", "do this")
    with pytest.raises(SovereignError) as caught:
        refused(GatewayError("endorse", RpcFailure("ABORTED", f"chaincode response 400, {said}")))
    return caught.value


@pytest.mark.parametrize(
    ("code", "kind"),
    [("E_LAW", LawTextError), ("E_NOT_DELIVERED", NothingToOpen), ("E_STATE", ContractRefusal)],
)
def test_a_refusal_is_taken_apart_again(code: str, kind: type[SovereignError]) -> None:
    error = translated(code)
    assert type(error) is kind
    assert (error.what, error.why, error.do) == ("it happened", "line 3: because of a; and b", "do this")
    if isinstance(error, ContractRefusal):
        assert error.code == code


def test_what_no_contract_said_passes_as_it_is() -> None:
    plain = GatewayError("endorse", RpcFailure("UNAVAILABLE", "no peer"))
    with pytest.raises(GatewayError) as caught:
        refused(plain)
    assert caught.value is plain


def test_a_malformed_argument_is_named() -> None:
    error = invalid_argument(ArgumentError("legal_basis", "is not of the pattern"))
    assert "legal basis" in error.what
    assert error.why
    assert error.do


@pytest.mark.parametrize("message", ["plain", "a: b", "a; b", "", "; ", ": "])
def test_a_text_that_no_refusal_made_stays_whole(message: str) -> None:
    assert parts(message) == (message, "", "")


async def test_all_pages_are_read_with_the_bookmark_of_the_one_before() -> None:
    """An empty page with a bookmark is not the last."""
    pages = {
        "": Page[int](items=(1, 2), bookmark="b"),
        "b": Page[int](items=(), bookmark="c"),
        "c": Page[int](items=(3,)),
    }

    async def read(bookmark: str) -> Page[int]:
        return pages[bookmark]

    assert await all_pages(read) == [1, 2, 3]


# Sealing -------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).filter(lambda key: len(set(key)) > 1))
def test_what_is_sealed_is_opened_with_the_same_key_only(data: bytes, key: bytes) -> None:
    sealed = seal(data, key)
    assert unseal(sealed, key) == data
    other = bytes([key[0] ^ 1]) + key[1:]
    with pytest.raises(ValueError, match="another key or altered"):
        unseal(sealed, other)


def test_every_altered_or_missing_byte_is_found() -> None:
    key = os.urandom(KEY_BYTES)
    sealed = seal(b"id,score\n1,2\n", key)
    for at in range(len(sealed)):
        for bad in (sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], sealed[:at]):
            with pytest.raises(ValueError, match="another key or altered"):
                unseal(bad, key)
    with pytest.raises(ValueError, match="another key or altered"):
        unseal(sealed + b"\x00", key)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(31), bytes(32), b"\x01" * 32, bytes(range(33))])
def test_a_key_that_is_none_neither_seals_nor_opens(key: bytes) -> None:
    with pytest.raises(ValueError):
        seal(b"data", key)
    with pytest.raises(ValueError):
        unseal(bytes(40), key)
