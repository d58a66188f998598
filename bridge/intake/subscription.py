"""One job followed: where were we, open, normalise, append, until the job is over. Ends otherwise only by raising."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobEvent, JobKey
from bridge.intake.ending import confirm, is_end, look
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Frame, OpenStream, Reading
from bridge.intake.source import Source
from bridge.journal.store import Checkpoint, IntakeJournal, SubscriptionState
from bridge.telemetry.metrics import Metrics

_BARREN_TO_BELIEVE = 2
"""How many connections in a row may bring no frame of a job that is over, before the next such one is believed.
A single stalled connection proves nothing: the frames may still be waiting behind it."""

_LOST = frozenset({"not_found", "gone", "bug"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What subscriptions take from outside."""

    journal: IntakeJournal
    metrics: Metrics
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Subscription:
    """The session that follows one job."""

    def __init__(self, key: JobKey, source: Source, around: Surroundings) -> None:
        self.name = str(key)
        self.group = source.name
        self._key = key
        self._source = source
        self._around = around
        self._writing = asyncio.Lock()
        self._barren = 0
        self._countable = True
        self._refused: Cursor | None = None
        self._last_news_s = 0.0

    async def run(self, useful: Callable[[], None]) -> None:
        """Follow the job; returns when it is over and its terminal event journalled, or nobody wants it followed."""
        record = await self._around.journal.subscription(self._key)
        if record is None or record.state is not SubscriptionState.ACTIVE:
            return
        self._record = record
        self._cursor = record.cursor
        self._useful = useful
        settings = self._source.settings
        self._life = Lifecycle(self._key, self._source.kind, record.memory, payloads=settings.payloads)
        try:
            await self._follow()
        except Rejected as error:
            young = self._around.clock() - record.created_ms / 1000 < settings.not_found_grace_s
            if error.reason == "not_found" and young:  # younger than the provider's own index of jobs
                raise Temporary(str(error), reason="not_found_yet") from error
            raise

    async def park(self, error: BridgeError) -> None:
        """Journal what became of our watching. Only a refusal of this job alone changes what we mean to do with it."""
        journal = self._around.journal
        record = await journal.subscription(self._key)
        if record is None or record.state is not SubscriptionState.ACTIVE:
            return
        life = Lifecycle(self._key, self._source.kind, record.memory)
        type_ = EventType.WATCH_LOST if error.reason in _LOST else EventType.WATCH_DENIED
        event = life.watch(type_, {"reason": error.reason, "text": str(error)})
        await journal.append(record, [event], Checkpoint(record.cursor, life.memory()))
        if not isinstance(error, Fatal):
            await journal.steer(self._key, SubscriptionState.PARKED, f"{error.reason}: {error}")

    # -- following

    async def _follow(self) -> None:
        if not self._life.watching:
            await self._journal([self._life.watch(EventType.WATCH_STARTED, {"cursor": self._cursor})])
        provider, job_id = self._source.provider, self._key.job_id
        async for readings in provider.backfill(job_id, self._cursor):
            await self._take(readings)
        request = provider.stream(job_id, None if self._cursor == self._refused else self._cursor)
        if request is None:
            await self._poll()
            return
        try:
            async with self._source.streams.open(request, provider.refusal) as stream:
                await _first(self._listen(stream), self._look_beside())
        except Rejected as error:
            await self._refuse_cursor(error)

    async def _listen(self, stream: OpenStream) -> None:
        """Read the stream until the job is over. Raises `Temporary` at any other end of it."""
        self._countable, self._last_news_s = True, self._around.clock()
        try:
            async for frames in stream:
                if frames:
                    self._countable, self._barren = False, 0
                    self._last_news_s = math.inf  # busy is not silent, however long the journal takes
                    if await self._take(self._read(frames)):
                        return
                    self._last_news_s = self._around.clock()
            await self._stream_ended()
        except Temporary as error:
            floors = [floor_s for floor_s in (error.after_s, stream.retry_s) if floor_s is not None]
            error.after_s = max(floors, default=None)
            raise

    async def _stream_ended(self) -> None:
        """A clean end proves nothing by itself: ask, and believe in the job's end only once nothing more comes."""
        seen = await look(self._source, self._key.job_id)
        if seen is None or not is_end(seen):
            raise Temporary("the stream ended before the job did", reason="eof")
        await self._end_unseen(seen)

    async def _look_beside(self) -> None:
        """Look at the status endpoint beside the stream: some states are told nowhere else.

        Returns when the job is over by the status endpoint and the stream believed to hold nothing more.
        """
        with self._source.looker():
            while True:
                seen = await self._look_softly()
                if seen is not None and is_end(seen):
                    await self._quiet()
                    await self._end_unseen(seen)
                    return
                if seen is not None:
                    await self._take([seen])
                await self._around.sleep(self._source.look_interval_s())

    async def _poll(self) -> None:
        """Follow by the status endpoint alone."""
        with self._source.looker():
            while not await self._take([await self._source.provider.status(self._key.job_id)]):
                await self._around.sleep(self._source.look_interval_s())

    async def _look_softly(self) -> Reading | None:
        """A look that may fail: a status endpoint in passing trouble is no reason to leave a stream that lives."""
        try:
            return await look(self._source, self._key.job_id)
        except Temporary:
            return None

    async def _quiet(self) -> None:
        """Wait until the stream has been silent for the set time."""
        quiet_s = self._source.settings.end_quiet_s
        while (left_s := self._last_news_s + quiet_s - self._around.clock()) > 0:
            await self._around.sleep(min(left_s, quiet_s))

    # -- reading and journalling

    def _read(self, frames: Sequence[Frame]) -> list[Reading]:
        read = self._source.provider.read
        cursor = self._cursor
        readings: list[Reading] = []
        for frame in frames:
            if frame.dropped_bytes:
                self._around.metrics.oversized.labels(self.group).inc()
            for reading in read(frame, cursor):
                readings.append(reading)
                cursor = reading.cursor or cursor
        return readings

    async def _take(self, readings: Sequence[Reading]) -> bool:
        """Journal what the readings say; True once the job is over. A stream's word for that is confirmed first."""
        for index, reading in enumerate(readings):
            if reading.key is not None and is_end(reading):
                await self._append(readings[:index])
                around = self._around
                end = await confirm(reading, self._source, self._key.job_id, around.clock, around.sleep)
                await self._append([end, *readings[index + 1 :]])
                return True
        await self._append(readings)
        return self._life.ended

    async def _append(self, readings: Sequence[Reading]) -> None:
        async with self._writing:
            late = self._life.late
            events = self._life.apply(readings)
            if self._life.late > late:
                self._around.metrics.late.labels(self.group).inc(self._life.late - late)
            cursor = next((r.cursor for r in reversed(readings) if r.cursor is not None), None)
            if events or cursor is not None:
                await self._journal(events, cursor)

    async def _journal(self, events: Sequence[JobEvent], cursor: Cursor | None = None) -> None:
        """Append in one transaction with the cursor and the memory."""
        metrics = self._around.metrics
        cursor = cursor or self._cursor
        checkpoint = Checkpoint(cursor, self._life.memory(), self._life.ended)
        started = time.perf_counter()
        new = await self._around.journal.append(self._record, events, checkpoint)
        metrics.append_seconds.observe(time.perf_counter() - started)
        self._cursor = cursor
        if new:
            self._useful()
        repeats = len(events) - new
        if repeats:
            metrics.duplicates.labels(self.group).inc(repeats)
        # A stream read again brings its repeats first, so the last ones of the batch are the new ones.
        for type_, count in Counter(event.type for event in events[repeats:]).items():
            metrics.events.labels(self.group, type_).inc(count)

    # -- what the provider refuses or fails to show

    async def _end_unseen(self, seen: Reading) -> None:
        """The job is over and its stream has not shown it: read again, and at last believe the status endpoint.

        Where the stream had spoken before, an end that it never showed is a gap.
        """
        self._barren += self._countable
        self._countable = False
        if self._barren <= _BARREN_TO_BELIEVE:
            raise Temporary("the job is over, but its stream has not shown the end yet", reason="end_unseen")
        async with self._writing:
            if not self._life.ended:
                gap = [] if self._cursor is None else [self._life.watch(EventType.WATCH_GAP, {"reason": "end_unseen"})]
                await self._journal([*gap, *self._life.apply([seen])])

    async def _refuse_cursor(self, error: Rejected) -> None:
        """A cursor that the provider no longer takes: say that there may be a gap, then start without it.

        What the stream then repeats is dropped by comparing it with the cursor that stays on record.
        """
        if error.reason != "stale_cursor" or self._cursor is None or self._cursor == self._refused:
            raise error
        self._refused = self._cursor
        await self._journal([self._life.watch(EventType.WATCH_GAP, {"reason": "stale_cursor", "text": str(error)})])
        raise Temporary("the provider refused our cursor; its stream is read again", reason="stale_cursor")


async def _first(*runs: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends, then cancel the others; its error, if it had one, is raised as it is."""
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
