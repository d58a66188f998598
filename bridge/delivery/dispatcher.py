"""The session of one log sink and one partition: wait for pending entries, write them, settle them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

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

    async def run(self, useful: Callable[[], None]) -> None:
        """Relay until cancelled; raises what the writer and the journal raise, and `Fatal` at a conflict of memories.

        Cancelled in the middle of a batch, it leaves the batch to the next run: the sink says then whether it counts.
        """
        async with self._sink.writer(self._partition) as writer:
            position = await self._resume(await writer.recover())
            settling = asyncio.create_task(self._settle(position, ()))
            try:
                while True:
                    entries = await self._following(position, settling)
                    outcomes = await self._write(writer, entries)
                    await settling
                    useful()
                    position = entries[-1].position
                    settling = asyncio.create_task(self._settle(position, outcomes))
                    if outcomes:  # the sink remembers only those of its last write
                        await settling
            finally:
                settling.cancel()
                await asyncio.wait({settling})

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: the journal holds the entries, and what is unsettled is visible as depth."""

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

    async def _write(self, writer: LogWriter, entries: Sequence[Entry]) -> Sequence[Outcome]:
        began = self._clock()
        try:
            outcomes = await writer.write(entries)
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

    async def _following(self, position: int, settling: asyncio.Task[None]) -> Sequence[Entry]:
        """The next entries behind `position`. Raises what the settling raises, should that fail meanwhile."""
        pending = self._journal.pending(self._partition, position, limit=self._sink.batch_entries)
        following = asyncio.create_task(pending)
        try:
            await asyncio.wait({following, settling}, return_when=asyncio.FIRST_COMPLETED)
            if settling.done():
                settling.result()
            return await following
        finally:
            following.cancel()
