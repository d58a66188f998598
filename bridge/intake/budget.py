"""The only place that paces requests: one budget per source, shared by everything that asks the source anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bridge.errors import BridgeError, Temporary

_HOLD_S, _HOLD_MAX_S = 5.0, 60.0
"""How long a refusal for too many requests stops everybody: where it names no time, and at most."""


class Budget:
    """A token bucket: never more than `per_minute` requests in any 60 s, of which `burst` may go out at once.

    The burst is five seconds' worth unless given; what it may take at once is kept back from the steady rate. Kept as
    the one moment up to which requests are paid for, so there are no fractions of tokens to add up.
    """

    def __init__(
        self,
        per_minute: float,
        burst: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        at_once = max(1.0, min(per_minute, per_minute / 12 if burst is None else burst))
        self.waiting = 0
        """How many wait for their turn now."""
        self._interval_s = 60.0 / (per_minute - (at_once - 1.0))
        self._credit_s = (at_once - 1.0) * self._interval_s
        self._paid_until_s = 0.0
        self._clock = clock
        self._sleep = sleep
        self._queues = {True: asyncio.Lock(), False: asyncio.Lock()}
        self._turn = asyncio.Lock()

    @property
    def tokens(self) -> float:
        """How many requests could go out at once now."""
        now_s = self._clock()
        credit_s = now_s + self._credit_s - max(self._paid_until_s, now_s)
        return max(0.0, 1.0 + credit_s / self._interval_s)

    async def take(self, *, prompt: bool = False) -> None:
        """Waits for one request's worth of budget; a cancelled wait costs nothing.

        Two queues, each first come, first served. Their fronts take turns, so that neither keeps the other waiting
        for more than every second request: `prompt` is for those few for whom somebody or a stream waits.
        """
        self.waiting += 1
        try:
            async with (
                self._queues[prompt],
                self._turn,
            ):  # locks are fair; whoever has the turn is the only one to sleep
                while (wait_s := self._paid_until_s - self._credit_s - self._clock()) > 0:
                    await self._sleep(wait_s)
                self._paid_until_s = max(self._paid_until_s, self._clock()) + self._interval_s
        finally:
            self.waiting -= 1

    def hold(self, wait_s: float) -> None:
        """Nobody takes anything for so long, though never longer than a minute; behind it there is no burst."""
        wait_s = min(wait_s, _HOLD_MAX_S)
        self._paid_until_s = max(self._paid_until_s, self._clock() + self._credit_s + wait_s)

    def heed(self, refusal: BridgeError) -> BridgeError:
        """Hold where the refusal says that there were too many requests. Returns it, to be raised."""
        if isinstance(refusal, Temporary) and refusal.reason == "rate_limited":
            self.hold(_HOLD_S if refusal.after_s is None else refusal.after_s)
        return refusal
