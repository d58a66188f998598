"""The relay over the real journal: order, memories that agree or do not, dead letters, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import structlog
from structlog.testing import capture_logs

from bridge.delivery.dispatcher import LogDispatcher
from bridge.delivery.sink import Check, Mark
from bridge.errors import Fatal, Temporary
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.store import Attempt, Checkpoint, DeliveryState, Entry, Journal, Outcome
from bridge.journal.stores.sqlite import open_journal
from bridge.telemetry.metrics import Metrics

SINK = "kafka"


class Log:
    """A log that a test can look into: it remembers its mark unless told to forget."""

    batch_entries = 10

    def __init__(self, mark: Mark | None = Mark(0, "")) -> None:  # noqa: B008 - immutable
        self.mark = mark
        self.written: list[int] = []
        self.dead: set[int] = set()
        self.error: Exception | None = None
        self.open = self.opened = 0

    @asynccontextmanager
    async def writer(self, partition: int, check: Check | None = None) -> AsyncIterator[Log]:
        if check is not None and self.mark is not None:
            await check(self.mark)
        self.opened += 1
        self.open += 1
        self.added: list[Entry] = []
        try:
            yield self
        finally:
            self.open -= 1

    async def recover(self) -> Mark | None:
        return self.mark

    async def add(self, entries: Sequence[Entry]) -> None:
        self.added += entries

    async def flush(self) -> Sequence[Outcome]:
        entries, self.added = self.added, []
        if self.error is not None:
            raise self.error
        outcomes = tuple(
            Outcome(entry.position, entry.subscription, DeliveryState.DEAD, attempts=1, detail="too large")
            for entry in entries
            if entry.position in self.dead
        )
        self.written += [entry.position for entry in entries if entry.position not in self.dead]
        if self.mark is not None:
            self.mark = Mark(entries[-1].position, entries[-1].id, outcomes)
        return outcomes


class House:
    """A journal with one job in it, and the relay over it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.metrics = Metrics()
        self.useful = 0
        self._count = 0

    async def journal_events(self, count: int) -> None:
        ((job, _),) = await self.journal.follow([JobKey("auvy", "job-1")], "config")
        numbers = range(self._count + 1, self._count + count + 1)
        events = [JobEvent(f"event-{n}", "auvy", "job-1", EventType.OUTPUT, b"{}") for n in numbers]
        await self.journal.append(job, events, Checkpoint(None, b""))
        self._count += count

    def dispatcher(self, log: Log, consumer: str = SINK) -> LogDispatcher:
        return LogDispatcher(consumer, 0, log, journal=self.journal, metrics=self.metrics, log=structlog.get_logger())

    @asynccontextmanager
    async def running(self, log: Log, consumer: str = SINK) -> AsyncIterator[None]:
        """The relay at work; cancelled at the end. What it raised by itself is raised here."""
        session = asyncio.create_task(self.dispatcher(log, consumer).run(self._useful))
        try:
            yield
        finally:
            session.cancel()
            await asyncio.wait({session})
        assert session.cancelled(), session.exception()
        assert log.open == 0

    async def until_settled(self, upto: int, consumer: str = SINK) -> None:
        async with asyncio.timeout(10):
            while await self.journal.position(consumer, 0) < upto:  # noqa: ASYNC110 - settling rings no bell
                await asyncio.sleep(0)

    async def settled(self) -> int:
        return await self.journal.position(SINK, 0)

    def _useful(self) -> None:
        self.useful += 1

    def counted(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("jobbridge_deliveries_total", {"sink": SINK, "outcome": outcome})


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_journal(":memory:") as journal:
        await journal.register([SINK])
        yield House(journal)


async def test_relays_in_order_in_batches_and_settles(house: House) -> None:
    await house.journal_events(25)
    log = Log()
    async with house.running(log):
        await house.until_settled(25)
    assert log.written == list(range(1, 26))
    assert house.useful == 3
    assert house.counted("delivered") == 25


async def test_relays_what_is_journalled_while_it_waits(house: House) -> None:
    log = Log()
    async with house.running(log):
        for count in (1, 2, 3):
            await house.journal_events(1)
            await house.until_settled(count)
    assert log.written == [1, 2, 3]


async def test_goes_on_from_the_logs_memory_where_a_crash_came_before_the_settling(house: House) -> None:
    await house.journal_events(20)
    dead = Outcome(11, 1, DeliveryState.DEAD, attempts=1, detail="too large")
    log = Log(Mark(12, "event-12", (dead,)))
    async with house.running(log):
        await house.until_settled(20)
    assert log.written == list(range(13, 21))
    assert (await house.journal.health()).outstanding[SINK] == {"dead": 1}


async def test_a_log_without_memory_goes_by_the_journal(house: House) -> None:
    await house.journal_events(20)
    await house.journal.settle(SINK, 0, 5)
    log = Log(None)
    async with house.running(log):
        await house.until_settled(20)
    assert log.written == list(range(6, 21))


async def test_a_consumer_that_never_delivered_starts_where_it_was_registered(house: House) -> None:
    await house.journal_events(20)
    await house.journal.register([SINK, "late"])
    log = Log()
    async with house.running(log, "late"):
        await house.journal_events(1)
        await house.until_settled(21, "late")
    assert log.written == [21]


@pytest.mark.parametrize(
    ("settled", "mark"),
    [
        (5, Mark(0, "")),  # the log forgot, or is another one
        (5, Mark(3, "event-3")),  # the log lost its end
        (5, Mark(12, "event-99")),  # the journal holds something else there
        (0, Mark(500, "event-500")),  # the journal is a new one
    ],
)
async def test_memories_that_cannot_both_be_true_stop_the_relay(house: House, settled: int, mark: Mark) -> None:
    await house.journal_events(20)
    await house.journal.settle(SINK, 0, settled)
    log = Log(mark)
    with pytest.raises(Fatal) as caught:
        await house.dispatcher(log).run(lambda: None)
    assert caught.value.reason == "position_conflict"
    assert f"position {mark.position}" in str(caught.value)
    assert str(settled) in str(caught.value)
    assert log.written == []
    assert await house.settled() == settled
    assert log.opened == (mark.position < settled), "the copy of a journal fences nobody out"


async def test_a_failed_batch_is_logged_measured_and_not_settled(house: House) -> None:
    await house.journal_events(5)
    log = Log()
    log.error = Temporary("away", reason="kafka_unavailable")
    with capture_logs() as lines, pytest.raises(Temporary):
        await house.dispatcher(log).run(lambda: None)
    [line] = lines
    assert (line["event"], line["reason"], line["first"], line["last"]) == ("batch.failed", "kafka_unavailable", 1, 5)
    assert house.metrics.registry.get_sample_value("jobbridge_delivery_seconds_count", {"sink": SINK}) == 1
    assert await house.settled() == 0
    assert log.open == 0


async def test_a_dead_letter_is_recorded_and_logged_and_the_rest_goes_on(house: House) -> None:
    await house.journal_events(10)
    log = Log()
    log.dead = {4}
    with capture_logs() as lines:
        async with house.running(log):
            await house.until_settled(10)
    assert log.written == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    [line] = lines
    assert (line["event"], line["id"], line["detail"]) == ("delivery.dead", "event-4", "too large")
    assert (house.counted("delivered"), house.counted("dead")) == (9, 1)
    assert (await house.journal.health()).outstanding[SINK] == {"dead": 1}


async def test_a_dead_letter_is_settled_before_the_log_remembers_another_batch(house: House) -> None:
    await house.journal_events(20)
    log = Log()
    log.dead = {4}
    order: list[str] = []
    flush, settle = log.flush, house.journal.settle

    async def flushing() -> Sequence[Outcome]:
        order.append(f"flush to {log.added[-1].position}")
        return await flush()

    async def settling(
        consumer: str, partition: int, upto: int, outcomes: Sequence[Outcome] = (), attempts: Sequence[Attempt] = ()
    ) -> None:
        await settle(consumer, partition, upto, outcomes)
        order.append(f"settled {upto}")

    log.flush, house.journal.settle = flushing, settling  # type: ignore[method-assign]
    async with house.running(log):
        await house.until_settled(20)
    assert order.index("settled 10") < order.index("flush to 20")


async def test_a_journal_that_cannot_settle_ends_the_relay_although_nothing_new_comes(house: House) -> None:
    await house.journal_events(5)
    settle = house.journal.settle

    async def settling(
        consumer: str, partition: int, upto: int, outcomes: Sequence[Outcome] = (), attempts: Sequence[Attempt] = ()
    ) -> None:
        if upto == 5:
            raise Temporary("the disk is full", reason="journal")
        await settle(consumer, partition, upto, outcomes)

    house.journal.settle = settling  # type: ignore[method-assign]
    with pytest.raises(Temporary, match="disk is full"):
        await house.dispatcher(Log()).run(lambda: None)


async def test_a_journal_that_cannot_settle_makes_no_run_useful(house: House) -> None:
    """Without a memory of its own the log gets the same batch in every run: the runs must come less and less often."""
    await house.journal_events(25)
    log = Log(None)

    async def failing(*_: object) -> None:
        while not log.written:  # noqa: ASYNC110 - writing rings no bell
            await asyncio.sleep(0)
        raise Temporary("the disk is full", reason="journal")

    house.journal.settle = failing  # type: ignore[method-assign, assignment]
    with pytest.raises(Temporary, match="disk is full"):
        await house.dispatcher(log).run(house._useful)
    assert log.written
    assert house.useful == 0


async def test_cancelled_in_a_flush_it_settles_nothing(house: House) -> None:
    await house.journal_events(5)
    log = Log()
    flushing = asyncio.Event()

    async def never() -> Sequence[Outcome]:
        flushing.set()
        return await asyncio.Future()

    log.flush = never  # type: ignore[method-assign]
    session = asyncio.create_task(house.dispatcher(log).run(lambda: None))
    await flushing.wait()
    session.cancel()
    await asyncio.wait({session})
    assert session.cancelled()
    assert (await house.settled(), log.open) == (0, 0)


class Gated(Log):
    """Each flush waits to be let through. Tells what was added, and what every flush took along."""

    def __init__(self, mark: Mark | None = Mark(0, "")) -> None:  # noqa: B008 - immutable
        super().__init__(mark)
        self.flushing = asyncio.Event()
        self.through = asyncio.Semaphore(0)
        self.flushes: list[list[int]] = []

    async def flush(self) -> Sequence[Outcome]:
        entries, self.added = self.added, []
        self.flushes.append([entry.position for entry in entries])
        self.flushing.set()
        await self.through.acquire()
        later, self.added = self.added, entries
        try:
            return await super().flush()
        finally:
            self.added = later

    async def until_added(self, position: int) -> None:
        async with asyncio.timeout(10):
            while not self.added or self.added[-1].position < position:  # noqa: ASYNC110 - adding rings no bell
                await asyncio.sleep(0)


async def test_adding_goes_on_while_a_flush_is_under_way_up_to_one_batch(house: House) -> None:
    log = Gated()
    async with house.running(log):
        await house.journal_events(3)
        await log.flushing.wait()
        await house.journal_events(6)
        await log.until_added(9)
        await house.journal_events(6)
        await log.until_added(13)
        for _ in range(100):
            await asyncio.sleep(0)
        assert [entry.position for entry in log.added] == list(range(4, 14))
        log.through.release()
        log.through.release()
        log.through.release()
        await house.until_settled(15)
    assert log.flushes == [[1, 2, 3], list(range(4, 14)), [14, 15]]
    assert log.written == list(range(1, 16))
    assert (house.counted("delivered"), house.useful) == (15, 3)


async def test_what_is_added_after_a_flush_began_is_not_settled_by_it(house: House) -> None:
    log = Gated()
    async with house.running(log):
        await house.journal_events(3)
        await log.flushing.wait()
        await house.journal_events(4)
        await log.until_added(7)
        log.through.release()
        await house.until_settled(3)
        assert (await house.settled(), log.written, house.counted("delivered")) == (3, [1, 2, 3], 3)


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_flush_that_fails_counts_nothing_and_the_next_run_begins_behind_the_last_good_one(
    house: House, remembers: bool
) -> None:
    log = Gated(Mark(0, "") if remembers else None)
    dispatcher = house.dispatcher(log)
    await house.journal_events(10)
    session = asyncio.create_task(dispatcher.run(house._useful))
    await log.flushing.wait()
    await house.journal_events(4)
    await log.until_added(14)
    log.through.release()
    await house.until_settled(10)
    log.error = Temporary("away", reason="kafka_unavailable")
    log.through.release()
    with pytest.raises(Temporary, match="away"):
        await session
    assert (await house.settled(), house.counted("delivered"), house.useful, log.open) == (10, 10, 1, 0)

    log.error = None
    await house.journal_events(4)
    log.flushes.clear()
    session = asyncio.create_task(dispatcher.run(house._useful))
    log.through.release()
    await house.until_settled(18)
    session.cancel()
    await asyncio.wait({session})
    assert log.flushes == [list(range(11, 19))]
    assert log.written == list(range(1, 19))
    assert house.counted("delivered") == 18


async def test_nothing_is_flushed_after_an_add_that_failed(house: House) -> None:
    """What the writer holds then is anybody's guess: its next mark could stand for entries that it has no record of."""
    log = Gated()
    add = log.add

    async def adding(entries: Sequence[Entry]) -> None:
        await add(entries)
        if entries[-1].position >= 5:
            raise Temporary("the registry is away", reason="registry_unavailable")

    log.add = adding  # type: ignore[method-assign]
    session = asyncio.create_task(house.dispatcher(log).run(lambda: None))
    await house.journal_events(3)
    await log.flushing.wait()
    await house.journal_events(1)
    await log.until_added(4)
    await house.journal_events(1)
    await log.until_added(5)
    log.through.release()
    log.through.release()
    with pytest.raises(Temporary, match="registry"):
        await session
    assert log.flushes == [[1, 2, 3]]
    assert house.counted("delivered") == 3


async def test_cancelled_while_it_adds_during_a_flush_it_leaves_all_of_it(house: House) -> None:
    log = Gated()
    session = asyncio.create_task(house.dispatcher(log).run(lambda: None))
    await house.journal_events(3)
    await log.flushing.wait()
    await house.journal_events(3)
    await log.until_added(6)
    session.cancel()
    await asyncio.wait({session})
    assert session.cancelled()
    assert (await house.settled(), house.counted("delivered"), log.written, log.open) == (0, None, [], 0)
    async with house.running(log):
        for _ in range(2):
            log.through.release()
        await house.until_settled(6)
    assert log.written == list(range(1, 7))
