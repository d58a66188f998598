"""Lanes over the real journal: order, independence, retries, dead letters and restarts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from bridge.delivery.lane_dispatcher import LaneDispatcher
from bridge.delivery.sink import Patience, Receipt, Trial, Unjudged
from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.outcomes import Place, Selection
from bridge.journal.store import Checkpoint, DeliveryState, Entry, Journal, Outcome, Outstanding, SubscriptionRecord
from bridge.journal.stores.sqlite import open_journal
from bridge.telemetry.metrics import Metrics

SINK = "partner"
NOW_MS = 1_764_000_000_000
HOUR_S = 3600.0


class Receiver:
    """A destination that a test steers: `judge` says how an attempt ends, a closed `gate` holds attempts back."""

    def __init__(
        self,
        *,
        schedule_s: tuple[float, ...] = (HOUR_S,) * 9,
        concurrency: int = 4,
        circuit_jobs: int = 1_000,
        **more: Any,
    ) -> None:
        self.patience = Patience(
            schedule_s, retry_after_max_s=600.0, concurrency=concurrency, circuit_jobs=circuit_jobs, **more
        )
        self.wanted: Callable[[Entry], bool] = lambda _entry: True
        self.judge: Callable[[Entry, int], BridgeError | None] = lambda _entry, _attempt: None
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(_open_gate)
        self.attempts: list[tuple[str, int]] = []
        self.accepted: defaultdict[str, list[int]] = defaultdict(list)
        self.under_way: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def endpoint(self) -> AsyncIterator[Receiver]:
        yield self

    def wants(self, entry: Entry) -> bool:
        return self.wanted(entry)

    async def deliver(self, entry: Entry, trial: Trial) -> Receipt:
        attempt = trial.number
        self.under_way[entry.subject] += 1
        assert self.under_way[entry.subject] == 1, "two events of one job under way"
        self.attempts.append((entry.id, attempt))
        self._tell()
        trial.address, trial.answer = "192.0.2.1", "hello"
        try:
            await self.gates[entry.subject].wait()
        finally:
            self.under_way[entry.subject] -= 1
        if error := self.judge(entry, attempt):
            raise error
        self.accepted[entry.subject].append(entry.sequence)
        self._tell()
        return Receipt(204, 0.001)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await self._changed.wait()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


class Clock:
    """Unix milliseconds that move when told to."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


class House:
    """A journal with jobs in it, and dispatchers over it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.clock = Clock()
        self.clock_ms: Callable[[], int] = self.clock
        self.metrics = Metrics(CollectorRegistry())
        self.useful = 0
        self._records: dict[str, SubscriptionRecord] = {}
        self._counts: Counter[str] = Counter()

    async def journal_events(self, *jobs: str, kind: EventType = EventType.OUTPUT) -> None:
        """One event for each of the jobs named, in that order."""
        for job in jobs:
            if job not in self._records:
                ((self._records[job], _),) = await self.journal.follow([JobKey("auvy", job)], "config")
        start = 0
        while start < len(jobs):  # runs of one job share a transaction
            end = start
            while end < len(jobs) and jobs[end] == jobs[start]:
                end += 1
            events = [self._event(jobs[start], kind) for _ in range(start, end)]
            await self.journal.append(self._records[jobs[start]], events, Checkpoint(None, b""))
            start = end

    def _event(self, job: str, kind: EventType) -> JobEvent:
        self._counts[job] += 1
        return JobEvent(f"{job}-{self._counts[job]}", "auvy", job, kind, b'{"n":1}')

    def lane_of(self, job: str) -> int:
        return self._records[job].id

    def dispatcher(self, receiver: Receiver, journal: Any = None) -> LaneDispatcher:
        return LaneDispatcher(
            SINK,
            0,
            receiver,
            journal=journal or self.journal,
            metrics=self.metrics,
            log=structlog.get_logger(),
            clock_ms=self.clock_ms,
            dice=lambda: 0.0,
        )

    @asynccontextmanager
    async def running(self, receiver: Receiver, journal: Any = None) -> AsyncIterator[asyncio.Task[None]]:
        """A dispatcher at work; at the end it is cancelled, and whatever it finished is settled."""
        task = asyncio.create_task(self.dispatcher(receiver, journal).run(self._count_useful))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _count_useful(self) -> None:
        self.useful += 1

    async def position(self) -> int:
        return await self.journal.position(SINK, 0)

    async def lane(self, job: str) -> list[Outcome]:
        return [one.outcome for one in await self.journal.lane(SINK, 0, self.lane_of(job), 10_000)]

    async def until_settled(self, upto: int) -> None:
        async with asyncio.timeout(20):
            while await self.position() < upto:  # noqa: ASYNC110 - settling rings no bell
                await asyncio.sleep(0)

    async def states(self) -> dict[int, str | None]:
        """What became of each entry."""
        page = await self.journal.outcomes.page(Selection(SINK, frozenset(DeliveryState)))
        return {delivery.place.position: delivery.state for delivery in page.deliveries}

    def counted(self, outcome: str) -> float:
        return (
            self.metrics.registry.get_sample_value("jobbridge_deliveries_total", {"sink": SINK, "outcome": outcome})
            or 0.0
        )


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_journal(":memory:") as journal:
        await journal.register([SINK], [SINK])
        yield House(journal)


def refuse(*jobs: str, times: int | None = None, error: Callable[[], BridgeError] | None = None) -> Any:
    """A judge that refuses the jobs' events, so many attempts of each or always."""

    def judge(entry: Entry, attempt: int) -> BridgeError | None:
        if entry.subject in jobs and (times is None or attempt <= times):
            return error() if error else Temporary("partner: HTTP 503", reason="server_error", status=503)
        return None

    return judge


async def test_delivers_every_event_once_in_order_and_settles(house: House) -> None:
    receiver = Receiver()
    await house.journal_events(*["a", "b", "c"] * 50)
    async with house.running(receiver):
        await receiver.until(lambda: sum(map(len, receiver.accepted.values())) == 150)
    assert receiver.accepted == {job: list(range(1, 51)) for job in "abc"}
    assert await house.position() == 150
    assert await house.journal.finished(SINK, 0, 0) == set(range(1, 151))
    assert house.counted("delivered") == house.useful == 150


async def test_delivers_what_is_journalled_while_it_runs(house: House) -> None:
    receiver = Receiver()
    async with house.running(receiver):
        for n in range(1, 6):
            await house.journal_events("a")
            await receiver.until(lambda: len(receiver.accepted["a"]) == n)  # noqa: B023 - awaited at once
    assert receiver.accepted["a"] == [1, 2, 3, 4, 5]


async def test_lanes_go_out_side_by_side_up_to_the_concurrency(house: House) -> None:
    receiver = Receiver(concurrency=3)
    jobs = ["a", "b", "c", "d", "e"]
    for job in jobs:
        receiver.gates[job].clear()
    await house.journal_events(*jobs)
    async with house.running(receiver):
        await receiver.until(lambda: len(receiver.attempts) == 3)
        assert sum(receiver.under_way.values()) == 3
        for job in jobs:
            receiver.gates[job].set()
        await receiver.until(lambda: len(receiver.accepted) == 5)


async def test_a_job_in_retries_holds_back_only_itself(house: House) -> None:
    receiver = Receiver(schedule_s=(5.0, 300.0))
    receiver.judge = refuse("a")
    await house.journal_events("a", "b", "a", "b", "a", "b")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["b"] == [1, 2, 3])
        await house.journal_events("a", "b")
        await receiver.until(lambda: receiver.accepted["b"] == [1, 2, 3, 4])
    assert receiver.accepted["a"] == []
    assert await house.position() == 8
    assert await house.journal.blocked(SINK, 0) == {house.lane_of("a"): NOW_MS + 5_000}
    head, *behind = await house.lane("a")
    refused = Outcome(
        1, house.lane_of("a"), DeliveryState.RETRYING, 1, NOW_MS, NOW_MS + 5_000, 503, "partner: HTTP 503"
    )
    assert head == refused._replace(spared=1, previous=0)
    assert [(held.position, held.state) for held in behind] == [(p, DeliveryState.HELD) for p in (3, 5, 7)]


async def test_a_lane_goes_on_in_order_once_its_head_got_through(house: House) -> None:
    receiver = Receiver(schedule_s=(0.01, 0.02, 0.03))
    receiver.judge = refuse("a", times=2)
    house.clock_ms = lambda: time.time_ns() // 1_000_000
    await house.journal_events(*["a"] * 5)
    async with house.running(receiver):
        await receiver.until(lambda: len(receiver.accepted["a"]) == 5)
        receiver.judge = refuse()
        await house.journal_events("a")
        await receiver.until(lambda: len(receiver.accepted["a"]) == 6)
    assert receiver.accepted["a"] == [1, 2, 3, 4, 5, 6]
    assert receiver.attempts[:6] == [(f"a-{n}", attempt) for n in (1, 2) for attempt in (1, 2, 3)]
    assert await house.journal.blocked(SINK, 0) == {}
    assert house.counted("retrying") == 10


async def test_events_that_arrive_while_a_lane_drains_keep_their_order(house: House) -> None:
    receiver = Receiver(schedule_s=(0.0,) * 9)
    receiver.judge = refuse("a", times=1)
    async with house.running(receiver):
        for _ in range(40):
            await house.journal_events("a", "a", "b")
        await receiver.until(lambda: len(receiver.accepted["a"]) == 80 and len(receiver.accepted["b"]) == 40)
    assert receiver.accepted["a"] == list(range(1, 81))
    assert await house.position() == 120


async def test_retries_survive_a_restart_on_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path) as journal:
        await journal.register([SINK])
        house = House(journal)
        await house.journal_events("a", "b", "a", "a")
        receiver = Receiver(schedule_s=(5.0, 300.0))
        receiver.judge = refuse("a")
        async with house.running(receiver):
            await receiver.until(lambda: receiver.accepted["b"] == [1] and len(receiver.attempts) == 2)
    async with open_journal(path) as journal:
        await journal.register([SINK])
        house.journal = journal
        early = Receiver(schedule_s=(5.0, 300.0))
        async with house.running(early):
            await house.journal_events("a", "b")
            await early.until(lambda: early.accepted["b"] == [2])
        assert early.accepted["a"] == []
        house.clock.now_ms += 5_000
        late = Receiver(schedule_s=(5.0, 300.0))
        async with house.running(late):
            await late.until(lambda: len(late.accepted["a"]) == 4)
        assert late.attempts == [("a-1", 2), ("a-2", 1), ("a-3", 1), ("a-4", 1)]
        assert late.accepted["a"] == [1, 2, 3, 4]
        assert await journal.blocked(SINK, 0) == {}


async def test_a_restart_does_not_resend_what_was_delivered_ahead_of_the_position(house: House) -> None:
    receiver = Receiver()
    receiver.gates["slow"].clear()
    await house.journal_events("slow", "quick", "quick")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["quick"] == [1, 2])
    assert await house.position() == 0
    again = Receiver()
    async with house.running(again):
        await house.journal_events("quick")
        await again.until(lambda: again.accepted["slow"] == [1] and again.accepted["quick"] == [3])
    assert await house.position() == 4


async def test_a_rejected_event_is_a_dead_letter_and_its_lane_goes_on(house: House) -> None:
    receiver = Receiver()
    receiver.judge = lambda entry, _: Rejected("HTTP 422", status=422) if entry.sequence == 2 else None
    await house.journal_events("a", "a", "a")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["a"] == [1, 3])
    assert await house.position() == 3
    assert (await house.journal.health()).outstanding[SINK] == {"dead": 1}
    assert house.counted("dead") == 1


async def test_an_exhausted_schedule_makes_a_dead_letter_and_the_lane_goes_on(house: House) -> None:
    receiver = Receiver(schedule_s=(0.0, 0.0))
    receiver.judge = lambda entry, _: Temporary("HTTP 500", status=500) if entry.sequence == 1 else None
    await house.journal_events("a", "a")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["a"] == [2])
    assert receiver.attempts == [("a-1", 1), ("a-1", 2), ("a-1", 3), ("a-2", 1)]
    assert (await house.journal.health()).outstanding[SINK] == {"dead": 1}


async def test_a_fatal_answer_ends_the_run_and_loses_nothing(house: House) -> None:
    receiver = Receiver()
    receiver.judge = refuse("gone", error=lambda: Fatal("HTTP 410", reason="gone", status=410))
    await house.journal_events("a", "gone", "b")
    receiver.gates["gone"].clear()
    async with house.running(receiver) as task:
        await receiver.until(lambda: bool(receiver.accepted["a"] and receiver.accepted["b"]))
        receiver.gates["gone"].set()
        with pytest.raises(Fatal, match="410") as caught:
            await task
    assert caught.value.reason == "gone"
    assert await house.position() == 3
    (head,) = await house.lane("gone")
    assert (head.state, head.status, head.attempts, head.due_ms) == (DeliveryState.RETRYING, 410, 1, NOW_MS)
    back = Receiver()
    async with house.running(back):
        await back.until(lambda: back.accepted["gone"] == [1])
    assert back.attempts == [("gone-1", 2)]


async def test_unwanted_events_are_passed_and_counted(house: House) -> None:
    receiver = Receiver()
    receiver.wanted = lambda entry: entry.type == "job.completed"
    await house.journal_events("a", "a", "a")
    await house.journal_events("a", kind=EventType.COMPLETED)
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["a"] == [4])
    assert await house.position() == 4
    assert house.counted("filtered") == 3
    assert await house.journal.finished(SINK, 0, 0) == {4}


async def test_an_event_that_cannot_be_judged_is_sent_counted_and_told_of_once(house: House) -> None:
    def wanted(_entry: Entry) -> bool:
        raise Unjudged("it takes too many steps")

    receiver = Receiver()
    receiver.wanted = wanted
    await house.journal_events("a", "a", "b")
    with capture_logs() as logs:
        async with house.running(receiver):
            await receiver.until(lambda: receiver.accepted == {"a": [1, 2], "b": [1]})
    assert house.metrics.registry.get_sample_value("jobbridge_unjudged_events_total", {"sink": SINK}) == 3
    told = [line for line in logs if line["event"] == "delivery.unjudged"]
    assert [(line["endpoint"], line["detail"]) for line in told] == [(SINK, "it takes too many steps")]


async def test_events_that_take_long_to_judge_let_others_have_the_loop_in_between(house: House) -> None:
    turns, seen = 0, []

    async def turn_after_turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def wanted(_entry: Entry) -> bool:
        seen.append(turns)
        time.sleep(0.002)
        return False

    receiver = Receiver()
    receiver.wanted = wanted
    await house.journal_events(*["a"] * 10)
    async with asyncio.TaskGroup() as tasks, house.running(receiver):
        other = tasks.create_task(turn_after_turn())
        await house.until_settled(10)
        other.cancel()
    assert len(set(seen)) == 10


async def test_a_long_lane_does_not_fill_the_memory_that_others_need(house: House) -> None:
    receiver = Receiver(concurrency=2)
    receiver.gates["long"].clear()
    await house.journal_events(*["long"] * 1_500, "short")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["short"] == [1])
        receiver.gates["long"].set()
        await receiver.until(lambda: len(receiver.accepted["long"]) == 1_500)
    assert receiver.accepted["long"] == list(range(1, 1_501))
    assert await house.position() == 1_501


async def test_a_restart_in_the_middle_of_a_long_lane_keeps_its_order(house: House) -> None:
    receiver = Receiver(concurrency=2)
    receiver.gates["long"].clear()
    await house.journal_events(*["long"] * 1_500, "short")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["short"] == [1])
    assert await house.position() == 0
    again = Receiver(concurrency=2)
    async with house.running(again):
        await again.until(lambda: len(again.accepted["long"]) == 1_500)
    assert again.accepted["long"] == list(range(1, 1_501))


@pytest.mark.parametrize("seed", range(6))
async def test_order_holds_through_random_refusals_and_restarts(house: House, seed: int) -> None:
    dice = Random(seed)
    accepted: defaultdict[str, list[int]] = defaultdict(list)
    jobs = [f"job-{n}" for n in range(8)]
    total = 0
    for _ in range(6):
        receiver = Receiver(schedule_s=(0.0,) * 10_000)
        receiver.accepted = accepted
        receiver.judge = lambda *_: Temporary("HTTP 503", status=503) if dice.random() < 0.3 else None
        await house.journal_events(*dice.choices(jobs, k=60))
        total += 60
        goal = dice.randint(total // 2, total)
        async with house.running(receiver):
            await receiver.until(lambda: sum(map(len, accepted.values())) >= goal)  # noqa: B023 - awaited at once
    async with house.running(receiver):
        await receiver.until(lambda: sum(map(len, accepted.values())) >= total)
    assert accepted == {job: list(range(1, len(accepted[job]) + 1)) for job in accepted}
    assert await house.position() == total


async def test_a_dead_endpoint_costs_another_one_nothing(house: House) -> None:
    await house.journal.register([SINK, "other"])
    dead, alive = Receiver(concurrency=1), Receiver()
    dead.gates["a"].clear()
    await house.journal_events(*["a"] * 20)
    other = LaneDispatcher("other", 0, alive, journal=house.journal, metrics=house.metrics, log=structlog.get_logger())
    async with house.running(dead):
        task = asyncio.create_task(other.run(lambda: None))
        await alive.until(lambda: len(alive.accepted["a"]) == 20)
        task.cancel()
        await asyncio.wait([task])
    assert await house.journal.position("other", 0) == 20
    assert await house.position() == 0


class Altered:
    """The real journal, some of whose methods a test bends."""

    def __init__(self, journal: Journal, **bent: Any) -> None:
        self._journal = journal
        self.__dict__ |= bent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


async def disk_full(*_: Any) -> None:
    raise Temporary("disk full", reason="journal")


async def test_a_journal_that_cannot_settle_ends_the_run(house: House) -> None:
    await house.journal_events("a")
    with pytest.raises(Temporary, match="disk full"):
        await house.dispatcher(Receiver(), Altered(house.journal, settle=disk_full)).run(lambda: None)
    receiver = Receiver()
    async with house.running(receiver):  # at least once: it was accepted, but that could not be recorded
        await receiver.until(lambda: receiver.accepted["a"] == [1])


async def test_a_lane_goes_on_only_once_its_dead_letter_is_durable(house: House) -> None:
    receiver = Receiver()
    receiver.judge = refuse("a", error=lambda: Rejected("HTTP 422", status=422))
    await house.journal_events("a", "a")
    with pytest.raises(Temporary, match="disk full"):
        await house.dispatcher(receiver, Altered(house.journal, settle=disk_full)).run(lambda: None)
    assert receiver.attempts == [("a-1", 1)]


async def test_an_event_held_while_its_lane_is_found_empty_is_not_forgotten(house: House) -> None:
    scanned, late = asyncio.Event(), asyncio.Event()

    async def pending(partition: int, after: int, **limits: Any) -> Sequence[Entry]:
        if after == 2:
            scanned.set()
        return await house.journal.pending(partition, after, **limits)

    async def lane(*given: Any, **kind: Any) -> Sequence[Outstanding]:
        outstanding = await house.journal.lane(*given, **kind)
        if not outstanding and not late.is_set():
            late.set()
            await house.journal_events("a")
            await scanned.wait()
        return outstanding

    receiver = Receiver(schedule_s=(0.0,))
    receiver.judge = lambda entry, attempt: Temporary("HTTP 503") if (entry.sequence, attempt) == (1, 1) else None
    await house.journal_events("a")
    async with house.running(receiver, Altered(house.journal, pending=pending, lane=lane)):
        await receiver.until(lambda: receiver.accepted["a"] == [1, 2])


async def test_lanes_that_come_due_together_wait_for_their_turn_in_the_journal(house: House) -> None:
    jobs, fetched, most = [f"job-{n}" for n in range(60)], 0, 0
    away = Receiver(schedule_s=(5.0,))
    away.judge = refuse(*jobs)
    await house.journal_events(*(job for job in jobs for _ in range(20)))
    async with house.running(away):
        await away.until(lambda: len(away.attempts) == 60)

    async def lane(*given: Any, **kind: Any) -> Sequence[Outstanding]:
        nonlocal fetched, most
        outstanding = await house.journal.lane(*given, **kind)
        fetched += len(outstanding)
        most = max(most, fetched - len(back.attempts))
        return outstanding

    house.clock.now_ms += 5_000
    back = Receiver(concurrency=2)
    async with house.running(back, Altered(house.journal, lane=lane)):
        await back.until(lambda: len(back.attempts) == 1_200)
    assert most <= 2 * 20
    assert all(back.accepted[job] == list(range(1, 21)) for job in jobs)


async def test_every_failure_leaves_one_wide_line(house: House) -> None:
    receiver = Receiver(schedule_s=(5.0,))
    receiver.judge = refuse("a")
    await house.journal_events("a", "b")
    with capture_logs() as lines:
        async with house.running(receiver):
            await receiver.until(lambda: receiver.accepted["b"] == [1])
    (line,) = lines
    assert line == {
        "event": "delivery.failed",
        "log_level": "warning",
        "endpoint": SINK,
        "event_id": "a-1",
        "type": "job.output",
        "job": "auvy/a",
        "attempt": 1,
        "status": 503,
        "reason": "server_error",
        "detail": "partner: HTTP 503",
        "dead": False,
        "next_due_ms": NOW_MS + 5_000,
    }


# -- what a receiver may ask for


async def test_an_event_older_than_its_time_to_live_is_not_sent_and_holds_nobody_back(house: House) -> None:
    receiver = Receiver(ttl_s={"job.progress": 60.0}.get)
    await house.journal_events("a", kind=EventType.PROGRESS)
    await house.journal_events("a", kind=EventType.COMPLETED)
    house.clock.now_ms = time.time_ns() // 1_000_000 + 61_000
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["a"] == [2])
    assert receiver.attempts == [("a-2", 1)]
    assert house.counted("expired") == 1
    assert await house.states() == {1: "expired", 2: "delivered"}
    assert await house.position() == 2


async def test_a_refused_event_that_expires_gives_way_before_it_is_due(house: House) -> None:
    receiver = Receiver(ttl_s={"job.progress": 0.05}.get)
    receiver.judge = lambda entry, _: Temporary("HTTP 500", status=500) if entry.sequence == 1 else None
    house.clock_ms = lambda: time.time_ns() // 1_000_000
    await house.journal_events("a", kind=EventType.PROGRESS)
    async with house.running(receiver):
        await receiver.until(lambda: len(receiver.attempts) == 1)
        await house.journal_events("a")
        await receiver.until(lambda: receiver.accepted["a"] == [2])
    assert await house.states() == {1: "expired", 2: "delivered"}


async def test_without_order_a_refused_event_holds_nobody_back(house: House) -> None:
    receiver = Receiver(schedule_s=(5.0,), ordered=False)
    receiver.judge = lambda entry, attempt: Temporary("HTTP 500") if (entry.sequence, attempt) == (1, 1) else None
    await house.journal_events("a", "a", "a")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["a"] == [2, 3])
        await house.journal_events("a")
        await receiver.until(lambda: receiver.accepted["a"] == [2, 3, 4])
        house.clock.now_ms += 5_000
        await receiver.until(lambda: receiver.accepted["a"] == [2, 3, 4, 1])
    assert await house.journal.blocked(SINK, 0) == {}


async def test_without_order_every_refused_event_is_tried_when_it_is_due_itself(house: House) -> None:
    waits_s = {1: 900.0, 2: 100.0, 3: 500.0}
    receiver = Receiver(schedule_s=(0.0,), ordered=False)
    receiver.judge = lambda entry, attempt: (
        Temporary("HTTP 500", after_s=waits_s[entry.sequence] / 10) if attempt == 1 else None
    )
    await house.journal_events("a", "a", "a")
    async with house.running(receiver):
        await receiver.until(lambda: len(receiver.attempts) == 3)
    for done in ([2], [2, 3], [2, 3, 1]):
        house.clock.now_ms = NOW_MS + round(waits_s[done[-1]] * 100)
        async with house.running(receiver):
            await receiver.until(lambda: receiver.accepted["a"] == done)  # noqa: B023 - awaited at once


async def test_while_an_endpoint_is_behind_only_the_latest_progress_of_a_job_is_sent(house: House) -> None:
    receiver = Receiver(coalesce=frozenset({"job.progress", "job.completed"}))
    receiver.gates["a"].clear()
    kinds = [EventType.STARTED, EventType.PROGRESS, EventType.OUTPUT, EventType.PROGRESS, EventType.PROGRESS]
    for kind in (*kinds, EventType.COMPLETED, EventType.COMPLETED):
        await house.journal_events("a", kind=kind)
    await house.journal_events("b")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["b"] == [1])
        receiver.gates["a"].set()
        await receiver.until(lambda: 7 in receiver.accepted["a"])
    assert receiver.accepted["a"] == [1, 3, 5, 6, 7]
    states = await house.states()
    assert (states[2], states[4]) == ("filtered", "filtered")
    assert house.counted("filtered") == 2


async def test_events_held_in_the_journal_are_coalesced_on_their_way_back(house: House) -> None:
    receiver = Receiver(schedule_s=(5.0,), coalesce=frozenset({"job.progress"}))
    receiver.judge = refuse("a", times=1)
    await house.journal_events("a")
    async with house.running(receiver):
        await receiver.until(lambda: len(receiver.attempts) == 1)
        await house.journal_events(*["a"] * 10, kind=EventType.PROGRESS)
        await house.until_settled(11)
    back = Receiver(coalesce=frozenset({"job.progress"}))
    house.clock.now_ms += 5_000
    async with house.running(back):
        await back.until(lambda: 11 in back.accepted["a"])
    assert back.accepted["a"] == [1, 11]


async def test_what_is_redriven_goes_out_while_everything_runs(house: House) -> None:
    receiver = Receiver(schedule_s=(HOUR_S,))
    receiver.judge = lambda entry, _: Rejected("HTTP 422", status=422) if entry.id == "a-1" else None
    await house.journal_events("a", "a", "b")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted == {"a": [2], "b": [1]})
        await house.until_settled(3)
        receiver.judge = refuse()
        selection = Selection(SINK, frozenset({DeliveryState.DEAD}))
        assert await house.journal.outcomes.redrive(selection) == 1
        await receiver.until(lambda: receiver.accepted["a"] == [2, 1])
        await house.journal_events("a")
        await receiver.until(lambda: receiver.accepted["a"] == [2, 1, 3])


async def test_an_event_redriven_in_a_lane_that_sleeps_does_not_wait_for_it(house: House) -> None:
    receiver = Receiver()
    receiver.judge = lambda entry, _: (
        Rejected("HTTP 422", status=422) if entry.sequence == 1 else Temporary("HTTP 500", status=500)
    )
    await house.journal_events("a", "a")
    async with house.running(receiver):
        await receiver.until(lambda: len(receiver.attempts) == 2)
        await house.until_settled(2)
        receiver.judge = refuse()
        await house.journal.outcomes.redrive(Selection(SINK, frozenset({DeliveryState.DEAD})))
        await receiver.until(lambda: receiver.accepted["a"] == [1])
    assert [outcome.due_ms for outcome in await house.lane("a")] == [NOW_MS + HOUR_S * 1000]


async def test_every_attempt_is_recorded_with_what_the_endpoint_learned(house: House) -> None:
    receiver = Receiver(schedule_s=(0.0,))
    receiver.judge = lambda _entry, attempt: (
        Temporary("HTTP 503", reason="server_error", status=503) if attempt == 1 else None
    )
    await house.journal_events("a")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["a"] == [1])
    first, second = await house.journal.outcomes.attempts(SINK, Place(0, 1))
    assert (first.number, first.at_ms, first.status, first.reason) == (1, NOW_MS, 503, "server_error")
    assert (first.detail, first.address, first.answer) == ("HTTP 503", "192.0.2.1", "hello")
    assert (second.number, second.status, second.reason, second.detail) == (2, 204, None, None)


async def test_an_endpoint_that_refuses_many_jobs_is_left_alone(house: House) -> None:
    receiver = Receiver(circuit_jobs=3, concurrency=2, probe_wait_s=HOUR_S)
    jobs = [f"job-{n}" for n in range(50)]
    receiver.judge = refuse(*jobs)
    await house.journal_events(*jobs)
    async with house.running(receiver):
        await receiver.until(lambda: len(receiver.attempts) >= 3)
        await house.until_settled(3)
    assert 3 <= len(receiver.attempts) <= 4


async def test_fresh_jobs_do_not_wait_behind_a_backlog(house: House) -> None:
    jobs = [f"job-{n}" for n in range(40)]
    away = Receiver(schedule_s=(5.0,), concurrency=2)
    away.judge = refuse(*jobs)
    await house.journal_events(*(job for job in jobs for _ in range(20)))
    async with house.running(away):
        await away.until(lambda: len(away.attempts) == 40)
        await house.until_settled(800)
    house.clock.now_ms += 5_000
    back = Receiver(concurrency=2)
    async with house.running(back):
        await back.until(lambda: len(back.attempts) >= 40)
        await house.journal_events("fresh")
        await back.until(lambda: back.accepted["fresh"] == [1])
        assert len(back.attempts) < 400
        await back.until(lambda: len(back.attempts) == 801)


async def test_a_drain_waits_for_events_held_behind_a_long_lane_but_not_for_retries(house: House) -> None:
    receiver = Receiver(concurrency=2)
    receiver.judge = refuse("refused", error=lambda: Temporary("HTTP 500", status=500))
    receiver.gates["long"].clear()
    await house.journal_events("refused", *["long"] * 1_000, "short")
    async with house.running(receiver):
        await receiver.until(lambda: receiver.accepted["short"] == [1])
        receiver.gates["long"].set()
        async with asyncio.timeout(20):
            await house.journal.settled([SINK])
        assert len(receiver.accepted["long"]) == 1_000
