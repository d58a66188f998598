"""The network between a bridge and its broker, which a test can cut and mend while both stay alive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cable:
    """A way to the broker at that address; clients take the one at `servers`.

    Restarting the embedded broker will not do: it forgets an open transaction and says yes to its commit all the same.
    In what the broker answers, its own address is replaced by the cable's, so that no client goes past it.
    """

    def __init__(self, broker: str) -> None:
        self._host, _, port = broker.partition(":")
        self._broker_port, self._port = int(port), free_port()
        self.servers = f"{self._host}:{self._port}"
        self._calls: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

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
        await asyncio.gather(*self._calls)

    def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.create_task(self._join(reader, writer))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(self._host, self._broker_port)
        ends = {writer, to_broker}
        self._ends |= ends
        if self._server is None:  # cut while we called the broker
            writer.transport.abort()
            to_broker.transport.abort()
        theirs, ours = (self._host.encode() + port.to_bytes(4) for port in (self._broker_port, self._port))
        await asyncio.gather(_carry(reader, to_broker), _carry(from_broker, writer, theirs, ours))
        self._ends -= ends


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, old: bytes = b"", new: bytes = b""
) -> None:
    """Kafka's length-prefixed frames from one end to the other, until either is gone; then neither stays."""
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            size = await reader.readexactly(4)
            frame = await reader.readexactly(int.from_bytes(size))
            writer.write(size + (frame.replace(old, new) if old else frame))
            await writer.drain()
    writer.transport.abort()
