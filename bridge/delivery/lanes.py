"""The only place that knows what a lane is.

A lane is one job at one endpoint. Events of a lane go out one after the other, lanes go out side by side. A lane
whose head was refused for now is blocked: it lives in the journal alone, and so does whatever comes behind, until
the head is due. Where the endpoint asks for no order, a refused event waits in the journal by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile

from bridge.delivery import coalescing
from bridge.delivery.alarms import Alarms
from bridge.delivery.attempts import Attempts
from bridge.delivery.chain import Chain
from bridge.delivery.progress import ENTRIES_MAX, Progress
from bridge.delivery.ready import Ready
from bridge.delivery.sink import COALESCIBLE
from bridge.errors import Temporary
from bridge.journal.store import DeliveryState, Entry, Outcome, Outstanding

_CLOCK_CHECK_S = 1.0
"""The clock can be set while we sleep by it: how often to look at it anew."""
_ADMIT_PAUSE_S = 0.001
"""An event that took longer to judge has the event loop wait for no other behind it."""
_FETCH_MAX = 32
"""Events of a blocked lane's turn: then others that wait have theirs."""


class Lanes:
    """The lanes of one run. A lane is either active, worked on or waiting for a worker, or asleep.

    While a lane is blocked, active or not, new events go to the journal as held and come back from there.
    """

    def __init__(
        self, progress: Progress, attempts: Attempts, outstanding: Mapping[int, int], finished: Collection[int]
    ) -> None:
        self._progress = progress
        self._attempts = attempts
        self._ordered = attempts.patience.ordered
        self._coalesce = attempts.patience.coalesce & COALESCIBLE
        self._finished = set(finished)
        self._chain = Chain()
        self._active: dict[int, list[Outstanding]] = {}
        # At least two: with one, a backlog's turns would come between any two fresh events.
        self._workers = max(2, attempts.patience.concurrency)
        self._ready = Ready(self._workers)
        # One long lane must not fill the memory that the others need.
        self._lane_max = max(1, ENTRIES_MAX // (2 * self._workers))
        # Blocked lanes, with a count of the events held there: it tells whether the journal was read in time.
        self._blocked: dict[int, int] = {}
        self._alarms = Alarms()
        self._new_alarm = asyncio.Event()
        self._look_again: set[int] = set()
        # Lanes that left an event out. After a crash it would be tried anew, and might then get through behind those
        # that follow it: they wait until the journal knows.
        self._passed: set[int] = set()
        # A crash can leave held events ahead of others of their job that were still in memory. Until those are read
        # again, and held as well, no blocked lane may move.
        self._catch_up_to = max(self._finished, default=0)
        self._caught_up = asyncio.Event()
        self._expect(outstanding)

    async def run(self, revision: int) -> None:
        """Scan, deliver and settle until something raises. `revision`: of what is known to be outstanding."""
        self._check_caught_up()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._progress.keep_settling())
                tasks.create_task(self._scan())
                tasks.create_task(self._wake_due())
                tasks.create_task(self._follow_redriven(revision))
                for _ in range(self._workers):
                    tasks.create_task(self._work())
        except ExceptionGroup as group:
            raise max(group.exceptions, key=lambda error: not isinstance(error, Temporary)) from None

    # -- what comes in

    async def _scan(self) -> None:
        while True:
            for entry in await self._progress.read():
                began_s = time.perf_counter()
                self._admit(entry)
                if time.perf_counter() - began_s > _ADMIT_PAUSE_S:
                    await asyncio.sleep(0)
            self._check_caught_up()

    def _check_caught_up(self) -> None:
        if self._progress.window.scanned >= self._catch_up_to:
            self._caught_up.set()

    def _admit(self, entry: Entry) -> None:
        if entry.position in self._finished:
            self._finished.discard(entry.position)
            self._chain.link(entry)
            self._progress.pass_over(entry.position)
        elif not self._attempts.wants(entry):
            self._attempts.count(DeliveryState.FILTERED)
            self._chain.skip(entry)
            self._progress.pass_over(entry.position)
        else:
            self._take(_untried(entry, self._chain.link(entry)))

    def _take(self, work: Outstanding) -> None:
        subscription = work.entry.subscription
        if subscription in self._blocked:
            self._hold(work.outcome)
        elif subscription not in self._active:
            self._progress.window.take(work.entry)
            self._activate(subscription, [work])
        else:
            self._queue(work, self._active[subscription])

    def _queue(self, work: Outstanding, queue: list[Outstanding]) -> None:
        """Behind others of its job. The first of them may be under way."""
        if work.entry.type in self._coalesce:
            queue[1:] = self._latest([*queue[1:], work])[:-1]  # without the new one
        if len(queue) < self._lane_max:
            self._progress.window.take(work.entry)
            queue.append(work)
        else:
            self._blocked[work.entry.subscription] = 0
            self._hold(work.outcome)

    def _hold(self, outcome: Outcome) -> None:
        self._blocked[outcome.subscription] += 1
        self._progress.pass_over(outcome.position)
        self._progress.note(outcome)

    def _latest(self, queue: list[Outstanding]) -> list[Outstanding]:
        """What is left of a lane's queue after coalescing, if it is to be coalesced at all."""
        if not self._coalesce or len(queue) < 2:
            return queue
        queue, replaced = coalescing.split(queue, self._coalesce)
        for outcome in replaced:
            self._passed.add(outcome.subscription)
            self._attempts.count(outcome.state)
            self._progress.note(outcome)
        return queue

    # -- what the journal keeps for later

    def _expect(self, outstanding: Mapping[int, int]) -> None:
        """Take up what is outstanding in the journal, each lane when it is due; slowly, if that is much at once."""
        asleep = outstanding.keys() - self._active.keys()
        for subscription, due_ms in outstanding.items():
            if self._ordered and subscription in asleep:
                self._blocked.setdefault(subscription, 0)
            # Only a head's time is told, and without order it is not the head that counts.
            self._wake_at(subscription, due_ms if self._ordered else 0)
        now_ms = self._attempts.clock_ms()
        if sum(outstanding[subscription] <= now_ms for subscription in asleep) > 1:
            self._attempts.start_slowly()

    async def _follow_redriven(self, revision: int) -> None:
        while True:
            revision, outstanding = await self._progress.redriven(revision)
            self._expect(outstanding)

    def _wake_at(self, subscription: int, due_ms: int) -> None:
        if self._alarms.set(subscription, due_ms):
            self._new_alarm.set()

    async def _wake_due(self) -> None:
        await self._caught_up.wait()
        while True:
            now_ms = self._attempts.clock_ms()
            for subscription in self._alarms.due(now_ms):
                self._wake(subscription)
            wait_s = self._alarms.wait_s(now_ms)
            self._new_alarm.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wait_s is None else min(wait_s, _CLOCK_CHECK_S)):
                    await self._new_alarm.wait()

    def _wake(self, subscription: int) -> None:
        self._blocked.setdefault(subscription, 0)
        if subscription in self._active:  # it may have looked a moment too early
            self._look_again.add(subscription)
        else:
            self._activate(subscription, [])

    # -- work

    def _activate(self, subscription: int, queue: list[Outstanding]) -> None:
        self._active[subscription] = queue
        self._ready.put(subscription, back=not queue)

    def _rest(self, subscription: int) -> None:
        """Nothing to do for this lane now."""
        del self._active[subscription]
        if subscription in self._look_again:
            self._look_again.discard(subscription)
            self._wake_at(subscription, 0)

    async def _work(self) -> None:
        while True:
            subscription, back = await self._ready.get()
            queue = self._active[subscription]
            if back:
                await self._work_off(subscription, queue)
            else:
                await self._advance(subscription, queue)
                if subscription in self._active and not queue and subscription not in self._blocked:
                    self._rest(subscription)
            self._ready.done(back)
            if subscription in self._active:
                self._ready.put(subscription, back=not queue)

    async def _work_off(self, subscription: int, queue: list[Outstanding]) -> None:
        """A blocked lane's turn. What is fetched for it is tried at once: lanes that wait for a turn may be many, and
        keep nothing of the journal in memory. First comes the head alone: its next refusal may be near."""
        for limit in (1, min(_FETCH_MAX, self._lane_max)):
            await self._refill(subscription, queue, limit)
            while queue:
                await self._advance(subscription, queue)
            if subscription not in self._active:
                return

    async def _advance(self, subscription: int, queue: list[Outstanding]) -> None:
        """One event further in a lane. Refused for now, the lane goes to sleep and its queue to the journal."""
        if subscription in self._passed:
            self._passed.discard(subscription)
            await self._progress.settle()
        if queue[0].outcome.previous is None:
            queue[0] = await self._linked(queue[0])
        outcome, attempt, fatal = await self._attempts.attempt(queue[0])
        del queue[0]
        self._progress.note(outcome, attempt)
        if fatal is not None:
            raise fatal
        if outcome.state is DeliveryState.DEAD:
            self._passed.add(subscription)
        elif outcome.state is DeliveryState.RETRYING:
            self._wake_at(subscription, outcome.due_ms)
            if self._ordered:
                for behind in queue:
                    self._progress.note(behind.outcome)
                queue.clear()
                self._blocked.setdefault(subscription, 0)
                self._rest(subscription)

    async def _linked(self, work: Outstanding) -> Outstanding:
        """With what came before it at this endpoint, as far as the journal can still tell."""
        previous = await self._progress.previous(work.entry, self._attempts.wants)
        return Outstanding(work.outcome._replace(previous=previous), work.entry)

    async def _refill(self, subscription: int, queue: list[Outstanding], limit: int) -> None:
        """Fetch what is due of a blocked lane. Nothing: it went to rest, blocked on if its head is not due yet."""
        while True:
            held = self._blocked[subscription]
            self._look_again.discard(subscription)
            outstanding = await self._progress.lane(subscription, limit, ordered=self._ordered)
            queue += self._latest(_due(outstanding, self._attempts.clock_ms()))
            if queue:
                return
            if outstanding:
                self._wake_at(subscription, outstanding[0].outcome.due_ms)
            if outstanding and self._ordered:
                self._rest(subscription)
                return
            if held == self._blocked[subscription]:
                del self._blocked[subscription]
                self._rest(subscription)
                return


def _untried(entry: Entry, previous: int | None) -> Outstanding:
    return Outstanding(Outcome(entry.position, entry.subscription, DeliveryState.HELD, previous=previous), entry)


def _due(outstanding: Sequence[Outstanding], now_ms: int) -> list[Outstanding]:
    """Those at its beginning whose time has come."""
    return list(takewhile(lambda one: one.outcome.due_ms <= now_ms, outstanding))
