"""The ordering nodes of a ledger: which of them are on a channel, which run, and which one makes its blocks.

One queue orders a channel, so nodes do not elect a leader by messages: the first one that runs leads. What a client may
see of it is as with Raft: a channel is ordered while a majority of its nodes run, by any of them that a client calls, and a
node that was removed from a channel does not know it (orderer/consensus/etcdraft, orderer/common/multichannel).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sovchain.ledger.channel import Channel
from sovchain.ledger.database import make_directory, storage_errors, write_durably
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.orderer import SigningNode

NO_LEADER: Final = "no Raft leader"
"""What an ordering node answers while too few of them run (etcdraft/chain.go)."""


class Consenters:
    """The ordering nodes of one ledger. For the event loop's thread."""

    def __init__(self, directory: Path, nodes: Iterable[tuple[str, SigningNode]]) -> None:
        """`nodes` as (host, identity), in the order in which they lead. Raises StorageError, LedgerError."""
        self._path = directory / "ledger" / "participation.json"
        self._nodes = dict(nodes)
        self._stopped: set[str] = set()
        self._absent = _stored(self._path)

    def add(self, host: str, node: SigningNode) -> None:
        """Take in one more node."""
        self._nodes.setdefault(host, node)

    def discard(self, host: str) -> None:
        """Forget a node for good. Idempotent."""
        self._nodes.pop(host, None)
        self._stopped.discard(host)

    def set_running(self, host: str, running: bool) -> None:
        """Note that a node was ended or started."""
        if running:
            self._stopped.discard(host)
        else:
            self._stopped.add(host)

    def joined(self, host: str, channel: Channel) -> bool:
        """Whether a node is on a channel."""
        return self._orders(host, channel) and host not in self._absent.get(channel.channel_id, ())

    def hosts(self, channel: Channel) -> list[str]:
        """The nodes that are on a channel, running or not."""
        return [host for host in self._nodes if self.joined(host, channel)]

    def leader(self, channel: Channel) -> str | None:
        """The node that makes the channel's blocks, None while too few run."""
        hosts = self.hosts(channel)
        running = [host for host in hosts if host not in self._stopped]
        return running[0] if 2 * len(running) > len(hosts) else None

    def active(self, channel: Channel) -> int:
        """How many of the channel's nodes run."""
        return sum(host not in self._stopped for host in self.hosts(channel))

    def signer(self, channel: Channel) -> SigningNode | None:
        """The identity of the leader."""
        leader = self.leader(channel)
        return None if leader is None else self._nodes[leader]

    def join(self, host: str, channel: Channel) -> None:
        """Put a node onto a channel again. Raises StorageError."""
        self._set_absent(channel.channel_id, self._absent.get(channel.channel_id, frozenset()) - {host})

    def leave(self, host: str, channel: Channel) -> None:
        """Take a node off a channel. Raises StorageError."""
        self._set_absent(channel.channel_id, self._absent.get(channel.channel_id, frozenset()) | {host})

    def begin(self, channel_id: str, host: str) -> None:
        """A channel is made by one node: the others are not on it. Raises StorageError."""
        self._set_absent(channel_id, frozenset(self._nodes) - {host})

    def forget(self, channel_id: str) -> None:
        """A channel is gone. Raises StorageError."""
        self._set_absent(channel_id, frozenset())

    def _orders(self, host: str, channel: Channel) -> bool:
        node = self._nodes.get(host)
        return node is not None and node.msp_id in channel.bundle.orderer_msp_ids

    def _set_absent(self, channel_id: str, hosts: frozenset[str]) -> None:
        absent = {**self._absent, channel_id: hosts}
        absent = {name: kept for name, kept in absent.items() if kept}
        make_directory(self._path.parent)
        with storage_errors(self._path):
            write_durably(self._path, json.dumps({name: sorted(kept) for name, kept in absent.items()}).encode())
        self._absent = absent


def _stored(path: Path) -> dict[str, frozenset[str]]:
    with storage_errors(path):
        try:
            document = json.loads(path.read_text())
            return {str(name): frozenset(map(str, hosts)) for name, hosts in document.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError):
            raise LedgerError(
                f"{path} holds no channels; delete it to have every ordering node on its channels"
            ) from None
