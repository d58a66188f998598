"""How often a receiver is called, whoever of us calls it: the only place in the sink that waits."""

from __future__ import annotations

import asyncio


class Rate:
    """Evenly spaced starts. Without a limit nobody waits."""

    def __init__(self, per_second: float | None) -> None:
        self._interval_s = 1 / per_second if per_second else 0.0
        self._next_s = 0.0

    async def turn(self) -> None:
        """Returns when the next request may start; those who wait go in the order in which they came."""
        now_s = asyncio.get_running_loop().time()
        start_s = max(now_s, self._next_s)
        self._next_s = start_s + self._interval_s
        if start_s > now_s:
            await asyncio.sleep(start_s - now_s)
