"""One endpoint, one partition: the only place that knows what a lane is.

A lane is one job at one endpoint. Events of a lane go out one after the other, lanes go out side by side. A lane
whose head was refused for now is blocked: it lives in the journal alone, and so does whatever comes behind, until
the head is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from heapq import heapify, heappop, heappush
from random import random

from structlog.typing import FilteringBoundLogger

from bridge.delivery.attempts import Attempts
from bridge.delivery.progress import ENTRIES_MAX, Progress
from bridge.delivery.sink import EndpointSink
from bridge.errors import BridgeError, Temporary
from bridge.journal.store import DeliveryJournal, DeliveryState, Entry, Outcome, Outstanding
from bridge.telemetry.metrics import Metrics

_CLOCK_CHECK_S = 60.0
"""The clock can be set while we sleep by it: how often to look at it anew."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class LaneDispatcher:
    """The session that hands one partition's events to one endpoint.

    `clock_ms` is Unix time in milliseconds, `dice` a number in [0, 1).
    """

    def __init__(
        self,
        consumer: str,
        partition: int,
        sink: EndpointSink,
        *,
        journal: DeliveryJournal,
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock_ms: Callable[[], int] = _now_ms,
        dice: Callable[[], float] = random,
    ) -> None:
        self.name = f"{consumer}/{partition}"
        self.group = consumer
        self._partition = partition
        self._sink = sink
        self._journal = journal
        self._metrics = metrics
        self._log = log
        self._clock_ms = clock_ms
        self._dice = dice

    async def run(self, useful: Callable[[], None]) -> None:
        """Deliver until cancelled; what is finished is settled before this leaves, whatever the reason.

        Raises `Fatal` when the receiver asked never to be called again, `Temporary` when the journal fails.
        """
        journal, consumer, partition = self._journal, self.group, self._partition
        # In this order: where a run that was cut off still has a write on its way, nothing falls between two answers.
        position = await journal.position(consumer, partition)
        finished = await journal.finished(consumer, partition, position)
        blocked = await journal.blocked(consumer, partition)
        progress = Progress(journal, consumer, partition, position, self._metrics)
        async with self._sink.endpoint() as endpoint:
            attempts = Attempts(endpoint, consumer, self._metrics, self._log, self._clock_ms, self._dice, useful)
            try:
                await Lanes(progress, attempts, blocked, finished).run()
            finally:
                with suppress(Temporary):  # what ended the run says more
                    await progress.settle()

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: the journal holds everything that was not delivered."""


class Lanes:
    """The lanes of one run. A lane is either active, worked on or waiting for a worker, or blocked and asleep.

    While a lane is blocked, active or not, new events go to the journal as held and come back from there.
    """

    def __init__(
        self, progress: Progress, attempts: Attempts, blocked: Mapping[int, int], finished: Collection[int]
    ) -> None:
        self._progress = progress
        self._attempts = attempts
        self._finished = set(finished)
        self._active: dict[int, list[Outstanding]] = {}
        self._ready: asyncio.Queue[int] = asyncio.Queue()
        # One long lane must not fill the memory that the others need.
        self._lane_max = max(1, ENTRIES_MAX // (2 * attempts.concurrency))
        # Blocked lanes, with a count of the events held there: it tells whether the journal was read in time.
        self._blocked = dict.fromkeys(blocked, 0)
        self._due = [(due_ms, subscription) for subscription, due_ms in blocked.items()]
        heapify(self._due)
        self._new_due = asyncio.Event()
        # A crash can leave held events ahead of others of their job that were still in memory. Until those are read
        # again, and held as well, no blocked lane may move.
        self._catch_up_to = max(self._finished, default=0)
        self._caught_up = asyncio.Event()

    async def run(self) -> None:
        """Scan, deliver and settle until something raises."""
        self._check_caught_up()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._progress.keep_settling())
                tasks.create_task(self._scan())
                tasks.create_task(self._wake_due())
                for _ in range(self._attempts.concurrency):
                    tasks.create_task(self._work())
        except ExceptionGroup as group:
            raise max(group.exceptions, key=lambda error: not isinstance(error, Temporary)) from None

    async def _scan(self) -> None:
        while True:
            for entry in await self._progress.read():
                self._admit(entry)
            self._check_caught_up()

    def _check_caught_up(self) -> None:
        if self._progress.window.scanned >= self._catch_up_to:
            self._caught_up.set()

    def _admit(self, entry: Entry) -> None:
        subscription = entry.subscription
        if entry.position in self._finished:
            self._finished.discard(entry.position)
            self._progress.pass_over(entry.position)
        elif not self._attempts.wants(entry):
            self._attempts.count(DeliveryState.FILTERED)
            self._progress.pass_over(entry.position)
        elif subscription in self._blocked:
            self._hold(entry)
        elif subscription not in self._active:
            self._progress.window.take(entry)
            self._activate(subscription, [_untried(entry)])
        elif len(self._active[subscription]) < self._lane_max:
            self._progress.window.take(entry)
            self._active[subscription].append(_untried(entry))
        else:
            self._blocked[subscription] = 0
            self._hold(entry)

    def _hold(self, entry: Entry) -> None:
        self._blocked[entry.subscription] += 1
        self._progress.pass_over(entry.position)
        self._progress.note(_untried(entry).outcome)

    def _activate(self, subscription: int, queue: list[Outstanding]) -> None:
        self._active[subscription] = queue
        self._ready.put_nowait(subscription)

    async def _wake_due(self) -> None:
        await self._caught_up.wait()
        while True:
            now_ms = self._attempts.clock_ms()
            while self._due and self._due[0][0] <= now_ms:
                self._activate(heappop(self._due)[1], [])
            wait_s = min((self._due[0][0] - now_ms) / 1000, _CLOCK_CHECK_S) if self._due else None
            self._new_due.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._new_due.wait()

    async def _work(self) -> None:
        while True:
            subscription = await self._ready.get()
            queue = self._active[subscription]
            if queue:
                await self._advance(subscription, queue)
                if not queue and subscription not in self._blocked:
                    del self._active[subscription]
            else:
                await self._work_off(subscription, queue)
            if subscription in self._active:
                self._ready.put_nowait(subscription)

    async def _work_off(self, subscription: int, queue: list[Outstanding]) -> None:
        """A blocked lane's turn. What is fetched for it is tried at once: lanes that wait for a turn may be many, and
        keep nothing of the journal in memory. First comes the head alone: its next refusal may be near."""
        for limit in (1, self._lane_max):
            await self._refill(subscription, queue, limit)
            while queue:
                await self._advance(subscription, queue)
            if subscription not in self._active:
                return

    async def _advance(self, subscription: int, queue: list[Outstanding]) -> None:
        """One event further in a lane. Refused for now, the lane goes to sleep and its queue to the journal."""
        outcome = await self._attempts.attempt(queue[0])
        del queue[0]
        self._progress.note(outcome)
        if outcome.state is DeliveryState.DEAD:
            # After a crash it would be tried anew, and might then get through behind those that follow it.
            await self._progress.settle()
        elif outcome.state is DeliveryState.RETRYING:
            for behind in queue:
                self._progress.note(behind.outcome)
            queue.clear()
            self._sleep(subscription, outcome.due_ms)

    def _sleep(self, subscription: int, due_ms: int) -> None:
        self._blocked.setdefault(subscription, 0)
        del self._active[subscription]
        heappush(self._due, (due_ms, subscription))
        self._new_due.set()

    async def _refill(self, subscription: int, queue: list[Outstanding], limit: int) -> None:
        """Fetch a blocked lane's next events. None: it went to sleep, or it is empty and blocked no longer."""
        while True:
            held = self._blocked[subscription]
            outstanding = await self._progress.lane(subscription, limit)
            if outstanding:
                break
            if held == self._blocked[subscription]:
                del self._blocked[subscription], self._active[subscription]
                return
        due_ms = outstanding[0].outcome.due_ms
        if due_ms > self._attempts.clock_ms():
            self._sleep(subscription, due_ms)
        else:
            queue.extend(outstanding)


def _untried(entry: Entry) -> Outstanding:
    return Outstanding(Outcome(entry.position, entry.subscription, DeliveryState.HELD), entry)
