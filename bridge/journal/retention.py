"""Removes what everybody has settled and nobody needs any more: in small steps, so that no writer waits long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bridge.errors import BridgeError
from bridge.journal.store import Journal

_STEP = 1000
_CROWDED = 0.8


class Retention:
    """The session that prunes the journal at an interval."""

    name = "retention"
    group = "journal"

    def __init__(
        self,
        journal: Journal,
        *,
        retention_s: float,
        attempts_retention_s: float,
        interval_s: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._journal = journal
        self._retention_s = retention_s
        self._attempts_retention_s = attempts_retention_s
        self._interval_s = interval_s
        self._clock = clock
        self._sleep = sleep

    async def run(self, useful: Callable[[], None]) -> None:
        """Prune for ever."""
        while True:
            crowded = await self._crowded()
            for prune, retention_s in (
                (self._journal.prune, self._retention_s),
                (self._journal.prune_attempts, self._attempts_retention_s),
            ):
                before_ms = int((self._clock() - (0.0 if crowded else retention_s)) * 1000)
                while await prune(before_ms, _STEP) == _STEP:
                    await self._sleep(0)
            useful()
            await self._sleep(self._interval_s)

    async def _crowded(self) -> bool:
        """Near the high-water mark what is settled goes at once: keeping it longer would stop intake."""
        health = await self._journal.health()
        return health.live_bytes > _CROWDED * health.high_water_bytes

    async def park(self, error: BridgeError) -> None:
        """Nothing to note."""
