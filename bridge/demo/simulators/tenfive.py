"""The TenFive Agent Harness API as documented, played by a real HTTP server that misbehaves on purpose.

What the documents leave open is a switch of its world. The path of the cancel route is a guess.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from aiohttp import web

from bridge.demo.simulators.api import ApiError, Simulator, body, main, number
from bridge.demo.simulators.faults import Fault
from bridge.demo.simulators.tenfive_run import Population, Run, World

_SIGNALS = {"approve", "reject", "submit_input"}


class TenFiveSimulator(Simulator[World, Run]):
    """The routes."""

    open_paths = frozenset({"/openapi.json", "/health/live", "/health/ready"})
    refusals: ClassVar = {
        Fault.RATE_LIMIT: (429, "RATE_LIMITED", "too many requests"),
        Fault.SERVER_ERROR: (500, "INTERNAL", "something broke"),
        Fault.UNAVAILABLE: (503, "UNAVAILABLE", "no capacity"),
    }

    def __init__(self, world: World) -> None:
        super().__init__(world, Population(world))
        self._started: dict[str, tuple[dict[str, Any], Run]] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health/live", self._health),
            web.get("/health/ready", self._health),
            web.get("/openapi.json", self._openapi),
            web.post("/v1/runs", self._start),
            web.get("/v1/runs/{id}", self._record),
            web.get("/v1/runs/{id}/events", self._events),
            web.get("/v1/runs/{id}/events/stream", self._stream),
            web.post("/v1/runs/{id}/signal", self._signal),
            web.post("/v1/runs/{id}/resume", self._resume),
            web.post("/v1/runs/{id}/cancel", self._cancel),
        ]

    def authorise(self, request: web.Request) -> None:
        given = request.headers.get("Authorization")
        if given is None:
            raise ApiError(401, "AUTH_MISSING_HEADER", "the header Authorization is missing")
        if given != f"Bearer {self.world.api_key}":
            raise ApiError(401, "AUTH_KEY_INVALID", "the key is wrong")

    def error_body(self, error: ApiError) -> dict[str, Any]:
        """The documented envelope."""
        return {"error": str(error), "reason_code": error.code, "request_id": f"req-e{self.population.requests}"}

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _openapi(self, _: web.Request) -> web.Response:
        if not self.world.openapi:
            raise ApiError(404, "NOT_FOUND", "no such route")
        names = (("path", "id"), ("query", self.world.cursor_param), ("query", "limit"))
        listing = {"parameters": [{"in": place, "name": name} for place, name in names]}
        return web.json_response({"openapi": "3.1.0", "paths": {"/v1/runs/{id}/events": {"get": listing}}})

    async def _start(self, request: web.Request) -> web.Response:
        """Starting twice with one key answers 409 and names the run that there is."""
        key, sent = request.headers.get("idempotency-key"), await body(request)
        if not key:
            raise ApiError(400, "IDEMPOTENCY_KEY_REQUIRED", "the header idempotency-key is missing")
        if key not in self._started:
            run = self.population.start_job()
            self._started[key] = (sent, run)
            return web.json_response(_brief(run) | {"status": "queued"}, status=201)
        first, run = self._started[key]
        if sent != first:
            raise ApiError(409, "IDEMPOTENCY_KEY_REUSED", "the key was used with another body")
        return web.json_response(_brief(run) | {"replayed": True}, status=409)

    async def _record(self, request: web.Request) -> web.Response:
        return web.json_response(self.job(request).shown)

    async def _events(self, request: web.Request) -> web.Response:
        """Oldest first, in pages no larger than the server likes."""
        run, limit = self.job(request), number(request, "limit", self.world.page_max, 1 << 31)
        after = number(request, self.world.cursor_param, 0, 1 << 31)
        ahead = [event for event in run.events if event["seq"] > after]
        page = ahead[: min(limit, self.world.page_max)]
        following = page[-1]["seq"] if len(page) < len(ahead) else None
        return web.json_response({"events": page, "next_cursor": following})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        run = self.job(request)
        start = run.behind(request.headers.get("Last-Event-ID"))
        if start is None:
            start = 0 if self.world.replay else len(run.entries)
        return await self.stream(request, run, start)

    async def _signal(self, request: web.Request) -> web.Response:
        run, action = self.job(request), (await body(request)).get("action")
        if action not in _SIGNALS:
            raise ApiError(400, "SIGNAL_ACTION_INVALID", "action is approve, reject or submit_input")
        self._must_be(run, "awaiting_input")
        if action == "reject":
            run.end("is rejected")
        else:
            run.help_on()
        return web.json_response(_brief(run))

    async def _resume(self, request: web.Request) -> web.Response:
        run = self.job(request)
        self._must_be(run, "stalled")
        run.help_on()
        return web.json_response(_brief(run))

    async def _cancel(self, request: web.Request) -> web.Response:
        run = self.job(request)
        if run.over:
            raise ApiError(409, "RUN_TERMINAL", f"the run is {run.state['status']} already")
        run.end("is cancelled")
        return web.json_response(_brief(run))

    def _must_be(self, run: Run, status: str) -> None:
        if run.state["status"] != status:
            raise ApiError(409, "RUN_STATE_CONFLICT", f"the run is {run.state['status']}, not {status}")


def _brief(run: Run) -> dict[str, Any]:
    return {name: run.state[name] for name in ("id", "status", "request_id")}


@asynccontextmanager
async def tenfive_simulator(world: World) -> AsyncIterator[TenFiveSimulator]:
    """A running simulator at `url`, whose runs live until the context ends."""
    simulator = TenFiveSimulator(world)
    async with simulator.served():
        yield simulator


if __name__ == "__main__":
    main("tenfive", World, TenFiveSimulator)
