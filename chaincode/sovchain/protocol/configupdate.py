"""Changing a channel's configuration: what an update asks for, who must have signed it, and what comes out.

Mirrors common/configtx/{update,compare,validator,configmap}.go: an ordering node turns an update into the next
configuration (`propose_config_update`), a peer checks that a configuration is what its update makes (`validate_config`).
The texts of the errors are Fabric's. `configdelta` computes an update, `configrules` has what may not follow on what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from fabric_protos.common import common_pb2, configtx_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.protocol.configdelta import NothingChanges, compute_update
from sovchain.protocol.configrules import check_consensus, next_bundle
from sovchain.protocol.errors import ConfigError, PolicyUnsatisfied
from sovchain.protocol.policies import SignedData
from sovchain.protocol.proposals import datetime_to_timestamp

if TYPE_CHECKING:
    from sovchain.protocol.channelconfig import ChannelBundle

__all__ = [
    "ConfigUpdateError",
    "NothingChanges",
    "compute_update",
    "propose_config_update",
    "required_policies",
    "sign_update",
    "signed_envelope",
    "validate_config",
]

ROOT: Final = "Channel"
NAME_MAX_BYTES: Final = 249
_NAME: Final = re.compile(r"[a-zA-Z0-9.-]+")
_Item: TypeAlias = configtx_pb2.ConfigGroup | configtx_pb2.ConfigValue | configtx_pb2.ConfigPolicy
_M = TypeVar("_M", bound=Message)


class ConfigUpdateError(ConfigError):
    """An update is refused; the text is Fabric's.

    `element` is the element at fault in Fabric's form, such as `[Value]  /Channel/Orderer/BatchSize`, and `policy` the path
    of the policy that its signatures do not satisfy; both are "" where the fault is another one.
    """

    def __init__(self, message: str, *, element: str = "", policy: str = "") -> None:
        super().__init__(message)
        self.element = element
        self.policy = policy


@dataclass(frozen=True, slots=True)
class _Element:
    """One group, value or policy, with the names of the groups above it."""

    above: tuple[str, ...]
    name: str
    item: _Item

    @property
    def policy_path(self) -> str:
        """The absolute path of the policy that guards this element (policyForItem)."""
        if self.item.mod_policy.startswith("/"):
            return self.item.mod_policy
        own = (self.name,) if isinstance(self.item, configtx_pb2.ConfigGroup) else ()
        return "/" + "/".join((*self.above, *own, self.item.mod_policy))


def sign_update(
    update: bytes, *, creator: bytes, nonce: bytes, sign: Callable[[bytes], bytes]
) -> configtx_pb2.ConfigSignature:
    """Return one signature over a serialised ConfigUpdate; `nonce` is 24 random bytes."""
    header = common_pb2.SignatureHeader(creator=creator, nonce=nonce).SerializeToString()
    return configtx_pb2.ConfigSignature(signature_header=header, signature=sign(header + update))


def signed_envelope(
    kind: common_pb2.HeaderType.ValueType,
    channel_id: str,
    data: Message,
    *,
    creator: bytes,
    nonce: bytes,
    timestamp: datetime,
    sign: Callable[[bytes], bytes],
) -> common_pb2.Envelope:
    """Return a signed envelope of a type such as CONFIG_UPDATE or CONFIG (protoutil/txutils.go CreateSignedEnvelope).

    It has no transaction id, as Fabric gives it none.
    """
    channel_header = common_pb2.ChannelHeader(type=kind, channel_id=channel_id)
    channel_header.timestamp.CopyFrom(datetime_to_timestamp(timestamp.replace(microsecond=0)))
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=channel_header.SerializeToString(),
            signature_header=common_pb2.SignatureHeader(creator=creator, nonce=nonce).SerializeToString(),
        ),
        data=data.SerializeToString(deterministic=True),
    ).SerializeToString()
    return common_pb2.Envelope(payload=payload, signature=sign(payload))


def required_policies(update: configtx_pb2.ConfigUpdate, bundle: ChannelBundle) -> Mapping[str, str]:
    """The paths of the policies that an update's signatures must satisfy, by the elements that they guard.

    An element that is new is guarded by its group, whose membership it changes. Raises ConfigUpdateError.
    """
    config = _elements(bundle.config.channel_group)
    delta = _delta(_read_set(update), _write_set(update))
    return {key: config[key].policy_path for key in sorted(delta) if key in config}


def update_of(envelope: common_pb2.Envelope) -> configtx_pb2.ConfigUpdateEnvelope:
    """Return the update that a CONFIG_UPDATE envelope holds, with its signatures. Raises ConfigUpdateError."""
    return _update_of(envelope)


def resulting_group(update: configtx_pb2.ConfigUpdate, bundle: ChannelBundle) -> configtx_pb2.ConfigGroup:
    """Return the root group that an update makes of the current configuration, whoever may have signed it.

    Raises ConfigUpdateError if it does not fit the current configuration.
    """
    config = _elements(bundle.config.channel_group)
    reads = _read_set(update)
    _check_reads(reads, config)
    delta = _delta(reads, _write_set(update))
    _check_delta(delta, config, None, bundle)
    return _channel_group({**config, **delta})


def propose_config_update(envelope: common_pb2.Envelope, bundle: ChannelBundle) -> configtx_pb2.ConfigEnvelope:
    """Return what an ordering node makes of a CONFIG_UPDATE envelope: the payload of a CONFIG transaction.

    The outer signature and its policy are the caller's to check (msgprocessor/standardchannel.go filters them first).

    Raises:
        ConfigUpdateError: If the update does not fit the current configuration or lacks signatures.
        ConfigError: If the next configuration could not be used or may not follow on this one.
    """
    try:
        inner = _update_of(envelope)
    except ConfigUpdateError as error:
        raise ConfigUpdateError(f"error converting envelope to config update: {error}") from error
    try:
        elements = _authorize(inner, bundle)
    except ConfigUpdateError as error:
        text = f"error authorizing update: {error}"
        raise ConfigUpdateError(text, element=error.element, policy=error.policy) from error
    group = _channel_group(elements)
    config = configtx_pb2.Config(sequence=bundle.sequence + 1, channel_group=group)
    check_consensus(bundle, next_bundle(bundle, config))
    return configtx_pb2.ConfigEnvelope(config=config, last_update=envelope)


def validate_config(proposed: configtx_pb2.ConfigEnvelope, bundle: ChannelBundle) -> ChannelBundle:
    """Check a CONFIG transaction as a peer does, and return the configuration that is in force after it.

    Raises:
        ConfigUpdateError: If it is not what its update makes of the current configuration.
        ConfigError: If it cannot be used or may not follow on the current one.
    """
    if not proposed.HasField("config"):
        raise ConfigUpdateError("config envelope has nil config")
    if proposed.config.sequence != bundle.sequence + 1:
        raise ConfigUpdateError(
            f"config currently at sequence {bundle.sequence}, cannot validate config at sequence {proposed.config.sequence}"
        )
    group = _channel_group(_authorize(_update_of(proposed.last_update), bundle))
    if group != proposed.config.channel_group:
        raise ConfigUpdateError("ConfigEnvelope LastUpdate did not produce the supplied config result")
    return next_bundle(bundle, proposed.config)


def _decode(kind: type[_M], data: bytes, what: str) -> _M:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ConfigUpdateError(f"error unmarshalling {what}") from error


def _update_of(envelope: common_pb2.Envelope) -> configtx_pb2.ConfigUpdateEnvelope:
    payload = _decode(common_pb2.Payload, envelope.payload, "Payload")
    if not payload.HasField("header"):
        raise ConfigUpdateError("envelope must have a Header")
    header = _decode(common_pb2.ChannelHeader, payload.header.channel_header, "ChannelHeader")
    if header.type != common_pb2.CONFIG_UPDATE:
        kinds: dict[int, str] = {number: name for name, number in common_pb2.HeaderType.items()}
        name = kinds.get(header.type, str(header.type))
        raise ConfigUpdateError(f"invalid type {name}, expected CONFIG_UPDATE")
    return _decode(configtx_pb2.ConfigUpdateEnvelope, payload.data, "message for type CONFIG_UPDATE")


def _authorize(envelope: configtx_pb2.ConfigUpdateEnvelope, bundle: ChannelBundle) -> dict[str, _Element]:
    """Check an update completely and return the elements of the configuration that it makes (authorizeUpdate)."""
    update = _decode(configtx_pb2.ConfigUpdate, envelope.config_update, "ConfigUpdate")
    if update.channel_id != bundle.channel_id:
        raise ConfigUpdateError(
            f"ConfigUpdate for channel '{update.channel_id}' but envelope for channel '{bundle.channel_id}'"
        )
    config = _elements(bundle.config.channel_group)
    reads = _read_set(update)
    _check_reads(reads, config)
    writes = _write_set(update)
    delta = _delta(reads, writes)
    _check_delta(delta, config, _signed_data(envelope), bundle)
    merged = {**config, **delta}
    for key in sorted(writes):
        if key not in merged:
            raise ConfigUpdateError(
                f"full config did not verify: writeset contained key {key} which did not appear in proposed config"
            )
    return merged


def _read_set(update: configtx_pb2.ConfigUpdate) -> dict[str, _Element]:
    return _elements(update.read_set, "error mapping ReadSet: ") if update.HasField("read_set") else {}


def _write_set(update: configtx_pb2.ConfigUpdate) -> dict[str, _Element]:
    return _elements(update.write_set, "error mapping WriteSet: ") if update.HasField("write_set") else {}


def _check_reads(reads: Mapping[str, _Element], config: Mapping[str, _Element]) -> None:
    for key, element in sorted(reads.items()):
        if key not in config:
            raise ConfigUpdateError(
                f"error validating ReadSet: existing config does not contain element for {key} but was in the read set",
                element=key,
            )
        wanted, current = element.item.version, config[key].item.version
        if wanted != current:
            raise ConfigUpdateError(
                f"error validating ReadSet: proposed update requires that key {key} be at version {wanted}, "
                f"but it is currently at version {current}",
                element=key,
            )


def _delta(reads: Mapping[str, _Element], writes: Mapping[str, _Element]) -> dict[str, _Element]:
    return {
        key: element
        for key, element in writes.items()
        if key not in reads or reads[key].item.version != element.item.version
    }


def _check_delta(
    delta: Mapping[str, _Element],
    config: Mapping[str, _Element],
    signed: Sequence[SignedData] | None,
    bundle: ChannelBundle,
) -> None:
    """Check versions and policies; without `signed` nobody is asked for a signature."""
    fault = "error validating DeltaSet: "
    if not delta:
        raise ConfigUpdateError(f"{fault}delta set was empty -- update would have no effect")
    judged: set[str] = set()
    for key, element in sorted(delta.items()):
        _check_mod_policy(key, element.item.mod_policy)
        version = element.item.version
        if key not in config:
            if version != 0:
                text = f"{fault}attempted to set key {key} to version {version}, but key does not exist"
                raise ConfigUpdateError(text, element=key)
            continue
        current = config[key]
        if version != current.item.version + 1:
            text = f"{fault}attempt to set key {key} to version {version}, but key is at version {current.item.version}"
            raise ConfigUpdateError(text, element=key)
        path = current.policy_path
        policy = bundle.policies.find(path)
        if policy is None:
            text = f"{fault}unexpected missing policy {current.item.mod_policy} for item {key}"
            raise ConfigUpdateError(text, element=key, policy=path)
        if signed is None or path in judged:
            continue
        try:
            policy.evaluate(signed)
        except PolicyUnsatisfied as error:
            text = f"{fault}policy for {key} not satisfied: {error}"
            raise ConfigUpdateError(text, element=key, policy=path) from error
        judged.add(path)


def _check_mod_policy(key: str, mod_policy: str) -> None:
    fault = f"error validating DeltaSet: invalid mod_policy for element {key}: "
    if not mod_policy:
        raise ConfigUpdateError(f"{fault}mod_policy not set", element=key)
    for position, part in enumerate(mod_policy.removeprefix("/").split("/")):
        problem = _name_fault(part)
        if problem:
            raise ConfigUpdateError(f"{fault}path element at {position} is invalid: {problem}", element=key)


def _signed_data(envelope: configtx_pb2.ConfigUpdateEnvelope) -> list[SignedData]:
    found: list[SignedData] = []
    for entry in envelope.signatures:
        header = _decode(common_pb2.SignatureHeader, entry.signature_header, "SignatureHeader")
        found.append(SignedData(entry.signature_header + envelope.config_update, header.creator, entry.signature))
    return found


_GROUP, _VALUE, _POLICY = "[Group]  ", "[Value]  ", "[Policy] "


def _key(prefix: str, path: tuple[str, ...]) -> str:
    return f"{prefix}/{'/'.join(path)}"


def _elements(group: configtx_pb2.ConfigGroup, fault: str = "") -> dict[str, _Element]:
    """Every element below a root group by its path, the root included (mapConfig). Raises ConfigUpdateError for a bad name."""
    found: dict[str, _Element] = {}
    _collect(group, (ROOT,), found, fault)
    return found


def _collect(group: configtx_pb2.ConfigGroup, path: tuple[str, ...], found: dict[str, _Element], fault: str) -> None:
    def add(prefix: str, above: tuple[str, ...], name: str, item: _Item) -> None:
        problem = _name_fault(name)
        if problem:
            raise ConfigUpdateError(f"{fault}illegal characters in key: {prefix}: {problem}")
        found[_key(prefix, (*above, name))] = _Element(above, name, item)

    add(_GROUP, path[:-1], path[-1], group)
    for name in sorted(group.groups):
        _collect(group.groups[name], (*path, name), found, fault)
    for name in sorted(group.values):
        add(_VALUE, path, name, group.values[name])
    for name in sorted(group.policies):
        add(_POLICY, path, name, group.policies[name])


def _name_fault(name: str) -> str:
    if not name:
        return "config ID illegal, cannot be empty"
    if len(name.encode()) > NAME_MAX_BYTES:
        return f"config ID illegal, cannot be longer than {NAME_MAX_BYTES}"
    if name in (".", ".."):
        return f"name '{name}' for config ID is not allowed"
    return "" if _NAME.fullmatch(name) else f"config ID '{name}' contains illegal characters"


def _channel_group(elements: Mapping[str, _Element]) -> configtx_pb2.ConfigGroup:
    fixes_policies = _key(_VALUE, (ROOT, "Orderer", "Capabilities")) in elements
    return _tree(elements, (ROOT,), fixes_policies=fixes_policies)


def _tree(elements: Mapping[str, _Element], path: tuple[str, ...], *, fixes_policies: bool) -> configtx_pb2.ConfigGroup:
    """Build the groups again from their elements (configMapToConfig).

    Channels that Fabric 1.0 made may lack a mod_policy; with orderer capabilities such an element gets "Admins".
    """
    group = configtx_pb2.ConfigGroup()
    group.CopyFrom(_item(elements, _GROUP, path, configtx_pb2.ConfigGroup))
    for name in sorted(group.groups):
        group.groups[name].CopyFrom(_tree(elements, (*path, name), fixes_policies=fixes_policies))
    for name in sorted(group.values):
        group.values[name].CopyFrom(_item(elements, _VALUE, (*path, name), configtx_pb2.ConfigValue))
    for name in sorted(group.policies):
        group.policies[name].CopyFrom(_item(elements, _POLICY, (*path, name), configtx_pb2.ConfigPolicy))
    if fixes_policies:
        items: list[_Item] = [group, *group.values.values(), *group.policies.values()]
        for item in items:
            item.mod_policy = item.mod_policy or "Admins"
    return group


def _item(elements: Mapping[str, _Element], prefix: str, path: tuple[str, ...], kind: type[_M]) -> _M:
    element = elements.get(_key(prefix, path))
    if element is None or not isinstance(element.item, kind):
        name = {_GROUP: "group", _VALUE: "value", _POLICY: "policy"}[prefix]
        raise ConfigUpdateError(
            f"could not turn configMap back to channelGroup: missing {name} at path: {_key(prefix, path)}"
        )
    return element.item
