"""Lanes that wait for a worker: the only place that decides whose turn it is."""

from __future__ import annotations

import asyncio
from collections import deque


class Ready:
    """Two queues: lanes with fresh events, and lanes that come back from the journal.

    While both wait they take turns, and at most half of the workers are with those that come back. So a backlog
    cannot keep new jobs waiting, nor can new jobs keep a backlog from getting shorter.
    """

    def __init__(self, workers: int) -> None:
        self._back_max = max(1, workers // 2)
        self._fresh: deque[int] = deque()
        self._back: deque[int] = deque()
        self._back_at_work = 0
        self._was_back = True
        self._count = asyncio.Semaphore(0)

    def put(self, lane: int, *, back: bool) -> None:
        """A lane waits for a worker; `back` when its events have to be fetched from the journal."""
        (self._back if back else self._fresh).append(lane)
        self._count.release()

    async def get(self) -> tuple[int, bool]:
        """The next lane, and whether it comes back from the journal; waits until there is one."""
        await self._count.acquire()
        back = bool(self._back) and not (self._fresh and (self._was_back or self._back_at_work >= self._back_max))
        self._was_back = back
        self._back_at_work += back
        return (self._back if back else self._fresh).popleft(), back

    def done(self, back: bool) -> None:
        """A worker has finished its turn with such a lane."""
        self._back_at_work -= back
