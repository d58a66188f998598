"""The only place that paces requests: one budget per source, shared by everything that asks the source anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Budget:
    """A token bucket of `per_minute` requests, of which `burst` may go out at once after a quiet time.

    The burst is five seconds' worth unless given. Kept as the one moment up to which requests are paid for, so there
    are no fractions of tokens to add up.
    """

    def __init__(
        self,
        per_minute: float,
        burst: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval_s = 60.0 / per_minute
        self._credit_s = (max(1.0, per_minute / 12 if burst is None else burst) - 1.0) * self._interval_s
        self._paid_until_s = 0.0
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Waits for one request's worth of budget. First come, first served; a cancelled wait costs nothing."""
        async with self._turn:  # fair, and whoever holds it is the only one to sleep
            while (wait_s := self._paid_until_s - self._credit_s - self._clock()) > 0:
                await self._sleep(wait_s)
            self._paid_until_s = max(self._paid_until_s, self._clock()) + self._interval_s
