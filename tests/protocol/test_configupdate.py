"""An update changes a channel only if it fits the configuration and those whom it touches have signed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as etcdraft_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_world import CHANNEL, NOW, Authority, Signer, World

from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.configdelta import compute_update
from sovchain.protocol.configupdate import (
    ConfigUpdateError,
    propose_config_update,
    required_policies,
    sign_update,
    signed_envelope,
    validate_config,
)
from sovchain.protocol.errors import ConfigError

Change = Callable[[configtx_pb2.ConfigGroup], None]


def changed(bundle: ChannelBundle, change: Change) -> configtx_pb2.ConfigUpdate:
    updated = configtx_pb2.Config()
    updated.CopyFrom(bundle.config)
    change(updated.channel_group)
    return compute_update(CHANNEL, bundle.config, updated)


def signed(update: configtx_pb2.ConfigUpdate, signers: Sequence[Signer], sender: Signer) -> common_pb2.Envelope:
    encoded = update.SerializeToString(deterministic=True)
    signatures = [sign_update(encoded, creator=s.identity, nonce=b"n" * 24, sign=s.sign) for s in signers]
    return signed_envelope(
        common_pb2.CONFIG_UPDATE,
        CHANNEL,
        configtx_pb2.ConfigUpdateEnvelope(config_update=encoded, signatures=signatures),
        creator=sender.identity,
        nonce=b"m" * 24,
        timestamp=NOW,
        sign=sender.sign,
    )


def admins(world: World, *msp_ids: str) -> list[Signer]:
    return [world.organisations[msp_id].admin for msp_id in msp_ids]


def propose(world: World, change: Change, signers: Sequence[Signer]) -> configtx_pb2.ConfigEnvelope:
    return propose_config_update(signed(changed(world.bundle, change), signers, world.client), world.bundle)


def anchor(root: configtx_pb2.ConfigGroup) -> None:
    value = root.groups["Application"].groups["AMSP"].values["AnchorPeers"]
    value.value, value.mod_policy = b"", "Admins"


def newcomer(root: configtx_pb2.ConfigGroup) -> None:
    application = root.groups["Application"]
    application.groups["DMSP"].CopyFrom(application.groups["AMSP"])
    value = application.groups["DMSP"].values["MSP"]
    value.value = configuration_msp(Authority("DMSP"))


def configuration_msp(authority: Authority) -> bytes:
    config = authority.definition().msp_config
    return msp_config_pb2.MSPConfig(type=0, config=config.SerializeToString()).SerializeToString()


def batch(count: int) -> Change:
    def change(root: configtx_pb2.ConfigGroup) -> None:
        value = root.groups["Orderer"].values["BatchSize"]
        size = orderer_configuration_pb2.BatchSize.FromString(value.value)
        size.max_message_count = count
        value.value = size.SerializeToString()

    return change


def test_an_organisation_changes_what_is_its_own(world: World) -> None:
    envelope = propose(world, anchor, admins(world, "AMSP"))
    assert envelope.config.sequence == world.bundle.sequence + 1
    following = validate_config(envelope, world.bundle)
    assert following.sequence == 1
    members = envelope.config.channel_group.groups["Application"].groups
    assert members["AMSP"].version == 1
    assert members["BMSP"] == world.bundle.config.channel_group.groups["Application"].groups["BMSP"]


def test_no_other_organisation_changes_it(world: World) -> None:
    key = "[Group]  /Channel/Application/AMSP"
    with pytest.raises(ConfigUpdateError) as raised:
        propose(world, anchor, [*admins(world, "BMSP", "CMSP"), world.organisations["AMSP"].client])
    assert str(raised.value) == (
        f"error authorizing update: error validating DeltaSet: policy for {key} not satisfied: "
        "signature set did not satisfy policy"
    )
    assert (raised.value.element, raised.value.policy) == (key, "/Channel/Application/AMSP/Admins")


def test_a_new_organisation_takes_a_majority_of_the_members(world: World) -> None:
    envelope = propose(world, newcomer, admins(world, "AMSP", "CMSP"))
    assert validate_config(envelope, world.bundle).application_msp_ids == ("AMSP", "BMSP", "CMSP", "DMSP")
    with pytest.raises(
        ConfigUpdateError, match=r"1 sub-policies were satisfied, but this policy requires 2 of the 'Admins'"
    ):
        propose(world, newcomer, admins(world, "AMSP"))


def test_the_policies_that_must_be_satisfied_are_told_before_anybody_signs(world: World) -> None:
    def both(root: configtx_pb2.ConfigGroup) -> None:
        newcomer(root)
        batch(7)(root)

    assert required_policies(changed(world.bundle, both), world.bundle) == {
        "[Group]  /Channel/Application": "/Channel/Application/Admins",
        "[Value]  /Channel/Orderer/BatchSize": "/Channel/Orderer/Admins",
    }


def test_an_update_of_an_old_configuration_is_refused_with_both_versions(world: World) -> None:
    first = validate_config(propose(world, anchor, admins(world, "AMSP")), world.bundle)
    late = signed(changed(world.bundle, anchor), admins(world, "AMSP"), world.client)
    with pytest.raises(ConfigUpdateError, match=r"be at version 0, but it is currently at version 1"):
        propose_config_update(late, first)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda u: setattr(u, "channel_id", "other"),
            "ConfigUpdate for channel 'other' but envelope for channel 'testchannel'",
        ),
        (lambda u: u.write_set.CopyFrom(u.read_set), "delta set was empty -- update would have no effect"),
        (
            lambda u: setattr(u.write_set.groups["Application"], "version", 9),
            r"attempt to set key \[Group\]  /Channel/Application to version 9, but key is at version 0",
        ),
        (
            lambda u: setattr(u.write_set.groups["Application"], "mod_policy", ""),
            r"invalid mod_policy for element \[Group\]  /Channel/Application: mod_policy not set",
        ),
        (
            lambda u: setattr(u.write_set.groups["Application"], "mod_policy", "/Channel/x_y"),
            r"path element at 1 is invalid: config ID 'x_y' contains illegal characters",
        ),
        (lambda u: u.write_set.groups["Bad_name"], r"illegal characters in key: \[Group\]  : config ID 'Bad_name'"),
        (
            lambda u: setattr(u.write_set.groups["Application"].groups["EMSP"], "version", 3),
            "to version 3, but key does not exist|mod_policy not set",
        ),
        (
            lambda u: u.read_set.groups["Nobody"],
            r"does not contain element for \[Group\]  /Channel/Nobody but was in the read set",
        ),
    ],
)
def test_an_update_that_does_not_fit_is_refused(
    world: World, spoil: Callable[[configtx_pb2.ConfigUpdate], object], text: str
) -> None:
    update = changed(world.bundle, newcomer)
    spoil(update)
    with pytest.raises(ConfigUpdateError, match=text):
        propose_config_update(signed(update, admins(world, "AMSP", "BMSP"), world.client), world.bundle)


def test_a_configuration_that_its_update_does_not_make_is_refused_by_peers(world: World) -> None:
    envelope = propose(world, anchor, admins(world, "AMSP"))
    forged = configtx_pb2.ConfigEnvelope()
    forged.CopyFrom(envelope)
    batch(1)(forged.config.channel_group)
    with pytest.raises(ConfigUpdateError, match="did not produce the supplied config result"):
        validate_config(forged, world.bundle)
    forged.CopyFrom(envelope)
    forged.config.sequence = 5
    with pytest.raises(ConfigUpdateError, match="currently at sequence 0, cannot validate config at sequence 5"):
        validate_config(forged, world.bundle)
    with pytest.raises(ConfigUpdateError, match="nil config"):
        validate_config(configtx_pb2.ConfigEnvelope(), world.bundle)


def test_an_envelope_of_another_type_is_refused(world: World) -> None:
    envelope = signed_envelope(
        common_pb2.CONFIG,
        CHANNEL,
        configtx_pb2.ConfigUpdateEnvelope(),
        creator=world.client.identity,
        nonce=b"n" * 24,
        timestamp=NOW,
        sign=world.client.sign,
    )
    with pytest.raises(ConfigUpdateError, match="invalid type CONFIG, expected CONFIG_UPDATE"):
        propose_config_update(envelope, world.bundle)


def ordering_admin(world: World) -> list[Signer]:
    return [world.ordering.enrol("admin", "admin")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (batch(0), "Attempted to set the batch size max message count to an invalid value: 0"),
        (lambda root: root.groups["Orderer"].groups["OrdererMSP"].values.pop("Endpoints"), "endpoints are empty"),
        (lambda root: two_consenters(root, 2), "more than one consenter at a time is not supported.*add 2"),
        (lambda root: two_consenters(root, 0), "ElectionTick"),
        (
            lambda root: switch_to_bft(root),
            "from etcdraft to BFT, but current config ConsensusType.State is not in maintenance",
        ),
    ],
)
def test_a_configuration_that_nodes_could_not_use_is_refused_whoever_signed_it(
    world: World, change: Change, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        propose(world, change, ordering_admin(world))


def two_consenters(root: configtx_pb2.ConfigGroup, count: int) -> None:
    value = root.groups["Orderer"].values["ConsensusType"]
    kind = orderer_configuration_pb2.ConsensusType.FromString(value.value)
    metadata = etcdraft_pb2.ConfigMetadata.FromString(kind.metadata)
    for number in range(count):
        name = f"n{number}".encode()
        metadata.consenters.add(host="h", port=number, client_tls_cert=name, server_tls_cert=name)
    if not count:
        metadata.options.election_tick = metadata.options.heartbeat_tick
    kind.metadata = metadata.SerializeToString()
    value.value = kind.SerializeToString()


def switch_to_bft(root: configtx_pb2.ConfigGroup) -> None:
    value = root.groups["Orderer"].values["ConsensusType"]
    kind = orderer_configuration_pb2.ConsensusType.FromString(value.value)
    kind.type = "BFT"
    value.value = kind.SerializeToString()


def test_one_consenter_more_is_taken(world: World) -> None:
    envelope = propose(world, lambda root: two_consenters(root, 1), ordering_admin(world))
    assert validate_config(envelope, world.bundle).sequence == 1


def test_an_organisation_that_is_in_both_groups_keeps_one_msp(world: World) -> None:
    def change(root: configtx_pb2.ConfigGroup) -> None:
        root.groups["Application"].groups["DMSP"].CopyFrom(root.groups["Application"].groups["AMSP"])
        root.groups["Application"].groups["DMSP"].values["MSP"].value = configuration_msp(Authority("OrdererMSP"))

    with pytest.raises(ConfigError, match="two different versions of MSP: OrdererMSP"):
        propose(world, change, admins(world, "AMSP", "BMSP"))


def test_an_element_whose_policy_is_missing_cannot_be_changed(world: World) -> None:
    def orphan(root: configtx_pb2.ConfigGroup) -> None:
        root.groups["Application"].groups["AMSP"].mod_policy = "Nowhere"

    following = validate_config(propose(world, orphan, admins(world, "AMSP")), world.bundle)
    update = signed(changed(following, anchor), admins(world, "AMSP", "BMSP", "CMSP"), world.client)
    with pytest.raises(ConfigUpdateError, match="unexpected missing policy Nowhere"):
        propose_config_update(update, following)


def test_what_is_removed_with_a_policy_of_its_own_is_gone(world: World) -> None:
    def without_c(root: configtx_pb2.ConfigGroup) -> None:
        del root.groups["Application"].groups["CMSP"]

    envelope = propose(world, without_c, admins(world, "AMSP", "BMSP"))
    following = validate_config(envelope, world.bundle)
    assert following.application_msp_ids == ("AMSP", "BMSP")
    assert following.policies.find("/Channel/Application/CMSP/Admins") is None


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_of_any_kind_never_change_a_channel_and_never_crash_a_node(
    world: World, changes: list[tuple[int, int]]
) -> None:
    """An update with any bytes in it, signed by too few, is refused with an error of this room."""
    payload = bytearray(signed(changed(world.bundle, newcomer), admins(world, "AMSP"), world.client).payload)
    for position, byte in changes:
        payload[position % len(payload)] = byte
    with pytest.raises(ConfigError):
        propose_config_update(common_pb2.Envelope(payload=bytes(payload)), world.bundle)
