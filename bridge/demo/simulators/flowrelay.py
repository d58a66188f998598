"""The Flow Relay job API as documented, played by a real HTTP server that counts every request against the key.

Facts come from section 3 of the wire contracts; what a result holds is invented. Nothing of a job's life but its end
can be asked for later, so the ledger lists no entries, only how each job ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, NamedTuple

from aiohttp import web

from bridge.demo.simulators import world
from bridge.demo.simulators.api import ApiError, Simulator, body, main
from bridge.demo.simulators.faults import Fault
from bridge.demo.simulators.world import Entry, Pace, Step, rfc3339

INSIGHTS = frozenset({"correlation", "onboarding", "architecture", "release_notes", "plan_review"})


class Plot(NamedTuple):
    """What becomes of a job."""

    kind: str
    error_code: str | None = None
    stuck: bool = False
    """It stays in `processing` for a long while."""
    skips: bool = False
    """From `pending` straight to its end."""
    pruned: bool = False
    """Its result can no longer be had once it is over."""


PLOTS = (
    Plot("handoff"),
    Plot("architecture", "plan_violation"),
    Plot("correlation"),
    Plot("handoff", "generation_failed"),
    Plot("release_notes", stuck=True),
    Plot("handoff", "quota_exceeded", skips=True),
    Plot("onboarding", pruned=True),
    Plot("plan_review", "no_result"),
)
"""What becomes of job 1, 2, 3 ..., over and over."""

_ERRORS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "plan_violation": ("Your plan does not include this flow.", {"flow": "architecture_insight"}),
    "quota_exceeded": ("All credits are used up.", {"credits_left": 0}),
    "generation_failed": ("The model could not finish.", None),
    "no_result": ("Nothing usable came back.", None),
}
_STALE = "stale"
"""As a step's kind: `updated_at` stays where it was, although the job moved."""


def life(plot: Plot, pace: Pace, dice: Random) -> Iterator[Step]:
    """The steps of a whole life, the same for the same dice. Some move nothing but `updated_at`, some all but that."""
    span_ms = 1000 * pace.job_s * dice.uniform(0.5, 1.0)
    yield Step(round(0.2 * span_ms), {} if plot.skips else {"status": "processing"}, dice.choice(["", _STALE]))
    yield Step(round(0.4 * span_ms), {}, hold_s=pace.hold_s if plot.stuck else 0.0)
    yield Step(round(0.4 * span_ms), _end(plot, dice), dice.choice(["", _STALE]))


def _end(plot: Plot, dice: Random) -> dict[str, Any]:
    if plot.error_code:
        text, meta = _ERRORS[plot.error_code]
        return {"status": "failed", "error": text, "error_code": plot.error_code, "error_meta": meta}
    kind = "handoff" if plot.kind == "handoff" else "insight"
    result_id = f"{kind[:2]}_{dice.randrange(16**6):06x}"
    result = {"id": result_id, "title": f"A {plot.kind}", "body": "Merci ✓", "score": round(dice.random(), 3)}
    result_known = None if plot.pruned else result
    return {"status": "completed", "result_kind": kind, "result_id": result_id, "result": result_known}


class SimulatedJob(world.Job):
    """One job as the API knows it; beside the documented members its state holds the result."""

    ends: ClassVar = {"completed": "completed", "failed": "failed"}

    def __init__(self, job_id: str, project_id: str, plot: Plot, steps: Iterator[Step], epoch_ms: int) -> None:
        born = rfc3339(epoch_ms)
        later = ("result_kind", "result_id", "error", "error_code", "error_meta", "result")
        state = {"id": job_id, "project_id": project_id, "kind": plot.kind, "status": "pending"}
        moments = {"created_at": born, "updated_at": born}
        super().__init__(job_id, steps, state | dict.fromkeys(later) | moments, epoch_ms=epoch_ms, lag_s=0.0)

    def say(self, step: Step) -> list[Entry]:
        if step.kind != _STALE:
            self.state["updated_at"] = rfc3339(self.now_ms)
        return []


@dataclass(frozen=True, slots=True)
class World(world.World):
    """What is simulated. The limits are the vendor's; `minute_s` lets their minute pass faster."""

    requests_per_minute: int = 60
    generations_per_minute: int = 10
    minute_s: float = 60.0
    api_key: str = "fr_demo"


class Population(world.Population[World, SimulatedJob]):
    """Its jobs. The wish `kind` takes the next plot of that kind, `project_id` names what it is about."""

    def bear(self, number: int, dice: Random, **wishes: Any) -> SimulatedJob:
        plots = [plot for plot in PLOTS if wishes.get("kind") in {None, plot.kind}]
        plot = plots[(number - 1) % len(plots)]
        steps = life(plot, self.world.pace, dice)
        epoch_ms = self.world.epoch_ms + 137 * number
        return SimulatedJob(f"job_{number}", wishes.get("project_id", "prj_demo"), plot, steps, epoch_ms)


class Window:
    """At most so many requests in any stretch of that length; those refused do not count."""

    def __init__(self, limit: int, length_s: float) -> None:
        self._limit, self._length_s = limit, length_s
        self._moments_s: deque[float] = deque()

    def admits(self) -> bool:
        """Whether one more is allowed now; counts it if so."""
        now_s = asyncio.get_running_loop().time()
        while self._moments_s and self._moments_s[0] <= now_s - self._length_s:
            self._moments_s.popleft()
        if len(self._moments_s) >= self._limit:
            return False
        self._moments_s.append(now_s)
        return True


class FlowRelaySimulator(Simulator[World, SimulatedJob]):
    """The routes. There is none that lists or cancels jobs."""

    def __init__(self, simulated: World) -> None:
        super().__init__(simulated, Population(simulated))
        self._requests = Window(simulated.requests_per_minute, simulated.minute_s)
        self._generations = Window(simulated.generations_per_minute, simulated.minute_s)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v1/jobs/{id}", self._job),
            web.post("/api/v1/handoffs", self._handoff),
            web.post("/api/v1/projects/{project}/insights/{kind}", self._insight),
        ]

    def authorise(self, request: web.Request) -> None:
        super().authorise(request)
        self._count(self._requests)

    def error_body(self, error: ApiError) -> dict[str, Any]:
        return {"error": str(error)}

    def _refuse(self, error: ApiError) -> web.Response:
        """No header ever tells when to come back."""
        return web.json_response(self.error_body(error), status=error.status)

    def _count(self, window: Window) -> None:
        if not window.admits():
            self.population.faults.strike(Fault.RATE_LIMIT)
            raise ApiError(429, "", "Too many requests. Slow down.")

    async def _job(self, request: web.Request) -> web.Response:
        shown = self.job(request).shown
        job = {name: value for name, value in shown.items() if name != "result"}
        return web.json_response({"job": job, "result": shown["result"]})

    async def _handoff(self, request: web.Request) -> web.Response:
        project_id = (await body(request)).get("project_id")
        if not isinstance(project_id, str) or not project_id:
            raise ApiError(400, "", "project_id is needed")
        return self._started("handoff", project_id)

    async def _insight(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        if kind not in INSIGHTS:
            raise ApiError(400, "", f"{kind} is no kind of insight")
        return self._started(kind, request.match_info["project"])

    def _started(self, kind: str, project_id: str) -> web.Response:
        self._count(self._generations)
        job = self.population.start_job(kind=kind, project_id=project_id)
        return web.json_response({"jobId": job.id, "status": job.state["status"]}, status=202)


@asynccontextmanager
async def flowrelay_simulator(simulated: World) -> AsyncIterator[FlowRelaySimulator]:
    """A running simulator at `url`, whose jobs live until the context ends."""
    simulator = FlowRelaySimulator(simulated)
    async with simulator.served():
        yield simulator


if __name__ == "__main__":
    main("flowrelay", World, FlowRelaySimulator)
