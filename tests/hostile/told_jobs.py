"""A job API whose jobs say their numbers when they are told to: the only place that knows what was there to be heard.

It speaks the AUVY dialect. A job is silent until its turn, says the numbers from 1 on, and its end with the last.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import web

from bridge.serving import serve

TOKEN = "a-key"

_TICK_S = 0.02
_KEEPALIVE_S = 1.0


@dataclass(slots=True)
class Job:
    """One job, which has said the numbers from 1 up to `said`."""

    id: str
    length: int
    said: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        return self.said == self.length

    def say(self) -> None:
        """The next number."""
        self.said += 1
        self.news.set()
        self.news = asyncio.Event()

    def frames(self, after: int) -> bytes:
        """Everything said behind that number."""
        return b"".join(self._frame(number) for number in range(after + 1, self.said + 1))

    def _frame(self, number: int) -> bytes:
        end = {"type": "complete", "result": {"number": number}}
        chunk = end if number == self.length else {"type": "token", "token": str(number)}
        return f"id: {number}-0\ndata: {json.dumps(chunk)}\n\n".encode()


class ToldJobs:
    """The API and its jobs, by id and with the length of each."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.jobs = {job_id: Job(job_id, length) for job_id, length in lengths.items()}

    async def tell(self, events_per_s: float, ids: Sequence[str] | None = None) -> None:
        """Have these jobs, or all, say everything at that pace, one number each in turn."""
        jobs = [self.jobs[job_id] for job_id in (self.jobs if ids is None else ids)]
        turns = [job for number in range(max(job.length for job in jobs)) for job in jobs if number < job.length]
        clock = asyncio.get_running_loop().time
        began_s = clock()
        for number, job in enumerate(turns):
            while number / events_per_s > clock() - began_s:  # noqa: ASYNC110 - it is time that passes here
                await asyncio.sleep(_TICK_S)
            job.say()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Listen until the context ends; yields the address."""
        app = web.Application()
        app.router.add_get("/v1/jobs/{id}/status", self._status)
        app.router.add_get("/v1/jobs/{id}/stream", self._stream)
        async with serve(app, "127.0.0.1", 0) as url:
            yield url

    async def _status(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        return web.json_response({"job_id": job.id, "status": "completed" if job.over else "running"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        job = self.jobs[request.match_info["id"]]
        told = int(request.query.get("after", "0-0").partition("-")[0])
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with suppress(ConnectionError):
            await answer.prepare(request)
            while told < job.said or not job.over:
                if told == job.said:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(job.news.wait(), _KEEPALIVE_S)
                frames, told = job.frames(told), job.said
                await answer.write(frames or b": still here\n\n")
        return answer
