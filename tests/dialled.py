"""What is dialled in the tests: web servers, a proxy, names with addresses of our choice, and the pool that dials."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from aiohttp import ClientSession
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection

from bridge.delivery.dialling import DiallingConnector, DiallingSettings

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    serve: Serve, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server's port. It ends when everybody whom it served has hung up."""
    under_way: set[asyncio.Task[None] | None] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(one, address, port, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, under_way))


@dataclass
class Site:
    """A web server at one address that counts who came as far as its door."""

    address: str
    port: int
    visits: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        kept = b"keep-alive"
        while kept == b"keep-alive":
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            kept = b"close" if b"connection: close" in head else b"keep-alive"
            body = self.address.encode() + b" " + head.partition(b"host: ")[2].partition(b"\r\n")[0]
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n" % (kept, len(body)) + body)


@asynccontextmanager
async def sites(*addresses: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[list[Site]]:
    """The same port at every address, as a flipping name needs it."""
    async with AsyncExitStack() as stack:
        opened: list[Site] = []
        for address in addresses:
            site = Site(address, opened[0].port if opened else 0)
            site.port = await stack.enter_async_context(serving(site.serve, address, site.port, tls))
            opened.append(site)
        yield opened


class Flipping(AbstractResolver):
    """Gives each look-up the next of its answers."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = cycle(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in next(self._answers)
        ]

    async def close(self) -> None:
        pass


class Noting(DiallingConnector):
    """Remembers whose connections it handed out, new and old."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.handed_out: list[str | None] = []

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        connection = await super().connect(*args, **kwargs)
        self.handed_out.append(self.address_of(connection))
        return connection


@dataclass
class Pool:
    """An open pool, and whom it says it dialled."""

    session: ClientSession
    connector: Noting
    dialled: list[str]

    async def get(self, url: str, **options: Any) -> str:
        async with self.session.get(url, **options) as answer:
            return await answer.text()


@asynccontextmanager
async def pool(resolver: AbstractResolver | None = None, **options: Any) -> AsyncIterator[Pool]:
    dialled: list[str] = []
    connector = Noting(
        DiallingSettings.model_validate({"url": "https://partner.test", "allow_ports": range(1, 65_536)} | options),
        limit=4,
        keepalive_timeout_s=5.0,
        dialling=dialled.append,
        resolver=resolver,
    )
    connector._use_dns_cache = False  # every connection looks its name up again
    async with ClientSession(connector=connector) as session:
        yield Pool(session, connector, dialled)


@dataclass
class Middleman:
    """A proxy that connects wherever it is told, and can be made to behave otherwise."""

    port: int = 0
    answer: bytes = b"HTTP/1.1 200 Connection established\r\nVia: us\r\n\r\n"
    asked: list[str] = field(default_factory=list)
    rang: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        self.rang.set()
        writer.write(self.answer)
        if self.answer.startswith(b"HTTP/1.1 200"):
            host, _, port = head.split(" ")[1].rpartition(":")
            there = await asyncio.open_connection(host.strip("[]"), int(port))
            await asyncio.gather(relay(reader, there[1]), relay(there[0], writer))
        elif self.answer:
            writer.write_eof()
        await reader.read()
        self.hung_up.set()

    @property
    def options(self) -> dict[str, Any]:
        return {"proxy": f"http://localhost:{self.port}"}

    @property
    def targets(self) -> list[str]:
        return [head.split(" ")[1] for head in self.asked]


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            writer.write(piece)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def middleman() -> AsyncIterator[Middleman]:
    proxy = Middleman()
    async with serving(proxy.serve) as proxy.port:
        yield proxy
