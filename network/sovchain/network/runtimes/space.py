"""Room on the disk for what the nodes of real Fabric reserve at their start."""

from __future__ import annotations

import shutil
from typing import Final

from sovchain.network.errors import NotEnoughSpace
from sovchain.network.runtimes import Site

_WAL_BYTES: Final = 2 * 64 * 1024 * 1024
"""What an ordering node reserves for the write-ahead log of each Raft channel (etcd's `wal.SegmentSizeBytes`)."""
_SPARE_BYTES: Final = 256 * 1024 * 1024


def check_space(site: Site) -> None:
    """Raise NotEnoughSpace when the ordering nodes could not reserve their logs: they would end in the middle of it.

    Nodes keep their data in DIR/nodes/<host>/data.
    """
    needed = 0
    here = {node.host for node in site.nodes}
    for channel in site.topology.channels:
        for orderer in site.topology.orderers(channel.name):
            for node in orderer.all_nodes if site.topology.consensus == "raft" else ():
                if node.host not in here:
                    continue
                wal = site.directory / "nodes" / node.host / "data/wal" / channel.name
                needed += 0 if wal.exists() else _WAL_BYTES
    free = shutil.disk_usage(site.directory).free
    if free < needed + _SPARE_BYTES:
        raise NotEnoughSpace(site.directory, needed + _SPARE_BYTES, free)
