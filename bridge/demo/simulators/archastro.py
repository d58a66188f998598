"""The ArchAstro platform API as its SDK speaks it, played by a real HTTP server that misbehaves on purpose.

What the vendor leaves open is invented: the text of keep-alive comments, the shape of the `error` frame, which
statuses refuse a bad cursor or filter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from aiohttp import web

from bridge.demo.simulators.api import ApiError, Simulator, body, main, number
from bridge.demo.simulators.archastro_world import PREFIXES, Population, SimulatedJob, World
from bridge.demo.simulators.faults import Fault

KEY_HEADER = "x-archastro-api-key"
_REFRESH = "/api/v1/auth/refresh"
_TIMED_OUT = b'event: error\ndata: {"code":"stream_timeout","message":"maximum stream duration reached"}\n\n'
_SESSION_WORDS = {"pending", "running", "waiting", "completed", "failed", "cancelled"}
_RUN_WORDS = _SESSION_WORDS - {"waiting"} | {"skipped"}
_KINDS = {prefix: kind for kind, prefix in PREFIXES.items()}


class ArchAstroSimulator(Simulator[World, SimulatedJob]):
    """The routes."""

    refusals: ClassVar = {
        Fault.RATE_LIMIT: (429, "rate_limited", "too many requests"),
        Fault.SERVER_ERROR: (500, "internal_error", "something broke"),
        Fault.UNAVAILABLE: (503, "unavailable", "no capacity"),
    }

    def __init__(self, world: World) -> None:
        super().__init__(world, Population(world))
        self._token, self._refresh_token = world.token, world.refresh_token
        self._renewals = 0
        self._issued_s: float | None = None

    def routes(self) -> list[web.RouteDef]:
        sessions, run, automation_run = "agent_sessions", "agent_routines/runs/{id}", "automation_runs/{id}"
        table: list[tuple[str, str, Callable[[web.Request], Any]]] = [
            ("POST", "auth/refresh", self._refresh),
            ("GET", sessions, self._sessions),
            ("POST", sessions, self._create),
            ("GET", f"{sessions}/{{id}}", self._one),
            ("GET", f"{sessions}/{{id}}/stream", self._stream),
            ("GET", f"{sessions}/{{id}}/events", self._events),
            ("POST", f"{sessions}/{{id}}/message", self._message),
            ("POST", f"{sessions}/{{id}}/cancel", self._cancel),
            ("GET", "agent_routine_runs", self._runs),
            ("GET", "agent_routine_runs/{id}/stream", self._stream),
            ("POST", "agent_routines/{routine}/invoke", self._invoke),
            ("GET", run, self._one),
            ("GET", f"{run}/journal", self._journal),
            ("POST", "automations/{automation}/invoke", self._invoke),
            ("GET", automation_run, self._one),
            ("GET", f"{automation_run}/journal", self._journal),
            ("GET", f"{automation_run}/stream", self._stream),
        ]
        return [web.route(method, f"/api/v1/{path}", handler) for method, path, handler in table]

    # -- credentials and errors

    def authorise(self, request: web.Request) -> None:
        """A secret key is enough alone; a publishable one only names the app."""
        key, bearer = request.headers.get(KEY_HEADER), request.headers.get("Authorization")
        user = key == self.world.publishable_key and (
            request.path == _REFRESH or (bearer == f"Bearer {self._token}" and not self._expired)
        )
        if key != self.world.api_key and not user:
            raise ApiError(401, "unauthorized", "the key or the token is missing, wrong or expired")
        if not self.world.entitled:
            raise ApiError(402, "plan_not_entitled", "the plan lacks agent sessions")

    def error_body(self, error: ApiError) -> dict[str, Any]:
        """The object among the three shapes that the SDK reads."""
        return {"error": {"code": error.code.lower(), "message": str(error)}}

    def job(self, request: web.Request) -> SimulatedJob:
        own_id = request.match_info["id"]
        kind = _KINDS.get(own_id.partition("_")[0])
        job = self.population.jobs.get(f"{kind}:{own_id}")
        if job is None or ("agent_sessions" in request.path) != (kind == "session"):
            raise ApiError(404, "not_found", "no such object, or not visible")
        return job

    @property
    def _expired(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        self._issued_s = now_s if self._issued_s is None else self._issued_s
        return 0 < self.world.token_life_s < now_s - self._issued_s

    async def _refresh(self, request: web.Request) -> web.Response:
        """Every exchange rotates the refresh token; one that was used is refused."""
        if (await body(request)).get("refresh_token") != self._refresh_token:
            raise ApiError(401, "invalid_refresh_token", "the refresh token was used or never issued")
        self._renewals += 1
        self._token = f"{self.world.token}_{self._renewals}"
        self._refresh_token = f"{self.world.refresh_token}_{self._renewals}"
        self._issued_s = asyncio.get_running_loop().time()
        tokens = {"token": self._token, "refresh_token": self._refresh_token, "expires_in": 3600}
        return web.json_response(tokens | {"user": {"id": "usr_1"}})

    # -- lists

    async def _sessions(self, request: web.Request) -> web.Response:
        """Newest first, with no cursor at all."""
        limit = number(request, "limit", min(25, self.world.list_max), self.world.list_max)
        return web.json_response({"data": self._matching(request, "session", _SESSION_WORDS)[:limit]})

    async def _runs(self, request: web.Request) -> web.Response:
        """Newest first; `after_cursor` leads to the next, older page, as the list's schema has it."""
        if "status[]" in request.query:
            raise ApiError(422, "invalid_request", "status is one word")
        limit = number(request, "limit", min(50, self.world.list_max), self.world.list_max)
        runs = self._matching(request, "routine_run", _RUN_WORDS)
        ids = [run["id"] for run in runs]
        start, end = _behind(request.query.get("after_cursor"), ids), len(runs)
        if before := request.query.get("before_cursor"):
            end = _behind(before, ids) - 1
            start = max(0, end - limit)
        page = runs[start : min(end, start + limit)]
        cursors = {
            "after_cursor": _cursor(page[-1]["id"]) if page and page[-1] is not runs[-1] else None,
            "before_cursor": _cursor(page[0]["id"]) if page and start else None,
        }
        return web.json_response({"data": page, **cursors})

    def _matching(self, request: web.Request, kind: str, words: set[str]) -> list[dict[str, Any]]:
        """A list filter is its bracketed values; of a plain repeated name only the last one is kept."""
        statuses = request.query.getall("status[]", request.query.getall("status", [])[-1:])
        agents = request.query.getall("agent[]", request.query.getall("agent", [])[-1:])
        if not words.issuperset(statuses):
            raise ApiError(422, "invalid_request", "no such status")
        newest_first = [job.shown for job in reversed(self.population.jobs.values()) if job.kind == kind]
        return [
            shown
            for shown in newest_first
            if (not statuses or shown["status"] in statuses) and (not agents or shown["agent"] in agents)
        ]

    # -- one session or run

    async def _one(self, request: web.Request) -> web.Response:
        return web.json_response(self.job(request).shown)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """The current state on connect, then what comes; over at the longest duration."""
        job = self.job(request)
        return await self.stream(
            request,
            job,
            len(job.entries),
            ping=b": keepalive\n\n",
            hello=job.snapshot,
            longest_s=self.world.stream_max_s,
            goodbye=_TIMED_OUT if job.kind != "automation_run" else b"",
        )

    async def _events(self, request: web.Request) -> web.Response:
        """A bare list, oldest first."""
        log, limit = self.job(request).log, number(request, "limit", 200, 1000)
        start = 0
        if after := request.query.get("after"):
            start = _behind(after, [event["id"] for event in log], _same)
        return web.json_response(log[start : start + limit])

    async def _journal(self, request: web.Request) -> web.Response:
        """Forward only; the last page names no next one."""
        job, limit = self.job(request), number(request, "limit", 50, 100)
        start = _behind(request.query.get("after_cursor"), [entry["id"] for entry in job.log])
        page, more = job.log[start : start + limit], start + limit < len(job.log)
        summary = {"id": f"wde_{job.number}", "status": "running", "current_sequence": len(job.log)}
        return web.json_response(
            {
                "journal": summary if job.log else None,
                "data": page,
                "after_cursor": _cursor(page[-1]["id"]) if more else None,
                "before_cursor": None,
                "has_more": more,
            }
        )

    # -- what moves them

    async def _create(self, request: web.Request) -> web.Response:
        sent = await body(request)
        if not sent.get("agent") or not sent.get("instructions"):
            raise ApiError(422, "invalid_request", "agent and instructions are needed")
        job = self.population.start_job(kind="session", idle=sent.get("start_idle") is True)
        return web.json_response(job.state, status=201)

    async def _invoke(self, request: web.Request) -> web.Response:
        kind = "automation_run" if "automation" in request.match_info else "routine_run"
        return web.json_response(self.population.start_job(kind=kind).state, status=201)

    async def _message(self, request: web.Request) -> web.Response:
        job, content = self.job(request), (await body(request)).get("content")
        if not isinstance(content, str) or not content:
            raise ApiError(422, "invalid_request", "content is needed")
        job.hear(content)
        return web.json_response(job.state)

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self.job(request)
        job.cancel()
        return web.json_response(job.state)


def _cursor(own_id: str) -> str:
    return own_id.encode().hex()


def _same(own_id: str) -> str:
    return own_id


def _behind(token: str | None, ids: list[str], mint: Callable[[str], str] = _cursor) -> int:
    """The index behind the object that a token was minted for; the beginning without one."""
    if token is None:
        return 0
    minted = [mint(own_id) for own_id in ids]
    if token not in minted:
        raise ApiError(400, "invalid_cursor", "no such place")
    return minted.index(token) + 1


@asynccontextmanager
async def archastro_simulator(world: World) -> AsyncIterator[ArchAstroSimulator]:
    """A running simulator at `url`, whose jobs live until the context ends."""
    simulator = ArchAstroSimulator(world)
    async with simulator.served():
        yield simulator


if __name__ == "__main__":
    main("archastro", World, ArchAstroSimulator)
