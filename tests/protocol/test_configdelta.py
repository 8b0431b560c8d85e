"""The update between two configurations is the one that Fabric's own configtxlator computes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import httpx
import pytest
from fabric_protos.common import configtx_pb2
from fabricprograms import VERSIONS, fabric_programs
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_world import World

from sovchain.protocol.configdelta import NothingChanges, compute_update
from sovchain.protocol.errors import ConfigError

Compute = Callable[[configtx_pb2.Config, configtx_pb2.Config], configtx_pb2.ConfigUpdate | None]

NAMES = st.sampled_from(["A", "B", "C"])
VERSION = st.integers(0, 3)
MOD = st.sampled_from(["", "Admins", "/Channel/Admins"])


@st.composite
def values(draw: st.DrawFn) -> configtx_pb2.ConfigValue:
    return configtx_pb2.ConfigValue(
        version=draw(VERSION), value=draw(st.sampled_from([b"", b"x", b"y"])), mod_policy=draw(MOD)
    )


@st.composite
def policies(draw: st.DrawFn) -> configtx_pb2.ConfigPolicy:
    entry = configtx_pb2.ConfigPolicy(version=draw(VERSION), mod_policy=draw(MOD))
    if draw(st.booleans()):
        entry.policy.type = draw(st.sampled_from([0, 1, 3]))
        entry.policy.value = draw(st.sampled_from([b"", b"p"]))
    return entry


@st.composite
def groups(draw: st.DrawFn, depth: int = 3) -> configtx_pb2.ConfigGroup:
    group = configtx_pb2.ConfigGroup(version=draw(VERSION), mod_policy=draw(MOD))
    for name, value in draw(st.dictionaries(NAMES, values(), max_size=3)).items():
        group.values[name].CopyFrom(value)
    for name, policy in draw(st.dictionaries(NAMES, policies(), max_size=3)).items():
        group.policies[name].CopyFrom(policy)
    if depth:
        for name, child in draw(st.dictionaries(NAMES, groups(depth - 1), max_size=2)).items():
            group.groups[name].CopyFrom(child)
    return group


@st.composite
def pairs(draw: st.DrawFn) -> tuple[configtx_pb2.Config, configtx_pb2.Config]:
    """Two configurations, the second often one change away from the first."""
    first = draw(groups())
    second = configtx_pb2.ConfigGroup()
    second.CopyFrom(first if draw(st.booleans()) else draw(groups()))
    places = [second]
    for place in places:
        places.extend(place.groups[name] for name in sorted(place.groups))
    target = draw(st.sampled_from(places))
    match draw(st.sampled_from(["none", "value", "policy", "group", "mod", "drop"])):
        case "value":
            target.values[draw(NAMES)].CopyFrom(draw(values()))
        case "policy":
            target.policies[draw(NAMES)].CopyFrom(draw(policies()))
        case "group":
            target.groups[draw(NAMES)].CopyFrom(draw(groups(1)))
        case "mod":
            target.mod_policy = draw(MOD)
        case "drop":
            target.values.clear()
            target.groups.clear()
    return configtx_pb2.Config(channel_group=first), configtx_pb2.Config(channel_group=second)


@pytest.fixture(scope="module", params=VERSIONS)
def configtxlator(request: pytest.FixtureRequest) -> Iterator[Compute]:
    program = shutil.which("configtxlator", path=str(fabric_programs(request.param).folder))
    if program is None:
        pytest.skip(
            f"missing program: configtxlator of Fabric {request.param}: it is in the release of hyperledger/fabric"
        )
    command = [program, "start", "--hostname", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = next(match for line in process.stderr if (match := re.search(r"requests on (127\.0\.0\.1:\d+)", line)))
        with httpx.Client(base_url=f"http://{found[1]}", trust_env=False) as client:

            def compute(
                original: configtx_pb2.Config, updated: configtx_pb2.Config
            ) -> configtx_pb2.ConfigUpdate | None:
                files = {"original": original.SerializeToString(), "updated": updated.SerializeToString()}
                answer = client.post(
                    "/configtxlator/compute/update-from-configs", files=files, data={"channel": "testchannel"}
                )
                if answer.status_code == 400 and "no differences detected" in answer.text:
                    return None
                answer.raise_for_status()
                return configtx_pb2.ConfigUpdate.FromString(answer.content)

            yield compute
        process.terminate()


def ours(original: configtx_pb2.Config, updated: configtx_pb2.Config) -> configtx_pb2.ConfigUpdate | None:
    try:
        return compute_update("testchannel", original, updated)
    except NothingChanges:
        return None


def encoded(update: configtx_pb2.ConfigUpdate | None) -> bytes | None:
    return None if update is None else update.SerializeToString(deterministic=True)


@settings(max_examples=60, deadline=None)
@given(pair=pairs())
def test_every_update_is_what_configtxlator_computes(
    configtxlator: Compute, pair: tuple[configtx_pb2.Config, configtx_pb2.Config]
) -> None:
    assert encoded(ours(*pair)) == encoded(configtxlator(*pair))


def test_an_organisation_that_comes_and_one_that_goes(configtxlator: Compute, world: World) -> None:
    """Siblings that stay are named with their versions in both sets, and nothing of their content is."""
    original = world.bundle.config
    updated = configtx_pb2.Config()
    updated.CopyFrom(original)
    application = updated.channel_group.groups["Application"]
    application.groups["DMSP"].CopyFrom(application.groups["AMSP"])
    del application.groups["CMSP"]
    update = ours(original, updated)
    assert update is not None
    assert encoded(update) == encoded(configtxlator(original, updated))
    members = update.write_set.groups["Application"]
    assert sorted(members.groups) == ["AMSP", "BMSP", "DMSP"]
    assert (members.version, members.groups["BMSP"]) == (1, configtx_pb2.ConfigGroup())
    assert sorted(update.read_set.groups["Application"].groups) == ["AMSP", "BMSP"]


def test_equal_configurations_are_refused() -> None:
    config = configtx_pb2.Config(channel_group=configtx_pb2.ConfigGroup(mod_policy="Admins"))
    with pytest.raises(NothingChanges, match="no differences detected"):
        compute_update("c", config, config)
    with pytest.raises(ConfigError, match="no channel group included for updated config"):
        compute_update("c", config, configtx_pb2.Config())
