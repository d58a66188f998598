"""The job API that every contestant of the bench reads: the only place that says which bytes they get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

EVENT_BYTES = 500
CHUNK_EVENTS = 50


class JobApi:
    """`streams` jobs that never end. Each tells one event when it is asked for, to warm up on; the rest begin at once.

    All frames are made beforehand and leave in chunks of fifty, so that serving costs little next to reading.
    """

    def __init__(self, streams: int, events: int) -> None:
        self._first, *frames = [_frame(number) for number in range(max(events // streams, 1) + 1)]
        self.streams = streams
        self.events = len(frames) * streams
        """Those that begin at once."""
        self.stream_bytes = sum(map(len, frames)) + len(self._first)
        self.opened = asyncio.Event()
        """Every stream has been asked for."""
        self.flowing = asyncio.Event()
        """To be set by who measures: the events leave."""
        self._opened = 0
        self._chunks = [b"".join(frames[at : at + CHUNK_EVENTS]) for at in range(0, len(frames), CHUNK_EVENTS)]

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve it on a free port for as long as the block lasts, and tell the address."""
        app = web.Application()
        app.router.add_get("/v1/jobs/{id}/stream", self._stream)
        app.router.add_get("/v1/jobs/{id}/status", self._status)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(self._first)
        self._opened += 1
        if self._opened == self.streams:
            self.opened.set()
        await self.flowing.wait()
        for chunk in self._chunks:
            await answer.write(chunk)
        await asyncio.Event().wait()
        return answer

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response({"job_id": "job", "status": "running"})


def _frame(number: int) -> bytes:
    head, tail = f'id: {number}-0\ndata: {{"type":"token","token":"', '"}\n\n'
    return (head + "x" * (EVENT_BYTES - len(head) - len(tail)) + tail).encode()
