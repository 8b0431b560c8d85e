"""The REST interface by which an ordering node's channels are administered: list, info, join, update, remove, fetch.

Mirrors orderer/common/channelparticipation/restapi.go and validator.go of Fabric, so that `osnadmin` works unmodified. Who
shows a certificate of the node's organisation may use it; the server lets nobody else in.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Final, Protocol

from fabric_protos.common import common_pb2, configtx_pb2
from google.protobuf.message import DecodeError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_form

from sovchain.ledger.channel import Channel
from sovchain.ledger.deliver import leave_out_commit
from sovchain.ledger.errors import LedgerError
from sovchain.ledger.operations.https import Request, Response
from sovchain.ledger.operations.system import json_response
from sovchain.protocol.blocks import check_data_hash, is_config_block
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import ProtocolError

CHANNELS: Final = "/participation/v1/channels"
NO_CHANNEL: Final = "channel does not exist"
_EXISTS: Final = "channel already exists"
_ONE: Final = re.compile(rf"{CHANNELS}/([^/]+)")
_BLOCK: Final = re.compile(rf"{CHANNELS}/([^/]+)/blocks/([^/]+)")
_NAME: Final = re.compile(r"[a-z][a-z0-9.-]*")
_MAX_NAME: Final = 249
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NO_STORE: Final = {"Cache-Control": "no-store"}


class OrderingNodeChannels(Protocol):
    """What the interface works on: the channels of one ordering node."""

    def channels(self) -> Sequence[str]:
        """Names of the channels that the node is on."""
        ...

    def channel(self, name: str) -> Channel | None:
        """A channel that the node is on."""
        ...

    async def join(self, block: bytes, channel_id: str) -> Channel:
        """Put the node onto a channel, which is made if it is new. Raises LedgerError."""
        ...

    async def remove(self, channel: Channel) -> None:
        """Take the node off a channel. Raises LedgerError."""
        ...


class _Refused(Exception):
    """The request is answered with this status and text."""

    def __init__(self, status: int, text: str, allow: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.allow = allow


class Participation:
    """The handler of one ordering node's administration."""

    def __init__(self, node: OrderingNodeChannels) -> None:
        self._node = node

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        try:
            return await self._answer(request)
        except _Refused as refused:
            headers = {"Allow": refused.allow} if refused.allow else {}
            return json_response(refused.status, {"error": str(refused)}, headers)

    async def _answer(self, request: Request) -> Response:
        path = request.path
        if path == "/participation/v1/" and request.method == "GET":
            return Response(302, headers={"Location": CHANNELS})
        if path == CHANNELS:
            return await self._all(request)
        if (found := _BLOCK.fullmatch(path)) is not None:
            return self._fetch(request, found[1], found[2])
        if (found := _ONE.fullmatch(path)) is not None:
            return await self._one(request, found[1])
        return Response(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})

    async def _all(self, request: Request) -> Response:
        if request.method not in ("GET", "POST", "PUT"):
            raise _not_allowed(request, "GET, POST, PUT")
        if request.method == "GET":
            _check_accepted(request)
            shown = [{"name": name, "url": f"{CHANNELS}/{name}"} for name in self._node.channels()]
            return json_response(200, {"systemChannel": None, "channels": shown or None}, _NO_STORE)
        if not re.search("multipart/form-data*", request.headers.get("content-type", "")):
            raise _Refused(400, f"unsupported Content-Type: [{request.headers.get('content-type', '')[:100]}]")
        _check_accepted(request)
        channel = await (self._join(request) if request.method == "POST" else self._update(request))
        return json_response(201, _info(channel), {"Location": f"{CHANNELS}/{channel.channel_id}"})

    async def _one(self, request: Request, name: str) -> Response:
        if request.method not in ("GET", "DELETE"):
            raise _not_allowed(request, "GET, DELETE")
        _check_accepted(request)
        _check_name(name)
        channel = self._node.channel(name)
        if request.method == "GET":
            if channel is None:
                raise _Refused(404, NO_CHANNEL)
            return json_response(200, _info(channel), _NO_STORE)
        if channel is None:
            raise _Refused(404, f"cannot remove: {NO_CHANNEL}")
        try:
            await self._node.remove(channel)
        except LedgerError as error:
            raise _Refused(400, f"cannot remove: {error}") from error
        return Response(204)

    async def _join(self, request: Request) -> Channel:
        data = _part(request, "config-block")
        try:
            block = common_pb2.Block.FromString(data)
        except DecodeError as error:
            raise _Refused(400, f"cannot unmarshal file part config-block into a block: {error}") from error
        channel_id = _check_join_block(block)
        if self._node.channel(channel_id) is not None:
            raise _Refused(405, f"cannot join: {_EXISTS}", "GET, DELETE")
        try:
            return await self._node.join(data, channel_id)
        except LedgerError as error:
            raise _Refused(400, f"cannot join: {error}") from error

    async def _update(self, request: Request) -> Channel:
        data = _part(request, "config-update-envelope")
        try:
            envelope = common_pb2.Envelope.FromString(data)
        except DecodeError as error:
            raise _Refused(
                400, f"cannot unmarshal file part config-update-envelope into an envelope: {error}"
            ) from error
        channel = self._node.channel(_updated_channel(envelope))
        if channel is None:
            raise _Refused(405, f"cannot update: {NO_CHANNEL}")
        try:
            await channel.order(data)
        except LedgerError as error:
            raise _Refused(
                400, f"cannot update: failed update config of channel {channel.channel_id}: {error}"
            ) from error
        return channel

    def _fetch(self, request: Request, name: str, which: str) -> Response:
        if request.method != "GET":
            raise _not_allowed(request, "GET")
        _check_accepted(request)
        _check_name(name)
        if which not in ("newest", "oldest", "config") and not _NUMBER.fullmatch(which):
            raise _Refused(400, f"invalid block ID: '{which[:40]}' not equal <newest|oldest|config|(number)>")
        channel = self._node.channel(name)
        if channel is None:
            raise _Refused(404, NO_CHANNEL)
        if which == "config":
            block: bytes | None = channel.last_config_block()
        else:
            numbers = {"oldest": 0, "newest": channel.height - 1}
            block = channel.block(numbers[which] if which in numbers else int(which))
        if block is None:
            raise _Refused(404, "entry not found in index")
        found = common_pb2.Block.FromString(block)
        leave_out_commit(found)
        return Response(200, found.SerializeToString(), {**_NO_STORE, "Content-Type": "application/octet-stream"})


def _info(channel: Channel) -> dict[str, object]:
    return {
        "name": channel.channel_id,
        "url": f"{CHANNELS}/{channel.channel_id}",
        "consensusRelation": "consenter",
        "status": "active",
        "height": channel.height,
    }


def _not_allowed(request: Request, allow: str) -> _Refused:
    return _Refused(405, f"invalid request method: {request.method}", allow)


def _check_accepted(request: Request) -> None:
    accepted = request.headers.get("accept", "")
    if accepted and not any(
        kind in option for option in accepted.split(",") for kind in ("application/json", "application/*", "*/*")
    ):
        raise _Refused(406, "response Content-Type is application/json only")


def _check_name(name: str) -> None:
    """Mirrors common/configtx/validator.go ValidateChannelID."""
    if len(name) > _MAX_NAME:
        raise _Refused(400, f"invalid channel ID: channel ID illegal, cannot be longer than {_MAX_NAME}")
    if not _NAME.fullmatch(name):
        text = f"invalid channel ID: '{name}' contains illegal characters"
        raise _Refused(400, text)


def _part(request: Request, name: str) -> bytes:
    """The one file of a form. Mirrors multipartFormDataBodyToBlock."""
    files: dict[str, bytes] = {}
    others: list[object] = []

    def keep(file: object) -> None:
        field = getattr(file, "field_name", None) or b""
        content = getattr(file, "file_object", io.BytesIO())
        content.seek(0)
        if field.decode("utf-8", "replace") in files:
            others.append(field)
        files[field.decode("utf-8", "replace")] = content.read()
        content.close()

    headers = {"Content-Type": request.headers["content-type"].encode("latin-1")}
    try:
        parse_form(headers, io.BytesIO(request.body), others.append, keep)
    except (FormParserError, ValueError) as error:
        raise _Refused(400, f"cannot read form from request body: {str(error)[:200]}") from error
    if name not in files:
        raise _Refused(400, f"form does not contains part key: {name}")
    if len(files) != 1 or others:
        raise _Refused(400, "form contains too many parts")
    return files[name]


def _check_join_block(block: common_pb2.Block) -> str:
    """Name of the channel whose configuration a block holds. Mirrors ValidateJoinBlock."""
    try:
        if not is_config_block(block):
            raise _Refused(400, "invalid join block: block is not a config block")
        if not block.metadata.metadata:
            raise _Refused(400, "invalid join block: invalid block: does not have metadata")
        try:
            check_data_hash(block)
        except ProtocolError:
            text = "invalid join block: invalid block: Header.DataHash is different from Hash(block.Data)"
            raise _Refused(400, text) from None
        bundle = ChannelBundle.from_block(block)
    except ProtocolError as error:
        raise _Refused(400, f"invalid join block: {error}") from error
    if not bundle.application_msp_ids:
        raise _Refused(400, "invalid join block: invalid config: must contain application config")
    return bundle.channel_id


def _updated_channel(envelope: common_pb2.Envelope) -> str:
    """Name of the channel that an update is for. Mirrors ValidateUpdateConfigEnvelope."""
    what = "bad payload"
    try:
        payload = common_pb2.Payload.FromString(envelope.payload)
        what = "bad header"
        header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        if not payload.header.channel_header:
            raise _Refused(400, f"invalid config update envelope: {what}")
        if header.type != common_pb2.CONFIG_UPDATE:
            raise _Refused(400, "invalid config update envelope: bad type")
        if not header.channel_id:
            raise _Refused(400, "invalid config update envelope: empty channel id")
        what = "bad config update"
        update = configtx_pb2.ConfigUpdateEnvelope.FromString(payload.data)
        return configtx_pb2.ConfigUpdate.FromString(update.config_update).channel_id
    except DecodeError:
        raise _Refused(400, f"invalid config update envelope: {what}") from None
