"""Fair shares of the event loop: what has arrived on busy streams is read a little at a time, in the order it came.

Without it a hundred streams that all have news are all read in one pass of the loop, and whoever waits for a broker's
answer meanwhile waits for all of them at every step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_PASS_BYTES = 32 << 10


class Turns:
    """Shared by all streams of a process."""

    def __init__(self, pass_bytes: int = _PASS_BYTES) -> None:
        """In one pass of the event loop, streams with `pass_bytes` between them are read, or one that has more."""
        self._pass_bytes = pass_bytes
        self._left = pass_bytes
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._passing = False
        self.streams = 0
        """Streams that are open now, or being opened."""

    @contextmanager
    def stream(self) -> Iterator[None]:
        """One more stream is open inside, or being opened."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    async def take(self, size: int) -> None:
        """Wait for the turn to read `size` bytes."""
        loop = asyncio.get_running_loop()
        if not self._passing:
            self._passing = True
            loop.call_soon(self._next_pass, loop)
        if not self._waiting and self._left > 0:
            self._left -= size
            return
        turn = loop.create_future()
        self._waiting.append((turn, size))
        await turn

    def _next_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = self._pass_bytes
        while self._waiting and self._left > 0:
            turn, size = self._waiting.popleft()
            if not turn.done():  # its stream was closed meanwhile
                turn.set_result(None)
                self._left -= size
        if self._waiting or self._left < self._pass_bytes:
            loop.call_soon(self._next_pass, loop)
        else:
            self._passing = False
