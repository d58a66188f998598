"""A real receiver of webhooks on loopback, and the sink opened towards it."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from bridge.delivery.sink import Endpoint
from bridge.delivery.sinks.webhook import WebhookSettings, WebhookSink
from bridge.journal.store import Entry
from bridge.secret import Referenced

SECRET = "whsec_" + base64.b64encode(b"new-secret-of-32-bytes-in-length").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"old-secret-of-32-bytes-in-length").decode()

ENTRY = Entry(
    partition=0,
    position=1,
    subscription=1,
    sequence=7,
    recorded_ms=1_764_000_000_120,
    id="auvy/job-1/5-0",
    source="auvy",
    subject="job-1",
    type="job.output",
    time="2025-11-24T16:00:00Z",
    traceparent=None,
    data='{"job":{"id":"job-1","source":"auvy","status":"running"},"detail":{"piece":"Grüße"}}'.encode(),
)

Hook = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Delivered:
    """One request as the receiver got it."""

    headers: dict[str, str]
    body: bytes
    certificate: dict[str, Any] | None

    def verified(self, secret: str = SECRET) -> Any:
        """The body as the reference library reads it once it has checked the signature."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """A real server that remembers what it got and answers as told."""

    url: str = ""
    answer: Hook | None = None
    got: list[Delivered] = field(default_factory=list)
    elsewhere: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def hook(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert")
        self.got.append(Delivered(dict(request.headers), await request.read(), certificate))
        self.arrived.set()
        self.arrived = asyncio.Event()
        return web.Response(status=204) if self.answer is None else await self.answer(request)

    async def other(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await self.arrived.wait()


@asynccontextmanager
async def listening(address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application(client_max_size=8 << 20)
    app.add_routes([web.post("/hook/{token}", receiver.hook), web.route("*", "/elsewhere", receiver.other)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, address, 0, ssl_context=tls).start()
    receiver.url = f"http{'s' if tls else ''}://{address}:{runner.addresses[0][1]}/hook/t0ken"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def settings(url: str, **options: Any) -> WebhookSettings:
    """Settings for a receiver on loopback. `secrets` are signing keys in plain text."""
    secret = [Referenced(one) for one in options.pop("secrets", [SECRET])]
    given = {"kind": "webhook", "url": url, "secret": secret, "allow_http": True, "allow_private_networks": True}
    return WebhookSettings.model_validate(given | options)


@asynccontextmanager
async def opened(url: str, clock: Callable[[], float] = time.time, **options: Any) -> AsyncIterator[Endpoint]:
    async with WebhookSink("partner", settings(url, **options), clock).endpoint() as endpoint:
        yield endpoint


def answering(status: int, text: str = "", **headers: str) -> Hook:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer
