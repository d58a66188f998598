"""Which AUVY jobs there are in a simulation, and the ledger of everything that they ever said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

from bridge.demo.simulators.auvy_job import PLOTS, Pace, SimulatedJob, life
from bridge.demo.simulators.faults import CALM, FaultRates, Faults


@dataclass(frozen=True, slots=True)
class World:
    """What is simulated. The same world with the same epoch emits the same ids."""

    jobs: int = 12
    """Jobs that appear by themselves; more can be started through the API."""
    at_once: int = 3
    """How many of them exist from the start."""
    spread_s: float = 10.0
    """The others appear evenly over so many seconds."""
    seed: int = 1
    epoch_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    pace: Pace = field(default_factory=Pace)
    faults: FaultRates = CALM
    keepalive_s: float = 0.5
    retained: int = 1_000_000
    """Entries kept of each stream. An older `after` skips what is gone, or is refused if `strict_after`."""
    strict_after: bool = False
    unready_s: float = 0.0
    """How long a new job's stream answers 404."""
    api_key: str = "ak_live_demo"
    share_token: str = "st_demo"  # noqa: S105 - a toy's token


class Population:
    """The jobs of a world, oldest first, each living in a task of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults = Faults(world.faults, world.seed)
        self.jobs: dict[str, SimulatedJob] = {}
        self.requests = 0
        self.streams = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_come = world.jobs

    @property
    def finished(self) -> bool:
        """Whether every planned job has appeared and every job is over."""
        return not self._to_come and all(job.over for job in self.jobs.values())

    def begin(self) -> None:
        """Let the planned jobs appear, some at once and the others over time."""
        for _ in range(min(self.world.at_once, self.world.jobs)):
            self._appear()
        self._spawn(self._others())

    def start_job(self, *, streaming: bool | None = None) -> SimulatedJob:
        """One more job, already running. Without `streaming` its plot says whether it streams."""
        number = len(self.jobs) + 1
        plot = PLOTS[(number - 1) % len(PLOTS)]
        dice = Random(f"{self.world.seed}/{number}")  # noqa: S311 - a script, no secret
        job = SimulatedJob(
            f"job_{number}",
            life(plot, self.world.pace, dice),
            epoch_ms=self.world.epoch_ms + 137 * number,
            lag_s=self.world.pace.status_lag_s,
            streaming=plot != "silent" if streaming is None else streaming,
            closes=number % 2 == 0,
        )
        self.jobs[job.id] = job
        self._spawn(job.live())
        return job

    async def stop(self) -> None:
        """End every life that is still going on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def emitted(self) -> dict[str, Any]:
        """The ledger: each job's stream ids with their kinds, whoever heard them."""
        return self._report(lambda job: {"entries": [[str(entry.id), entry.kind] for entry in job.entries]})

    def progress(self) -> dict[str, Any]:
        """The ledger in numbers."""
        return self._report(lambda job: {"emitted": len(job.entries)})

    def _report(self, of_job: Callable[[SimulatedJob], dict[str, Any]]) -> dict[str, Any]:
        return {
            "jobs": {j.id: {"status": j.state["status"], "over": j.over, **of_job(j)} for j in self.jobs.values()},
            "finished": self.finished,
            "faults": dict(self.faults.struck),
            "connections": {"requests": self.requests, "streams": self.streams},
        }

    async def _others(self) -> None:
        late = self._to_come
        for _ in range(late):
            await asyncio.sleep(self.world.spread_s / late)
            self._appear()

    def _appear(self) -> None:
        self._to_come -= 1
        self.start_job()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
