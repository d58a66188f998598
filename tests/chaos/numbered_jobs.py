"""A job API whose whole history is known: every event carries its number within its job, and any of it is replayed.

It speaks the AUVY dialect for several sources at once, each under a path of its own. Jobs are born and end all the
time, at a steady pace of events, until `close` ends those that still run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

from aiohttp import web

from bridge.serving import serve

TOKEN = "a-key"

_TICK_S = 0.02
_KEEPALIVE_S = 0.5
_PAGE = 100
_EVENTS_LEAST, _EVENTS_MOST = 150, 600
_FILLER = "x" * 100


@dataclass(slots=True)
class Job:
    """One job: it has said the numbers from 1 up to `said`, the last of them being its end once it is over."""

    id: str
    length: int
    said: int = 0

    @property
    def over(self) -> bool:
        return self.said == self.length

    def frames(self, after: int) -> bytes:
        """Everything said behind that number."""
        return b"".join(self._frame(number) for number in range(after + 1, self.said + 1))

    def _frame(self, number: int) -> bytes:
        end = {"type": "complete", "result": {"number": number}}
        chunk = end if number == self.length else {"type": "token", "token": f"{number} {_FILLER}"}
        return f"id: {number}-0\ndata: {json.dumps(chunk)}\n\n".encode()


@dataclass(slots=True)
class JobApi:
    """The API and its clock. Served at `address` while the context of `served` lasts."""

    sources: list[str]
    jobs_at_once: int
    events_per_s: float
    dice: Random
    said: int = 0
    """Events of all jobs together."""
    address: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)
    _running: list[Job] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False

    @property
    def history(self) -> dict[str, int]:
        """The number of the last event of each job, by job id."""
        return {job.id: job.said for job in self.jobs.values()}

    def close(self) -> None:
        """Let every running job say its last word now; no other begins."""
        self._closed = True
        for job in self._running:
            job.length = job.said = job.said + 1
            self.said += 1
        self._running = []
        self._tell()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/{source}/v1/jobs", self._list)
        app.router.add_get("/{source}/v1/jobs/{id}/status", self._status)
        app.router.add_get("/{source}/v1/jobs/{id}/stream", self._stream)
        async with serve(app, "127.0.0.1", 0) as url:
            self.address = url.removeprefix("http://")
            speaking = asyncio.create_task(self._speak())
            try:
                yield
            finally:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)

    async def _speak(self) -> None:
        began_s = time.monotonic()
        turn = 0
        while not self._closed:
            due = round((time.monotonic() - began_s) * self.events_per_s)
            while self.said < due:
                while len(self._running) < self.jobs_at_once:
                    self._running.append(self._born())
                turn = (turn + 1) % len(self._running)
                job = self._running[turn]
                job.said += 1
                self.said += 1
                if job.over:
                    self._running.remove(job)
            self._tell()
            await asyncio.sleep(_TICK_S)

    def _born(self) -> Job:
        source = self.sources[len(self.jobs) % len(self.sources)]
        job = Job(f"{source}-{len(self.jobs)}", self.dice.randint(_EVENTS_LEAST, _EVENTS_MOST))
        self.jobs[job.id] = job
        return job

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _list(self, request: web.Request) -> web.Response:
        """Newest first, ended ones included: a job may begin and end while no bridge is up."""
        first, source = int(request.query["offset"]), request.match_info["source"]
        ids = [job.id for job in reversed(self.jobs.values()) if job.id.startswith(f"{source}-")]
        page = [{"job_id": job_id} for job_id in ids[first : first + _PAGE]]
        return web.json_response({"jobs": page, "limit": _PAGE})

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
                news = self._news
                frames, told = job.frames(told), job.said
                await answer.write(frames or b": still here\n\n")
                if told == job.said and not job.over:
                    await self._later(job, told, news)
        return answer

    async def _later(self, job: Job, told: int, news: asyncio.Event) -> None:
        """Until the job has said more, or silence has lasted so long that a comment is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_KEEPALIVE_S):
                while job.said == told:
                    await news.wait()
                    news = self._news
