"""One test's own place on a network that other tests use too: keys of its own, or a channel of its own."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from sovchain.client import Gateway
from sovchain.network import Topology, default_topology, load_topology
from sovchain.network.checks import check
from sovchain.network.profiles import profile_path
from sovchain.testing.hosted import HostedNetwork

CHANNEL_MARKER: Final = "fabric_channel"
_CHANNEL: Final = pytest.StashKey[str]()
_SPARES: Final = pytest.StashKey[dict[str, Counter[str]]]()
_LONGEST_NAME: Final = 40


class Fabric:
    """A running network, and a place on it that no other test uses.

    Attributes:
        network: the network, which all tests of the run share.
        runtime: what it runs on.
        directory: where it lives, with connection profiles, keys and logs.
        namespace: a text of letters, digits and hyphens that no other test has.
        channel: name of this test's own channel, if it has the marker `fabric_channel`; else None.
    """

    def __init__(self, network: HostedNetwork, namespace: str, channel: str | None = None) -> None:
        """Made by the fixture `fabric`."""
        self.network = network
        self.runtime = network.runtime
        self.directory = network.directory
        self.namespace = namespace
        self.channel = channel

    @property
    def topology(self) -> Topology:
        """What the network consists of, the tests' own channels included."""
        return self.network.topology

    def key(self, name: str = "key") -> str:
        """Return a key of this test alone; keys of one test sort as their names do."""
        return f"{self.namespace}-{name}"

    def profile(self, organization: str) -> Path:
        """Return the path of an organisation's connection profile. Raises UnknownName."""
        return profile_path(self.directory / "connections", self.topology.organization(organization).name)

    @asynccontextmanager
    async def connect(self, organization: str, user: str = "User1", **options: Any) -> AsyncIterator[Gateway]:
        """Connect to an organisation's peer as one of its users, as `Network.connect`."""
        async with self.network.attach() as network, network.connect(organization, user, **options) as gateway:
            yield gateway


def namespace_of(node: pytest.Item) -> str:
    """Return a text that no other test has, also not in another run on the same network."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", node.name).strip("-")[:_LONGEST_NAME]
    return f"{name}-{secrets.token_hex(4)}"


def reserve_channels(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each collected test with the marker `fabric_channel` the name of a channel of its own.

    The network is brought up with all of them, because a running one takes no new channels.
    """
    spares: dict[str, Counter[str]] = {}
    for item in items:
        mark = item.get_closest_marker(CHANNEL_MARKER)
        if mark is None:
            continue
        if len(mark.args) != 1 or mark.kwargs or not isinstance(mark.args[0], str):
            raise pytest.UsageError(f"{item.nodeid}: fabric_channel takes the name of the channel to be like")
        counter = spares.setdefault(_variant(item), Counter())
        counter[mark.args[0]] += 1
        item.stash[_CHANNEL] = _name(mark.args[0], counter[mark.args[0]])
    config.stash[_SPARES] = spares


def channel_of(node: pytest.Item) -> str | None:
    """Return the name of a test's own channel, None if it has none."""
    return node.stash.get(_CHANNEL, None)


def topology_for(
    topology: Topology | Path | str | None, fabric_version: str | None, config: pytest.Config, variant: str
) -> Topology:
    """Return the topology of the run: of another Fabric version if one is chosen, and with the tests' own channels.

    Raises TopologyError, and UnknownName for a channel that no test can have one like.
    """
    if topology is None:
        topology = default_topology()
    elif not isinstance(topology, Topology):
        topology = load_topology(Path(topology))
    if fabric_version is not None:
        topology = topology.model_copy(update={"fabric_version": fabric_version})
    return with_channels_like(topology, config.stash.get(_SPARES, {}).get(variant, Counter()))


def with_channels_like(topology: Topology, numbers: Mapping[str, int]) -> Topology:
    """Add that many channels like each of these, with the same members, policies and chaincodes.

    Raises UnknownName, TopologyError.
    """
    copies = {
        template: [_name(template, number) for number in range(1, count + 1)] for template, count in numbers.items()
    }
    channels = [
        topology.channel(template).model_copy(update={"name": name})
        for template, names in copies.items()
        for name in names
    ]
    chaincodes = [
        spec.model_copy(
            update={"channels": (*spec.channels, *(name for own in spec.channels for name in copies.get(own, ())))}
        )
        for spec in topology.chaincodes
    ]
    changes = {"channels": (*topology.channels, *channels), "chaincodes": tuple(chaincodes)}
    return check(topology.model_copy(update=changes))


def _name(template: str, number: int) -> str:
    return f"{template}-test-{number}"


def _variant(item: pytest.Item) -> str:
    """The variant that a test was parametrised with: each has a network, and so channels, of its own."""
    callspec = getattr(item, "callspec", None)
    return "" if callspec is None else str(callspec.params.get("fabric_variant", ""))
