"""The topology after an upgrade of a chaincode, for `apply`. Pure, but for reading a file of collections.

A new version is a new package, served by a further process until every channel has taken it; another policy or other
collections are a new definition of the same package. Either way the next sequence is approved by each organisation and
committed, and the ledger keeps its data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import TypeAdapter, ValidationError

from sovchain.network.checks import check
from sovchain.network.errors import TopologyError
from sovchain.network.topology import ChaincodeSpec, Collection, Topology

_MAX_BYTES: Final = 1024 * 1024
_COLLECTIONS: Final = TypeAdapter(tuple[Collection, ...])


def with_upgrade(
    topology: Topology,
    chaincode: str,
    *,
    version: str | None = None,
    endorsement_policy: str | None = None,
    collections: Sequence[Collection] | None = None,
    module: str | None = None,
) -> Topology:
    """Return the topology with a chaincode changed; what is None stays.

    Raises:
        UnknownName: there is no such chaincode.
        TopologyError: the new one cannot be used. `transition` refuses what a running network does not take, such as a
            collection that is left out.
    """
    spec = topology.chaincode(chaincode)
    changes: dict[str, Any] = {
        "version": version,
        "endorsement_policy": endorsement_policy,
        "collections": None if collections is None else tuple(collections),
        "module": module,
    }
    changed = {name: value for name, value in changes.items() if value is not None}
    try:
        new = ChaincodeSpec.model_validate({**dict(spec), **changed})
    except ValidationError as error:
        raise _wrong(f"chaincodes.{chaincode}", error) from None
    others = [new if other.name == chaincode else other for other in topology.chaincodes]
    return check(topology.model_copy(update={"chaincodes": tuple(others)}))


def read_collections(path: Path) -> tuple[Collection, ...]:
    """Read the collections of a chaincode, a YAML list as a topology has it. Raises TopologyError, OSError."""
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES)
    try:
        return _COLLECTIONS.validate_python(yaml.safe_load(content))
    except (yaml.YAMLError, RecursionError):
        raise TopologyError(
            "collections", "it is not YAML", source=path, remedy="write a list of collections"
        ) from None
    except ValidationError as error:
        raise _wrong("collections", error, path) from None


def _wrong(key: str, error: ValidationError, source: Path | None = None) -> TopologyError:
    first = error.errors()[0]
    place = ".".join([key, *map(str, first["loc"])])
    return TopologyError(place, first["msg"][:1].lower() + first["msg"][1:], source=source, remedy="correct the value")
