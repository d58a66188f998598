"""How far one consumer has come in one partition: what is read, what is finished, what the journal knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bridge.journal.store import Attempt, DeliveryJournal, Entry, Outcome, Outstanding
from bridge.telemetry.metrics import Metrics

ENTRIES_MAX = 1_000
BYTES_MAX = 8 << 20


class Window:
    """The entries in memory, and the position up to which everything is finished. Pure."""

    def __init__(self, position: int, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.scanned = position
        """The last position read."""
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._open: dict[int, int] = {}

    def take(self, entry: Entry) -> None:
        """The next entry was read and stays in memory until it is finished."""
        self.scanned = entry.position
        self._open[entry.position] = len(entry.data)
        self._bytes += len(entry.data)

    def pass_over(self, position: int) -> None:
        """The next entry was read and is finished at once."""
        self.scanned = position

    def finish(self, position: int) -> None:
        """An entry needs no memory any more. Nothing happens for one that was never taken."""
        self._bytes -= self._open.pop(position, 0)

    @property
    def settled(self) -> int:
        """The position before the first unfinished entry."""
        return next(iter(self._open), self.scanned + 1) - 1

    @property
    def room(self) -> tuple[int, int]:
        """How many entries and bytes more fit in; none at all while it is more than half full, so that reads stay
        large when deliveries are slow."""
        entries, size = self._entries_max - len(self._open), self._bytes_max - self._bytes
        if 2 * entries < self._entries_max or 2 * size < self._bytes_max:
            return 0, 0
        return entries, size


class Progress:
    """A consumer at work. Outcomes are gathered here and written together with the position, whole batches at once."""

    def __init__(
        self, journal: DeliveryJournal, consumer: str, partition: int, position: int, metrics: Metrics
    ) -> None:
        self.window = Window(position)
        self._journal = journal
        self._consumer = consumer
        self._partition = partition
        self._seconds = metrics.settle_seconds
        self._outcomes: list[Outcome] = []
        self._attempts: list[Attempt] = []
        self._changes = self._changes_written = 0
        self._settling = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def read(self) -> Sequence[Entry]:
        """The next entries; waits until there are some, room for them, and little left to write."""
        if len(self._outcomes) > ENTRIES_MAX:
            await self.settle()
        while self.window.room == (0, 0):
            self._room.clear()
            await self._room.wait()
        entries_max, bytes_max = self.window.room
        return await self._journal.pending(self._partition, self.window.scanned, limit=entries_max, bytes_max=bytes_max)

    async def lane(self, subscription: int, limit: int, *, ordered: bool) -> Sequence[Outstanding]:
        """One job's outstanding entries, everything noted before this call included."""
        await self.settle()
        return await self._journal.lane(self._consumer, self._partition, subscription, limit, ordered=ordered)

    async def previous(self, entry: Entry, wants: Callable[[Entry], bool]) -> int | None:
        """`sequence` of the job's entry before this one that was meant for this consumer; 0 where there is none, None
        where it can no longer be told."""
        return await self._journal.previous(self._consumer, entry, wants)

    async def redriven(self, after_revision: int) -> tuple[int, dict[int, int]]:
        """Waits until a person has changed what is outstanding; what is then, by job."""
        return await self._journal.redriven(self._consumer, self._partition, after_revision)

    def pass_over(self, position: int) -> None:
        """The next entry is none of this consumer's business, or was finished before."""
        self.window.pass_over(position)
        self._changes += 1
        self._news.set()

    def note(self, outcome: Outcome, attempt: Attempt | None = None) -> None:
        """What became of an entry, and the attempt that showed it. It leaves the window."""
        self._outcomes.append(outcome)
        if attempt is not None:
            self._attempts.append(attempt)
        self._changes += 1
        self.window.finish(outcome.position)
        self._news.set()
        self._room.set()

    async def keep_settling(self) -> None:
        """Write whenever there is something new, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.settle()

    async def settle(self) -> None:
        """Write everything noted before this call. Cut off half-way, it may simply be called again."""
        wanted = self._changes
        async with self._settling:
            while self._changes_written < wanted:  # else it was written by those who were here first
                if self._writing is None:
                    self._writing = asyncio.create_task(self._write())
                try:
                    # What is on its way to the journal cannot be called back, and must not be written twice.
                    await asyncio.shield(self._writing)
                finally:
                    if self._writing.done():
                        self._writing = None

    async def _write(self) -> None:
        changes, upto = self._changes, self.window.settled
        outcomes, attempts = tuple(self._outcomes), tuple(self._attempts)
        with self._seconds.time():
            await self._journal.settle(self._consumer, self._partition, upto, outcomes, attempts)
        self._changes_written = changes
        del self._outcomes[: len(outcomes)], self._attempts[: len(attempts)]
