"""Who may hold how much, and that everything comes back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from bridge.delivery.sinks.kafka.memory import Memory


class Borrowers:
    """Tasks that borrow and hold on until they are told to let go."""

    def __init__(self, bytes_max: int) -> None:
        self.holding: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._memory = Memory(bytes_max)
        self._done: dict[str, asyncio.Event] = {}

    async def come(self, name: str, size: int) -> None:
        self._done[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, size))
        await settled()

    async def let_go(self, name: str) -> None:
        self._done[name].set()
        await self.tasks[name]
        await settled()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        await settled()

    async def _hold(self, name: str, size: int) -> None:
        async with self._memory.lent(size):
            self.holding.append(name)
            try:
                await self._done[name].wait()
            finally:
                self.holding.remove(name)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_is_lent_than_there_is() -> None:
    all_ = Borrowers(100)
    await all_.come("a", 60)
    await all_.come("b", 40)
    await all_.come("c", 1)
    assert all_.holding == ["a", "b"]
    await all_.let_go("b")
    assert all_.holding == ["a", "c"]
    await all_.let_go("a")
    await all_.let_go("c")


async def test_a_large_wish_is_not_overtaken_by_small_ones() -> None:
    all_ = Borrowers(100)
    await all_.come("a", 60)
    await all_.come("large", 100)
    await all_.come("small", 10)
    assert all_.holding == ["a"]
    await all_.let_go("a")
    assert all_.holding == ["large"]
    await all_.let_go("large")
    assert all_.holding == ["small"]
    await all_.let_go("small")


async def test_more_than_there_is_at_all_goes_alone() -> None:
    all_ = Borrowers(100)
    await all_.come("a", 1)
    await all_.come("huge", 1000)
    assert all_.holding == ["a"]
    await all_.let_go("a")
    assert all_.holding == ["huge"]
    await all_.come("b", 1)
    assert all_.holding == ["huge"]
    await all_.let_go("huge")
    assert all_.holding == ["b"]
    await all_.let_go("b")


async def test_who_gives_up_waiting_lets_those_behind_pass() -> None:
    all_ = Borrowers(100)
    await all_.come("a", 60)
    await all_.come("large", 100)
    await all_.come("small", 40)
    await all_.cancel("large")
    assert all_.holding == ["a", "small"]
    await all_.let_go("a")
    await all_.let_go("small")


@pytest.mark.parametrize("moment", ["holding", "lent but not yet awake"])
async def test_what_a_cancelled_one_held_comes_back(moment: str) -> None:
    all_ = Borrowers(100)
    await all_.come("first", 100)
    await all_.come("second", 100)
    if moment == "holding":
        await all_.let_go("first")
        await all_.cancel("second")
    else:
        all_._done["first"].set()
        await asyncio.wait({all_.tasks["first"]})  # has given back, and the second not yet run
        await all_.cancel("second")
    await all_.come("third", 100)
    assert all_.holding == ["third"]
    await all_.let_go("third")


async def test_what_failed_gives_back() -> None:
    memory = Memory(100)
    with pytest.raises(ZeroDivisionError):
        async with memory.lent(100):
            raise ZeroDivisionError
    async with asyncio.timeout(1), memory.lent(100):
        pass
