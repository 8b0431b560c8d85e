"""What differs between two configurations of a channel, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from fabric_protos.common import configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as etcdraft_pb2
from fabric_protos.orderer.smartbft import configuration_pb2 as smartbft_pb2
from fabric_protos.peer import configuration_pb2 as peer_configuration_pb2
from google.protobuf.message import Message

from sovchain.protocol.configedit import VALUE_TYPES, meaning, read_consenters
from sovchain.protocol.genesis import Consenter

_Group = configtx_pb2.ConfigGroup
_KINDS: Final = {"orderer": "ordering organisation", "application": "organisation"}


def differences(current: _Group, wanted: _Group) -> list[str]:
    """Return one line for each thing that is to be changed in a channel's root group; ordering nodes have their own."""
    return [*_of_group("", current, wanted)]


def consenter_changes(current: _Group, wanted: _Group) -> tuple[list[Consenter], list[Consenter]]:
    """Return the ordering nodes that come to a channel, and those that go. Raises ConfigError."""
    have, want = (read_consenters(root.groups["Orderer"]) for root in (current, wanted))
    there, then = ({(c.host, c.port) for c in several} for several in (have, want))
    return [c for c in want if (c.host, c.port) not in there], [c for c in have if (c.host, c.port) not in then]


def _of_group(path: str, current: _Group, wanted: _Group) -> Iterator[str]:
    place = path or "channel"
    for key in sorted(current.values.keys() | wanted.values.keys()):
        old, new = (group.values[key].value if key in group.values else b"" for group in (current, wanted))
        if meaning(key, old) != meaning(key, new):
            yield from _of_value(place, key, old, new)
    for key in sorted(current.policies.keys() | wanted.policies.keys()):
        before, after = (group.policies.get(key) for group in (current, wanted))
        if before is None or after is None:
            yield f"{place}: policy {key} {'added' if before is None else 'removed'}"
        elif before.policy != after.policy and key != "BlockValidation":
            yield f"{place}: policy {key} becomes {_policy(after.policy)}"
    for name in sorted(current.groups.keys() | wanted.groups.keys()):
        kind = _KINDS.get(path, "group")
        if name not in current.groups:
            yield f"{kind} {name} comes"
        elif name not in wanted.groups:
            yield f"{kind} {name} goes"
        else:
            below = f"{kind} {name}" if path else name.lower()
            yield from _of_group(below, current.groups[name], wanted.groups[name])


def _of_value(place: str, key: str, old: bytes, new: bytes) -> Iterator[str]:
    kind = VALUE_TYPES.get(key)
    if kind is None:
        yield f"{place}: {key} changes"
        return
    before, after = kind.FromString(old), kind.FromString(new)
    if isinstance(before, peer_configuration_pb2.AnchorPeers) and isinstance(after, peer_configuration_pb2.AnchorPeers):
        yield f"{place}: anchor peers become {_listed(f'{a.host}:{a.port}' for a in after.anchor_peers)}"
    elif isinstance(after, configuration_pb2.OrdererAddresses):
        yield f"{place}: {key.lower()} become {_listed(after.addresses)}"
    elif isinstance(after, configuration_pb2.Capabilities):
        yield f"{place}: capabilities become {_listed(after.capabilities)}"
    elif isinstance(before, peer_configuration_pb2.ACLs) and isinstance(after, peer_configuration_pb2.ACLs):
        for resource in sorted(before.acls.keys() | after.acls.keys()):
            was, is_now = before.acls.get(resource), after.acls.get(resource)
            if was != is_now:
                yield f"{place}: access to {resource} is guarded by {is_now.policy_ref if is_now else 'the default'}"
    elif isinstance(before, msp_config_pb2.MSPConfig) and isinstance(after, msp_config_pb2.MSPConfig):
        yield from _of_msp(place, before, after)
    elif isinstance(before, orderer_configuration_pb2.ConsensusType) and isinstance(
        after, orderer_configuration_pb2.ConsensusType
    ):
        yield from _of_consensus(place, before, after)
    elif key != "Orderers":
        yield from _of_fields(f"{place}: {key}", before, after)


def _of_msp(place: str, before: msp_config_pb2.MSPConfig, after: msp_config_pb2.MSPConfig) -> Iterator[str]:
    old, new = (msp_config_pb2.FabricMSPConfig.FromString(msp.config) for msp in (before, after))
    added = len(new.revocation_list) - len(old.revocation_list)
    if list(old.revocation_list) != list(new.revocation_list):
        yield f"{place}: revocation lists change ({added:+d})"
    for field, words in (
        ("root_certs", "roots"),
        ("tls_root_certs", "TLS roots"),
        ("intermediate_certs", "intermediates"),
    ):
        if list(getattr(old, field)) != list(getattr(new, field)):
            yield f"{place}: its {words} change"


def _of_consensus(
    place: str, before: orderer_configuration_pb2.ConsensusType, after: orderer_configuration_pb2.ConsensusType
) -> Iterator[str]:
    if before.type != after.type:
        yield f"{place}: consensus {before.type} becomes {after.type}"
        return
    if before.type == "etcdraft":
        old, new = (etcdraft_pb2.ConfigMetadata.FromString(value.metadata) for value in (before, after))
        yield from _of_fields(f"{place}: raft", old.options, new.options)
        renewed = {(c.host, c.port): c.server_tls_cert for c in old.consenters}
        for consenter in new.consenters:
            if renewed.get((consenter.host, consenter.port), consenter.server_tls_cert) != consenter.server_tls_cert:
                yield f"{place}: {consenter.host}:{consenter.port} has another TLS certificate"
    else:
        was, is_now = (smartbft_pb2.Options.FromString(value.metadata) for value in (before, after))
        yield from _of_fields(f"{place}: bft", was, is_now)


def _of_fields(place: str, before: Message, after: Message) -> Iterator[str]:
    for descriptor in after.DESCRIPTOR.fields:
        old, new = (getattr(message, descriptor.name) for message in (before, after))
        if old != new:
            yield f"{place} {descriptor.name} {old} becomes {new}"


def _policy(policy: policies_pb2.Policy) -> str:
    if policy.type == policies_pb2.Policy.IMPLICIT_META:
        meta = policies_pb2.ImplicitMetaPolicy.FromString(policy.value)
        return f"{policies_pb2.ImplicitMetaPolicy.Rule.Name(meta.rule)} {meta.sub_policy}"
    envelope = policies_pb2.SignaturePolicyEnvelope.FromString(policy.value)
    names = [_principal(principal) for principal in envelope.identities]
    return _rule(envelope.rule, names)


def _principal(principal: msp_principal_pb2.MSPPrincipal) -> str:
    if principal.principal_classification != msp_principal_pb2.MSPPrincipal.ROLE:
        return "an identity"
    role = msp_principal_pb2.MSPRole.FromString(principal.principal)
    return f"{role.msp_identifier}.{msp_principal_pb2.MSPRole.MSPRoleType.Name(role.role).lower()}"


def _rule(rule: policies_pb2.SignaturePolicy, names: list[str]) -> str:
    if rule.WhichOneof("Type") == "signed_by":
        return names[rule.signed_by] if rule.signed_by < len(names) else "?"
    parts = [_rule(part, names) for part in rule.n_out_of.rules]
    return f"OutOf({rule.n_out_of.n}, {', '.join(parts)})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
