"""The scenarios that `sovchain demo --scenario NAME` plays: each module in here that has a `DEMO`, by its name.

General layout: a module `sme_credit` is the scenario sme-credit; its `DEMO` says on which network it plays and what
happens there. Nothing else has to know it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sovchain.cli.stage import Stage
    from sovchain.network import Topology


@dataclass(frozen=True)
class Demonstration:
    """A scenario on stage.

    Attributes:
        topology: the network that it takes, made of the default one.
        play: what happens. Returns what was done, for `--json`, and whether everything ended as it must.
    """

    topology: Callable[[Topology], Topology]
    play: Callable[[Stage], Awaitable[tuple[dict[str, Any], bool]]]


def scenario_names() -> tuple[str, ...]:
    """The names of the scenarios, without importing one."""
    return tuple(sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(__path__)))


def demonstration(name: str) -> Demonstration:
    """The scenario of this name. Raises ModuleNotFoundError if there is none."""
    found = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").DEMO
    assert isinstance(found, Demonstration)
    return found


def with_users(topology: Topology, users: Mapping[str, Sequence[Mapping[str, Any]]]) -> Topology:
    """The same network with further users: for each organisation's name, their entries as in a topology file."""
    document = topology.model_dump(mode="json")
    for organization in document["organizations"]:
        organization["users"] += users.get(organization["name"], ())
    return type(topology).model_validate(document)


def on_channels(topology: Topology, *channels: str) -> Topology:
    """The same network with these channels only, their members and those who order."""
    document = topology.model_dump(mode="json")
    document["channels"] = [one for one in document["channels"] if one["name"] in channels]
    document["chaincodes"] = [one for one in document["chaincodes"] if {*channels} & {*one["channels"]}]
    members = {member for one in document["channels"] for member in one["members"]}
    kept = members | {one["operator"] for one in document["ordering_organizations"]}
    document["organizations"] = [one for one in document["organizations"] if one["name"] in kept]
    return type(topology).model_validate(document)
