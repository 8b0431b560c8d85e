"""Contracts that the chaincode image does not hold: taken along from this machine, read-only, beside those in the image.

What a container needs of a module `rooms.bookings:chaincode` is the package `rooms`; of a module in a namespace, such as
`sovchain.testing.conformance.chaincode`, the first part that is a package: `sovchain.testing`. Its third-party packages
must be in the image: for others build an image of your own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from sovchain.network.errors import NetworkError
from sovchain.network.topology import ChaincodeSpec

CONTRACTS: Final = "/opt/contracts"
"""Where the chaincode image looks for code, besides its own."""
_IN_THE_IMAGE: Final = ("sovchain.contracts", "sovchain.chaincode", "sovchain.protocol")


def further_code(chaincodes: Iterable[ChaincodeSpec]) -> dict[str, Path]:
    """Return the files and folders that containers of these chaincodes need, by where they go in the container.

    Looks where Python would on this machine, the working directory included. Raises NetworkError for a module that is
    not there.
    """
    found: dict[str, Path] = {}
    for spec in chaincodes:
        module = spec.module.partition(":")[0]
        if not module.startswith(tuple(f"{room}." for room in _IN_THE_IMAGE)):
            source, target = _locate(spec, module.split("."))
            found[f"{CONTRACTS}/{target}"] = source
    return found


def _locate(spec: ChaincodeSpec, parts: Sequence[str]) -> tuple[Path, str]:
    search = list(dict.fromkeys([*(path for path in sys.path if path), os.getcwd()]))
    for depth in range(1, len(parts) + 1):
        module = PathFinder.find_spec(".".join(parts[:depth]), search)
        if module is None:
            break
        if module.origin is None and module.submodule_search_locations is not None:
            search = list(module.submodule_search_locations)  # a namespace, which several folders may share
            continue
        assert module.origin is not None
        origin, target = Path(module.origin), "/".join(parts[:depth])
        if origin.name == "__init__.py":
            return origin.parent, target
        return origin, f"{target}{origin.suffix}"
    raise NetworkError(
        f"the code of chaincode {spec.name} was not found",
        f"there is no module {'.'.join(parts)} on Python's path",
        "correct the module in the topology, or run where it can be imported",
        chaincode=spec.name,
        module=spec.module,
    )
