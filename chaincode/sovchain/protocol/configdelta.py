"""The difference between two channel configurations, as the read set and the write set of an update.

A port of internal/configtxlator/update/update.go. An element whose content changed stands in the write set alone, one
version higher. Where members come or go, the group is one version higher and every sibling that stays the same is named in
both sets with its version and without content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from fabric_protos.common import configtx_pb2

from sovchain.protocol.errors import ConfigError

Group: TypeAlias = configtx_pb2.ConfigGroup
Value: TypeAlias = configtx_pb2.ConfigValue
Policy: TypeAlias = configtx_pb2.ConfigPolicy


class NothingChanges(ConfigError):
    """An update would change nothing: there is nothing to sign or to send."""

    def __init__(self) -> None:
        super().__init__("no differences detected between original and updated config")


def compute_update(
    channel_id: str, original: configtx_pb2.Config, updated: configtx_pb2.Config
) -> configtx_pb2.ConfigUpdate:
    """Return the smallest update that turns one configuration into another; versions in `updated` do not count.

    Raises:
        NothingChanges: If they are equal.
        ConfigError: If one of them has no channel group.
    """
    for name, config in (("original", original), ("updated", updated)):
        if not config.HasField("channel_group"):
            raise ConfigError(f"no channel group included for {name} config")
    read_set, write_set = Group(), Group()
    if not _group(original.channel_group, updated.channel_group, read_set, write_set):
        raise NothingChanges
    return configtx_pb2.ConfigUpdate(channel_id=channel_id, read_set=read_set, write_set=write_set)


def _group(original: Group, updated: Group, read_set: Group, write_set: Group) -> bool:
    """Fill two empty groups with the sets; return whether anything changed."""
    read_set.version = write_set.version = original.version
    same = Group()
    changes = [
        _policies(original.policies, updated.policies, write_set, same),
        _values(original.values, updated.values, write_set, same),
        _groups(original.groups, updated.groups, read_set, write_set, same),
    ]
    if not any(changes) and original.mod_policy == updated.mod_policy:
        return bool(write_set.policies or write_set.values or write_set.groups)
    for target in (read_set, write_set):
        target.MergeFrom(same)
        target.version = original.version
    write_set.version = original.version + 1
    write_set.mod_policy = updated.mod_policy
    return True


def _policies(original: Mapping[str, Policy], updated: Mapping[str, Policy], write_set: Group, same: Group) -> bool:
    """Sort the policies of a group into the sets; return whether one was added or removed."""
    for name in original.keys() & updated.keys():
        old, new = original[name], updated[name]
        is_equal = old.HasField("policy") == new.HasField("policy") and old.policy == new.policy
        if old.mod_policy == new.mod_policy and is_equal:
            same.policies[name].version = old.version
        else:
            write_set.policies[name].CopyFrom(new)
            write_set.policies[name].version = old.version + 1
    for name in updated.keys() - original.keys():
        write_set.policies[name].CopyFrom(updated[name])
        write_set.policies[name].version = 0
    return original.keys() != updated.keys()


def _values(original: Mapping[str, Value], updated: Mapping[str, Value], write_set: Group, same: Group) -> bool:
    for name in original.keys() & updated.keys():
        old, new = original[name], updated[name]
        if (old.mod_policy, old.value) == (new.mod_policy, new.value):
            same.values[name].version = old.version
        else:
            write_set.values[name].CopyFrom(new)
            write_set.values[name].version = old.version + 1
    for name in updated.keys() - original.keys():
        write_set.values[name].CopyFrom(updated[name])
        write_set.values[name].version = 0
    return original.keys() != updated.keys()


def _groups(
    original: Mapping[str, Group], updated: Mapping[str, Group], read_set: Group, write_set: Group, same: Group
) -> bool:
    for name in original.keys() & updated.keys():
        reads, writes = Group(), Group()
        if _group(original[name], updated[name], reads, writes):
            read_set.groups[name].CopyFrom(reads)
            write_set.groups[name].CopyFrom(writes)
        else:
            same.groups[name].version = original[name].version
    for name in updated.keys() - original.keys():
        _group(Group(), updated[name], Group(), write_set.groups[name])
        write_set.groups[name].version = 0
        write_set.groups[name].mod_policy = updated[name].mod_policy
    return original.keys() != updated.keys()
