"""Lanes under random refusals, clocks that jump and ends at any moment, against the promises they make."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import Any

import pytest
import structlog

from bridge.delivery.lane_dispatcher import LaneDispatcher
from bridge.delivery.progress import Window
from bridge.delivery.sink import Patience, Receipt, Trial
from bridge.errors import Rejected, Temporary
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.health import HealthJournal
from bridge.journal.outcomes import Selection
from bridge.journal.store import Attempt, Checkpoint, DeliveryState, Entry, Journal, Outcome, SubscriptionRecord
from bridge.journal.stores.sqlite import open_journal
from bridge.telemetry.metrics import Metrics

SINK = "partner"
UNWANTED = EventType.PROGRESS
EXPIRING = EventType.STATE
KINDS = (EventType.OUTPUT,) * 4 + (EventType.STEP,) * 2 + (UNWANTED, EXPIRING)
SCHEDULE_S = (0.0, 0.001, 0.003, 0.0)
# The journal's clock is the real one, far ahead of the model's: whatever has a time to live looks younger than new.
EXPIRED_LONG_AGO_S = -1e9


class Power:
    """Goes out after so many steps. Whatever is asked for then is never answered, as in a process that was killed."""

    def __init__(self, dice: Random, steps: int | None) -> None:
        self.out = asyncio.Event()
        self._dice = dice
        self._steps = steps

    async def step(self) -> None:
        for _ in range(self._dice.choice((0, 0, 1, 2, 10))):
            await asyncio.sleep(0)
        if self._steps is not None:
            self._steps -= 1
            if self._steps <= 0:
                self.out.set()
        if self.out.is_set():
            await asyncio.Event().wait()


class PoweredJournal:
    """The real journal, as seen by a process that can end between any two steps."""

    def __init__(self, world: World, power: Power) -> None:
        self._world = world
        self._power = power

    @property
    def endpoint_health(self) -> HealthJournal:
        return self._world.journal.endpoint_health

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*given: Any, **limits: Any) -> Any:
            await self._power.step()
            answer = await getattr(self._world.journal, name)(*given, **limits)
            await self._power.step()
            return answer

        return call

    async def settle(
        self, consumer: str, partition: int, upto: int, outcomes: tuple[Outcome, ...], attempts: tuple[Attempt, ...]
    ) -> None:
        await self._power.step()
        await self._world.journal.settle(consumer, partition, upto, outcomes, attempts)
        known = await self._world.journal.finished(consumer, partition, 0)
        assert known.issuperset(place for place in self._world.wanted if place <= upto), "passed an unfinished entry"
        await self._power.step()


class World:
    """A journal, a receiver with moods, and what both have seen."""

    def __init__(self, journal: Journal, dice: Random) -> None:
        self.journal = journal
        self.dice = dice
        self.power = Power(dice, None)
        self.patience = Patience(
            SCHEDULE_S,
            retry_after_max_s=1.0,
            concurrency=dice.choice((1, 2, 4)),
            age_max_s=0.005,
            ttl_s={EXPIRING.value: EXPIRED_LONG_AGO_S}.get,
            ordered=dice.random() < 0.75,
            coalesce=dice.choice((frozenset(), frozenset({EventType.OUTPUT.value}))),
            circuit_jobs=dice.choice((2, 1_000)),
            probe_wait_s=0.002,
            probe_wait_max_s=0.004,
        )
        self.refusals = 0.0
        self.accepted: defaultdict[str, list[int]] = defaultdict(list)
        self.given_up: set[tuple[str, int]] = set()
        self.wanted: dict[int, tuple[str, int]] = {}
        """Job and sequence of every event that the receiver wants, by position."""
        self.coalescible: set[int] = set()
        self.expiring: set[int] = set()
        self._sequences: Counter[str] = Counter()
        self._end = 0
        self._under_way: Counter[str] = Counter()
        self._now_ms = 1_764_000_000_000

    def clock_ms(self) -> int:
        self._now_ms += self.dice.choice((0, 1, 1, 2, 3, -2))
        return self._now_ms

    # -- what intake does

    async def journal_events(self, jobs: list[SubscriptionRecord], count: int) -> None:
        for _ in range(count):
            job, kind = self.dice.choice(jobs), self.dice.choice(KINDS)
            self._end += 1
            name = job.key.job_id
            self._sequences[name] += 1
            sequence = self._sequences[name]
            if kind is not UNWANTED:
                self.wanted[self._end] = (name, sequence)
            if kind.value in self.patience.coalesce:
                self.coalescible.add(self._end)
            if kind is EXPIRING:
                self.expiring.add(self._end)
            event = JobEvent(f"{name}-{sequence}", "auvy", name, kind, b"{}")
            await self.journal.append(job, [event], Checkpoint(None, b""))

    # -- the receiver

    @asynccontextmanager
    async def endpoint(self) -> AsyncIterator[World]:
        self._under_way.clear()
        yield self

    def wants(self, entry: Entry) -> bool:
        return entry.type != UNWANTED

    async def deliver(self, entry: Entry, trial: Trial) -> Receipt:
        job = entry.subject
        assert not self._under_way[job], "two events of one job under way"
        self._under_way[job] += 1
        assert self._under_way.total() <= self.patience.concurrency
        try:
            await self.power.step()
            self._judge(job, entry.sequence, trial.number)
            if entry.sequence not in self.accepted[job]:
                self.accepted[job].append(entry.sequence)
            await self.power.step()
        finally:
            self._under_way[job] -= 1
        return Receipt(204, 0.001)

    def _judge(self, job: str, sequence: int, attempt: int) -> None:
        mood = self.dice.random()
        if mood < self.refusals:
            status = self.dice.choice((500, 503))
            if status == 503 or attempt > len(SCHEDULE_S):
                self.given_up.add((job, sequence))
            raise Temporary(f"HTTP {status}", status=status)
        if mood > 0.97:
            self.given_up.add((job, sequence))
            raise Rejected("HTTP 422", status=422)

    # -- what may have become of an event

    def permitted(self, place: int, job: str, sequence: int) -> set[DeliveryState]:
        if sequence in self.accepted[job]:  # and it may have been killed before it could tell
            return set(DeliveryState)
        permitted = {DeliveryState.DEAD} if (job, sequence) in self.given_up else set()
        if place in self.coalescible:
            permitted.add(DeliveryState.FILTERED)
        if place in self.expiring:
            permitted.add(DeliveryState.EXPIRED)
        return permitted

    # -- runs

    @asynccontextmanager
    async def running(self, metrics: Metrics, steps: int | None) -> AsyncIterator[asyncio.Task[None]]:
        """A dispatcher at work. At the end it is killed or, as often, cancelled and left to settle."""
        self.power = Power(self.dice, steps)
        journal: Any = PoweredJournal(self, self.power)
        dispatcher = LaneDispatcher(
            SINK,
            0,
            self,
            journal=journal,
            metrics=metrics,
            log=structlog.get_logger(),
            clock_ms=self.clock_ms,
            dice=self.dice.random,
        )
        others = asyncio.all_tasks()
        task = asyncio.create_task(dispatcher.run(lambda: None))
        try:
            yield task
        finally:
            if self.dice.random() < 0.5:
                self.power.out.set()
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=0.02)
        for left in asyncio.all_tasks() - others:  # a write that was never answered
            left.cancel()
        assert task.cancelled(), task.exception()

    async def until_finished(self, task: asyncio.Task[None]) -> None:
        async with asyncio.timeout(20):
            while await self.journal.position(SINK, 0) < self._end or await self.journal.blocked(SINK, 0):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("seed", range(24))
async def test_promises_hold_whatever_happens_when(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = Random(seed)
    monkeypatch.setattr("bridge.delivery.lanes.ENTRIES_MAX", dice.choice((4, 16, 1_000)))
    monkeypatch.setattr("bridge.delivery.progress.Window", partial(Window, entries_max=dice.choice((3, 10, 1_000))))
    metrics = Metrics()
    async with open_journal(":memory:") as journal:
        await journal.register([SINK], [SINK])
        world = World(journal, dice)
        keys = [JobKey("auvy", f"job-{n}") for n in range(dice.choice((1, 3, 6)))]
        jobs = [record for record, _ in await journal.follow(keys, "config")]
        for _ in range(dice.randint(1, 5)):
            world.refusals = dice.choice((0.0, 0.2, 0.7))
            async with world.running(metrics, steps=dice.randint(1, 150)):
                await world.journal_events(jobs, 30)
                if dice.random() < 0.3:
                    await journal.outcomes.redrive(Selection(SINK, frozenset({DeliveryState.DEAD})))
                with suppress(TimeoutError):
                    await asyncio.wait_for(world.power.out.wait(), 0.02)
        async with world.running(metrics, steps=None) as task:
            await world.until_finished(task)
        page = await journal.outcomes.page(Selection(SINK, frozenset(DeliveryState)), limit=1_000)
        states = {delivery.place.position: delivery.state for delivery in page.deliveries}
        for place, (job, sequence) in world.wanted.items():
            assert states[place] in world.permitted(place, job, sequence), (place, job, sequence)
        if world.patience.ordered:
            for job, sequences in world.accepted.items():
                straight_on = [sequence for sequence in sequences if (job, sequence) not in world.given_up]
                assert straight_on == sorted(straight_on)
