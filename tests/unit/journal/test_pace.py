"""Intake held back for a relay that is near and at work, and for no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import virtual_time

from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.pace import Pace
from bridge.journal.store import SubscriptionState
from bridge.journal.stores.sqlite import open_journal


class Run:
    """A partition whose end is 0 at first; appends go on as they get their turn."""

    def __init__(self, end: int = 0) -> None:
        self.pace = Pace(end, lead_max=100)
        self.end = end
        self.order: list[str] = []

    async def append(self, name: str, count: int) -> None:
        async with self.pace.turn(count):
            self.order.append(name)
            await asyncio.sleep(0)  # the journal's transaction
            self.end += count
            self.pace.grown(self.end)

    async def relay(self, step: int, every_s: float, until: int) -> None:
        """A relay that gets `step` entries further each time."""
        reached = 0
        while reached < until:
            self.pace.pulled(reached)
            await asyncio.sleep(every_s)
            reached = min(reached + step, self.end)


def test_a_relay_that_keeps_up_holds_nobody() -> None:
    async def main() -> float:
        run = Run()
        for _ in range(50):
            await run.append("a", 100)
            run.pace.pulled(run.end)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == 0


def test_appends_that_run_ahead_of_a_quick_relay_wait_for_it_in_their_order() -> None:
    async def main() -> tuple[list[str], int]:
        run = Run()
        await run.append("first", 150)
        leads = []

        async def appending(name: str) -> None:
            await run.append(name, 50)
            leads.append(run.end - reached())

        def reached() -> int:
            return run.pace._reached

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(appending(f"{number:02}"))
            tasks.create_task(run.relay(50, 0.01, until=1150))
        return run.order[1:], max(leads)

    order, lead = virtual_time.run(main())
    assert order == sorted(order)
    assert lead <= 150


def test_a_slow_relay_and_one_that_stands_hold_nobody_for_long() -> None:
    async def slow() -> float:
        run = Run()
        relay = asyncio.create_task(run.relay(10, 0.1, until=10_000))
        for _ in range(10):
            await run.append("a", 30)
        took_s = asyncio.get_running_loop().time()
        relay.cancel()
        return took_s

    async def standing(began: bool) -> float:
        run = Run()
        if began:
            run.pace.pulled(0)
        await run.append("a", 150)
        await run.append("b", 10)
        await run.append("c", 10)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(slow()) < 1
    assert virtual_time.run(standing(began=True)) < 3
    assert 5 < virtual_time.run(standing(began=False)) < 8  # one that never comes up is given its time once


def test_a_relay_that_had_nothing_to_do_is_no_slow_one() -> None:
    async def main(idle_s: float) -> int:
        run = Run()
        relay = asyncio.create_task(run.relay(50, 0.01, until=10_000))
        await asyncio.sleep(idle_s)
        leads = []
        for _ in range(40):
            await run.append("a", 50)
            leads.append(run.end - run.pace._reached)
        relay.cancel()
        return max(leads)

    assert virtual_time.run(main(60)) <= 150
    assert virtual_time.run(main(6)) <= 150


def test_a_relay_that_stands_since_it_had_nothing_to_do_holds_nobody_for_long() -> None:
    async def main() -> list[float]:
        run = Run()
        run.pace.pulled(0)
        loop, waits = asyncio.get_running_loop(), []
        for _ in range(3):
            await asyncio.sleep(60)
            began_s = loop.time()
            await run.append("a", 150)
            waits.append(loop.time() - began_s)
        return waits

    first, *others = virtual_time.run(main())
    assert first == 0
    assert max(others) < 3


def test_a_relay_has_its_time_to_begin_although_the_first_entry_comes_before_it() -> None:
    async def main() -> int:
        run = Run()
        await run.append("first", 50)
        await asyncio.sleep(3)
        relay = asyncio.create_task(run.relay(50, 0.01, until=10_000))
        leads = []
        for _ in range(20):
            await run.append("a", 50)
            leads.append(run.end - run.pace._reached)
        relay.cancel()
        return max(leads)

    assert virtual_time.run(main()) <= 150


def test_a_relay_that_has_far_to_catch_up_holds_nobody() -> None:
    async def main() -> float:
        run = Run()
        run.pace.grown(100_000)
        run.pace.pulled(0)
        await run.append("a", 10)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == 0


def test_an_append_that_is_given_up_leaves_its_turn_to_the_next() -> None:
    async def main() -> tuple[list[str], float]:
        run = Run()
        await run.append("first", 150)
        doomed, patient = (asyncio.create_task(run.append(name, 100)) for name in ("doomed", "patient"))
        await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.wait({doomed})
        run.pace.pulled(150)
        await patient
        return run.order, asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == (["first", "patient"], 0)


def test_thousands_that_wait_are_not_looked_after_one_by_one() -> None:
    async def main() -> int:
        run = Run()
        await run.append("first", 150)
        loop = asyncio.get_running_loop()
        timers = 0
        call_at = loop.call_at

        def counting(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            return call_at(*args, **kwargs)

        loop.call_at = counting  # type: ignore[method-assign, assignment]
        await asyncio.gather(*(run.append("a", 1) for _ in range(2000)))
        return timers

    assert virtual_time.run(main()) < 30


async def test_an_append_that_was_held_still_heeds_the_high_water_mark() -> None:
    turn = asyncio.Event()

    @asynccontextmanager
    async def held_back(count: int) -> AsyncIterator[None]:
        await turn.wait()
        yield

    key = JobKey("auvy", "job-1")
    async with open_journal(":memory:", high_water_bytes=4 << 20) as journal:
        ((job, _),) = await journal.follow([key], "config")
        journal._paces[0].turn = held_back  # type: ignore[method-assign]
        event = JobEvent("event-1", "auvy", "job-1", EventType.OUTPUT, b"{}")
        held = asyncio.create_task(journal.append(job, [event], None))
        await asyncio.sleep(0)
        await journal.steer(key, SubscriptionState.PAUSED, "x" * (6 << 20))
        turn.set()
        await asyncio.sleep(0)
        await journal.steer(key, SubscriptionState.PAUSED, "y" * (6 << 20))  # behind the append, had it gone on
        assert not held.done()
        await journal.steer(key, SubscriptionState.ACTIVE)
        assert await held == 1
