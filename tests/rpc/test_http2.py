"""Our HTTP/2: what one end says the other understands, and nothing that a hostile end sends raises, hangs or grows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovchain.rpc import wire
from sovchain.rpc.errors import RpcError
from sovchain.rpc.http2 import Connection, Limits
from sovchain.rpc.stream import Stream

PATH = "/protos.Chaincode/Connect"


class End:
    """One end of a connection, with what arrived at it."""

    def __init__(self, *, serves: bool, accept: bool = True, limits: Limits | None = None) -> None:
        self.connection = Connection(serves=serves, on_stream=self._opened, on_output=lambda: None, limits=limits)
        self.streams: list[Stream] = []
        self.messages: list[bytes] = []
        self.ends: list[RpcError | None] = []
        self._accept = accept

    def _opened(self, stream: Stream) -> None:
        self.streams.append(stream)
        if self._accept:
            self.connection.accept(stream)
        stream.open(self.messages.append, self.ends.append)

    def request(self) -> Stream:
        stream = self.connection.request(PATH, "host", secure=True)
        stream.open(self.messages.append, self.ends.append)
        self.streams.append(stream)
        return stream


def exchange(client: End, server: End, chunk: Callable[[int], int] = lambda size: size) -> None:
    """Carry bytes both ways until nobody has anything to say, in pieces of the sizes that `chunk` gives."""
    while True:
        moved = 0
        for source, target in ((client, server), (server, client)):
            data = source.connection.output()
            moved += len(data)
            while data:
                size = max(1, chunk(len(data)))
                target.connection.receive(data[:size])
                data = data[size:]
        if not moved:
            return


def pair(limits: Limits | None = None) -> tuple[End, End, Stream, Stream]:
    client, server = End(serves=False), End(serves=True, limits=limits)
    ours = client.request()
    exchange(client, server)
    return client, server, ours, server.streams[0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.binary(max_size=200) | st.integers(10_000, 200_000)), max_size=12),
    st.integers(1, 70_000),
)
def test_messages_arrive_whole_and_in_order_however_the_bytes_are_cut(
    sent: list[tuple[bool, bytes | int]], size: int
) -> None:
    client, server, ours, theirs = pair()
    said: dict[bool, list[bytes]] = {True: [], False: []}
    for from_client, content in sent:
        message = content if isinstance(content, bytes) else bytes([content % 251]) * content
        (ours if from_client else theirs).send(message)
        said[from_client].append(message)
    exchange(client, server, lambda length: max(size, length // 300))
    assert (server.messages, client.messages) == (said[True], said[False])
    ours.finish()
    exchange(client, server)
    assert server.ends == [None]
    theirs.finish()
    exchange(client, server)
    assert client.ends == [None]
    assert (client.connection.streams, server.connection.streams) == (0, 0)


def test_a_message_larger_than_every_window_arrives() -> None:
    client, server, ours, theirs = pair()
    message = bytes(20_000_000)
    ours.send(message)
    theirs.send(message)
    theirs.send(b"after")
    assert ours.unsent_bytes > 0
    exchange(client, server)
    assert server.messages == [message]
    assert client.messages == [message, b"after"]
    assert ours.unsent_bytes == 0


@pytest.mark.parametrize("size", [0, 1, 1_000])
def test_what_nobody_takes_up_is_bounded_however_small_the_messages(size: int) -> None:
    client, server, ours, theirs = pair(Limits(stream_window=65_535))
    theirs.held = True
    most = 65_535 // (size + wire.PREFIX.size)
    message = bytes(size)
    for _ in range(most + 1000):
        ours.send(message)
    exchange(client, server)
    assert len(server.messages) <= most
    assert ours.unsent_bytes > 0
    taken = 0
    while taken < len(server.messages):
        theirs.release(len(server.messages[taken]))
        taken += 1
        if taken == len(server.messages):
            exchange(client, server)
    assert len(server.messages) == most + 1000


def test_a_status_reaches_the_client_with_its_text() -> None:
    client, server, _, theirs = pair()
    theirs.finish(13, "it broke: 100 % α")
    exchange(client, server)
    assert "gRPC status 13: it broke: 100 % α" in str(client.ends[0])
    assert server.connection.streams == client.connection.streams == 0


def test_a_stream_that_was_not_accepted_ends_with_headers_alone() -> None:
    client, server = End(serves=False), End(serves=True, accept=False)
    client.request()
    exchange(client, server)
    server.streams[0].finish(wire.UNIMPLEMENTED, "no such method")
    exchange(client, server)
    assert "gRPC status 12: no such method" in str(client.ends[0])


def test_what_is_sent_on_an_ended_stream_goes_nowhere() -> None:
    client, server, ours, theirs = pair()
    theirs.finish()
    theirs.send(b"late")
    exchange(client, server)
    ours.send(b"late")
    exchange(client, server)
    assert (client.messages, server.messages) == ([], [])
    assert not client.connection.closed
    assert not server.connection.closed


def test_a_client_that_has_said_all_still_takes_messages_in_pieces() -> None:
    client, server, ours, theirs = pair()
    ours.finish()
    theirs.send(b"x" * 100)
    theirs.send(b"y" * 50_000)
    theirs.finish()
    exchange(client, server, lambda length: 7)
    assert [len(message) for message in client.messages] == [100, 50_000]
    assert client.ends == [None]


def test_a_cancelled_stream_ends_at_the_other_side() -> None:
    client, server, ours, _ = pair()
    ours.cancel()
    exchange(client, server)
    assert "cancelled the stream" in str(server.ends[0])


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return wire.HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


SETTINGS = frame(wire.SETTINGS, 0, 0, b"")
GRPC = 5  # bytes before a message


def opened() -> End:
    """A server with one open stream, number 1."""
    client, server = End(serves=False), End(serves=True)
    client.request()
    exchange(client, server)
    return server


VIOLATIONS = {
    "no preface": (b"GET / HTTP/1.1\r\n\r\n", None),
    "no settings first": (wire.PREFACE + frame(wire.PING, 0, 0, bytes(8)), wire.PROTOCOL_ERROR),
    "settings answered first": (wire.PREFACE + frame(wire.SETTINGS, wire.ACK, 0, b""), wire.PROTOCOL_ERROR),
    "a large frame": (wire.HEAD.pack(0x100, 0, wire.DATA, 0, 1), wire.FRAME_SIZE_ERROR),
    "data on no stream": (frame(wire.DATA, 0, 0, b"x"), wire.PROTOCOL_ERROR),
    "data on an idle stream": (frame(wire.DATA, 0, 7, b"x"), wire.PROTOCOL_ERROR),
    "data on an even stream": (frame(wire.DATA, 0, 2, b"x"), wire.PROTOCOL_ERROR),
    "padding beyond the frame": (frame(wire.DATA, wire.PADDED, 1, b"\x05x"), wire.PROTOCOL_ERROR),
    "padding without a length": (frame(wire.DATA, wire.PADDED, 1, b""), wire.PROTOCOL_ERROR),
    "data after the end": (
        frame(wire.DATA, wire.END_STREAM, 1, b"") + frame(wire.DATA, 0, 1, b"x"),
        wire.STREAM_CLOSED,
    ),
    "headers on an even stream": (frame(wire.HEADERS, wire.END_HEADERS, 4, b"\x82"), wire.PROTOCOL_ERROR),
    "headers within a stream": (frame(wire.HEADERS, wire.END_HEADERS, 1, b"\x83"), wire.PROTOCOL_ERROR),
    "malformed headers": (
        frame(wire.HEADERS, wire.END_HEADERS, 3, b"\xff\xff\xff\xff\xff\xff"),
        wire.COMPRESSION_ERROR,
    ),
    "short priority": (frame(wire.HEADERS, wire.HAS_PRIORITY | wire.END_HEADERS, 3, b"x"), wire.FRAME_SIZE_ERROR),
    "an interrupted header block": (
        frame(wire.HEADERS, 0, 3, b"\x82") + frame(wire.PING, 0, 0, bytes(8)),
        wire.PROTOCOL_ERROR,
    ),
    "a continuation of nothing": (frame(wire.CONTINUATION, wire.END_HEADERS, 1, b"\x82"), wire.PROTOCOL_ERROR),
    "an endless header block": (
        frame(wire.HEADERS, 0, 3, b"\x82") + frame(wire.CONTINUATION, 0, 3, bytes(16_000)) * 5,
        wire.ENHANCE_YOUR_CALM,
    ),
    "empty continuations": (
        frame(wire.HEADERS, 0, 3, b"\x82") + frame(wire.CONTINUATION, 0, 3, b""),
        wire.ENHANCE_YOUR_CALM,
    ),
    "settings on a stream": (frame(wire.SETTINGS, 0, 1, b""), wire.PROTOCOL_ERROR),
    "settings of a wrong size": (frame(wire.SETTINGS, 0, 0, b"12345"), wire.FRAME_SIZE_ERROR),
    "a window too large": (
        frame(wire.SETTINGS, 0, 0, wire.SETTING.pack(wire.SET_INITIAL_WINDOW, 2**31)),
        wire.FLOW_CONTROL_ERROR,
    ),
    "frames too small": (frame(wire.SETTINGS, 0, 0, wire.SETTING.pack(wire.SET_MAX_FRAME, 1)), wire.PROTOCOL_ERROR),
    "half a push": (frame(wire.SETTINGS, 0, 0, wire.SETTING.pack(wire.SET_ENABLE_PUSH, 2)), wire.PROTOCOL_ERROR),
    "a push": (frame(wire.PUSH_PROMISE, 0, 1, bytes(4)), wire.PROTOCOL_ERROR),
    "a ping on a stream": (frame(wire.PING, 0, 1, bytes(8)), wire.PROTOCOL_ERROR),
    "a short ping": (frame(wire.PING, 0, 0, bytes(7)), wire.FRAME_SIZE_ERROR),
    "a window that grows by nothing": (frame(wire.WINDOW_UPDATE, 0, 1, bytes(4)), wire.PROTOCOL_ERROR),
    "a window that overflows": (
        frame(wire.WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4, "big")),
        wire.FLOW_CONTROL_ERROR,
    ),
    "a stream's window that overflows": (
        frame(wire.WINDOW_UPDATE, 0, 1, (2**31 - 1).to_bytes(4, "big")),
        wire.FLOW_CONTROL_ERROR,
    ),
    "a reset of an idle stream": (frame(wire.RST_STREAM, 0, 9, bytes(4)), wire.PROTOCOL_ERROR),
    "a short reset": (frame(wire.RST_STREAM, 0, 1, b"x"), wire.FRAME_SIZE_ERROR),
    "a short goaway": (frame(wire.GOAWAY, 0, 0, b"x"), wire.PROTOCOL_ERROR),
    "a malformed priority": (frame(wire.PRIORITY, 0, 1, b"x"), wire.PROTOCOL_ERROR),
    "empty frames without end": (frame(wire.DATA, 0, 1, b"") * 1100, wire.ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_ends_the_connection_with_its_error_code(name: str) -> None:
    data, code = VIOLATIONS[name]
    fresh = data.startswith(wire.PREFACE[:4]) or code is None
    server = End(serves=True) if fresh else opened()
    server.connection.output()
    server.connection.receive(data)
    assert server.connection.closed
    out = server.connection.output()
    at = out.rindex(frame(wire.GOAWAY, 0, 0, b"")[3:5])
    assert int.from_bytes(out[at + 10 : at + 14], "big") == (wire.PROTOCOL_ERROR if code is None else code)
    assert all(isinstance(error, RpcError) for error in server.ends[1:])
    assert len(server.ends) == len(server.streams)
    server.connection.receive(data)  # nothing more is taken
    assert server.connection.output() == b""


def test_more_data_than_the_window_is_a_violation() -> None:
    server = opened()
    server.connection._receive_window = 10
    server.connection.receive(frame(wire.DATA, 0, 1, bytes(11)))
    assert server.connection.closed


def test_streams_that_are_opened_and_cancelled_end_the_connection() -> None:
    """Rapid reset, CVE-2023-44487."""
    client, server = End(serves=False), End(serves=True)
    for _ in range(wire.MAX_ABANDONED_STREAMS + 10):
        if client.connection.closed or client.connection.going_away:
            break
        client.request().cancel()
        exchange(client, server)
    assert server.connection.closed
    assert len(server.streams) <= wire.MAX_ABANDONED_STREAMS + 1


def test_streams_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    client, server = End(serves=False), End(serves=True)
    ours = [client.request() for _ in range(wire.MAX_STREAMS + 3)]
    exchange(client, server)
    assert len(server.streams) == wire.MAX_STREAMS
    assert len(client.ends) == 3
    ours[0].send(b"works")
    exchange(client, server)
    assert server.messages == [b"works"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"\x00\xff\xff\xff\xff", "at most"),
        (b"\x00\x06\x40\x00\x01", "at most"),
        (b"\x01\x00\x00\x00\x01x", "compressed"),
    ],
)
def test_a_message_that_is_too_large_or_compressed_ends_its_stream_before_it_is_taken(
    message: bytes, text: str
) -> None:
    """The length alone decides: nothing of a 4 GiB message is kept."""
    server = opened()
    server.connection.receive(frame(wire.DATA, 0, 1, message + bytes(1000)))
    assert text in str(server.ends[0])
    assert not server.connection.closed
    assert b"grpc-status" in server.connection.output()
    server.connection.receive(frame(wire.DATA, 0, 1, bytes(1000)))  # what was on its way is dropped
    assert server.messages == []


def test_a_message_of_the_largest_size_is_taken() -> None:
    server = opened()
    size = wire.MAX_MESSAGE_BYTES
    server.connection.receive(frame(wire.DATA, 0, 1, wire.PREFIX.pack(0, size)))
    piece = frame(wire.DATA, 0, 1, bytes(16_384)) * 64
    for _ in range(size // 16_384 // 64):
        server.connection.receive(piece)
        server.connection.output()
    assert [len(message) for message in server.messages] == [size]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_no_bytes_raise(data: bytes, serves: bool, polite: bool) -> None:
    end = End(serves=serves)
    if not serves:
        end.request()
    if polite:
        end.connection.receive((wire.PREFACE if serves else b"") + SETTINGS)
    end.connection.receive(data)
    end.connection.output()


FRAMES = st.builds(
    frame,
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]),
    st.sampled_from([0, 1, 1, 1, 3, 5, 2, 2**31 - 1]),
    st.binary(max_size=40) | st.sampled_from([bytes(4), bytes(8), b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00\x05hello"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=20), st.booleans())
def test_no_sequence_of_frames_raises_and_each_stream_ends_at_most_once(frames: list[bytes], serves: bool) -> None:
    client, server, _, _ = pair()
    target = server if serves else client
    for each in frames:
        target.connection.receive(each)
    target.connection.output()
    target.connection.lost("over")
    assert len(target.ends) <= len(target.streams)
    assert target.connection.streams == 0


def test_a_flood_of_headers_does_not_grow_memory() -> None:
    server = opened()
    tracemalloc.start()
    try:
        for _ in range(2000):
            server.connection.receive(frame(wire.PING, 0, 0, bytes(8)) * 10)
            server.connection.output()
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()
