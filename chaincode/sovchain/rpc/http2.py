"""HTTP/2 as far as gRPC streams need it, without input or output: bytes in, bytes and calls out.

`Connection` is one end of a connection, in either role. Give it what was received (`receive`), send what it has to say
(`output`); it calls the `Stream`s' `on_message` and `on_end`. Whatever the other side sends, it raises nothing: a violation
ends the connection with GOAWAY and is told to each stream. Limits: frames of 16 KiB, header blocks of 64 KiB, and what the
`Limits` say of messages, streams and windows.

Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK, by the hpack package), grpc/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from hpack import Decoder
from hpack.exceptions import HPACKError

from sovchain.rpc.errors import RpcError
from sovchain.rpc.stream import Stream
from sovchain.rpc.wire import (
    ACK,
    ANSWER,
    CANCEL,
    CANCELLED,
    COMPRESSION_ERROR,
    CONNECTION_WINDOW,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_BYTES,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEAD,
    HEADERS,
    INADEQUATE_SECURITY,
    INTERNAL,
    MAX_ABANDONED_STREAMS,
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_STREAMS,
    MAX_WINDOW,
    NO_ERROR,
    PADDED,
    PERMISSION_DENIED,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RESOURCE_EXHAUSTED,
    RST_STREAM,
    SET_ENABLE_PUSH,
    SET_INITIAL_WINDOW,
    SET_MAX_CONCURRENT,
    SET_MAX_FRAME,
    SET_MAX_HEADER_LIST,
    SETTING,
    SETTINGS,
    STREAM_CLOSED,
    STREAM_WINDOW,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    WINDOW_UPDATE,
    Fault,
    Headers,
    header_block,
)

_KNOWN_MAX: Final = 64
"""Header blocks that are remembered with their meaning."""
_KNOWN_BYTES: Final = 1024
"""Largest of them."""
_NO_TABLE: Final = b"\x20"
"""The header table has no room (RFC 7541, 6.3): said once, since no header of ours ever enters it."""
_CODES: Final = {
    NO_ERROR: INTERNAL,
    REFUSED_STREAM: UNAVAILABLE,
    CANCEL: CANCELLED,
    ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
    INADEQUATE_SECURITY: PERMISSION_DENIED,
}
"""The gRPC status of a stream that was reset with an HTTP/2 code; INTERNAL for others (PROTOCOL-HTTP2.md, Errors)."""
_HTTP_CODES: Final = {
    b"400": INTERNAL,
    b"401": UNAUTHENTICATED,
    b"403": PERMISSION_DENIED,
    b"404": UNIMPLEMENTED,
    b"429": UNAVAILABLE,
    b"502": UNAVAILABLE,
    b"503": UNAVAILABLE,
    b"504": UNAVAILABLE,
}
"""The gRPC status of an answer that is none of gRPC's (http-grpc-status-mapping.md)."""


MUCH: Final = 48
"""Pieces of output (a short message has 3 to 7) that are not held back for more: the other side works on them meanwhile."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one end of a connection takes.

    Attributes:
        message_bytes: largest message, in bytes.
        streams: streams that the other side may have open at a time.
        stream_window: bytes that may be on their way, or wait for a slow reader, on one stream.
    """

    message_bytes: int = MAX_MESSAGE_BYTES
    streams: int = MAX_STREAMS
    stream_window: int = STREAM_WINDOW


class Connection:
    """One end of a connection.

    Args:
        serves: whether this side takes streams, or opens one.
        on_stream: called with each stream that the other side opens; only where `serves`.
        on_output: called when there is something to send, and again when that has become much.
        on_ended: called with each stream that both sides have ended, or that was cancelled.
        limits: what this end takes.
    """

    def __init__(
        self,
        *,
        serves: bool,
        on_output: Callable[[], None],
        on_stream: Callable[[Stream], None] | None = None,
        on_ended: Callable[[Stream], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.serves = serves
        self.limits = limits = limits or Limits()
        self.send_window = DEFAULT_WINDOW
        self.initial_send_window = DEFAULT_WINDOW
        self.max_send_frame = FRAME_BYTES
        self.max_open = MAX_WINDOW
        """Streams that the other side takes at a time."""
        self.closed = False
        """Set after GOAWAY for a violation: close the connection once the output is sent."""
        self.going_away = False
        """The other side takes no new streams."""
        self.settled = False
        """Whether the other side has sent its settings, which is the first thing that it must do."""
        self.answers = 0
        """Answers to PING and SETTINGS since `output` was last sent off."""
        self._on_stream = on_stream
        self._on_output = on_output
        self._on_ended = on_ended
        self._out: list[bytes | memoryview] = []
        self._rest = PREFACE[:0]
        self._preface = PREFACE if serves else b""
        self._receive_window = CONNECTION_WINDOW
        self._streams: dict[int, Stream] = {}
        self._last_id = 0
        self._abandoned = 0
        self._block: tuple[int, int, bytearray] | None = None
        self._decoder = Decoder(max_header_list_size=MAX_HEADER_BYTES)
        self._known_blocks: dict[bytes, dict[bytes, bytes]] = {}
        self._known_requests: dict[str, bytes] = {}
        self._block_prefix = _NO_TABLE
        if not serves:
            self.write(PREFACE)
        settings = {
            SET_INITIAL_WINDOW: limits.stream_window,
            SET_MAX_CONCURRENT: limits.streams,
            SET_MAX_HEADER_LIST: MAX_HEADER_BYTES,
        }
        if not serves:
            settings[SET_ENABLE_PUSH] = 0
        self.frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in settings.items()))
        self.frame(WINDOW_UPDATE, 0, 0, (CONNECTION_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big"))

    # -- for the owner -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the other side."""
        if self.closed:
            return
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        try:
            if self._preface:
                expected = self._preface
                if data[: len(expected)] != expected[:end]:
                    raise Fault(PROTOCOL_ERROR, "this is no HTTP/2 connection")
                if end < len(expected):
                    self._rest = data
                    return
                self._preface, at = b"", len(expected)
            while end - at >= 9:
                high, low, kind, flags, stream_id = HEAD.unpack_from(data, at)
                length = high << 8 | low
                if length > FRAME_BYTES:
                    raise Fault(FRAME_SIZE_ERROR, "a frame is larger than 16 KiB")
                if end - at - 9 < length:
                    break
                at += 9 + length
                self._take(kind, flags, stream_id & MAX_WINDOW, data[at - length : at])
                if self.closed:
                    return
        except Fault as fault:
            self._fail(fault)
            return
        self._rest = data[at:]

    def output(self) -> bytes:
        """What is to be sent now; empties it."""
        out, self._out = self._out, []
        return b"".join(out)

    def request(
        self,
        path: str,
        authority: str,
        *,
        secure: bool,
        timeout_s: float | None = None,
        metadata: Headers | None = None,
    ) -> Stream:
        """Open a stream, as the client.

        Args:
            path: the method, such as `/gateway.Gateway/Evaluate`.
            authority: the host that the server should be; the same for all streams of a connection.
            secure: whether the connection has TLS.
            timeout_s: told to the server, which ends the call after so many seconds.
            metadata: further headers, with names in lower case.

        Raises:
            RpcError: the other side takes no stream any more.
        """
        if self.closed or self.going_away:
            raise RpcError("the connection is closing", unprocessed=True)
        self._last_id += 2 if self._last_id else 1
        stream = self._streams[self._last_id] = Stream(self, self._last_id, path)
        block = self._known_requests.get(path)
        if block is None:
            block = self._known_requests[path] = _request_block(path, authority, secure=secure)
        if timeout_s is not None:
            block += header_block([(b"grpc-timeout", _timeout(timeout_s))])
        if metadata:
            block += header_block(metadata)
        self._send_block(self._last_id, block, 0)
        return stream

    def accept(self, stream: Stream) -> None:
        """Answer a client's stream with the headers of a success."""
        stream.answered = True
        self.headers(stream.id, ANSWER)

    def ping(self) -> None:
        """Ask the other side for a sign of life: any frame from it is one."""
        self.frame(PING, 0, 0, b"sovchain")

    def go_away(self) -> None:
        """Take no more streams; those that are open go on."""
        self.going_away = True
        self.frame(GOAWAY, 0, 0, self._last_id.to_bytes(4, "big") + NO_ERROR.to_bytes(4, "big"))

    def lost(self, reason: str, code: int = UNAVAILABLE) -> None:
        """The connection is gone: tell the streams."""
        self.closed = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.broken(RpcError(reason, code))
            self._ended(stream)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def much(self) -> bool:
        """Whether what waits for `output` should leave now."""
        return len(self._out) >= MUCH

    # -- frames out --------------------------------------------------------------------------------------------------

    def write(self, *parts: bytes | memoryview) -> None:
        """Queue bytes for `output`."""
        out = self._out
        if not out:
            self._on_output()
        out.extend(parts)
        if len(out) >= MUCH and out is self._out:
            self._on_output()

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes | memoryview) -> None:
        """Queue a frame."""
        size = len(payload)
        self.write(HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id), payload)

    def headers(self, stream_id: int, headers: Headers, flags: int = 0) -> None:
        """Queue a header block."""
        self._send_block(stream_id, header_block(headers), flags)

    def _send_block(self, stream_id: int, block: bytes, flags: int) -> None:
        if self._block_prefix:
            block, self._block_prefix = self._block_prefix + block, b""
        if len(block) <= FRAME_BYTES:
            self.frame(HEADERS, END_HEADERS | flags, stream_id, block)
            return
        self.frame(HEADERS, flags, stream_id, block[:FRAME_BYTES])
        for at in range(FRAME_BYTES, len(block), FRAME_BYTES):
            last = END_HEADERS if at + FRAME_BYTES >= len(block) else 0
            self.frame(CONTINUATION, last, stream_id, block[at : at + FRAME_BYTES])

    # -- frames in ---------------------------------------------------------------------------------------------------

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and kind != CONTINUATION:
            raise Fault(PROTOCOL_ERROR, "a header block was interrupted")
        if kind == DATA:
            self._data(flags, stream_id, payload)
            return
        if not self.settled:
            if kind != SETTINGS or flags & ACK:
                raise Fault(PROTOCOL_ERROR, "the connection does not begin with settings")
            self.settled = True
        if kind < len(_HANDLERS):
            _HANDLERS[kind](self, flags, stream_id, payload)

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        self._receive_window -= length
        if self._receive_window < 0:
            raise Fault(FLOW_CONTROL_ERROR, "more was sent than the connection's window")
        if self._receive_window < CONNECTION_WINDOW // 2:
            grown, self._receive_window = CONNECTION_WINDOW - self._receive_window, CONNECTION_WINDOW
            self.frame(WINDOW_UPDATE, 0, 0, grown.to_bytes(4, "big"))
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        if stream.remote_done:
            raise Fault(STREAM_CLOSED, "data came after the end of a stream")
        stream.take(_unpadded(flags, payload), length)
        if flags & END_STREAM:
            stream.end(None)
            self.settle(stream)

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        payload = _unpadded(flags, payload)
        if flags & HAS_PRIORITY:
            if len(payload) < 5:
                raise Fault(FRAME_SIZE_ERROR, "a header frame is too short for its priority")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._header_block(stream_id, flags, payload)
        else:
            self._block = (stream_id, flags, bytearray(payload))

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise Fault(PROTOCOL_ERROR, "a continuation continues nothing")
        _, first_flags, block = self._block
        block += payload
        if len(block) > MAX_HEADER_BYTES or not payload:
            raise Fault(ENHANCE_YOUR_CALM, "a header block is too large")
        if flags & END_HEADERS:
            self._block = None
            self._header_block(stream_id, first_flags, bytes(block))

    def _header_block(self, stream_id: int, flags: int, block: bytes) -> None:
        found = self._known_blocks.get(block)
        if found is None:
            found = self._decode(block)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._more_headers(stream, flags, found)
        elif not self.serves or not stream_id % 2:
            self._check_known(stream_id)
        elif stream_id > self._last_id:
            self._last_id = stream_id
            self._request(stream_id, flags, found)
        # else: headers of a stream that this side has ended meanwhile

    def _decode(self, block: bytes) -> dict[bytes, bytes]:
        table = self._decoder.header_table.dynamic_entries
        tableless = not table
        try:
            found = {_raw(name): _raw(value) for name, value in self._decoder.decode(block, raw=True)}
        except HPACKError as error:
            raise Fault(COMPRESSION_ERROR, "a header block is malformed") from error
        if len(block) > _KNOWN_BYTES:
            self._known_blocks.clear()
        elif (tableless and not table) or all(0x80 < octet < 0xFF for octet in block):
            # It changes no table and, if it refers to one, means the same until that changes. Go answers all calls with
            # such blocks, and our client asks with them.
            if len(self._known_blocks) >= _KNOWN_MAX:
                self._known_blocks.clear()
            self._known_blocks[block] = found
        else:
            self._known_blocks.clear()
        return found

    def _request(self, stream_id: int, flags: int, found: dict[bytes, bytes]) -> None:
        if self.going_away or len(self._streams) >= self.limits.streams:
            self.frame(RST_STREAM, 0, stream_id, REFUSED_STREAM.to_bytes(4, "big"))
            return
        if found.get(b":method") != b"POST" or not found.get(b"content-type", b"").startswith(b"application/grpc"):
            self.headers(stream_id, [(b":status", b"415")], END_STREAM)
            return
        path = found.get(b":path", b"").decode("utf-8", "replace")[:200]
        stream = self._streams[stream_id] = Stream(self, stream_id, path, found)
        if self._on_stream is not None:
            self._on_stream(stream)
        if flags & END_STREAM:
            stream.end(None)
            self.settle(stream)

    def _more_headers(self, stream: Stream, flags: int, found: dict[bytes, bytes]) -> None:
        if stream.remote_done:
            raise Fault(STREAM_CLOSED, "headers came after the end of a stream")
        if self.serves:
            if not flags & END_STREAM:
                raise Fault(PROTOCOL_ERROR, "headers came within a stream")
            stream.end(None)
        else:
            error = _answer(stream, flags, found)
            if error is not None or flags & END_STREAM:
                stream.end(error)
        self.settle(stream)

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        code = _number(payload)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        self._abandoned += self.serves
        if self._abandoned > MAX_ABANDONED_STREAMS:
            raise Fault(ENHANCE_YOUR_CALM, "too many streams were cancelled")
        text = f"the other side cancelled the stream (HTTP/2 error code {code})"
        stream.broken(RpcError(text, _CODES.get(code, INTERNAL), unprocessed=code == REFUSED_STREAM))
        self.forget(stream)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Fault(PROTOCOL_ERROR, "settings came on a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise Fault(FRAME_SIZE_ERROR, "a settings frame has a wrong size")
        if flags & ACK:
            return
        for name, value in SETTING.iter_unpack(payload):
            self._set(name, value)
        self.answers += 1
        self.frame(SETTINGS, ACK, 0, b"")

    def _set(self, name: int, value: int) -> None:
        if name == SET_ENABLE_PUSH and value > 1:
            raise Fault(PROTOCOL_ERROR, "a setting is neither on nor off")
        if name == SET_MAX_CONCURRENT:
            self.max_open = value
        elif name == SET_INITIAL_WINDOW:
            if value > MAX_WINDOW:
                raise Fault(FLOW_CONTROL_ERROR, "the initial window is larger than 2^31-1")
            change, self.initial_send_window = value - self.initial_send_window, value
            for stream in list(self._streams.values()):
                stream.widen(change)
        elif name == SET_MAX_FRAME:
            if not FRAME_BYTES <= value < 2**24:
                raise Fault(PROTOCOL_ERROR, "the largest frame has an impossible size")
            self.max_send_frame = value

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Fault(PROTOCOL_ERROR, "a ping came on a stream")
        if len(payload) != 8:
            raise Fault(FRAME_SIZE_ERROR, "a ping has a wrong size")
        if not flags & ACK:
            self.answers += 1
            self.frame(PING, ACK, 0, payload)

    def _goaway(self, flags: int, connection_id: int, payload: bytes) -> None:
        if connection_id or len(payload) < 8:
            raise Fault(PROTOCOL_ERROR, "a goaway is malformed")
        self.going_away = True
        last = _number(payload[:4]) & MAX_WINDOW
        for stream_id in [each for each in self._streams if each > last and not self.serves]:
            stream = self._streams[stream_id]
            stream.broken(RpcError("the other side took no more streams", unprocessed=True))
            self.forget(stream)

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        increment = _number(payload) & MAX_WINDOW
        if not increment:
            raise Fault(PROTOCOL_ERROR, "a window grew by nothing")
        if stream_id:
            stream = self._streams.get(stream_id)
            if stream is None:
                self._check_known(stream_id)
            else:
                stream.widen(increment)
            return
        self.send_window += increment
        if self.send_window > MAX_WINDOW:
            raise Fault(FLOW_CONTROL_ERROR, "the connection's window grew beyond 2^31-1")
        for stream in list(self._streams.values()):
            stream.pump()

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id or len(payload) != 5:
            raise Fault(PROTOCOL_ERROR, "a priority is malformed")

    def _push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise Fault(PROTOCOL_ERROR, "nothing may be pushed")

    # -- state -------------------------------------------------------------------------------------------------------

    def settle(self, stream: Stream) -> None:
        """Forget a stream that both sides have ended; a server that ends first tells the client to stop."""
        ended = stream.local_done and (stream.remote_done or self.serves)
        if ended and self.forget(stream):
            self._abandoned = max(self._abandoned - 1, 0)
            if not stream.remote_done:
                self.frame(RST_STREAM, 0, stream.id, NO_ERROR.to_bytes(4, "big"))

    def forget(self, stream: Stream) -> bool:
        """Take a stream off the list; whether it was there."""
        found = self._streams.pop(stream.id, None) is not None
        if found:
            self._ended(stream)
        return found

    def _ended(self, stream: Stream) -> None:
        if self._on_ended is not None:
            self._on_ended(stream)

    def _check_known(self, stream_id: int) -> None:
        """A frame is for no open stream: allowed only for one that was open before."""
        if not stream_id or stream_id > self._last_id or not stream_id % 2:
            raise Fault(PROTOCOL_ERROR, "a frame names a stream that was never opened")

    def _fail(self, fault: Fault) -> None:
        text = str(fault)
        self.frame(GOAWAY, 0, 0, self._last_id.to_bytes(4, "big") + fault.code.to_bytes(4, "big") + text.encode())
        self.lost(f"the other side broke HTTP/2: {text}")


_HANDLERS: Final = (
    Connection._data,
    Connection._headers,
    Connection._priority,
    Connection._rst_stream,
    Connection._settings,
    Connection._push_promise,
    Connection._ping,
    Connection._goaway,
    Connection._window_update,
    Connection._continuation,
)


def _answer(stream: Stream, flags: int, found: dict[bytes, bytes]) -> RpcError | None:
    """What is wrong with a server's headers or trailers, if anything."""
    if not stream.answered and found.get(b":status", b"200") != b"200" and b"grpc-status" not in found:
        status = found[b":status"]
        return RpcError(f"the other side answered with HTTP status {_text(status)}", _HTTP_CODES.get(status, UNKNOWN))
    stream.answered = True
    status = found.get(b"grpc-status", b"")
    if status == b"0":
        return None
    if not status:
        if not flags & END_STREAM:
            return None
        return RpcError("the other side ended the stream without a status", INTERNAL)
    code = int(status) if status.isdigit() and len(status) < 4 else UNKNOWN
    text = unquote(_text(found.get(b"grpc-message", b"")), errors="replace")
    return RpcError(text, code, _binary(found.get(b"grpc-status-details-bin", b"")), told=True)


def _request_block(path: str, authority: str, *, secure: bool) -> bytes:
    return header_block(
        [
            (b":method", b"POST"),
            (b":scheme", b"https" if secure else b"http"),
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"grpc-python-sovchain"),
        ]
    )


def _timeout(seconds: float) -> bytes:
    """At most eight digits and a unit (PROTOCOL-HTTP2.md, Requests); no finer than it need be, so that blocks repeat."""
    millis = int(seconds * 1000)
    if millis < 1000:
        return b"%du" % max(int(seconds * 1e6), 1)
    return b"%dm" % millis if millis < 100_000_000 else b"%dS" % min(millis // 1000, 99_999_999)


def _binary(value: bytes) -> bytes:
    """The bytes of a `-bin` header, which comes in base64, as a rule without padding; none if it is malformed."""
    try:
        return b64decode(value + b"=" * (-len(value) % 4))
    except Base64Error:
        return b""


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _raw(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _number(payload: bytes) -> int:
    if len(payload) != 4:
        raise Fault(FRAME_SIZE_ERROR, "a frame has a wrong size")
    return int.from_bytes(payload, "big")


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Fault(PROTOCOL_ERROR, "a frame is shorter than its padding")
    return payload[1 : len(payload) - payload[0]]
