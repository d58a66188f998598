"""The AUVY Jobs API as documented, played by a real HTTP server that misbehaves on purpose.

The names of rate-limit headers are not documented, so these are invented.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from bridge.demo.simulators.api import ApiError, Simulator, body, main, number
from bridge.demo.simulators.auvy_job import SimulatedJob, StreamId
from bridge.demo.simulators.auvy_world import Population, World

_RATE_LIMIT = 6000


class AuvySimulator(Simulator[World, SimulatedJob]):
    """The routes."""

    open_paths = frozenset({"/v1/health"})

    def __init__(self, world: World) -> None:
        super().__init__(world, Population(world))

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/health", self._health),
            web.get("/v1/jobs", self._list),
            web.post("/v1/jobs", self._start),
            web.get("/v1/jobs/{id}/status", self._status),
            web.get("/v1/jobs/{id}/stream", self._stream),
            web.get("/v1/public/jobs/{id}/stream", self._stream),
            web.post("/v1/jobs/{id}/cancel", self._cancel),
            web.post("/v1/jobs/{id}/resume", self._resume),
            web.post("/v1/jobs/{id}/input", self._input),
        ]

    def authorise(self, request: web.Request) -> None:
        if not request.path.startswith("/v1/public/"):
            super().authorise(request)
        elif request.query.get("t") != self.world.share_token:
            raise ApiError(403, "FORBIDDEN", "the share token is missing or wrong")

    def error_body(self, error: ApiError) -> dict[str, Any]:
        """The documented body; a 429 also says when to come back."""
        waits = {"retryAfter": 1} if error.status == 429 else {}
        return {"message": str(error), "code": error.code, **waits}

    def headers(self) -> dict[str, str]:
        left = _RATE_LIMIT - self.population.requests % _RATE_LIMIT
        return {
            "X-RateLimit-Limit": str(_RATE_LIMIT),
            "X-RateLimit-Remaining": str(left),
            "X-RateLimit-Reset": "60",
        }

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _list(self, request: web.Request) -> web.Response:
        """Newest first, by offset: pages shift whenever a job appears between two of them."""
        limit, offset = number(request, "limit", 20, 100), number(request, "offset", 0, 1 << 31)
        status = request.query.get("status")
        newest_first = (job.shown for job in reversed(self.population.jobs.values()))
        jobs = [shown for shown in newest_first if status in {None, shown["status"]}]
        page = jobs[offset : offset + limit]
        return web.json_response({"jobs": page, "total": len(jobs), "limit": limit, "offset": offset})

    async def _start(self, request: web.Request) -> web.Response:
        sent = await body(request)
        if "pathway_id" not in sent and "pathway" not in sent:
            raise ApiError(400, "VALIDATION_ERROR", "pathway_id or pathway is needed")
        job = self.population.start_job(streaming=sent.get("stream") is True)
        return web.json_response({"job_id": job.id, "status": "pending"}, status=202)

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self.job(request).shown)

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self.job(request)
        if job.over:
            raise ApiError(400, "VALIDATION_ERROR", f"the job is {job.state['status']} already")
        job.cancel()
        return web.json_response({"job_id": job.id, "status": job.state["status"]})

    async def _resume(self, request: web.Request) -> web.Response:
        job = self.job(request)
        if not job.held:
            raise ApiError(400, "VALIDATION_ERROR", "the job is neither waiting nor paused")
        job.help_on()
        return web.json_response({"job_id": job.id, "status": job.state["status"]})

    async def _input(self, request: web.Request) -> web.Response:
        job, answer = self.job(request), (await body(request)).get("input")
        asked = job.state["waitingFor"]
        if not (asked and isinstance(answer, dict) and answer.get("interventionId") == asked["interventionId"]):
            raise ApiError(400, "VALIDATION_ERROR", "the input does not fit what the job waits for")
        job.help_on()
        return web.json_response({"job_id": job.id, "status": job.state["status"]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        job = self.job(request)
        if asyncio.get_running_loop().time() - job.born_s < self.world.unready_s:
            raise ApiError(404, "RESOURCE_NOT_FOUND", "the stream does not exist yet")
        return await self.stream(request, job, self._start_at(request, job))

    def _start_at(self, request: web.Request, job: SimulatedJob) -> int:
        text = request.query.get("after")
        if text is None:
            return 0
        try:
            start = job.behind(StreamId.parse(text))
        except ValueError:
            raise ApiError(400, "VALIDATION_ERROR", "after is no stream id") from None
        if self.world.strict_after and start < job.trimmed(self.world.retained):
            raise ApiError(400, "VALIDATION_ERROR", "after is older than what the stream retains")
        return start


@asynccontextmanager
async def auvy_simulator(world: World) -> AsyncIterator[AuvySimulator]:
    """A running simulator at `url`, whose jobs live until the context ends."""
    simulator = AuvySimulator(world)
    async with simulator.served():
        yield simulator


if __name__ == "__main__":
    main("auvy", World, AuvySimulator)
