"""A web server for tests of our clients: real sockets, and whatever reply the test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(reply: Reply, path: str = "/jobs") -> AsyncIterator[str]:
    """A server that gives the same reply everywhere; the address of that path on it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", reply)
    async with TestServer(app) as server:
        yield str(server.make_url(path))
