"""What became of events, as its callers ask: step by step through the journal, so that nobody else waits for long."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from bridge.journal.outcomes import (
    BEGINNING,
    DROPPABLE,
    REDRIVABLE,
    Attempt,
    Delivery,
    DeliveryState,
    Page,
    Place,
    Selection,
)
from bridge.journal.stores.sqlite import attempts, deliveries, reads
from bridge.journal.stores.sqlite.deliveries import Change, Spread, Window
from bridge.journal.stores.sqlite.writer import Writer

_STEPS_MAX = 20


class Outcomes:
    """Fits the seam. `read` has a question answered in the reader's thread, `ends` tells where partitions end."""

    def __init__(self, read: Callable[..., Awaitable[Any]], writer: Writer, ends: Callable[[], Sequence[int]]) -> None:
        self._read = read
        self._writer = writer
        self._ends = ends
        self._revisions: Counter[str] = Counter()
        self._redriven = asyncio.Event()

    async def page(self, selection: Selection, after: Place = BEGINNING, limit: int = 100) -> Page:
        found: list[Delivery] = []
        steps = 0
        for window in self._windows(selection):
            reach: int | None = max(window.after, after.position if window.partition == after.partition else 0)
            while window.partition >= after.partition and reach is not None:
                if len(found) == limit or steps == _STEPS_MAX:
                    return Page(found, Place(window.partition, reach))
                more, reach = await self._read(deliveries.listed, window._replace(after=reach), limit - len(found))
                found += more
                steps += reach is not None
        return Page(found, None)

    async def count(self, selection: Selection) -> dict[DeliveryState, int]:
        total: Counter[DeliveryState] = Counter()
        for window in self._windows(selection):
            reach: int | None = window.after
            while reach is not None:
                counts, reach = await self._read(deliveries.counted, window._replace(after=reach))
                total.update(counts)
        return dict(total)

    async def attempts(self, consumer: str, place: Place) -> Sequence[Attempt]:
        tried: Sequence[Attempt] = await self._read(attempts.of, consumer, place)
        return tried

    async def trail(self, subscription: int, after_sequence: int = 0, limit: int = 100) -> Sequence[Delivery]:
        told: Sequence[Delivery] = await self._read(deliveries.trail, subscription, after_sequence, limit)
        return told

    async def redrive(self, selection: Selection, *, per_second: float | None = None, dry_run: bool = False) -> int:
        await self._read(deliveries.refuse_log, selection.consumer)
        interval_ms = 1000 / per_second if per_second else 0.0
        return await self._change(
            deliveries.redrive, _among(selection, REDRIVABLE), interval_ms=interval_ms, dry_run=dry_run
        )

    async def drop(self, selection: Selection, *, dry_run: bool = False) -> int:
        return await self._change(deliveries.drop, _among(selection, DROPPABLE), dry_run=dry_run)

    async def redriven(self, consumer: str, partition: int, after_revision: int) -> tuple[int, dict[int, int]]:
        """As the seam of delivery has it."""
        while (revision := self._revisions[consumer]) <= after_revision:
            await self._redriven.wait()
        blocked: dict[int, int] = await self._read(reads.blocked, consumer, partition)
        return revision, blocked

    async def _change(self, change: Change, selection: Selection, *, interval_ms: float = 0.0, dry_run: bool) -> int:
        """What is journalled by now is looked through once, each window in a transaction of its own."""
        if dry_run:
            return sum((await self.count(selection)).values())
        changed = 0
        try:
            for window in self._windows(selection):
                reach: int | None = window.after
                while reach is not None:
                    spread = Spread(interval_ms * changed, interval_ms)
                    found, reach = await self._writer.submit(change, window._replace(after=reach, spread=spread))
                    changed += len(found)
        finally:  # cut off, the steps so far are written all the same
            self._revisions[selection.consumer] += 1
            self._redriven.set()
            self._redriven.clear()
        return changed

    def _windows(self, selection: Selection) -> list[Window]:
        """All that may hold something of the selection: one for each partition."""
        if (place := selection.place) is not None:
            return [Window(selection, place.partition, place.position - 1, place.position)]
        return [Window(selection, partition, 0, end) for partition, end in enumerate(self._ends())]


def _among(selection: Selection, states: frozenset[DeliveryState]) -> Selection:
    return replace(selection, states=selection.states & states)
