"""The session of one log sink and one partition: wait for pending entries, write them, settle them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from structlog.typing import FilteringBoundLogger

from bridge.delivery.sink import LogSink, LogWriter, Mark
from bridge.errors import BridgeError, Fatal
from bridge.journal.store import DeliveryState, Entry, Outcome, RelayJournal
from bridge.telemetry.metrics import Metrics


class LogDispatcher:
    """Relays one partition of the journal to one sink, in order, from where the sink remembers it.

    The sink's memory is the first witness of how far delivery came and the journal's settled position the second,
    which never runs ahead. Where the two cannot both be true it stops and says so, rather than repeat or skip.
    """

    def __init__(
        self,
        consumer: str,
        partition: int,
        sink: LogSink,
        *,
        journal: RelayJournal,
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"{consumer}/{partition}"
        self.group = consumer
        self._partition = partition
        self._sink = sink
        self._journal = journal
        self._metrics = metrics
        self._log = log.bind(sink=consumer, partition=partition)
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._added: list[Entry] = []
        """What the writer has made ready, and the next flush takes along."""
        self._more = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self, useful: Callable[[], None]) -> None:
        """Relay until cancelled; raises what the writer and the journal raise, and `Fatal` at a conflict of memories.

        Three things go on at once: a batch is made ready, the one before it written, the one before that settled.
        Cancelled in the middle of a batch, it leaves the batch to the next run: the sink says then whether it counts.
        """
        async with self._sink.writer(self._partition, self._check) as writer:
            position = await self._resume(await writer.recover())
            self._begin()
            adding = self._task(self._add(writer, position))
            settling = self._task(self._settle(position, ()))
            try:
                while True:
                    await self._until_more(adding, settling)
                    entries, self._added = self._added, []
                    self._room.set()
                    outcomes = await self._flush(writer, entries)
                    await settling
                    useful()
                    settling = self._task(self._settle(entries[-1].position, outcomes))
                    if outcomes:  # the sink remembers only those of its last write
                        await settling
            finally:
                adding.cancel()
                settling.cancel()
                await asyncio.wait({adding, settling})

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: the journal holds the entries, and what is unsettled is visible as depth."""

    async def _check(self, mark: Mark) -> None:
        """Raises `Fatal` for the copy of a journal that went on elsewhere: it must not fence out the one that did."""
        settled = await self._journal.position(self.group, self._partition)
        if mark.position > settled:
            await self._verify(mark, settled)

    async def _resume(self, mark: Mark | None) -> int:
        settled = await self._journal.position(self.group, self._partition)
        if mark is None or mark.position == settled:
            return settled
        if mark.position > settled:
            await self._verify(mark, settled)
            await self._journal.settle(self.group, self._partition, mark.position, mark.outcomes)
            return mark.position
        if mark.position == 0 and settled == await self._journal.begun(self.group, self._partition):
            return settled  # it never delivered anything, so there is nothing to remember
        raise self._conflict(
            f"remembers position {mark.position} but the journal has settled {settled}: it lost data, or is another one"
        )

    async def _verify(self, mark: Mark, settled: int) -> None:
        # Entries that are not settled are never pruned: this journal must hold what the sink got from it.
        entry = await self._journal.entry(self._partition, mark.position)
        if entry is None or entry.id != mark.event_id:
            raise self._conflict(
                f"remembers event {mark.event_id} at position {mark.position}, which this journal (settled: {settled}) "
                "does not hold: the journal is a new one, or an older copy was restored"
            )

    def _conflict(self, what: str) -> Fatal:
        return Fatal(
            f"sink {self.group}, partition {self._partition}, {what}. Bring the right one back, or start once with the "
            "sink set to recover from the journal, which may repeat events",
            reason="position_conflict",
        )

    async def _add(self, writer: LogWriter, position: int) -> NoReturn:
        """Make ready what follows `position`, as it comes."""
        while True:
            while (room := self._sink.batch_entries - len(self._added)) <= 0:
                self._room.clear()
                await self._room.wait()
            entries = await self._journal.pending(self._partition, position, limit=room)
            await writer.add(entries)
            self._added += entries
            self._more.set()
            position = entries[-1].position

    async def _until_more(self, *tasks: asyncio.Task[Any]) -> None:
        """Wait until something was added. Raises what the tasks raise, should one have failed by then: what the writer
        holds after an `add` that failed is not to be flushed."""
        while True:
            for task in tasks:
                if task.done():
                    task.result()
            if self._added:
                return
            self._more.clear()
            await self._more.wait()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Set going what `_until_more` is to hear of when it ends."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._more.set())
        return task

    async def _flush(self, writer: LogWriter, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Flush the writer, which holds these entries."""
        began = self._clock()
        try:
            outcomes = await writer.flush()
        except BridgeError as error:
            first, last = entries[0].position, entries[-1].position
            self._log.warning("batch.failed", first=first, last=last, reason=error.reason, error=str(error))
            raise
        finally:
            self._metrics.delivery_seconds.labels(self.group).observe(self._clock() - began)
        self._count(entries, outcomes)
        return outcomes

    def _count(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        counts = Counter(outcome.state for outcome in outcomes)
        counts[DeliveryState.DELIVERED] += len(entries) - len(outcomes)
        for state, count in counts.items():
            self._metrics.deliveries.labels(self.group, state).inc(count)
        dead = {outcome.position: outcome.detail for outcome in outcomes if outcome.state is DeliveryState.DEAD}
        for entry in entries if dead else ():
            if entry.position in dead:
                self._log.warning(
                    "delivery.dead",
                    position=entry.position,
                    id=entry.id,
                    source=entry.source,
                    subject=entry.subject,
                    type=entry.type,
                    detail=dead[entry.position],
                )

    async def _settle(self, position: int, outcomes: Sequence[Outcome]) -> None:
        """Settle a batch, while the next one is written already: the journal may lag behind the sink, never lead."""
        with self._metrics.settle_seconds.time():
            await self._journal.settle(self.group, self._partition, position, outcomes)
