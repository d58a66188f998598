"""The front that every simulated job API shares: key, faults at the door, streams that break, the ledger, the process.

`GET /_sim/emitted` is the ledger: everything ever said, whoever heard it. `GET /_sim/progress` is the same in numbers.
Neither asks for a key nor meets a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from typing import Any, ClassVar, Generic, TypeVar

from aiohttp import web

from bridge.demo.serving import run_process
from bridge.demo.simulators.faults import CALM, ROUGH, Fault, html_page, interrupt
from bridge.demo.simulators.world import J, Job, Pace, Population, W, World
from bridge.serving import serve

_SLOW_S = 0.7

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """An answer from an API's error table."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code


class Simulator(Generic[W, J]):
    """An API's routes behind the shared front. `url` is known once it is served."""

    open_paths: ClassVar[frozenset[str]] = frozenset()
    """Paths that neither ask for a key nor meet a fault."""
    refusals: ClassVar[Mapping[Fault, tuple[int, str, str]]] = {
        Fault.RATE_LIMIT: (429, "RATE_LIMIT", "too many requests"),
        Fault.SERVER_ERROR: (500, "INTERNAL_SERVER_ERROR", "something broke"),
        Fault.UNAVAILABLE: (503, "INTERNAL_SERVER_ERROR", "no capacity"),
    }

    def __init__(self, world: W, population: Population[W, J]) -> None:
        self.world = world
        self.population = population
        self.url = ""

    # -- each API's own

    def routes(self) -> list[web.RouteDef]:
        """The API's own routes."""
        raise NotImplementedError

    def authorise(self, request: web.Request) -> None:
        """Raises ApiError where the credential is missing or wrong."""
        if request.headers.get("Authorization") != f"Bearer {self.world.api_key}":
            raise ApiError(401, "AUTH_REQUIRED", "the key is missing or wrong")

    def error_body(self, error: ApiError) -> dict[str, Any]:
        """The body that this API sends with an error."""
        return {"error": error.code, "message": str(error)}

    def headers(self) -> Mapping[str, str]:
        """What this API puts on every response."""
        return {}

    # -- the front

    def application(self) -> web.Application:
        """All routes, behind the checks of key and faults."""
        app = web.Application(middlewares=[self._front])
        app.on_response_prepare.append(self._dress)
        ledger = [web.get("/_sim/emitted", self._emitted), web.get("/_sim/progress", self._progress)]
        app.add_routes([*self.routes(), *ledger])
        return app

    @asynccontextmanager
    async def served(self, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve until the context ends, with the jobs living; yields the URL."""
        async with serve(self.application(), address, port) as self.url:
            self.population.begin()
            try:
                yield self.url
            finally:
                await self.population.stop()

    @web.middleware
    async def _front(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not request.path.startswith("/_sim/") and request.path not in self.open_paths:
                self.population.requests += 1
                self.authorise(request)
                if page := await self._door(request):
                    return page
            return await handler(request)
        except ApiError as error:
            return self._refuse(error)
        except web.HTTPNotFound:
            return self._refuse(ApiError(404, "NOT_FOUND", "no such route"))

    async def _dress(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self.headers())

    def _refuse(self, error: ApiError) -> web.Response:
        headers = {"Retry-After": "1"} if error.status == 429 else {}
        return web.json_response(self.error_body(error), status=error.status, headers=headers)

    async def _door(self, request: web.Request) -> web.Response | None:
        fault = self.population.faults.at_the_door(f"{request.method} {request.path}")
        if fault and fault in self.refusals:
            raise ApiError(*self.refusals[fault])
        if fault is Fault.SLOW:
            await asyncio.sleep(_SLOW_S)
        return html_page() if fault is Fault.BAD_GATEWAY else None

    async def _emitted(self, _: web.Request) -> web.Response:
        return web.json_response(self.population.emitted())

    async def _progress(self, _: web.Request) -> web.Response:
        return web.json_response(self.population.progress())

    # -- what routes are made of

    def job(self, request: web.Request) -> J:
        """The job that the path's `id` names."""
        if job := self.population.jobs.get(request.match_info["id"]):
            return job
        raise ApiError(404, "RESOURCE_NOT_FOUND", "no such job")

    async def stream(
        self,
        request: web.Request,
        job: Job,
        start: int = 0,
        *,
        ping: bytes = b": ping\n\n",
        hello: bytes = b"",
        longest_s: float = math.inf,
        goodbye: bytes = b"",
    ) -> web.StreamResponse:
        """The job's entries from that index on, as they come, until it ends, the dice say stop or the client leaves.

        Before them comes `hello`; `goodbye` ends a stream that is open for too long.
        """
        self.population.streams += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        until_s = asyncio.get_running_loop().time() + longest_s
        with suppress(ConnectionError):
            await response.write(hello)
            if await self._tell(request, response, job, start, ping, until_s):
                await response.write(goodbye)
        return response

    async def _tell(
        self, request: web.Request, response: web.StreamResponse, job: Job, told: int, ping: bytes, until_s: float
    ) -> bool:
        """True where only the time was up."""
        fault, patience = self.population.faults.on_the_way(request.path)
        while True:
            told = max(told, job.trimmed(self.world.retained))
            entries = job.entries[told:]
            if fault and not patience and entries:
                self.population.faults.strike(fault)
                await interrupt(fault, request, response, entries[0].frame)
                return False
            if fault:
                entries = entries[:patience]
            if entries:
                await response.write(b"".join(entry.frame for entry in entries))
                told, patience = told + len(entries), patience - len(entries)
            elif job.over and job.closes:
                return False
            elif (left_s := until_s - asyncio.get_running_loop().time()) <= 0:
                return True
            elif not await job.news(min(self.world.keepalive_s, left_s)):
                await response.write(ping)


def number(request: web.Request, name: str, default: int, at_most: int) -> int:
    """A query parameter that is a whole number; raises ApiError 400."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or int(text) > at_most:
        raise ApiError(400, "VALIDATION_ERROR", f"{name} is a number up to {at_most}")
    return int(text)


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent, empty where nothing was; raises ApiError 400."""
    try:
        decoded = json.loads(await request.read() or b"{}")
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise ApiError(400, "VALIDATION_ERROR", "the body is no JSON object")
    return decoded


AnyWorld = TypeVar("AnyWorld", bound=World)


def main(
    name: str,
    world: type[AnyWorld],
    simulator: Callable[[AnyWorld], Simulator[Any, Any]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a simulator as a process of its own. Every plain field of its world and of the pace is an option."""
    options = _options(name, world).parse_args(arguments)
    chosen = {
        field.name: getattr(options, field.name) for field in fields(world) if field.name not in {"pace", "faults"}
    }
    pace = Pace(**{field.name: getattr(options, field.name) for field in fields(Pace)})
    rates = (CALM if options.calm else ROUGH).changed(options.fault)
    simulated = simulator(world(**{**chosen, "pace": pace, "faults": rates}))
    asyncio.run(run_process(simulated.served(options.address, options.port)))


def _options(name: str, world: type[World]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"bridge.demo.simulators.{name}", description=f"A simulated job API: {name}.")
    for default in (world(), Pace()):
        for field in fields(default):
            value, flag = getattr(default, field.name), f"--{field.name.replace('_', '-')}"
            if isinstance(value, bool):
                parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=value)
            elif isinstance(value, (int, float, str)):
                parser.add_argument(flag, type=type(value), default=value)
    mood = parser.add_mutually_exclusive_group()
    mood.add_argument("--faults", action="store_true", help="misbehave as networks do (the default)")
    mood.add_argument("--calm", action="store_true", help="only those faults that --fault names")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=RATE", help="set one fault's rate")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    return parser
