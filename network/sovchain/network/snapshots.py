"""Snapshots of a channel's state, taken by peers, compared between organisations, and joined from.

A peer writes a snapshot of the state after a block into a folder of its own (`core/ledger/kvledger/snapshot.go`, the
service is `core/ledger/snapshotgrpc`). Peers whose state is the same write the same bytes: the hash over the metadata,
which names the hash of every file, is what organisations compare before one of them joins from another's snapshot.

A peer that joined from a snapshot has no earlier blocks, no history, and no private data (it fetches what it is
entitled to).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.peer import query_pb2, snapshot_pb2
from google.protobuf import empty_pb2

from sovchain.network.errors import LifecycleError, SnapshotFailed
from sovchain.network.files import UNFINISHED, make_folder
from sovchain.network.nodes import Peer
from sovchain.protocol.proposals import Invocation

WAIT_S: Final = 120.0
"""How long a peer may take to write a snapshot, and a joining one to read it."""

_SERVICE: Final = "/protos.Snapshot"
_SIGNED: Final = "_snapshot_signable_metadata.json"
_ADDITIONAL: Final = "_snapshot_additional_metadata.json"
_MAX_METADATA_BYTES: Final = 1024 * 1024
_POLL_S: Final = 0.05
_ATTEMPTS: Final = 5
_AHEAD: Final = 2
"""Under load the last block is an old one by the time a request arrives: then one so many blocks further is asked for."""
_TOO_LATE: Final = "cannot be less than the last committed block number"
_THERE_ALREADY: Final = ("snapshot already generated", "duplicate snapshot request")


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in a folder, whose files have been compared with their hashes.

    Attributes:
        folder: where it is.
        channel, block_number: the channel, and the block after which the state was written.
        block_hash: hash of that block's header, in hexadecimal digits as all hashes here.
        hash: the one hash of the snapshot, which must be the same at every organisation.
        commit_hash: the peer's commit hash of the block.
        state_database: `SimpleKeyValueDB` or `CouchDB`; a peer with the other one cannot join from it.
        size_bytes: of all files together.
    """

    folder: Path
    channel: str
    block_number: int
    block_hash: str
    hash: str
    commit_hash: str
    state_database: str
    size_bytes: int


def read_snapshot(folder: Path) -> Snapshot:
    """Read a snapshot's metadata and compare every file with its hash, as a peer does before it joins.

    Raises SnapshotFailed when something is missing or differs.
    """
    signed, signed_bytes = _metadata(folder, _SIGNED)
    additional, _ = _metadata(folder, _ADDITIONAL)
    try:
        files: Mapping[str, str] = dict(signed["snapshot_files_raw_hashes"])
        expected = str(additional["snapshot_hash"])
        found = hashlib.sha256(signed_bytes).hexdigest()
        if found != expected:
            raise _damaged(folder / _SIGNED, f"its hash is {found} and the snapshot's is {expected}")
        for name, digest in files.items():
            _check_file(folder, name, digest)
        return Snapshot(
            folder=folder,
            channel=str(signed["channel_name"]),
            block_number=int(signed["last_block_number"]),
            block_hash=str(signed["last_block_hash"]),
            hash=expected,
            commit_hash=str(additional["last_block_commit_hash"]),
            state_database=str(signed["state_db_type"]),
            size_bytes=sum((folder / name).stat().st_size for name in (*files, _SIGNED, _ADDITIONAL)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder, f"its metadata lack or misname something ({error})") from None


def _metadata(folder: Path, name: str) -> tuple[dict[str, Any], bytes]:
    path = folder / name
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_METADATA_BYTES)
        document = json.loads(content)
    except FileNotFoundError:
        raise _damaged(path, "there is no such file") from None
    except (OSError, ValueError) as error:
        raise _damaged(path, f"it cannot be read ({error})") from None
    if not isinstance(document, dict):
        raise _damaged(path, "it is no JSON object")
    return document, content


def _check_file(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if path.parent != folder:
        raise _damaged(path, "it lies outside of the folder")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from None
    if found != digest:
        raise _damaged(path, f"its hash is {found} and the metadata say {digest}")


def _damaged(path: Path, why: str) -> SnapshotFailed:
    return SnapshotFailed(f"the snapshot is damaged: {path}", why, "take or copy it again", path=str(path))


def completed(root: Path, channel: str, block_number: int) -> Path:
    """Return where a peer whose snapshots are below `root` puts a finished one (snapshot.go)."""
    return root / "completed" / channel / str(block_number)


async def take_snapshots(
    channel: str, peers: Mapping[Peer, Path], block_number: int | None = None, *, wait_s: float = WAIT_S
) -> list[Snapshot]:
    """Have peers write a snapshot after the same block, wait for it, and check its files.

    A snapshot that is there already is taken as it is.

    Args:
        channel: the channel.
        peers: peers of one or several organisations, each spoken to by its administrator, with the folder of its
            snapshots (`ledger.snapshots.rootDir` of its configuration) as this process sees it.
        block_number: the block, which may be one to come; None: the last that is committed.
        wait_s: how long to wait for them, in seconds.

    Raises:
        SnapshotFailed: a peer refuses, does not write it in time, or has written something else.
        LifecycleError: a peer cannot be reached.
    """
    for attempt in range(_ATTEMPTS):
        number = block_number
        if number is None:
            heights = await asyncio.gather(*(_height(peer, channel) for peer in peers))
            number = max(heights) - 1 + (_AHEAD * attempt)
        asked = await asyncio.gather(
            *(_request(peer, channel, number, completed(root, channel, number)) for peer, root in peers.items()),
            return_exceptions=True,
        )
        refused = [error for error in asked if isinstance(error, BaseException)]
        if not refused:
            return list(
                await asyncio.gather(*(_finished(peer, channel, number, root, wait_s) for peer, root in peers.items()))
            )
        await _withdraw([peer for peer, error in zip(peers, asked, strict=True) if error is None], channel, number)
        late = all(isinstance(error, SnapshotFailed) and _TOO_LATE in error.why for error in refused)
        if block_number is not None or not late:
            raise refused[0]
    raise SnapshotFailed(
        f"cannot take a snapshot of channel {channel}",
        f"the peers have committed further blocks {_ATTEMPTS} times before they were asked",
        "give a block that is well ahead with --block",
        channel=channel,
    )


def agreeing(snapshots: Sequence[Snapshot]) -> bool:
    """Whether snapshots of several organisations are the same."""
    return len({snapshot.hash for snapshot in snapshots}) <= 1


async def _height(peer: Peer, channel: str) -> int:
    invocation = Invocation(channel, "qscc", (b"GetChainInfo", channel.encode()))
    answer = await peer.propose("query", "qscc", peer.administrator.proposal(invocation))
    return ledger_pb2.BlockchainInfo.FromString(answer.response.payload).height


async def _request(peer: Peer, channel: str, number: int, folder: Path) -> None:
    if folder.exists():  # noqa: ASYNC240  # a look at one folder
        return
    request = snapshot_pb2.SnapshotRequest(signature_header=_header(peer), channel_id=channel, block_number=number)
    try:
        # The protocol has no block 0 to ask for: it means the last one, and after block 0 that is this one.
        await _call(peer, channel, "Generate", request.SerializeToString(), empty_pb2.Empty)
    except LifecycleError as error:
        if any(words in error.why for words in _THERE_ALREADY):
            return
        raise _refused(peer, channel, error) from None


async def _withdraw(peers: Sequence[Peer], channel: str, number: int) -> None:
    """Take back requests that were accepted while another peer refused."""
    for peer in peers:
        request = snapshot_pb2.SnapshotRequest(signature_header=_header(peer), channel_id=channel, block_number=number)
        try:
            await _call(peer, channel, "Cancel", request.SerializeToString(), empty_pb2.Empty)
        except LifecycleError:
            continue  # it is being written, or is written: then it is an additional snapshot, which harms nobody


async def pending_snapshots(peer: Peer, channel: str) -> list[int]:
    """Return the blocks after which a peer is still to write a snapshot. Raises LifecycleError, SnapshotFailed."""
    query = snapshot_pb2.SnapshotQuery(signature_header=_header(peer), channel_id=channel)
    try:
        answer = await _call(
            peer, channel, "QueryPendings", query.SerializeToString(), snapshot_pb2.QueryPendingSnapshotsResponse
        )
    except LifecycleError as error:
        raise _refused(peer, channel, error) from None
    return sorted(answer.block_numbers)


async def _finished(peer: Peer, channel: str, number: int, root: Path, wait_s: float) -> Snapshot:
    """Wait until a peer has written a snapshot, and read it."""
    loop = asyncio.get_running_loop()
    deadline, folder = loop.time() + wait_s, completed(root, channel, number)
    while not folder.exists():
        waiting = number in await pending_snapshots(peer, channel)
        if loop.time() > deadline or not (waiting or folder.exists()):
            why = f"it has not written it within {wait_s:g} s" if waiting else "it has given up; its log says why"
            raise SnapshotFailed(
                f"no snapshot of channel {channel} after block {number} at {peer.address.server_name}",
                why,
                "it stays asked for: give the command again when the block is there"
                if waiting
                else "read the peer's log",
                channel=channel,
                block_number=number,
                host=peer.address.server_name,
            )
        await asyncio.sleep(_POLL_S)
    return await asyncio.to_thread(read_snapshot, folder)


def copy_snapshot(snapshot: Snapshot, target: Path) -> Snapshot:
    """Copy a snapshot into a new folder `target`, whole or not at all, and check the copy.

    Raises SnapshotFailed when `target` exists or the copy differs, OSError when it cannot be written.
    """
    if target.exists():
        raise SnapshotFailed(
            f"cannot copy the snapshot to {target}", "there is something already", "give a folder that does not exist"
        )
    make_folder(target.parent)
    waiting = target.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{target.name}")
    try:
        shutil.copytree(snapshot.folder, waiting)
        copied = read_snapshot(waiting)
        if copied.hash != snapshot.hash:
            raise _damaged(waiting, "the copy differs from the snapshot")
        waiting.rename(target)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    return read_snapshot(target)


async def join_by_snapshot(peer: Peer, snapshot: Snapshot, folder: str | None = None, *, wait_s: float = WAIT_S) -> int:
    """Have a peer join a channel from a snapshot, wait until it has, and return its height.

    Args:
        peer: a peer that has not joined the channel.
        snapshot: the snapshot.
        folder: where the peer finds it, when it sees another file system than this process.
        wait_s: how long to wait, in seconds.

    Raises:
        SnapshotFailed: the peer has joined the channel already, refuses the snapshot or does not finish in time.
        LifecycleError: the peer cannot be reached.
    """
    if snapshot.channel in await peer.channels():
        raise SnapshotFailed(
            f"{peer.address.server_name} cannot join channel {snapshot.channel} from a snapshot",
            "it has joined the channel already",
            "use a new peer",
            host=peer.address.server_name,
            channel=snapshot.channel,
        )
    place = (folder or str(snapshot.folder)).encode()
    invocation = Invocation("", "cscc", (b"JoinChainBySnapshot", place))
    try:
        await peer.propose("join", "", peer.administrator.proposal(invocation))
    except LifecycleError as error:
        raise _refused(peer, snapshot.channel, error) from None
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while snapshot.channel not in await peer.channels():
        if loop.time() > deadline or not await _joining(peer):
            if snapshot.channel in await peer.channels():
                break
            raise SnapshotFailed(
                f"{peer.address.server_name} has not joined channel {snapshot.channel} from the snapshot",
                f"it stopped, or has taken more than {wait_s:g} s",
                "read the peer's log",
                host=peer.address.server_name,
                channel=snapshot.channel,
            )
        await asyncio.sleep(_POLL_S)
    return await _height(peer, snapshot.channel)


async def _joining(peer: Peer) -> bool:
    invocation = Invocation("", "cscc", (b"JoinBySnapshotStatus",))
    answer = await peer.propose("join", "", peer.administrator.proposal(invocation))
    return query_pb2.JoinBySnapshotStatus.FromString(answer.response.payload).in_progress


def _header(peer: Peer) -> common_pb2.SignatureHeader:
    return common_pb2.SignatureHeader(creator=peer.administrator.creator, nonce=secrets.token_bytes(24))


async def _call(peer: Peer, channel: str, method: str, request: bytes, answer: type[Any]) -> Any:
    signed = snapshot_pb2.SignedSnapshotRequest(request=request, signature=peer.administrator.sign(request))
    return await peer.call("snapshot", channel, f"{_SERVICE}/{method}", signed, answer)


def _refused(peer: Peer, channel: str, error: LifecycleError) -> SnapshotFailed:
    return SnapshotFailed(
        f"{peer.address.server_name} refuses the snapshot of channel {channel}",
        error.why,
        "correct what it names",
        host=peer.address.server_name,
        channel=channel,
        status=error.status,
    )
