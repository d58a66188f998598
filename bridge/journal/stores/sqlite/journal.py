"""The journal over SQLite, as its callers see it: writes share transactions, reads never wait for a disk's flush."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from bridge.event import JobEvent, JobKey
from bridge.journal.pace import Pace
from bridge.journal.store import (
    Attempt,
    Checkpoint,
    Entry,
    JournalHealth,
    Outcome,
    Outstanding,
    SubscriptionRecord,
    SubscriptionState,
)
from bridge.journal.stores.sqlite import attempts as attempts_table
from bridge.journal.stores.sqlite import consumers as consumer_table
from bridge.journal.stores.sqlite import reads, writes
from bridge.journal.stores.sqlite.endpoints import Endpoints
from bridge.journal.stores.sqlite.file import Connections, connected, translated
from bridge.journal.stores.sqlite.health import HealthTables
from bridge.journal.stores.sqlite.outcomes import Outcomes
from bridge.journal.stores.sqlite.previous import previous
from bridge.journal.stores.sqlite.writer import Writer
from bridge.journal.tail import Tail

P = ParamSpec("P")
R = TypeVar("R")

_LOW_WATER = 0.9
"""Appends go on once live bytes fell below this share of the high-water mark."""
_LEAD_ENTRIES = 8000
"""A few batches of a relay: enough that it never waits for more."""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def open_journal(
    path: str | Path,
    *,
    partitions: int = 1,
    high_water_bytes: int = 4 << 30,
    clock_ms: Callable[[], int] = now_ms,
    synchronous: str = "full",
    tail_bytes: int = 16 << 20,
) -> AsyncIterator[SqliteJournal]:
    """The journal in the file at `path`, made if need be; `:memory:` is one that is gone afterwards.

    `synchronous` is SQLite's word for what a commit waits for; the newest entries stay in memory, as
    many as fit in `tail_bytes`. Raises `Fatal` when the file is not fit for use.
    """
    with connected(str(path), partitions=partitions, synchronous=synchronous) as connections:
        journal = SqliteJournal(connections, high_water_bytes, tail_bytes, clock_ms)
        try:
            yield journal
        finally:
            await journal.close()


def _ring(bell: asyncio.Event) -> None:
    """Wake all who wait now. Nobody misses it: they look and begin to wait without a pause in between."""
    bell.set()
    bell.clear()


class SqliteJournal:
    """Made by `open_journal`. Fits the whole seam."""

    def __init__(
        self, connections: Connections, high_water_bytes: int, tail_bytes: int, clock_ms: Callable[[], int]
    ) -> None:
        self._connections = connections
        self._high_water_bytes = high_water_bytes
        self._level = reads.tide(connections.reading)
        self._appended = [asyncio.Event() for _ in self._level.ends]
        self._tails = [Tail(tail_bytes // self.partitions) for _ in self._level.ends]
        self._paces = [Pace(end, _LEAD_ENTRIES) for end in self._level.ends]
        self._changed = asyncio.Event()
        self._committed = asyncio.Event()
        self._commits = 0
        self._room = asyncio.Event()
        if self._level.live_bytes <= high_water_bytes:
            self._room.set()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._writer = Writer(connections.writing, connections.turn, clock_ms, self._risen)
        self.outcomes = Outcomes(self._read, self._writer, lambda: self._level.ends)
        self.endpoint_health = HealthTables(self._read, self._writer)
        self.endpoints = Endpoints(self._read, self._writer)

    async def close(self) -> None:
        """Finish what was asked for, then let go of the threads."""
        await self._writer.close()
        await asyncio.to_thread(self._reader.shutdown)

    def _risen(self, level: reads.Tide, results: Sequence[object]) -> None:
        """After every commit: keep what is new, and wake those whom it concerns."""
        before, self._level = self._level, level
        for result in results:
            if isinstance(result, writes.Appended) and result.entries:
                self._tails[result.entries[0].partition].extend(result.entries)
        self._commits += 1
        _ring(self._committed)
        for bell, pace, was, end in zip(self._appended, self._paces, before.ends, level.ends, strict=True):
            if end > was:
                pace.grown(end)
                _ring(bell)
        if level.revision > before.revision:
            _ring(self._changed)
        if level.live_bytes > self._high_water_bytes:
            self._room.clear()
        elif level.live_bytes < self._high_water_bytes * _LOW_WATER:
            self._room.set()

    async def _read(
        self, question: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Have the question answered from what is committed. Raises `Temporary` when the disk gives no answer now."""

        def answer() -> R:
            with self._connections.turn:
                return question(self._connections.reading, *args, **kwargs)

        self._writer.check_open()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, answer)
        except sqlite3.Error as error:
            if (trouble := translated(error)) is None:
                raise
            raise trouble from error

    # -- subscriptions

    async def follow(self, keys: Sequence[JobKey], origin: str) -> Sequence[tuple[SubscriptionRecord, bool]]:
        return await self._writer.submit(writes.follow, writes.Follow(keys, origin, self.partitions))

    async def subscription(self, key: JobKey) -> SubscriptionRecord | None:
        return (await self._read(reads.by_key, [key])).get(key)

    async def subscriptions(
        self,
        *,
        after_id: int = 0,
        limit: int = 100,
        source: str | None = None,
        state: SubscriptionState | None = None,
    ) -> Sequence[SubscriptionRecord]:
        return await self._read(reads.page, after_id, limit, source, state)

    async def changed(self, after_revision: int, limit: int = 1000) -> Sequence[SubscriptionRecord]:
        while self._level.revision <= after_revision:
            await self._changed.wait()
        return await self._read(reads.changed, after_revision, limit)

    async def steer(
        self, key: JobKey, state: SubscriptionState, reason: str | None = None
    ) -> SubscriptionRecord | None:
        return await self._writer.submit(writes.steer, writes.Steer(key, state, reason))

    # -- intake

    async def append(
        self, subscription: SubscriptionRecord, events: Sequence[JobEvent], checkpoint: Checkpoint | None
    ) -> int:
        async with self._paces[subscription.partition].turn(len(events)):
            while not self._room.is_set():
                await self._room.wait()
            appended = await self._writer.submit(writes.append, writes.Append(subscription, events, checkpoint))
            return len(appended.entries)

    # -- delivery

    @property
    def partitions(self) -> int:
        return len(self._level.ends)

    async def register(self, consumers: Sequence[str], endpoints: Collection[str] = ()) -> None:
        await self._writer.submit(consumer_table.register, consumer_table.Register(consumers, endpoints))

    async def position(self, consumer: str, partition: int) -> int:
        _, settled = await self._read(reads.place, consumer, partition)
        return settled

    async def begun(self, consumer: str, partition: int) -> int:
        begun, _ = await self._read(reads.place, consumer, partition)
        return begun

    async def entry(self, partition: int, position: int) -> Entry | None:
        return await self._read(reads.entry, partition, position)

    async def pending(self, partition: int, after: int, *, limit: int, bytes_max: int = 4 << 20) -> Sequence[Entry]:
        seen = after
        self._paces[partition].pulled(after)
        while True:
            while self._level.ends[partition] <= seen:
                await self._appended[partition].wait()
            seen = self._level.ends[partition]
            if entries := await self.entries(partition, after, limit=limit, bytes_max=bytes_max):
                return entries

    async def entries(self, partition: int, after: int, *, limit: int, bytes_max: int = 4 << 20) -> Sequence[Entry]:
        if newest := self._tails[partition].after(after, limit, bytes_max):
            return newest
        return await self._read(reads.pending, partition, after, limit, bytes_max)

    async def settle(
        self,
        consumer: str,
        partition: int,
        upto: int,
        outcomes: Sequence[Outcome] = (),
        attempts: Sequence[Attempt] = (),
    ) -> None:
        await self._writer.submit(
            consumer_table.settle, consumer_table.Settle(consumer, partition, upto, outcomes, attempts)
        )

    async def settled(self, consumers: Collection[str]) -> None:
        while True:
            seen = self._commits
            depth = (await self._read(reads.census)).depth
            if not any(depth.get(consumer) for consumer in consumers) and not await self._held(consumers):
                return
            while self._commits == seen:
                await self._committed.wait()

    async def _held(self, consumers: Collection[str]) -> bool:
        """Whether a lane waits for nothing but its turn."""
        for consumer, partition in product(consumers, range(self.partitions)):
            if 0 in (await self.blocked(consumer, partition)).values():
                return True
        return False

    async def lane(
        self, consumer: str, partition: int, subscription: int, limit: int, *, ordered: bool = True
    ) -> Sequence[Outstanding]:
        return await self._read(reads.lane, consumer, partition, subscription, limit, ordered)

    async def blocked(self, consumer: str, partition: int) -> dict[int, int]:
        return await self._read(reads.blocked, consumer, partition)

    async def redriven(self, consumer: str, partition: int, after_revision: int) -> tuple[int, dict[int, int]]:
        return await self.outcomes.redriven(consumer, partition, after_revision)

    async def previous(self, consumer: str, entry: Entry, wants: Callable[[Entry], bool]) -> int | None:
        return await self._read(previous, consumer, entry, wants)

    async def finished(self, consumer: str, partition: int, after: int) -> set[int]:
        return await self._read(reads.finished, consumer, partition, after)

    # -- the whole

    async def prune(self, settled_before_ms: int, limit: int = 1000) -> int:
        pruned = await self._writer.submit(writes.prune, writes.Prune(settled_before_ms, limit))
        if pruned:
            for tail in self._tails:
                tail.clear()
        return pruned

    async def prune_attempts(self, before_ms: int, limit: int = 1000) -> int:
        return await self._writer.submit(attempts_table.prune, attempts_table.Prune(before_ms, limit))

    async def health(self) -> JournalHealth:
        census = reads.Census(0, {}, {}, {}, {})
        try:
            if self._writer.trouble is not None:
                await self._writer.submit(writes.probe, None)
            detail = "ok" if self._room.is_set() else "over its high-water mark: intake waits"
            writable = True
        except Exception as error:  # noqa: BLE001  whatever it is, this is where it is told
            detail, writable = str(error), False
        try:
            census = await self._read(reads.census)
        except Exception as error:  # noqa: BLE001
            detail, writable = str(error), False
        return JournalHealth(
            writable=writable,
            detail=detail,
            live_bytes=self._level.live_bytes,
            high_water_bytes=self._high_water_bytes,
            **census._asdict(),
        )
