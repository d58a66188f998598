"""What is redriven at a set pace: when it goes out, in which order, and that a restart changes nothing of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from bridge.delivery import lanes
from bridge.delivery.lane_dispatcher import LaneDispatcher
from bridge.delivery.sink import Patience, Receipt, Trial
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.outcomes import Selection
from bridge.journal.store import DeliveryState, Entry, Journal, Outcome
from bridge.journal.stores.sqlite import open_journal
from bridge.telemetry.metrics import Metrics

SINK = "partner"
NOW_MS = 1_764_000_000_000
IN_ORDER = ["a-1", "b-1", "a-2", "b-2", "a-3", "b-3"]
DEAD = Selection(SINK, frozenset({DeliveryState.DEAD}))


class Receiver:
    """Accepts everything, and remembers when it was offered what, how often redriven."""

    def __init__(self, clock_ms: Callable[[], int], *, ordered: bool) -> None:
        self.patience = Patience((1.0,), retry_after_max_s=600.0, concurrency=4, ordered=ordered)
        self.offered: list[tuple[int, str, int]] = []
        self._clock_ms = clock_ms
        self._more = asyncio.Event()

    @asynccontextmanager
    async def endpoint(self) -> AsyncIterator[Receiver]:
        yield self

    def wants(self, entry: Entry) -> bool:
        return True

    async def deliver(self, entry: Entry, trial: Trial) -> Receipt:
        self.offered.append((self._clock_ms(), entry.id, trial.redriven))
        self._more.set()
        return Receipt(204, 0.001)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.offered) < count:
                self._more.clear()
                await self._more.wait()


async def dead_letters(journal: Journal) -> None:
    """Three events of each of two jobs, all of them finally refused."""
    await journal.register([SINK], [SINK])
    ((a, _), (b, _)) = await journal.follow([JobKey("auvy", "a"), JobKey("auvy", "b")], "config")
    for nth in (1, 2, 3):
        for job in (a, b):
            event = JobEvent(f"{job.key.job_id}-{nth}", *job.key, EventType.OUTPUT, b"{}")
            await journal.append(job, [event], None)
    owners = [a.id, b.id] * 3
    outcomes = [Outcome(nth, owner, DeliveryState.DEAD, 1) for nth, owner in enumerate(owners, 1)]
    await journal.settle(SINK, 0, 6, outcomes)


@asynccontextmanager
async def running(journal: Journal, receiver: Receiver, clock_ms: Callable[[], int]) -> AsyncIterator[None]:
    """A dispatcher at work; at the end what it finished is settled."""
    dispatcher = LaneDispatcher(
        SINK,
        0,
        receiver,
        journal=journal,
        metrics=Metrics(),
        log=structlog.get_logger(),
        clock_ms=clock_ms,
        dice=lambda: 0.0,
    )
    task = asyncio.create_task(dispatcher.run(lambda: None))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("ordered", [True, False])
async def test_it_goes_out_one_after_the_other_in_the_journals_order(
    ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_CLOCK_CHECK_S", 0.002)  # this clock runs a hundred times as fast as that one
    started_s = time.monotonic()

    def clock_ms() -> int:
        return NOW_MS + int((time.monotonic() - started_s) * 100_000)

    async with open_journal(":memory:", clock_ms=clock_ms) as journal:
        await dead_letters(journal)
        receiver = Receiver(clock_ms, ordered=ordered)
        async with running(journal, receiver, clock_ms):
            redriven_ms = clock_ms()
            assert await journal.outcomes.redrive(DEAD, per_second=0.2) == 6
            await receiver.until(6)
    assert [event_id for _, event_id, _ in receiver.offered] == IN_ORDER
    assert {redriven for _, _, redriven in receiver.offered} == {1}
    for nth, (offered_ms, event_id, _) in enumerate(receiver.offered):
        assert offered_ms >= redriven_ms + nth * 5_000, event_id


@pytest.mark.parametrize("ordered", [True, False])
async def test_it_keeps_its_pace_over_restarts(ordered: bool, tmp_path: Path) -> None:
    now_ms = NOW_MS

    def clock_ms() -> int:
        return now_ms

    async with open_journal(tmp_path / "journal.db", clock_ms=clock_ms) as journal:
        await dead_letters(journal)
        assert await journal.outcomes.redrive(DEAD, per_second=0.5) == 6
    for nth, event_id in enumerate(IN_ORDER):
        now_ms = NOW_MS + nth * 2_000
        async with open_journal(tmp_path / "journal.db", clock_ms=clock_ms) as journal:
            receiver = Receiver(clock_ms, ordered=ordered)
            async with running(journal, receiver, clock_ms):
                await receiver.until(1)
                await journal.settled([SINK])
            assert receiver.offered == [(now_ms, event_id, 1)]
            left = await journal.outcomes.count(Selection(SINK, frozenset({DeliveryState.HELD})))
            assert left.get(DeliveryState.HELD, 0) == 5 - nth
