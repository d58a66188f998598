"""An event loop whose time moves only when everybody waits, and then straight to the next moment somebody waits for."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Skipping(selectors.DefaultSelector):
    """Never waits for sockets, so nothing real may be awaited under it."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for something that no time will bring"
        self.now_s += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now_s


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time, which begins at zero."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
