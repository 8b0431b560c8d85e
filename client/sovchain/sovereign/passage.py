"""A passage: two channels, and the records that are carried from the one to the other by proof.

Whoever carries is trusted with nothing: he collects what peers say of committed state and hands it to the chaincode of
the other channel, which checks it (`sovchain.contracts.core.crossing`). Everything here can be done again by anybody else
from where it stopped, as both ledgers tell how far a record has come.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.msp import msp_config_pb2
from google.protobuf.message import DecodeError

from sovchain.chaincode import Operation
from sovchain.client import EndorseError, Network, UnexpectedReply
from sovchain.contracts.core.anchors import trust
from sovchain.contracts.core.crossing import Crossing
from sovchain.contracts.core.crossing_records import Action, AnchorStatement, Arrival, Challenge, Outgoing
from sovchain.protocol import policydsl
from sovchain.protocol.errors import ProtocolError
from sovchain.sovereign.calls import ATTEMPTS, LAGGING, PAUSE_S, Calls, committed, refused
from sovchain.sovereign.errors import InvalidInput
from sovchain.sovereign.results import Committed, Recorded


async def anchor_statement(
    network: Network,
    *,
    policy: str,
    name: str = "guiyang",
    chaincode: str | None = None,
    epoch: int = 1,
    valid_from: datetime | None = None,
    valid_for: timedelta = timedelta(days=365),
) -> AnchorStatement:
    """What a ballot elsewhere would pin of a channel, from the channel's own configuration.

    Whoever votes on it compares it with a statement that his own organisation made in this way.

    Args:
        network: the channel to be pinned.
        policy: whose peers speak for it, in Fabric's policy language; the MSPs that it names are pinned.
        name: name of the network, as its core contracts state it.
        chaincode: whose views count; None: the chaincode with the channel's name.
        epoch: number of the statement.
        valid_from: None: now, less a quarter of an hour for clocks that differ.
        valid_for: how long it counts.

    Raises:
        InvalidInput: the policy cannot be read or names an organisation that is not on the channel.
        EvaluateError, ConnectError, UnexpectedReply: the configuration cannot be had.
    """
    data = await network.contract("cscc").evaluate("GetConfigBlock", network.name)
    configs = _msp_configs(data)
    try:
        wanted = policydsl.organisations(policydsl.parse(policy))
    except ProtocolError as error:
        raise InvalidInput(
            "the policy cannot be read", str(error), "write it as AND('AMSP.peer', 'BMSP.peer')"
        ) from None
    missing = sorted(wanted - configs.keys())
    if missing:
        raise InvalidInput(
            f"{missing[0]} cannot be pinned",
            f"it is not on channel {network.name}",
            f"name {', '.join(sorted(configs))} in the policy",
        )
    begin = valid_from or datetime.now(UTC) - timedelta(minutes=15)
    return AnchorStatement(
        network=name,
        channel=network.name,
        chaincode=chaincode or network.name,
        epoch=epoch,
        msps=tuple(base64.b64encode(configs[msp_id]).decode() for msp_id in sorted(wanted)),
        policy=policy,
        valid_from=begin,
        valid_to=begin + valid_for,
    )


def _msp_configs(block: bytes) -> dict[str, bytes]:
    """The MSP of each organisation on a channel, as the configuration in a block holds it."""
    try:
        envelope = common_pb2.Envelope.FromString(common_pb2.Block.FromString(block).data.data[0])
        payload = common_pb2.Payload.FromString(envelope.payload)
        config = configtx_pb2.ConfigEnvelope.FromString(payload.data).config
        application = config.channel_group.groups["Application"]
        found = {}
        for group in application.groups.values():
            raw = msp_config_pb2.MSPConfig.FromString(group.values["MSP"].value).config
            found[msp_config_pb2.FabricMSPConfig.FromString(raw).name] = raw
    except (DecodeError, IndexError) as error:
        raise UnexpectedReply("config block", "it holds no configuration") from error
    return found


async def collect_view(
    network: Network, statement: AnchorStatement, operation: Operation[..., Any], *args: Any
) -> bytes:
    """Have a query answered by peers that satisfy a statement's policy, and return the view that proves it.

    Fewest organisations first; when one of them cannot be reached, others are asked.

    Raises:
        SovereignError: the contract refuses.
        EndorseError, ConnectError, UnexpectedReply: nobody suffices.
    """
    choices = sorted(trust(statement).policy.satisfying_organisations(), key=lambda names: (len(names), sorted(names)))
    for number, names in enumerate(choices, 1):
        try:
            return await _endorsed(network, statement.chaincode, sorted(names), operation, args)
        except EndorseError as error:
            if number == len(choices):
                raise
            if error.code is not None:
                refused(error)
    raise AssertionError("a statement that nobody satisfies is never adopted")


async def _endorsed(
    network: Network,
    chaincode: str,
    organizations: Iterable[str],
    operation: Operation[..., Any],
    args: tuple[Any, ...],
) -> bytes:
    contract = network.contract(chaincode).with_options(organizations=list(organizations))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            endorsed = await contract.proposal(operation, *args).endorse()
        except EndorseError as error:
            # Peers one block apart read different versions, or not yet what was committed just now.
            differ = error.status == "ABORTED" and error.code is None
            if not (differ or error.code in LAGGING) or attempt == ATTEMPTS:
                raise
            await asyncio.sleep(PAUSE_S * 2 ** (attempt - 1))
        else:
            return common_pb2.Envelope.FromString(endorsed.envelope_bytes).payload
    raise AssertionError("the last attempt returns or raises")


class Passage:
    """The way from a source channel to a destination channel, for one who acts on both.

    Besides what a method names it may raise `ContractRefusal`, `InvalidInput`, and the client's `FabricError`s.
    """

    def __init__(self, source: Network, destination: Network) -> None:
        self._source, self._destination = source, destination
        self._at_source, self._at_destination = (Calls(side.contract(side.name)) for side in (source, destination))

    async def ask(
        self,
        record_type: str,
        record_id: str,
        purpose: str,
        *,
        action: Action = "share",
        expires_in: timedelta = timedelta(days=7),
    ) -> Recorded[Challenge]:
        """At the destination: ask for a record, once."""
        expires = datetime.now(UTC) + expires_in
        done = await self._at_destination.submit(
            Crossing.challenge, self._source.name, action, record_type, record_id, purpose, expires
        )
        return Recorded(record=done.result, committed=committed(done))

    async def send(self, challenge: str) -> Recorded[Outgoing]:
        """At the source: answer a challenge of the destination."""
        view = await self._told_by_destination(challenge)
        done = await self._at_source.submit(Crossing.send, self._destination.name, view)
        return Recorded(record=done.result, committed=committed(done))

    async def outgoing_view(self, challenge: str) -> bytes:
        """The source's view of what it sent towards a challenge."""
        statement = (await self._at_destination.evaluate(Crossing.anchor, self._source.name)).statement
        return await collect_view(self._source, statement, Crossing.view_outgoing, challenge)

    async def accept(self, challenge: str, view: bytes | None = None) -> Recorded[Arrival]:
        """At the destination: import what the source sent, against its view (None: collected now)."""
        proof = await self.outgoing_view(challenge) if view is None else view
        done = await self._at_destination.submit(Crossing.accept, challenge, proof)
        return Recorded(record=done.result, committed=committed(done))

    async def cancel(self, challenge: str, reason: str) -> Recorded[Challenge]:
        """At the destination: close a challenge for good."""
        done = await self._at_destination.submit(Crossing.cancel, challenge, reason)
        return Recorded(record=done.result, committed=committed(done))

    async def finalise(self, challenge: str) -> Recorded[Outgoing]:
        """At the source: end the lock of a moved record that was imported."""
        done = await self._at_source.submit(Crossing.finalise, challenge, await self._told_by_destination(challenge))
        return Recorded(record=done.result, committed=committed(done))

    async def release(self, challenge: str) -> Recorded[Outgoing]:
        """At the source: end the lock of a moved record whose challenge was cancelled."""
        done = await self._at_source.submit(Crossing.release, challenge, await self._told_by_destination(challenge))
        return Recorded(record=done.result, committed=committed(done))

    async def reached(self, *, source: Committed | None = None, destination: Committed | None = None) -> None:
        """Wait until one's own peers have what others committed."""
        for network, found in ((self._source, source), (self._destination, destination)):
            if found is not None:
                await network.reached(found.block_number)

    async def _told_by_destination(self, challenge: str) -> bytes:
        statement = (await self._at_source.evaluate(Crossing.anchor, self._destination.name)).statement
        return await collect_view(self._destination, statement, Crossing.view_challenge, challenge)
