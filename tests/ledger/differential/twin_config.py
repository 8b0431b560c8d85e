"""Changes of a channel's configuration, right and wrong, made on the real ordering node and followed by the embedded ledger."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cryptography import x509
from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from twin import CHANNEL, NAMES, Twin
from twin_people import Authority, Person

from sovchain.protocol.configupdate import compute_update, sign_update, signed_envelope
from sovchain.protocol.genesis import msp_config
from sovchain.protocol.identity import parse_identity

Edit = Callable[[configtx_pb2.ConfigGroup], None]


def update_envelope(
    both: Twin, edit: Edit, signers: Sequence[Person], submitter: Person, *, spoil: Callable[..., None] | None = None
) -> bytes:
    """A signed CONFIG_UPDATE that makes this change of the embedded channel's configuration."""
    bundle = both.channel().bundle
    wanted = configtx_pb2.Config()
    wanted.CopyFrom(bundle.config)
    edit(wanted.channel_group)
    update = compute_update(CHANNEL, bundle.config, wanted)
    if spoil is not None:
        spoil(update)
    encoded = update.SerializeToString(deterministic=True)
    signatures = [
        sign_update(encoded, creator=person.identity, nonce=secrets.token_bytes(24), sign=person.sign)
        for person in signers
    ]
    return signed_envelope(
        common_pb2.CONFIG_UPDATE,
        CHANNEL,
        configtx_pb2.ConfigUpdateEnvelope(config_update=encoded, signatures=signatures),
        creator=submitter.identity,
        nonce=secrets.token_bytes(24),
        timestamp=datetime.now(UTC),
        sign=submitter.sign,
    ).SerializeToString()


def batch_count(count: int) -> Edit:
    """Another number of transactions in a block."""

    def edit(root: configtx_pb2.ConfigGroup) -> None:
        value = root.groups["Orderer"].values["BatchSize"]
        size = orderer_configuration_pb2.BatchSize.FromString(value.value)
        size.max_message_count = count
        value.value = size.SerializeToString()

    return edit


def acl(resource: str, policy: str) -> Edit:
    """Another policy for a resource."""

    def edit(root: configtx_pb2.ConfigGroup) -> None:
        value = root.groups["Application"].values["ACLs"]
        acls = peer_configuration_pb2.ACLs.FromString(value.value)
        acls.acls[resource].policy_ref = policy
        value.value, value.mod_policy = acls.SerializeToString(deterministic=True), "Admins"

    return edit


def anchor(msp_id: str, port: int) -> Edit:
    """An anchor peer of an organisation."""

    def edit(root: configtx_pb2.ConfigGroup) -> None:
        value = root.groups["Application"].groups[msp_id].values["AnchorPeers"]
        anchors = peer_configuration_pb2.AnchorPeers(
            anchor_peers=[peer_configuration_pb2.AnchorPeer(host="localhost", port=port)]
        )
        value.value, value.mod_policy = anchors.SerializeToString(), "Admins"

    return edit


def membership(msp_id: str, change: Callable[[msp_config_pb2.FabricMSPConfig], None]) -> Edit:
    """Another MSP of an organisation."""

    def edit(root: configtx_pb2.ConfigGroup) -> None:
        value = root.groups["Application"].groups[msp_id].values["MSP"]
        outer = msp_config_pb2.MSPConfig.FromString(value.value)
        inner = msp_config_pb2.FabricMSPConfig.FromString(outer.config)
        change(inner)
        outer.config = inner.SerializeToString(deterministic=True)
        value.value = outer.SerializeToString(deterministic=True)

    return edit


def revoke(authority: Authority, person: Person) -> Edit:
    """A revocation list with a person's certificate."""
    serial = parse_identity(person.identity).certificate.serial_number
    encoded = authority.revocation_list(serial)
    return membership(authority.msp_id, lambda config: config.revocation_list.append(encoded))


def new_organisation(name: str) -> tuple[Authority, Authority, Edit]:
    """An organisation that the channel does not have, its root and the authority below it, and how it is added.

    The root of such an organisation issues no identities, so it is no organisation that runs here already.
    """
    assert len(name) == len("TwoMSP")  # its policies are made of those of the other one
    root = Authority.foreign(name, x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"ca.{name}")]))
    below = root.intermediate()

    def edit(channel: configtx_pb2.ConfigGroup) -> None:
        application = channel.groups["Application"]
        group = application.groups[name]
        group.CopyFrom(application.groups["TwoMSP"])
        for policy in group.policies.values():
            policy.policy.value = policy.policy.value.replace(b"TwoMSP", name.encode())
        config = msp_config(name, [root.pem])
        config.intermediate_certs.append(below.pem)
        for role in ("client", "peer", "admin", "orderer"):
            getattr(config.fabric_node_ous, f"{role}_ou_identifier").certificate = below.pem
        outer = msp_config_pb2.MSPConfig(config=config.SerializeToString(deterministic=True))
        group.values["MSP"].value = outer.SerializeToString(deterministic=True)
        group.values.pop("AnchorPeers", None)

    return root, below, edit


def remove_organisation(name: str) -> Edit:
    """The channel without an organisation."""

    def edit(root: configtx_pb2.ConfigGroup) -> None:
        del root.groups["Application"].groups[name]

    return edit


def capabilities(names: Sequence[str]) -> Edit:
    """Other capabilities of the application."""

    def edit(root: configtx_pb2.ConfigGroup) -> None:
        value = root.groups["Application"].values["Capabilities"]
        found = configuration_pb2.Capabilities()
        for name in names:
            found.capabilities[name].SetInParent()
        value.value = found.SerializeToString(deterministic=True)

    return edit


def everybody(both: Twin) -> list[Person]:
    """The administrators of all organisations, and of the ordering one."""
    return [*(both.people.admin[name] for name in NAMES), both.people.ordering_admin]
