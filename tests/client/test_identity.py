"""Identities, checkpoint files, and errors that travel between processes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakegateway import LiveAuthority, key_pem
from pki import pem

from sovchain.client import (
    CertificateExpired,
    CheckpointError,
    CheckpointGone,
    CommitRejected,
    ConnectError,
    DeliverError,
    EndorsementsInsufficient,
    ErrorDetail,
    FabricError,
    FileCheckpointer,
    GatewayClosed,
    GatewayError,
    IdempotencyKeyReused,
    IdentityError,
    IdentityNotFound,
    KeyMismatch,
    MalformedStep,
    MetadataError,
    OutcomeUnknown,
    Position,
    ProfileContentError,
    RpcFailure,
    SignatureMissing,
    SigningIdentity,
    TrustError,
    UnexpectedReply,
)


@pytest.fixture
def msp(authority: LiveAuthority, tmp_path: Path) -> Path:
    signer = authority.issue("user", "client")
    for folder, data in (("signcerts", pem(signer.certificate)), ("keystore", key_pem(signer))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one").write_bytes(data)
    return tmp_path


def test_a_folder_is_read_and_the_key_is_not_shown(msp: Path) -> None:
    identity = SigningIdentity.from_msp_folder(msp, "Org1MSP")
    assert "PRIVATE" not in repr(identity)
    assert "CN=user" in identity.client_id


@pytest.mark.parametrize("folder", ["signcerts", "keystore"])
def test_a_missing_folder(msp: Path, folder: str) -> None:
    (msp / folder).rename(msp / "elsewhere")
    with pytest.raises(IdentityNotFound, match=folder):
        SigningIdentity.from_msp_folder(msp, "Org1MSP")


def test_two_certificates(msp: Path) -> None:
    (msp / "signcerts" / "two").write_bytes((msp / "signcerts" / "one").read_bytes())
    with pytest.raises(IdentityError, match="holds 2 files"):
        SigningIdentity.from_msp_folder(msp, "Org1MSP")


def test_the_key_of_another_certificate(msp: Path, authority: LiveAuthority) -> None:
    (msp / "keystore" / "one").write_bytes(key_pem(authority.issue("other")))
    with pytest.raises(KeyMismatch):
        SigningIdentity.from_msp_folder(msp, "Org1MSP")


def test_the_right_key_is_found_among_others(msp: Path, authority: LiveAuthority) -> None:
    (msp / "keystore" / "0").write_bytes(b"no key at all")
    (msp / "keystore" / "a").write_bytes(key_pem(authority.issue("other")))
    assert SigningIdentity.from_msp_folder(msp, "Org1MSP").msp_id == "Org1MSP"


@pytest.mark.parametrize("folder", ["signcerts", "keystore"])
def test_an_oversized_file(msp: Path, folder: str) -> None:
    (msp / folder / "one").write_bytes(bytes(64 * 1024 + 1))
    with pytest.raises(IdentityError, match="more than 65536 bytes"):
        SigningIdentity.from_msp_folder(msp, "Org1MSP")


def test_a_certificate_counts_from_its_first_to_its_last_second(msp: Path) -> None:
    identity = SigningIdentity.from_msp_folder(msp, "Org1MSP")
    begin, end = identity.certificate.not_valid_before_utc, identity.certificate.not_valid_after_utc
    identity.check_validity(begin)
    identity.check_validity(end)
    for moment in (begin - timedelta(seconds=1), end + timedelta(seconds=1)):
        with pytest.raises(CertificateExpired):
            identity.check_validity(moment)


def kinds(base: type[FabricError] = FabricError) -> Iterator[type[FabricError]]:
    yield base
    for kind in base.__subclasses__():
        if kind.__module__ == base.__module__:  # other modules test their own
            yield from kinds(kind)


FAILURE = RpcFailure("ABORTED", "chaincode response 500, E_X: no {}", (ErrorDetail("a", "b", "c"),), "h:1", 0.5)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made(kind: type[Any]) -> FabricError:
    """An error of this kind, with the arguments of the nearest base that is known here."""
    arguments: list[tuple[type[Any], tuple[Any, ...], dict[str, Any]]] = [
        (CertificateExpired, ("CN=x", NOW, NOW, NOW + timedelta(1)), {}),
        (ProfileContentError, ("client", "is missing"), {"source": "p"}),
        (ConnectError, ("text",), {"endpoint": "h:1", "reason": "refused"}),
        (GatewayClosed, (), {}),
        (SignatureMissing, (), {}),
        (TrustError, ("text",), {}),
        (MetadataError, ("text",), {}),
        (MalformedStep, ("proposal", "text"), {}),
        (EndorsementsInsufficient, ("text",), {"transaction_id": "t"}),
        (IdempotencyKeyReused, ("key", "t"), {}),
        (CheckpointGone, ("text",), {"block_number": 7, "transaction_id": "", "height": 3}),
        (GatewayError, ("endorse", FAILURE), {"transaction_id": "t"}),
        (DeliverError, ("text",), {"channel_id": "ch", "status": 404, "endpoint": "h:1"}),
        (UnexpectedReply, ("endorse", "text"), {"endpoint": "h:1"}),
        (CommitRejected, (11, "MVCC_READ_CONFLICT"), {"transaction_id": "t", "block_number": 1}),
        (OutcomeUnknown, ("t", "ch"), {"phase": "submit", "failure": FAILURE}),
        (FabricError, ("text",), {"source": "s"}),
    ]
    for base, args, named in arguments:
        if issubclass(kind, base):
            error: FabricError = kind(*args, **({} if kind is FabricError else named))
            return error
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_can_be_pickled(kind: type[FabricError]) -> None:
    error = made(kind)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


async def test_a_checkpoint_file_is_the_old_or_the_new_position_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is interrupted before each of its two system calls that make it last."""
    keeper = FileCheckpointer(tmp_path / "at")
    assert await keeper.load() is None
    await keeper.save(Position(1, "a"))
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def crash(*args: object) -> None:
                raise OSError(5, "input/output error")

            patch.setattr(os, call, crash)
            with pytest.raises(CheckpointError):
                await keeper.save(Position(2, "b"))
        assert await FileCheckpointer(tmp_path / "at").load() == Position(1, "a")
    await keeper.save(Position(3))
    assert await FileCheckpointer(tmp_path / "at").load() == Position(3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"blockNumber": -1}',
        b'{"blockNumber": "x"}',
        b'{"blockNumber": Infinity}',
        b'{"blockNumber": 18446744073709551616}',
        b'{"blockNumber": 1, "transactionId": 7}',
        b"[" * 4000,
        b"\xff",
        b" " * 5000 + b'{"blockNumber": 1}',
    ],
)
async def test_a_damaged_checkpoint_file_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "at").write_bytes(data)
    with pytest.raises(CheckpointError):
        await FileCheckpointer(tmp_path / "at").load()
