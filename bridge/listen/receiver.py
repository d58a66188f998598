"""The receiver itself: takes a delivery, has it judged, tells of it, and answers as it was told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from bridge.listen.history import NOTHING, History, Remarks
from bridge.listen.options import Mood
from bridge.listen.reading import Event, read
from bridge.listen.verifying import Flaw, Proof, Verifier

BODY_BYTES_MAX = 4 << 20
"""Four times what a webhook sink sends by default."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request, and all that came out about it."""

    number: int
    at_s: float
    headers: dict[str, str]
    """Only those that webhooks are about: custom ones may hold credentials."""
    body_bytes: int
    status: int
    """What it is answered with."""
    flaw: Flaw | None = None
    proof: Proof | None = None
    event: Event | None = None
    remarks: Remarks = NOTHING


Refresh = Callable[[], Awaitable[bool]]
"""Fetches keys anew for the verifier; tells whether there may be others now."""


class Receiver:
    """One address for every path. `tell` hears of each delivery before its answer goes out."""

    def __init__(
        self,
        verifier: Verifier,
        mood: Mood,
        *,
        tell: Callable[[Delivery], None],
        hung_up: Callable[[int], None],
        stopping: asyncio.Event,
        refresh: Refresh | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.history = History()
        self._verifier = verifier
        self._mood = mood
        self._tell = tell
        self._hung_up = hung_up
        self._stopping = stopping
        self._refresh = refresh
        self._clock = clock
        self._arrived = 0
        self._genuine = 0

    def application(self) -> web.Application:
        """The hook; other methods than POST get 405."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.add_routes([web.post("/{path:.*}", self._hook)])
        return app

    async def _hook(self, request: web.Request) -> web.Response:
        self._arrived += 1
        number = self._arrived
        try:
            body = await _body(request)
            proof = await self._proof(request, body)
        except Flaw as flaw:
            return self._refused(number, request, flaw)
        self._genuine += 1
        status, now_s, headers = self._mood.answer(self._genuine), self._clock(), _ours(request)
        event = read(headers, body)
        remarks = self.history.verified(headers["webhook-id"], event, status, now_s)
        self._tell(Delivery(number, now_s, headers, len(body), status, proof=proof, event=event, remarks=remarks))
        await self._wait(number)
        return web.Response(status=status, headers=self._retry_after(status))

    async def _proof(self, request: web.Request, body: bytes) -> Proof:
        try:
            return self._verifier.verify(request.headers, body, self._clock())
        except Flaw as flaw:
            if flaw.rule not in {"secret", "scheme", "body"} or self._refresh is None or not await self._refresh():
                raise
        return self._verifier.verify(request.headers, body, self._clock())

    def _refused(self, number: int, request: web.Request, flaw: Flaw) -> web.Response:
        status = 413 if flaw.rule == "size" else 400
        self.history.refused(flaw.rule, status)
        size = request.content_length or 0
        self._tell(Delivery(number, self._clock(), _ours(request), size, status, flaw=flaw))
        return web.Response(status=status, text=f"{flaw.rule}: {flaw}\n")

    async def _wait(self, number: int) -> None:
        try:
            await asyncio.sleep(self._mood.delay_s)
        except asyncio.CancelledError:
            if not self._stopping.is_set():  # or else it is we who end
                self.history.hung_up()
                self._hung_up(number)
            raise

    def _retry_after(self, status: int) -> dict[str, str]:
        if self._mood.retry_after_s is None or status < 300:
            return {}
        return {"Retry-After": str(self._mood.retry_after_s)}


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Flaw("size", f"the body is larger than {BODY_BYTES_MAX} bytes") from None


def _ours(request: web.Request) -> dict[str, str]:
    """By name in lower case. Bytes that are not UTF-8, which arrive as lone surrogates, are spelled out."""
    return {
        name.lower(): value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for name, value in request.headers.items()
        if name.lower().startswith(("webhook-", "ce-", "content-type", "traceparent"))
    }
