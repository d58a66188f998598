"""The four described APIs, each played by a real HTTP server that misbehaves on purpose: OpenAI background responses,
LangGraph runs, Replicate predictions and fal queue requests. Error bodies that are not documented are invented.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from aiohttp import web

from bridge.demo.simulators import world
from bridge.demo.simulators.api import ApiError, Simulator, body, main, number
from bridge.demo.simulators.described_jobs import DescribedJob, FalJob, LangGraphJob, OpenAiJob, ReplicateJob

_PAGE = 5
_JOBS: dict[str, type[DescribedJob]] = {
    "openai": OpenAiJob,
    "langgraph": LangGraphJob,
    "replicate": ReplicateJob,
    "fal": FalJob,
}


@dataclass(frozen=True, slots=True)
class World(world.World):
    """What is simulated: one of the APIs."""

    api: str = "openai"


class Population(world.Population[World, DescribedJob]):
    """The jobs of one API. The wishes `thread_id` and `plot` are for a run of a thread that exists already."""

    def bear(self, number: int, dice: Random, **wishes: Any) -> DescribedJob:
        ids = {
            "openai": f"resp_{number}",
            "langgraph": f"{wishes.get('thread_id', f'thread-{number}')}/run-{number}",
            "replicate": f"pred{number}",
            "fal": f"fal-ai/toy/req-{number}",
        }
        kind = _JOBS[self.world.api]
        plot = wishes.get("plot", kind.plots[(number - 1) % len(kind.plots)])
        job = kind(ids[self.world.api], plot, self.world.pace, dice, self.world.epoch_ms + 137 * number)
        job.closes = number % 2 == 0 or self.world.api == "fal"
        return job


class DescribedSimulator(Simulator[World, DescribedJob]):
    """What the four have in common: a key in a header, and jobs that are started, shown, streamed and cancelled."""

    key_header: ClassVar = "Authorization"
    key_form: ClassVar = "Bearer {}"

    def __init__(self, world: World) -> None:
        super().__init__(world, Population(world))

    def authorise(self, request: web.Request) -> None:
        if request.headers.get(self.key_header) != self.key_form.format(self.world.api_key):
            raise ApiError(401, "unauthorized", "the key is missing or wrong")

    async def start(self, _: web.Request) -> web.Response:
        """A job more; what it is to do does not matter."""
        return web.json_response(self.population.start_job().body(), status=201)

    async def show(self, request: web.Request) -> web.Response:
        """The status endpoint."""
        return web.json_response(self.job(request).body())

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop the job, unless it is over already."""
        job = self.job(request)
        if job.over:
            raise ApiError(400, "ALREADY_COMPLETED", "the job is over already")
        job.cancel()
        return web.json_response(job.body())


class OpenAi(DescribedSimulator):
    """OpenAI Responses: one route for status and stream."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/responses", self.start),
            web.get("/v1/responses/{id}", self._show_or_stream),
            web.post("/v1/responses/{id}/cancel", self.cancel),
        ]

    def error_body(self, error: ApiError) -> dict[str, Any]:
        return {"error": {"message": str(error), "type": "invalid_request_error", "code": error.code, "param": None}}

    async def _show_or_stream(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("stream") != "true":
            return await self.show(request)
        resumed = "starting_after" in request.query
        return await self.stream(request, self.job(request), number(request, "starting_after", 0, 1 << 31) + resumed)


class LangGraph(DescribedSimulator):
    """LangGraph Agent Server: runs of threads."""

    key_header = "x-api-key"
    key_form = "{}"

    def routes(self) -> list[web.RouteDef]:
        run = "/threads/{thread}/runs/{run}"
        return [
            web.get("/threads/{thread}/state", self._thread),
            web.post("/threads/{thread}/runs", self._answer),
            web.get(run, self.show),
            web.get(f"{run}/join", self._join),
            web.get(f"{run}/stream", self._stream),
            web.post(f"{run}/cancel", self.cancel),
        ]

    def error_body(self, error: ApiError) -> dict[str, Any]:
        return {"detail": str(error)}

    def job(self, request: web.Request) -> DescribedJob:
        thread_id, run_id = request.match_info["thread"], request.match_info["run"]
        if job := self.population.jobs.get(f"{thread_id}/{run_id}"):
            return job
        raise ApiError(404, "not_found", "no such run")

    def _runs(self, request: web.Request) -> list[DescribedJob]:
        prefix = request.match_info["thread"] + "/"
        if runs := [job for job in self.population.jobs.values() if job.id.startswith(prefix)]:
            return runs
        raise ApiError(404, "not_found", "no such thread")

    async def _thread(self, request: web.Request) -> web.Response:
        tasks = [{"name": "agent", "interrupts": job.shown["open"]} for job in self._runs(request)]
        return web.json_response({"values": {}, "next": [], "tasks": tasks})

    async def _answer(self, request: web.Request) -> web.Response:
        """An answer to an interrupt is another run of the thread."""
        sent, runs = await body(request), self._runs(request)
        if "assistant_id" not in sent:
            raise ApiError(422, "invalid", "assistant_id is needed")
        for job in runs:
            job.help_on()
        run = self.population.start_job(thread_id=request.match_info["thread"], plot="completes")
        return web.json_response(run.body())

    async def _join(self, request: web.Request) -> web.Response:
        return web.json_response({"messages": self.job(request).shown["result"]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        job, last = self.job(request), request.headers.get("Last-Event-ID", "-1")
        keys = [entry.key for entry in job.entries]
        return await self.stream(request, job, keys.index(last) + 1 if last in keys else 0, ping=b": heartbeat\n\n")


class Replicate(DescribedSimulator):
    """Replicate predictions. Streams have a host of their own; here it is a path."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/predictions", self._list),
            web.post("/v1/predictions", self.start),
            web.get("/v1/predictions/{id}", self.show),
            web.post("/v1/predictions/{id}/cancel", self.cancel),
            web.get("/streams/v1/predictions/{id}", self._stream),
        ]

    def error_body(self, error: ApiError) -> dict[str, Any]:
        return {"title": error.code, "detail": str(error), "status": error.status}

    async def _list(self, request: web.Request) -> web.Response:
        """Newest first; `next` is a whole address."""
        before = number(request, "before", len(self.population.jobs), 1 << 31)
        jobs = list(self.population.jobs.values())[max(0, before - _PAGE) : before]
        following = f"{self.url}/v1/predictions?before={before - _PAGE}" if before > _PAGE else None
        return web.json_response({"results": [job.body() for job in reversed(jobs)], "next": following})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        job, last = self.job(request), request.headers.get("Last-Event-ID")
        keys = [entry.key for entry in job.entries]
        return await self.stream(request, job, keys.index(last) + 1 if last in keys else 0)


class Fal(DescribedSimulator):
    """fal's queue: the stream begins with the present state, and the stored answer is a route of its own."""

    key_form = "Key {}"

    def routes(self) -> list[web.RouteDef]:
        request = "/{owner}/{model}/requests/{id}"
        return [
            web.post("/{owner}/{model}", self.start),
            web.get(request, self._answer),
            web.get(f"{request}/status", self.show),
            web.get(f"{request}/status/stream", self._stream),
            web.put(f"{request}/cancel", self.cancel),
        ]

    def error_body(self, error: ApiError) -> dict[str, Any]:
        return {"detail": str(error)}

    def job(self, request: web.Request) -> DescribedJob:
        names = request.match_info
        if job := self.population.jobs.get(f"{names['owner']}/{names['model']}/{names['id']}"):
            return job
        raise ApiError(404, "not_found", "no such request")

    async def _answer(self, request: web.Request) -> web.Response:
        shown = self.job(request).shown
        if shown["status"] != "COMPLETED":
            raise ApiError(400, "in_progress", "the request is still in progress")
        if shown["error"]:
            raise ApiError(422, shown["error"]["code"], shown["error"]["message"])
        return web.json_response({"images": shown["result"]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        job = self.job(request)
        return await self.stream(request, job, max(0, len(job.entries) - 1))


SIMULATORS: dict[str, type[DescribedSimulator]] = {
    "openai": OpenAi,
    "langgraph": LangGraph,
    "replicate": Replicate,
    "fal": Fal,
}


def simulator(world: World) -> DescribedSimulator:
    """The simulator of the world's API. Raises ValueError on one that is not played here."""
    if world.api not in SIMULATORS:
        raise ValueError(f"no API {world.api!r} is played here; one of {', '.join(SIMULATORS)}")
    return SIMULATORS[world.api](world)


@asynccontextmanager
async def described_simulator(world: World) -> AsyncIterator[DescribedSimulator]:
    """A running simulator at `url`, whose jobs live until the context ends."""
    simulated = simulator(world)
    async with simulated.served():
        yield simulated


if __name__ == "__main__":
    main("described", World, simulator)
