"""Which jobs there are in a simulation and how they live: what every simulated API shares behind its routes.

A life is drawn from a seed beforehand and then lived in real time. What the job says on the wire, each API's own
`Job` words; the ledger of everything said is the same for all.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from bridge.demo.simulators.faults import CALM, FaultRates, Faults


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast jobs live."""

    job_s: float = 6.0
    """How long the longest job goes on, holds not counted."""
    events_per_s: float = 10.0
    """Pieces of news a second while it runs."""
    hold_s: float = 2.5
    """How long a waiting or paused job stays so if nobody helps it on."""
    status_lag_s: float = 0.2
    """How far the status endpoint is behind the stream."""


@dataclass(frozen=True, slots=True)
class World:
    """What is simulated. The same world with the same epoch says the same. Each API's own world extends it."""

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
    """Entries kept of each stream."""
    api_key: str = "demo"


class Step(NamedTuple):
    """One moment of a life: `after_ms` behind the one before it, a new state, and what is then said."""

    after_ms: int
    changes: dict[str, Any]
    kind: str = ""
    """Empty: nothing is said."""
    said: Any = None
    hold_s: float = 0.0
    """Stay here for so long, or until somebody helps the job on."""


class Entry(NamedTuple):
    """One thing said. Without a key it is no part of the ledger: nobody can be blamed for having missed it."""

    key: str
    kind: str
    frame: bytes = b""
    """Ready for the wire; empty where the API only answers."""


class Job(ABC):
    """One job as the API knows it. `state` is the truth; `shown` is what the status endpoint admits to by now."""

    ends: ClassVar[Mapping[str, str]]
    """The API's own terminal words, each with the canonical one."""
    holds: ClassVar[frozenset[str]] = frozenset()
    """The API's words for a job that waits for somebody to help it on."""

    def __init__(
        self, job_id: str, steps: Iterator[Step], state: dict[str, Any], *, epoch_ms: int, lag_s: float
    ) -> None:
        self.id = job_id
        self.state = self.shown = state
        self.entries: list[Entry] = []
        self.closes = True
        """Whether the server closes the stream once the job is over."""
        self.born_s = asyncio.get_running_loop().time()
        """On the event loop's clock."""
        self.now_ms = epoch_ms
        """The job's own time, which depends on its steps alone."""
        self._steps = steps
        self._lag_s = lag_s
        self._news = asyncio.Event()
        self._helped = asyncio.Event()
        self._stopped = False

    @abstractmethod
    def say(self, step: Step) -> list[Entry]:
        """What the step, just taken, puts on the wire."""

    @property
    def terminal(self) -> str | None:
        """The canonical word for how the job ended; None while it has not."""
        return self.ends.get(self.state["status"])

    @property
    def over(self) -> bool:
        """Whether the job will never move again."""
        return self.terminal is not None

    @property
    def held(self) -> bool:
        """Whether it waits for somebody to help it on."""
        return self.state["status"] in self.holds

    async def live(self) -> None:
        """Take all the steps in real time; those that are due already are taken at once."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for step in self._steps:
            due_s += step.after_ms / 1000
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if self._stopped:
                return
            self._take(step)
            if step.hold_s:
                await self._hold(step.hold_s)
                due_s = loop.time()

    async def news(self, timeout_s: float) -> bool:
        """Wait for the next entry or the end; False when the time is over first."""
        try:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def help_on(self) -> None:
        """End a hold early."""
        self._helped.set()

    def stop(self, last: Step) -> None:
        """Take this step and no other."""
        self._stopped = True
        self._helped.set()
        self._take(last)

    def trimmed(self, retained: int) -> int:
        """How many entries retention has already thrown away."""
        return max(0, len(self.entries) - retained)

    async def _hold(self, hold_s: float) -> None:
        self.now_ms += round(1000 * hold_s)
        self._helped.clear()
        try:
            await asyncio.wait_for(self._helped.wait(), hold_s)
        except TimeoutError:
            return

    def _take(self, step: Step) -> None:
        self.now_ms += step.after_ms
        self.state = self.state | step.changes
        self.entries += self.say(step)
        asyncio.get_running_loop().call_later(self._lag_s, self._show, self.state)
        self._news.set()
        self._news = asyncio.Event()

    def _show(self, state: dict[str, Any]) -> None:
        self.shown = state


W = TypeVar("W", bound=World)
J = TypeVar("J", bound=Job)


class Population(ABC, Generic[W, J]):
    """The jobs of a world, oldest first, each living in a task of its own."""

    def __init__(self, world: W) -> None:
        self.world = world
        self.faults = Faults(world.faults, world.seed)
        self.jobs: dict[str, J] = {}
        self.requests = 0
        self.streams = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_come = world.jobs

    @abstractmethod
    def bear(self, number: int, dice: Random, **wishes: Any) -> J:
        """The job with that number, counted from 1, as whoever starts it wishes it; the same for the same dice."""

    @property
    def finished(self) -> bool:
        """Whether every planned job has appeared and every job is over."""
        return not self._to_come and all(job.over for job in self.jobs.values())

    def begin(self) -> None:
        """Let the planned jobs appear, some at once and the others over time."""
        for _ in range(min(self.world.at_once, self.world.jobs)):
            self._appear()
        self._spawn(self._others())

    def start_job(self, **wishes: Any) -> J:
        """One more job, already running."""
        number = len(self.jobs) + 1
        dice = Random(f"{self.world.seed}/{number}")  # noqa: S311 - a script, no secret
        job = self.bear(number, dice, **wishes)
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
        """The ledger: each job's positions with their kinds, whoever heard them."""
        return self._report(lambda job: {"entries": [[e.key, e.kind] for e in job.entries if e.key]})

    def progress(self) -> dict[str, Any]:
        """The ledger in numbers."""
        return self._report(lambda job: {"emitted": sum(bool(entry.key) for entry in job.entries)})

    def _report(self, of_job: Callable[[J], dict[str, Any]]) -> dict[str, Any]:
        return {
            "jobs": {
                job.id: {"status": job.state["status"], "terminal": job.terminal, "over": job.over, **of_job(job)}
                for job in self.jobs.values()
            },
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


def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as the text that job APIs write."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
