"""The network between a bridge and whom it speaks to, which a test can cut, mend and stall while both stay alive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_CHUNK_BYTES = 64 << 10
_END_TXN = 26
"""The key of Kafka's request that commits or aborts a transaction."""


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Line:
    """A way to the server at that address (`host:port`); clients take the one at `address`."""

    def __init__(self, server: str) -> None:
        self._host, _, port = server.partition(":")
        self._server_port, self._port = int(port), free_port()
        self.address = f"{self._host}:{self._port}"
        self._calls: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[None]:
        """Whole at first; gone when the context ends."""
        await self.mend()
        try:
            yield
        finally:
            await self.cut()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._call, self._host, self._port)

    async def cut(self) -> None:
        """Every connection breaks, and new ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in self._ends:
            end.transport.abort()
        self.flow()
        await asyncio.gather(*self._calls)

    def stall(self) -> None:
        """Connections stay open and new ones are accepted, but nothing comes through until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let everything through, what was held back first."""
        self._flowing.set()

    async def _from_client(self, reader: asyncio.StreamReader) -> bytes:
        """The next piece, empty at the end."""
        return await reader.read(_CHUNK_BYTES)

    async def _from_server(self, reader: asyncio.StreamReader) -> bytes:
        """The next piece, empty at the end."""
        return await reader.read(_CHUNK_BYTES)

    def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.create_task(self._join(reader, writer))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(self._host, self._server_port)
        except OSError:  # the server is away
            writer.transport.abort()
            return
        ends = {writer, to_server}
        self._ends |= ends
        if self._server is None:  # cut while we called the server
            writer.transport.abort()
            to_server.transport.abort()
        await asyncio.gather(
            self._carry(self._from_client, reader, to_server), self._carry(self._from_server, from_server, writer)
        )
        self._ends -= ends

    async def _carry(
        self,
        read: Callable[[asyncio.StreamReader], Awaitable[bytes]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """From one end to the other, until either is gone; then neither stays."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while piece := await read(reader):
                await self._flowing.wait()
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()


@dataclass(slots=True)
class Trap:
    """Keeps back one commit on its way to the broker, or the answer to one."""

    answer: bool
    caught: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    """Set before the trap opens: what is in it never arrives, and its connection breaks."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    correlation: bytes | None = None

    async def spring(self) -> None:
        self.caught.set()
        await self.opened.wait()
        if self.lost:
            raise ConnectionAbortedError("lost on the way")


class Cable(Line):
    """A way to the broker at that address; clients take the one at `servers`.

    Restarting the embedded broker will not do: it forgets an open transaction and says yes to its commit all the same.
    In what the broker answers, its own address is replaced by the cable's, so that no client goes past it.
    """

    def __init__(self, broker: str) -> None:
        super().__init__(broker)
        self.servers = self.address
        self._trap: Trap | None = None
        self._theirs, self._ours = (self._host.encode() + port.to_bytes(4) for port in (self._server_port, self._port))

    @asynccontextmanager
    async def trap(self, *, answer: bool) -> AsyncIterator[Trap]:
        """Keep back the next commit, or the answer to it, until the context ends. All other traffic passes."""
        trap = self._trap = Trap(answer)
        try:
            yield trap
        finally:
            self._trap = None
            trap.opened.set()

    async def _from_client(self, reader: asyncio.StreamReader) -> bytes:
        frame = await _frame(reader)
        trap = self._trap
        if trap is not None and trap.correlation is None and int.from_bytes(frame[4:6]) == _END_TXN:
            trap.correlation = frame[8:12]
            if not trap.answer:
                await trap.spring()
        return frame

    async def _from_server(self, reader: asyncio.StreamReader) -> bytes:
        frame = await _frame(reader)
        trap = self._trap
        if trap is not None and trap.answer and frame[4:8] == trap.correlation:
            await trap.spring()
        return frame.replace(self._theirs, self._ours)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One of Kafka's length-prefixed frames, its length included."""
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size))
