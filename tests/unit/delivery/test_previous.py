"""What each delivery says came before it: over filters, refusals, restarts, pruning and coalescing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge.delivery.chain import Chain
from bridge.delivery.lane_dispatcher import LaneDispatcher
from bridge.delivery.sink import Patience, Receipt, Trial
from bridge.errors import BridgeError, Rejected, Temporary
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.outcomes import Place, Selection
from bridge.journal.store import Checkpoint, DeliveryState, Entry, Journal, Outcome
from bridge.journal.stores.sqlite import SqliteJournal, open_journal
from bridge.telemetry.metrics import Metrics

SINK = "partner"
UNWANTED = EventType.PROGRESS
NOW_MS = 1_764_000_000_000
LATER_MS = 1 << 50

Told = tuple[str, int, int | None]
"""Job, sequence, and the sequence that was said to come before it."""


class Receiver:
    """Wants all but progress, and notes what each attempt says came before. `judge` says how one ends."""

    def __init__(self, **patience: Any) -> None:
        schedule_s = patience.pop("schedule_s", (3600.0,) * 9)
        self.patience = Patience(schedule_s, 600.0, concurrency=4, circuit_jobs=1_000, **patience)
        self.judge: Callable[[Entry, int], Exception | None] = lambda _entry, _number: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.told: list[Told] = []
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def endpoint(self) -> AsyncIterator[Receiver]:
        yield self

    def wants(self, entry: Entry) -> bool:
        return entry.type != UNWANTED

    async def deliver(self, entry: Entry, trial: Trial) -> Receipt:
        self.told.append((entry.subject, entry.sequence, trial.previous))
        self._changed.set()
        await self.gate.wait()
        if error := self.judge(entry, trial.number):
            raise error
        return Receipt(204, 0.001)

    async def until_told(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.told) < count:
                self._changed.clear()
                await self._changed.wait()


class House:
    """A journal with jobs in it, and a dispatcher over it whenever one is wanted."""

    def __init__(self, journal: SqliteJournal) -> None:
        self.journal = journal
        self.now_ms = NOW_MS
        self._counts: Counter[str] = Counter()

    async def events(self, job: str, *kinds: EventType) -> None:
        ((record, _),) = await self.journal.follow([JobKey("auvy", job)], "config")
        for kind in kinds:
            self._counts[job] += 1
            event = JobEvent(f"{job}-{self._counts[job]}", "auvy", job, kind, b'{"n":1}')
            await self.journal.append(record, [event], Checkpoint(None, b""))

    @asynccontextmanager
    async def running(self, receiver: Receiver) -> AsyncIterator[None]:
        journal: Journal = self.journal
        dispatcher = LaneDispatcher(
            SINK,
            0,
            receiver,
            journal=journal,
            metrics=Metrics(),
            log=structlog.get_logger(),
            clock_ms=lambda: self.now_ms,
            dice=lambda: 0.0,
        )
        task = asyncio.create_task(dispatcher.run(lambda: None))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()

    async def until_settled(self, position: int) -> None:
        async with asyncio.timeout(20):
            while await self.journal.position(SINK, 0) < position:  # noqa: ASYNC110 - settling rings no bell
                await asyncio.sleep(0)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_journal(tmp_path / "journal.db") as journal:
        await journal.register([SINK], [SINK])
        yield House(journal)


def refusing(*sequences: int, error: type[BridgeError] = Temporary, times: int = 99) -> Any:
    def judge(entry: Entry, number: int) -> Exception | None:
        refused = entry.sequence in sequences and number <= times
        return error("HTTP 503", status=503) if refused else None

    return judge


OUTPUT, STEP = EventType.OUTPUT, EventType.STEP


async def test_each_event_names_the_one_before_it_that_was_meant_for_the_endpoint(house: House) -> None:
    receiver = Receiver()
    async with house.running(receiver):
        await house.events("a", UNWANTED, OUTPUT, UNWANTED, UNWANTED, STEP, OUTPUT)
        await house.events("b", OUTPUT, UNWANTED, OUTPUT)
        await receiver.until_told(5)
    assert sorted(receiver.told) == [("a", 2, 0), ("a", 5, 2), ("a", 6, 5), ("b", 1, 0), ("b", 3, 1)]


async def test_what_was_refused_for_good_counts_as_before(house: House) -> None:
    receiver = Receiver()
    receiver.judge = refusing(2, error=Rejected)
    await house.events("a", OUTPUT, OUTPUT, OUTPUT)
    async with house.running(receiver):
        await receiver.until_told(3)
    assert receiver.told == [("a", 1, 0), ("a", 2, 1), ("a", 3, 2)]


async def test_what_expired_counts_as_before(house: House) -> None:
    receiver = Receiver(ttl_s=lambda type_: -1e9 if type_ == STEP else None)
    await house.events("a", OUTPUT, STEP, OUTPUT)
    async with house.running(receiver):
        await receiver.until_told(2)
    assert receiver.told == [("a", 1, 0), ("a", 3, 2)]


async def test_what_a_newer_event_replaced_counts_as_before(house: House) -> None:
    receiver = Receiver(coalesce=frozenset({OUTPUT.value}))
    receiver.gate.clear()
    async with house.running(receiver):
        await house.events("a", STEP)
        await receiver.until_told(1)
        await house.events("a", OUTPUT, OUTPUT, OUTPUT)
        await house.events("b", STEP)
        await receiver.until_told(2)  # all of them were read by now
        receiver.gate.set()
        await receiver.until_told(3)
    assert receiver.told[-1] == ("a", 4, 3)


@pytest.mark.parametrize("ordered", [True, False])
async def test_every_attempt_tells_the_same_and_so_do_those_that_waited_behind(house: House, ordered: bool) -> None:
    receiver = Receiver(ordered=ordered, schedule_s=(0.0,) * 9)
    receiver.judge = refusing(3, times=3)
    await house.events("a", OUTPUT, UNWANTED, OUTPUT, UNWANTED, OUTPUT, OUTPUT)
    async with house.running(receiver):
        await receiver.until_told(7)
    assert set(receiver.told) == {("a", 1, 0), ("a", 3, 1), ("a", 5, 3), ("a", 6, 5)}
    assert receiver.told.count(("a", 3, 1)) == 4


async def test_another_run_tells_the_same_whatever_was_pruned_meanwhile(house: House) -> None:
    receiver = Receiver()
    receiver.judge = refusing(3)
    await house.events("a", OUTPUT, UNWANTED, OUTPUT, OUTPUT)
    async with house.running(receiver):
        await receiver.until_told(2)
        await house.until_settled(4)
    await house.journal.prune(LATER_MS)
    assert await house.journal.entry(0, 1) is None
    receiver.judge, house.now_ms = refusing(), NOW_MS + 7_200_000
    async with house.running(receiver):
        await receiver.until_told(4)
    assert receiver.told == [("a", 1, 0), ("a", 3, 1), ("a", 3, 1), ("a", 4, 3)]


async def test_a_run_that_saw_nothing_of_the_job_looks_it_up(house: House) -> None:
    first, second = Receiver(), Receiver()
    await house.events("a", OUTPUT, OUTPUT, *[UNWANTED] * 50)
    await house.events("b", UNWANTED)
    async with house.running(first):
        await first.until_told(2)
        await house.until_settled(53)
    await house.events("a", OUTPUT, OUTPUT)
    await house.events("b", UNWANTED, OUTPUT)
    async with house.running(second):
        await second.until_told(3)
    assert sorted(second.told) == [("a", 53, 2), ("a", 54, 53), ("b", 3, 0)]


async def test_what_a_crash_left_finished_ahead_counts_as_before(house: House) -> None:
    receiver = Receiver()
    await house.events("a", OUTPUT, OUTPUT, OUTPUT)
    second = await house.journal.entry(0, 2)
    assert second is not None
    await house.journal.settle(SINK, 0, 0, [Outcome(2, second.subscription, DeliveryState.DELIVERED)])
    async with house.running(receiver):
        await receiver.until_told(2)
    assert receiver.told == [("a", 1, 0), ("a", 3, 2)]


async def test_a_dead_letter_that_is_sent_again_tells_the_same(house: House) -> None:
    receiver, again = Receiver(), Receiver()
    receiver.judge = refusing(2, error=Rejected)
    await house.events("a", OUTPUT, OUTPUT, OUTPUT)
    async with house.running(receiver):
        await receiver.until_told(3)
        await house.until_settled(3)
    assert await house.journal.outcomes.redrive(Selection(SINK, frozenset({DeliveryState.DEAD}))) == 1
    async with house.running(again):
        await again.until_told(1)
    assert again.told == [("a", 2, 1)]


async def test_a_filtered_event_that_a_person_sends_after_all_tells_what_came_before_it(house: House) -> None:
    receiver = Receiver()
    await house.events("a", OUTPUT, UNWANTED, OUTPUT)
    async with house.running(receiver):
        await receiver.until_told(2)
        await house.until_settled(3)
        filtered = Selection(SINK, frozenset({DeliveryState.FILTERED}), place=Place(0, 2))
        assert await house.journal.outcomes.redrive(filtered) == 1
        await receiver.until_told(3)
    assert receiver.told == [("a", 1, 0), ("a", 3, 1), ("a", 2, 1)]


async def test_events_from_before_the_endpoint_began_do_not_count(house: House) -> None:
    receiver = Receiver()
    await house.events("a", OUTPUT, OUTPUT)
    await house.journal.register([SINK, "late"], [SINK, "late"])
    await house.events("a", OUTPUT, OUTPUT)
    late = [await house.journal.entry(0, position) for position in (3, 4)]
    told = [await house.journal.previous("late", entry, receiver.wants) for entry in late if entry]
    assert told == [0, 3]


async def test_once_pruned_it_is_not_known_any_more(house: House) -> None:
    receiver = Receiver()
    await house.events("a", OUTPUT, OUTPUT, OUTPUT)
    third = await house.journal.entry(0, 3)
    assert third is not None
    await house.journal.settle(SINK, 0, 2)
    await house.journal.prune(LATER_MS)
    assert await house.journal.previous(SINK, third, receiver.wants) is None


async def test_what_was_pruned_from_before_the_endpoint_began_is_no_loss(house: House) -> None:
    receiver = Receiver()
    await house.events("a", OUTPUT, OUTPUT)
    await house.journal.register(["late"], ["late"])
    await house.journal.prune(LATER_MS)
    assert await house.journal.entry(0, 2) is None
    await house.events("a", OUTPUT)
    third = await house.journal.entry(0, 3)
    assert third is not None
    assert await house.journal.previous("late", third, receiver.wants) == 0


def _entry(subscription: int, sequence: int) -> Entry:
    return Entry(0, 1, subscription, sequence, 0, "x", "auvy", "job", OUTPUT, None, None, b"{}")


def test_of_more_jobs_than_fit_the_most_recent_ones_are_remembered() -> None:
    chain = Chain(jobs_max=2)
    assert [chain.link(_entry(job, 1)) for job in (1, 2)] == [0, 0]
    assert chain.link(_entry(1, 2)) == 1
    chain.skip(_entry(3, 1))
    assert chain.link(_entry(1, 3)) == 2
    assert chain.link(_entry(3, 2)) == 0
    assert chain.link(_entry(2, 2)) is None
