"""Keeps intake from running away from a relay that is at work: then both halves work at once, out of memory.

It is no brake. A relay that stands, is slow, or has a long way to catch up holds nobody: the journal takes whatever
comes, that is what it is for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LOOK_S = 0.25
"""A relay's speed is that of the last window of so long."""
_STANDING_S = 2.0
"""Without a step for so long a relay stands. Brokers take a good part of a second now and then."""
_SLOW_PER_S = 1000.0
_BEGIN_S = 5.0
"""What a relay may take to begin once the journal is open, say to be let in by its brokers."""
_FAR = 4
"""A relay behind by this many times the lead is catching up."""


class Pace:
    """Of one partition. Appends that are held go on in their order."""

    def __init__(self, end: int, lead_max: int) -> None:
        """`lead_max`: how many entries the journal, which ends at `end` now, may be ahead of the furthest relay."""
        self._lead_max = lead_max
        self._end = self._reached = end
        self._loop = asyncio.get_running_loop()
        self._window_s, self._window_began = self._loop.time() + _BEGIN_S, end
        self._quick = True  # until the relays have had a chance to begin
        self._held: deque[tuple[asyncio.Future[None], int]] = deque()
        self._under_way = 0
        self._looking = False

    def grown(self, end: int) -> None:
        """The partition now ends there."""
        if self._reached >= self._end:  # nothing was there to relay: that is no slowness
            self._window_s, self._window_began = max(self._window_s, self._loop.time()), self._reached
            self._quick = True
        self._end = end

    def pulled(self, position: int) -> None:
        """A relay asked for what follows `position`."""
        self._reached = max(self._reached, position)
        now_s = self._loop.time()
        self._window_s = min(self._window_s, now_s)  # it has begun
        if (window_s := now_s - self._window_s) >= _LOOK_S:
            self._quick = (self._reached - self._window_began) / window_s >= _SLOW_PER_S
            self._window_s, self._window_began = now_s, self._reached
        self._release()

    @asynccontextmanager
    async def turn(self, count: int) -> AsyncIterator[None]:
        """Wait for the turn of an append of `count` events, which then goes on inside."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._held.append((turn, count))
        self._release()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._under_way -= count
                self._release()

    def _release(self) -> None:
        while self._held and (self._room() > 0 or not self._worthwhile()):
            turn, count = self._held.popleft()
            if not turn.done():  # given up meanwhile
                turn.set_result(None)
                self._under_way += count
        if self._held and not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        """A relay that stands calls nobody: somebody has to notice."""
        self._looking = False
        self._release()

    def _room(self) -> int:
        return self._lead_max - (self._end + self._under_way - self._reached)

    def _worthwhile(self) -> bool:
        """Whether waiting will help: a relay is quick, at work, and not too far behind."""
        standing = self._loop.time() - self._window_s > _STANDING_S
        return self._quick and not standing and self._end - self._reached <= _FAR * self._lead_max
