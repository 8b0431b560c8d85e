"""Changing the configuration of a running channel: fetched from its peers, signed by those whose word it takes, ordered.

A change is computed from the configuration that is in force. When another change comes first, it is computed again, never
sent again. It is done when every peer of the channel that was asked has committed it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from fabric_protos.common import common_pb2, configtx_pb2
from google.protobuf.message import DecodeError

from sovchain.network.errors import ConfigurationRefused, LifecycleError, SignaturesMissing
from sovchain.network.nodes import Administrator, Broadcaster, Peer
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.configupdate import (
    NothingChanges,
    compute_update,
    required_policies,
    sign_update,
    signed_envelope,
)
from sovchain.protocol.errors import ConfigError, PolicyUnsatisfied
from sovchain.protocol.policies import SignedData
from sovchain.protocol.proposals import Invocation

WAIT_TIMEOUT_S: Final = 30.0
"""How long peers may take to commit a configuration that was ordered."""
_BEHIND_TIMEOUT_S: Final = 2.0
_ATTEMPTS: Final = 10
_POLL_FIRST_S: Final = 0.02
_POLL_LAST_S: Final = 0.5
_CONFLICT: Final = "currently at"
"""Part of how an ordering node refuses an update of an older configuration (common/configtx/update.go)."""

Edit = Callable[[configtx_pb2.ConfigGroup], configtx_pb2.ConfigGroup | None]
"""Changes a copy of a channel's root group, or returns another one in its place."""


@dataclass(frozen=True)
class Configured:
    """What a change has led to.

    Attributes:
        channel: the channel.
        sequence: the configuration that is in force now.
        signers: MSP ids of those who signed; empty when nothing was to be changed.
        block: the block that holds the configuration (common.Block).
    """

    channel: str
    sequence: int
    signers: tuple[str, ...]
    block: common_pb2.Block = field(repr=False)


class ChannelConfiguration:
    """The configuration of one channel, and those who may change it."""

    def __init__(
        self, channel: str, peers: Sequence[Peer], orderers: Broadcaster, administrators: Sequence[Administrator]
    ) -> None:
        """`administrators` can sign, the ones to ask first being first; `peers` tell what is in force."""
        self.channel = channel
        self._peers = peers
        self._orderers = orderers
        self._administrators = {administrator.msp_id: administrator for administrator in administrators}

    @property
    def has_peers(self) -> bool:
        """Whether there is a peer that can tell what is in force."""
        return bool(self._peers)

    async def current(self) -> tuple[ChannelBundle, common_pb2.Block]:
        """The newest configuration that a peer has committed, and its block. Raises LifecycleError, ConfigError."""
        answers = await asyncio.gather(
            *(config_block(peer, self.channel) for peer in self._peers), return_exceptions=True
        )
        found = [answer for answer in answers if isinstance(answer, common_pb2.Block)]
        if not found:
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            raise failures[0] if failures else ConfigError(f"no peer tells the configuration of channel {self.channel}")
        block = max(found, key=lambda block: block.header.number)
        return ChannelBundle.from_block(block), block

    async def change(self, edit: Edit) -> Configured:
        """Make a change, and return when all peers that stay on the channel have it.

        Raises:
            SignaturesMissing: Those who can sign here do not satisfy what the change takes.
            ConfigurationRefused: An ordering node refuses the change, or peers do not commit it in time.
            LifecycleError: No peer can be asked.
            ConfigError: The configuration, or what it would become, cannot be used.
        """
        signers: tuple[str, ...] = ()
        for _ in range(_ATTEMPTS):
            bundle, block = await self.current()
            try:
                update = self._update(bundle, edit)
            except NothingChanges:
                await self._everywhere(bundle)
                return Configured(self.channel, bundle.sequence, signers, block)
            chosen, envelope = self.sign(bundle, update)
            try:
                await self._orderers.broadcast("configure", "", self.channel, envelope.SerializeToString())
            except LifecycleError as error:
                if _CONFLICT not in error.why:
                    raise ConfigurationRefused(self.channel, error.why, address=error.address) from None
                # Somebody was faster, or the peers that were asked are behind.
                await self._beyond(bundle.sequence, _BEHIND_TIMEOUT_S)
                continue
            signers = tuple(administrator.msp_id for administrator in chosen)
            if not await self._beyond(bundle.sequence, WAIT_TIMEOUT_S):
                why = f"no peer has committed it within {WAIT_TIMEOUT_S:.0f} s"
                raise ConfigurationRefused(self.channel, why)
        raise ConfigurationRefused(self.channel, f"others changed it {_ATTEMPTS} times meanwhile")

    def _update(self, bundle: ChannelBundle, edit: Edit) -> configtx_pb2.ConfigUpdate:
        updated = configtx_pb2.Config()
        updated.CopyFrom(bundle.config)
        replacement = edit(updated.channel_group)
        if replacement is not None:
            updated.channel_group.CopyFrom(replacement)
        return compute_update(self.channel, bundle.config, updated)

    def sign(
        self, bundle: ChannelBundle, update: configtx_pb2.ConfigUpdate
    ) -> tuple[list[Administrator], common_pb2.Envelope]:
        """Have an update signed by no more administrators than it takes; return them and the envelope to send.

        Raises SignaturesMissing.
        """
        encoded = update.SerializeToString(deterministic=True)
        signatures: dict[str, configtx_pb2.ConfigSignature] = {}
        evidence: dict[str, SignedData] = {}
        for msp_id, administrator in self._administrators.items():
            signature = sign_update(
                encoded, creator=administrator.creator, nonce=secrets.token_bytes(24), sign=administrator.sign
            )
            signatures[msp_id] = signature
            evidence[msp_id] = SignedData(
                signature.signature_header + encoded, administrator.creator, signature.signature
            )
        policies = required_policies(update, bundle)
        for element, path in policies.items():
            if not is_satisfied(bundle, path, evidence.values()):
                raise SignaturesMissing(
                    self.channel, element, path, tuple(evidence), missing_signers(bundle, path, evidence.keys())
                )
        paths = set(policies.values())
        for msp_id in reversed(list(evidence)):
            without = {name: data for name, data in evidence.items() if name != msp_id}
            if all(is_satisfied(bundle, path, without.values()) for path in paths):
                evidence = without
        chosen = [self._administrators[msp_id] for msp_id in evidence]
        # Any member may hand an update over; what counts are the signatures in it.
        sender = chosen[0] if chosen else next(iter(self._administrators.values()))
        envelope = signed_envelope(
            common_pb2.CONFIG_UPDATE,
            self.channel,
            configtx_pb2.ConfigUpdateEnvelope(
                config_update=encoded, signatures=[signatures[administrator.msp_id] for administrator in chosen]
            ),
            creator=sender.creator,
            nonce=secrets.token_bytes(24),
            timestamp=datetime.now(UTC),
            sign=sender.sign,
        )
        return chosen, envelope

    async def send(self, bundle: ChannelBundle, envelope: common_pb2.Envelope) -> Configured:
        """Hand over an update of the configuration in `bundle`, whoever signed it, and wait until peers have what it makes.

        Raises ConfigurationRefused, LifecycleError, ConfigError.
        """
        try:
            await self._orderers.broadcast("configure", "", self.channel, envelope.SerializeToString())
        except LifecycleError as error:
            raise ConfigurationRefused(self.channel, error.why, address=error.address) from None
        if not await self._beyond(bundle.sequence, WAIT_TIMEOUT_S):
            raise ConfigurationRefused(self.channel, f"no peer has committed it within {WAIT_TIMEOUT_S:.0f} s")
        following, block = await self.current()
        await self._everywhere(following)
        return Configured(self.channel, following.sequence, (), block)

    async def _beyond(self, sequence: int, timeout_s: float) -> bool:
        """Wait until a peer has a later configuration than this one; return whether one has."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + timeout_s, _POLL_FIRST_S
        while True:
            bundle, _ = await self.current()
            if bundle.sequence > sequence or loop.time() > deadline:
                return bundle.sequence > sequence
            await asyncio.sleep(pause)
            pause = min(pause * 2, _POLL_LAST_S)

    async def _everywhere(self, bundle: ChannelBundle) -> None:
        """Wait until the peers of all organisations that are on the channel have this configuration or a later one."""
        staying = [peer for peer in self._peers if peer.msp_id in bundle.application_msp_ids]
        await asyncio.gather(*(self.reaches(peer, bundle.sequence) for peer in staying))

    async def reaches(self, peer: Peer, sequence: int) -> None:
        """Wait until a peer has a configuration of this sequence or later. Raises ConfigurationRefused."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + WAIT_TIMEOUT_S, _POLL_FIRST_S
        while True:
            try:
                found = ChannelBundle.from_block(await config_block(peer, self.channel)).sequence
                why = f"it has configuration {found}, not {sequence}"
                if found >= sequence:
                    return
            except LifecycleError as error:
                why = error.why
            if loop.time() > deadline:
                raise ConfigurationRefused(
                    self.channel,
                    f"the peer of {peer.msp_id} has not committed it within {WAIT_TIMEOUT_S:.0f} s: {why}",
                    address=peer.address.address,
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _POLL_LAST_S)


async def config_block(peer: Peer, channel: str) -> common_pb2.Block:
    """Return the last configuration block that a peer has committed (core/scc/cscc/configure.go).

    Raises LifecycleError, ConfigError.
    """
    proposal = peer.administrator.proposal(Invocation(channel, "cscc", (b"GetConfigBlock", channel.encode())))
    answer = await peer.propose("query", "", proposal)
    try:
        return common_pb2.Block.FromString(answer.response.payload)
    except DecodeError as error:
        raise ConfigError(f"the configuration block of channel {channel} cannot be decoded") from error


def is_satisfied(bundle: ChannelBundle, path: str, evidence: Iterable[SignedData]) -> bool:
    """Whether signatures satisfy the policy at a path."""
    try:
        bundle.policies.get(path).evaluate(list(evidence))
    except PolicyUnsatisfied:
        return False
    return True


LISTED_MAX: Final = 12
"""With more organisations than this the groups of them that satisfy a policy are too many to list."""


def missing_signers(bundle: ChannelBundle, path: str, present: Collection[str]) -> tuple[str, ...]:
    """Those whose signatures would be enough besides the present ones, in the smallest number; all others if too many."""
    if len(bundle.msps.msp_ids) > LISTED_MAX:
        return tuple(msp_id for msp_id in bundle.msps.msp_ids if msp_id not in present)
    groups = bundle.policies.satisfying_organisations(path)
    lacking = sorted((sorted(group.difference(present)) for group in groups), key=lambda names: (len(names), names))
    return tuple(next(filter(None, lacking), ()))
