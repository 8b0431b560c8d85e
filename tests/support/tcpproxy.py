"""A TCP proxy on loopback that fails as a test tells it: silence without a word, delays, cuts, refusals. It counts its bytes."""

from __future__ import annotations

import asyncio
from types import TracebackType


class TcpProxy:
    """Stands before a port; `port` is its own."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self.port = 0
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.cut_after_down: int | None = None
        self.cut_after_up: int | None = None
        self.delay_s = 0.0
        """How long each piece of data is held back, in seconds."""
        self.cuts = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def partition(self) -> None:
        """From now on nothing comes through, in either direction, and nobody is told."""
        self._flowing.clear()

    def heal(self) -> None:
        """Let it through again."""
        self._flowing.set()

    def cut(self) -> None:
        """End all connections at once, as a reset."""
        self.cuts += 1
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self, refusing: bool) -> None:
        """Whether new connections are closed at once."""
        self._refusing = refusing

    def _allow(self, down: bool, left: int | None) -> None:
        if down:
            self.cut_after_down = left
        else:
            self.cut_after_up = left

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward_writer}
        up = asyncio.create_task(self._pump(reader, onward_writer, down=False))
        down = asyncio.create_task(self._pump(onward_reader, writer, down=True))
        for task in (up, down):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        def end(task: asyncio.Task[None]) -> None:
            for one in (writer, onward_writer):
                one.transport.abort()
                self._writers.discard(one)

        up.add_done_callback(end)
        down.add_done_callback(end)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool) -> None:
        try:
            while data := await reader.read(65_536):
                await self._flowing.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if down:
                    self.bytes_down += len(data)
                else:
                    self.bytes_up += len(data)
                left = self.cut_after_down if down else self.cut_after_up
                if left is not None:
                    data, left = data[:left], left - len(data)
                    self._allow(down, left)
                writer.write(data)
                await writer.drain()
                if left is not None and left <= 0:
                    self._allow(down, None)
                    self.cut()
                    return
        except (OSError, ConnectionError):
            return
