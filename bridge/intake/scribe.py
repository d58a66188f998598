"""One job's hand in the journal: readings become events and are appended with cursor and memory, batch after batch."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from bridge.errors import BridgeError
from bridge.event import Cursor, EventType, JobEvent, Json
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Reading
from bridge.intake.source import Source
from bridge.journal.store import Checkpoint, IntakeJournal, SubscriptionRecord
from bridge.telemetry.metrics import Metrics


class Scribe:
    """Safe to call from the reader of a stream and from the look beside it at once. `on_news` hears of every batch
    that told something new about the job; what only tells of our watching does not count."""

    def __init__(
        self,
        record: SubscriptionRecord,
        source: Source,
        journal: IntakeJournal,
        metrics: Metrics,
        on_news: Callable[[], None],
    ) -> None:
        self.cursor = record.cursor
        """Where the provider is to resume, as journalled last."""
        self._record = record
        self._memory = record.memory
        self._source = source
        self._journal = journal
        self._metrics = metrics
        self._on_news = on_news
        self._writing = asyncio.Lock()
        self._life = self._recall()

    @property
    def ended(self) -> bool:
        """Whether the terminal event is journalled."""
        return self._life.ended

    @property
    def watching(self) -> bool:
        """Whether the last word about our watching is that we do."""
        return self._life.watching

    @property
    def given_up(self) -> bool:
        """Whether the last word about our watching is that it stopped."""
        return self._life.given_up

    async def take(self, readings: Sequence[Reading]) -> None:
        """Journal what the readings say. Raises `Temporary` when the journal cannot take it: then nothing was said."""
        async with self._writing:
            late = self._life.late
            events = self._life.apply(readings)
            if self._life.late > late:
                self._metrics.late.labels(self._source.name).inc(self._life.late - late)
            cursor = next((reading.cursor for reading in reversed(readings) if reading.cursor is not None), None)
            if (events or cursor is not None) and await self._append(events, cursor or self.cursor):
                self._on_news()

    async def watch(self, type_: EventType, detail: Json, then: Sequence[Reading] = ()) -> None:
        """Journal what happened to our watching, and in the same transaction what followed from it for the job."""
        async with self._writing:
            if not self._life.ended:
                await self._append([self._life.watch(type_, detail), *self._life.apply(then)], self.cursor)

    def count_oversized(self) -> None:
        """Count a frame that was kept in part only."""
        self._metrics.oversized.labels(self._source.name).inc()

    async def confirm_end(self) -> None:
        """Have the journal note once more that the job is over: somebody asked for it anew."""
        async with self._writing:
            await self._append([], self.cursor)

    async def _append(self, events: Sequence[JobEvent], cursor: Cursor | None) -> int:
        """Append in one transaction with the cursor and the memory; returns how many events were new."""
        metrics, name = self._metrics, self._source.name
        checkpoint = Checkpoint(cursor, self._life.memory(), self._life.ended)
        started_s = time.perf_counter()
        try:
            new = await self._journal.append(self._record, events, checkpoint)
        except BridgeError:
            self._life = self._recall()  # what was not journalled is not known: the other reader may come next
            raise
        metrics.append_seconds.observe(time.perf_counter() - started_s)
        self.cursor, self._memory = cursor, checkpoint.memory
        repeats = len(events) - new
        if repeats:
            metrics.duplicates.labels(name).inc(repeats)
        # A stream read again brings its repeats first, so the last ones of the batch are the new ones.
        for type_, count in Counter(event.type for event in events[repeats:]).items():
            metrics.events.labels(name, type_).inc(count)
        return new

    def _recall(self) -> Lifecycle:
        """The job as journalled last."""
        return self._source.life(self._record.key, self._memory)
