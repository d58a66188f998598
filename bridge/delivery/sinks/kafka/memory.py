"""The memory that all writers of one sink share: the only bound there is, since the client library has none."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Memory:
    """So many bytes, lent in the order in which they are asked for: a large wish is never overtaken by small ones."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._free = bytes_max
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    @asynccontextmanager
    async def lent(self, size: int) -> AsyncIterator[None]:
        """Enter once `size` bytes are free, or all of them where that is more than there are; given back at the end."""
        size = min(size, self._bytes_max)
        await self._borrow(size)
        try:
            yield
        finally:
            self._free += size
            self._lend()

    async def _borrow(self, size: int) -> None:
        turn = get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._lend()
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                self._waiting.remove((size, turn))
            else:  # lent and cancelled in the same moment
                self._free += size
            self._lend()
            raise

    def _lend(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            self._free -= size
            turn.set_result(None)
