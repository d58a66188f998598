"""The AUVY Jobs API as documented, played by a real HTTP server that misbehaves on purpose.

`GET /_sim/emitted` is the ledger: every stream entry ever emitted, whoever heard it. `GET /_sim/progress` is the
same in numbers. Neither asks for a key. The names of rate-limit headers are not documented, so these are invented.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from bridge.demo.serving import run_process, serve
from bridge.demo.simulators.auvy_job import Pace, SimulatedJob, StreamId
from bridge.demo.simulators.auvy_world import Population, World
from bridge.demo.simulators.faults import CALM, ROUGH, Fault, html_page, interrupt

_SLOW_S = 0.7
_RATE_LIMIT = 6000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """An answer from the documented error table."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code

    def response(self) -> web.Response:
        """The documented body; a 429 also says when to come back."""
        body: dict[str, Any] = {"message": str(self), "code": self.code}
        headers = {}
        if self.status == 429:
            body["retryAfter"] = 1
            headers["Retry-After"] = "1"
        return web.json_response(body, status=self.status, headers=headers)


_REFUSALS = {
    Fault.RATE_LIMIT: (429, "RATE_LIMIT", "too many requests"),
    Fault.SERVER_ERROR: (500, "INTERNAL_SERVER_ERROR", "something broke"),
    Fault.UNAVAILABLE: (503, "INTERNAL_SERVER_ERROR", "no capacity"),
}


class AuvySimulator:
    """The routes. `url` is known once it is served."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.population = Population(world)
        self.url = ""

    def application(self) -> web.Application:
        """All routes, behind the checks of key and faults."""
        app = web.Application(middlewares=[self._front])
        app.on_response_prepare.append(self._rate_headers)
        app.add_routes(
            [
                web.get("/v1/health", self._health),
                web.get("/v1/jobs", self._list),
                web.post("/v1/jobs", self._start),
                web.get("/v1/jobs/{id}/status", self._status),
                web.get("/v1/jobs/{id}/stream", self._stream),
                web.get("/v1/public/jobs/{id}/stream", self._stream),
                web.post("/v1/jobs/{id}/cancel", self._cancel),
                web.post("/v1/jobs/{id}/resume", self._resume),
                web.post("/v1/jobs/{id}/input", self._input),
                web.get("/_sim/emitted", self._emitted),
                web.get("/_sim/progress", self._progress),
            ]
        )
        return app

    @web.middleware
    async def _front(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path.startswith("/v1/") and request.path != "/v1/health":
                self.population.requests += 1
                self._authorise(request)
                if page := await self._door(request):
                    return page
            return await handler(request)
        except ApiError as error:
            return error.response()
        except web.HTTPNotFound:
            return ApiError(404, "NOT_FOUND", "no such route").response()

    def _authorise(self, request: web.Request) -> None:
        if request.path.startswith("/v1/public/"):
            if request.query.get("t") != self.world.share_token:
                raise ApiError(403, "FORBIDDEN", "the share token is missing or wrong")
        elif request.headers.get("Authorization") != f"Bearer {self.world.api_key}":
            raise ApiError(401, "AUTH_REQUIRED", "the key is missing or wrong")

    async def _door(self, request: web.Request) -> web.Response | None:
        fault = self.population.faults.at_the_door(f"{request.method} {request.path}")
        if fault in _REFUSALS:
            raise ApiError(*_REFUSALS[fault])
        if fault is Fault.SLOW:
            await asyncio.sleep(_SLOW_S)
        return html_page() if fault is Fault.BAD_GATEWAY else None

    async def _rate_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-RateLimit-Limit"] = str(_RATE_LIMIT)
        response.headers["X-RateLimit-Remaining"] = str(_RATE_LIMIT - self.population.requests % _RATE_LIMIT)
        response.headers["X-RateLimit-Reset"] = "60"

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _list(self, request: web.Request) -> web.Response:
        """Newest first, by offset: pages shift whenever a job appears between two of them."""
        limit, offset = _number(request, "limit", 20, 100), _number(request, "offset", 0, 1 << 31)
        status = request.query.get("status")
        newest_first = (job.shown for job in reversed(self.population.jobs.values()))
        jobs = [shown for shown in newest_first if status in {None, shown["status"]}]
        page = jobs[offset : offset + limit]
        return web.json_response({"jobs": page, "total": len(jobs), "limit": limit, "offset": offset})

    async def _start(self, request: web.Request) -> web.Response:
        body = await _body(request)
        if "pathway_id" not in body and "pathway" not in body:
            raise ApiError(400, "VALIDATION_ERROR", "pathway_id or pathway is needed")
        job = self.population.start_job(streaming=body.get("stream") is True)
        return web.json_response({"job_id": job.id, "status": "pending"}, status=202)

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self._job(request).shown)

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job.over:
            raise ApiError(400, "VALIDATION_ERROR", f"the job is {job.state['status']} already")
        job.cancel()
        return web.json_response({"job_id": job.id, "status": job.state["status"]})

    async def _resume(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if not job.held:
            raise ApiError(400, "VALIDATION_ERROR", "the job is neither waiting nor paused")
        job.help_on()
        return web.json_response({"job_id": job.id, "status": job.state["status"]})

    async def _input(self, request: web.Request) -> web.Response:
        job, answer = self._job(request), (await _body(request)).get("input")
        asked = job.state["waitingFor"]
        if not (asked and isinstance(answer, dict) and answer.get("interventionId") == asked["interventionId"]):
            raise ApiError(400, "VALIDATION_ERROR", "the input does not fit what the job waits for")
        job.help_on()
        return web.json_response({"job_id": job.id, "status": job.state["status"]})

    def _job(self, request: web.Request) -> SimulatedJob:
        if job := self.population.jobs.get(request.match_info["id"]):
            return job
        raise ApiError(404, "RESOURCE_NOT_FOUND", "no such job")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        job = self._job(request)
        if asyncio.get_running_loop().time() - job.born_s < self.world.unready_s:
            raise ApiError(404, "RESOURCE_NOT_FOUND", "the stream does not exist yet")
        after = self._after(request, job)
        self.population.streams += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        with suppress(ConnectionError):
            await self._tell(job, after, request, response)
        return response

    async def _tell(
        self, job: SimulatedJob, after: StreamId | None, request: web.Request, response: web.StreamResponse
    ) -> None:
        """Write entries until the job ends, the dice say stop, or the client goes away."""
        fault, patience = self.population.faults.on_the_way(request.path)
        while True:
            entries = job.behind(after, self.world.retained)
            if fault and not patience and entries:
                self.population.faults.strike(fault)
                return await interrupt(fault, request, response, entries[0].frame)
            if fault:
                entries = entries[:patience]
            if entries:
                await response.write(b"".join(entry.frame for entry in entries))
                after, patience = entries[-1].id, patience - len(entries)
            elif job.over and job.closes:
                return None
            elif not await job.news(self.world.keepalive_s):
                await response.write(b": ping\n\n")

    def _after(self, request: web.Request, job: SimulatedJob) -> StreamId | None:
        text = request.query.get("after")
        if text is None:
            return None
        try:
            after = StreamId.parse(text)
        except ValueError:
            raise ApiError(400, "VALIDATION_ERROR", "after is no stream id") from None
        trimmed = job.trimmed(self.world.retained)
        if self.world.strict_after and trimmed and after < job.entries[trimmed - 1].id:
            raise ApiError(400, "VALIDATION_ERROR", "after is older than what the stream retains")
        return after

    async def _emitted(self, _: web.Request) -> web.Response:
        return web.json_response(self.population.emitted())

    async def _progress(self, _: web.Request) -> web.Response:
        return web.json_response(self.population.progress())


def _number(request: web.Request, name: str, default: int, at_most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or int(text) > at_most:
        raise ApiError(400, "VALIDATION_ERROR", f"{name} is a number up to {at_most}")
    return int(text)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read() or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "VALIDATION_ERROR", "the body is no JSON object")
    return body


@asynccontextmanager
async def auvy_simulator(world: World, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[AuvySimulator]:
    """A running simulator at `url`, whose jobs live until the context ends."""
    simulator = AuvySimulator(world)
    async with serve(simulator.application(), address, port) as simulator.url:
        simulator.population.begin()
        try:
            yield simulator
        finally:
            await simulator.population.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process of its own."""
    options = _options().parse_args(arguments)
    pace = Pace(options.job_s, options.events_per_s, options.hold_s, options.status_lag_s)
    rates = (CALM if options.calm else ROUGH).changed(options.fault)
    plain = {name: getattr(options, name) for name in World.__slots__ if name not in {"pace", "faults"}}
    world = World(pace=pace, faults=rates, **plain)
    asyncio.run(run_process(_served(world, options.address, options.port)))


@asynccontextmanager
async def _served(world: World, address: str, port: int) -> AsyncIterator[str]:
    async with auvy_simulator(world, address, port) as simulator:
        yield simulator.url


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bridge.demo.simulators.auvy", description="A simulated AUVY Jobs API.")
    for default in (World(), Pace()):
        for name in default.__slots__:
            if isinstance(value := getattr(default, name), (int, float, str)) and not isinstance(value, bool):
                parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--strict-after", action="store_true", help="answer 400 to an `after` that is too old")
    mood = parser.add_mutually_exclusive_group()
    mood.add_argument("--faults", action="store_true", help="misbehave as networks do (the default)")
    mood.add_argument("--calm", action="store_true", help="only those faults that --fault names")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=RATE", help="set one fault's rate")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
