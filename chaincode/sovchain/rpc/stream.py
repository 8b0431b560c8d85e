"""One gRPC stream of an HTTP/2 connection: messages and their frames, windows, and the end.

A message is one byte that says whether it is compressed (we take and send none that is), four bytes of length, and the
message itself, in as many DATA frames as it takes.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import quote

from sovchain.rpc.errors import RpcError
from sovchain.rpc.wire import (
    ANSWER,
    CANCEL,
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HEAD,
    INTERNAL,
    MAX_EMPTY_FRAMES,
    MAX_WINDOW,
    OK,
    PREFIX,
    RESOURCE_EXHAUSTED,
    RST_STREAM,
    UNIMPLEMENTED,
    WINDOW_UPDATE,
    Fault,
    Headers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sovchain.rpc.http2 import Connection


def _ignore(message: bytes) -> None:
    """Takes messages for a stream that nobody reads any more."""


class Stream:
    """One gRPC stream: messages both ways until one side ends it.

    Attributes:
        path: what the client asked for.
        metadata: the headers that it sent, on the server's side.
        held: whether a message counts against the stream's window until it is given back with `release`; otherwise the
            window opens again as soon as a message has come.
        on_broken: called when the other side cancels the stream or the connection is gone, even if the other side had sent
            all that it had to send before.
        on_sent: called whenever all that was to be sent has left; set by an owner that waits for that.
        on_message: called with each message; those that came before it was set come with the setting.
        on_end: called once when the other side sends nothing more: with None when it ended as it should.
    """

    def __init__(
        self, connection: Connection, stream_id: int, path: str, metadata: dict[bytes, bytes] | None = None
    ) -> None:
        self.path = path
        self.metadata = metadata or {}
        self.held = False
        self.on_broken: Callable[[], None] | None = None
        self.on_sent: Callable[[], None] | None = None
        self._connection = connection
        self.id = stream_id
        self._receive_window = connection.limits.stream_window
        self._owed = 0
        self._send_window = connection.initial_send_window
        self._partial = bytearray()
        self._early: list[bytes] | None = []
        self._on_message: Callable[[bytes], None] = self._early.append
        self._on_end: Callable[[RpcError | None], None] | None = None
        self._end: tuple[RpcError | None] | None = None
        self._unsent: deque[memoryview] = deque()
        self._closing: Headers | None = None
        self._empty = 0
        self.answered = False
        self.local_done = False

    # -- for the owner -----------------------------------------------------------------------------------------------

    def open(self, on_message: Callable[[bytes], None], on_end: Callable[[RpcError | None], None]) -> None:
        """Say who takes the messages and the end."""
        early, self._early = self._early or [], None
        self._on_message, self._on_end = on_message, on_end
        for message in early:
            on_message(message)
        if self._end is not None:
            on_end(*self._end)

    def send(self, message: bytes) -> None:
        """Send a message, as soon as the other side's windows allow; nothing happens on a stream that has ended."""
        if self.local_done or self._closing is not None:
            return
        connection, size = self._connection, len(message) + 5
        if (
            not self._unsent
            and size <= connection.max_send_frame
            and size <= self._send_window
            and size <= connection.send_window
        ):
            self._send_window -= size
            connection.send_window -= size
            connection.write(HEAD.pack(size >> 8, size & 0xFF, DATA, 0, self.id), PREFIX.pack(0, size - 5), message)
            return
        self._unsent.append(memoryview(PREFIX.pack(0, size - 5) + message))
        self.pump()

    def send_last(self, message: bytes) -> None:
        """Send a message and end the stream with it, as the client."""
        connection, size = self._connection, len(message) + 5
        if size > connection.max_send_frame or size > self._send_window or size > connection.send_window:
            self.send(message)
            self.finish()
            return
        self._send_window -= size
        connection.send_window -= size
        self.local_done = True
        head = HEAD.pack(size >> 8, size & 0xFF, DATA, END_STREAM, self.id)
        connection.write(head, PREFIX.pack(0, size - 5), message)

    def finish(self, status: int = OK, text: str = "", details: bytes = b"") -> None:
        """End the stream after what is still to be sent: a server with this status, a client by half-closing."""
        if self.local_done or self._closing is not None:
            return
        self._closing = []
        if self._connection.serves:
            if not self.answered:
                self._closing = list(ANSWER)
            self._closing.append((b"grpc-status", str(status).encode()))
            if text:
                self._closing.append((b"grpc-message", quote(text, safe=" !#$&'()*+,/:;=?@[]").encode()))
            if details:
                self._closing.append((b"grpc-status-details-bin", b64encode(details).rstrip(b"=")))
        self.pump()

    def cancel(self, code: int = CANCEL) -> None:
        """End the stream at once; what was not sent is dropped."""
        self.local_done = True
        self._unsent.clear()
        if self._connection.forget(self):
            self._connection.frame(RST_STREAM, 0, self.id, code.to_bytes(4, "big"))

    def release(self, size: int) -> None:
        """A message of `size` bytes of a held stream was used up: the other side may send as much more."""
        self._owed += size + PREFIX.size
        self._give_back()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the other side's windows."""
        return sum(map(len, self._unsent))

    # -- for the connection ------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send what the windows allow, and the end after it."""
        connection = self._connection
        while self._unsent:
            whole = self._unsent[0]
            size = min(len(whole), connection.max_send_frame, self._send_window, connection.send_window)
            if size <= 0:
                return
            self._send_window -= size
            connection.send_window -= size
            connection.frame(DATA, 0, self.id, whole[:size])
            if size == len(whole):
                self._unsent.popleft()
            else:
                self._unsent[0] = whole[size:]
        if self.on_sent is not None:
            self.on_sent()
        if self._closing is not None and not self.local_done:
            self.local_done = True
            if connection.serves:
                connection.headers(self.id, self._closing, END_STREAM)
            else:
                connection.frame(DATA, END_STREAM, self.id, b"")
            connection.settle(self)

    def widen(self, increment: int) -> None:
        """Allow more bytes to be sent. Raises Fault."""
        self._send_window += increment
        if self._send_window > MAX_WINDOW:
            raise Fault(FLOW_CONTROL_ERROR, "a stream's window grew beyond 2^31-1")
        self.pump()

    def take(self, payload: bytes, length: int) -> None:
        """Take the payload of a DATA frame that counted `length` bytes. Raises Fault."""
        self._receive_window -= length
        if self._receive_window < 0:
            raise Fault(FLOW_CONTROL_ERROR, "a stream sent more than its window")
        self._owed += length
        if payload:
            self._empty = 0
            self._collect(payload)
        else:
            self._empty += 1
            if self._empty > MAX_EMPTY_FRAMES:
                raise Fault(ENHANCE_YOUR_CALM, "too many empty frames")
        self._give_back()

    def _collect(self, payload: bytes) -> None:
        if not self._partial:
            self._messages(payload)
            return
        self._partial += payload
        if len(self._partial) >= 5 and len(self._partial) >= 5 + self._size(self._partial, 0):
            whole, self._partial = self._partial, bytearray()
            self._messages(memoryview(whole))

    def _give_back(self) -> None:
        """Open the window by what nobody holds, half a window or more at a time."""
        if self._owed < self._connection.limits.stream_window // 2 or self.remote_done:
            return
        grown, self._owed = self._owed, 0
        self._receive_window += grown
        self._connection.frame(WINDOW_UPDATE, 0, self.id, grown.to_bytes(4, "big"))

    def _messages(self, data: bytes | memoryview) -> None:
        at, end = 0, len(data)
        while end - at >= 5:
            size = self._size(data, at)
            if size < 0 or end - at - 5 < size:
                break
            if self.held:
                # A message larger than the window was let in piece by piece; whole, it counts until it is used up.
                self._owed -= size + PREFIX.size
            self._on_message(bytes(data[at + 5 : at + 5 + size]))
            at += 5 + size
        if at < end and not self.remote_done:
            self._partial += data[at:]

    def _size(self, data: bytes | bytearray | memoryview, at: int) -> int:
        """The length of the message that begins at `at`; negative after the stream was refused."""
        compressed, size = PREFIX.unpack_from(data, at)
        if compressed:
            return self._refuse(UNIMPLEMENTED, "compressed messages are not taken")
        most = self._connection.limits.message_bytes
        if size > most:
            return self._refuse(RESOURCE_EXHAUSTED, f"a message has {size} bytes, at most {most} are taken")
        return int(size)

    def _refuse(self, status: int, text: str) -> int:
        self.end(RpcError(text, status))
        if self._connection.serves:
            self._unsent.clear()
            self.finish(status, text)
        self.cancel()
        return -1

    def end(self, error: RpcError | None) -> None:
        """The other side sends nothing more."""
        if self._end is not None:
            return
        if error is None and self._partial:
            error = RpcError("the stream ended within a message", INTERNAL)
        self._end, self._partial, self._on_message = (error,), bytearray(), _ignore
        if self._on_end is not None:
            self._on_end(error)

    def broken(self, error: RpcError) -> None:
        """The stream is over for both sides before its time."""
        self.local_done = True
        self._unsent.clear()
        self.end(error)
        if self.on_broken is not None:
            self.on_broken()

    @property
    def remote_done(self) -> bool:
        """Whether the other side has ended the stream."""
        return self._end is not None
