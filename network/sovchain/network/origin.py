"""A network on the embedded ledger with the keys and first blocks of another one, to take its blocks in and go on from them.

The channels then begin with the same blocks, so `sovchain ledger import` replays those of the other network, whose
organisations' keys are here to go on with: a fork of it. What is done in the fork is signed by the same keys and never to
be given to the other network.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from sovchain.network.errors import OriginRefused
from sovchain.network.files import UNFINISHED
from sovchain.network.instance import Instance, check_directory, read_description
from sovchain.network.seed import MARK
from sovchain.network.topology import Topology

_FOLDERS: Final = ("organizations", "channels")


def take_over(origin: Path, instance: Instance, runtime: str) -> Topology:
    """Copy the keys and first blocks of the network in `origin` into a new directory; return its topology.

    Without its chaincodes: they come with the blocks, and `apply` deploys them anew for the embedded ledger. The nodes
    keep the ports that the channels' configurations name, so the other network must be down or elsewhere. What was
    interrupted is begun anew. Raises OriginRefused, DirectoryRefused, VersionMismatch, InstanceDamaged.
    """
    if runtime != "embedded":
        raise OriginRefused(origin, f"the {runtime} runtime would run a second network of real nodes with its keys",
                            "bring the fork up on the embedded ledger")  # fmt: skip
    if instance.description is not None:
        raise OriginRefused(origin, f"{instance.directory} holds a network already", "give a new directory")
    check_directory(origin)
    description = read_description(origin)
    if description is None or not all((origin / folder).is_dir() for folder in _FOLDERS):
        raise OriginRefused(origin, "it holds no network that was up", "give the directory of a network")
    if description.bundle is not None:
        raise OriginRefused(origin, "it holds one operator's part of a network, without the others' keys",
                            "give the directory of a whole network")  # fmt: skip
    try:
        for folder in _FOLDERS:
            waiting = instance.directory / f"{UNFINISHED}{folder}"
            shutil.rmtree(waiting, ignore_errors=True)
            shutil.copytree(origin / folder, waiting)
            shutil.rmtree(instance.directory / folder, ignore_errors=True)
            waiting.rename(instance.directory / folder)
        if (origin / MARK).exists():
            shutil.copy2(origin / MARK, instance.directory / MARK)
    except OSError as error:
        raise OriginRefused(origin, f"its files cannot be copied ({error.strerror or error})",
                            "look at the directories' owners and the free space") from None  # fmt: skip
    topology = description.topology.model_copy(update={"chaincodes": ()})
    hosts = {node.host for node in topology.nodes}
    ports = {name: port for name, port in description.ports.items() if name.partition("/")[0] in hosts}
    instance.describe(topology, runtime, ports)
    return topology
