"""The budget under a clock that moves only when somebody sleeps."""

from __future__ import annotations

import asyncio

import pytest

from bridge.intake.budget import Budget


class Clock:
    """Virtual seconds. Only one may sleep at a time: a budget in which two do is not first come, first served."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.sleeping = False

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, wait_s: float) -> None:
        assert not self.sleeping
        assert wait_s > 0
        self.sleeping = True
        try:
            await asyncio.sleep(0)
            self.now_s += wait_s
        finally:
            self.sleeping = False


async def times(budget: Budget, clock: Clock, count: int) -> list[float]:
    """When each of `count` requests was let through, in seconds from now."""
    start_s, taken = clock.now_s, []
    for _ in range(count):
        await budget.take()
        taken.append(clock.now_s - start_s)
    return taken


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    clock = Clock()
    budget = Budget(60, burst=3, clock=clock, sleep=clock.sleep)
    assert await times(budget, clock, 6) == pytest.approx([0, 0, 0, 1, 2, 3], abs=1e-6)


async def test_what_is_not_used_is_saved_up_to_the_burst_only() -> None:
    clock = Clock()
    budget = Budget(60, burst=3, clock=clock, sleep=clock.sleep)
    await times(budget, clock, 3)
    clock.now_s += 2
    assert await times(budget, clock, 3) == pytest.approx([0, 0, 1], abs=1e-6)
    clock.now_s += 86_400
    assert await times(budget, clock, 4) == pytest.approx([0, 0, 0, 1], abs=1e-6)


@pytest.mark.parametrize(("per_minute", "at_once"), [(300, 25), (12, 1), (1, 1), (0.5, 1)])
async def test_the_default_burst_is_five_seconds_worth_and_at_least_one(per_minute: float, at_once: int) -> None:
    clock = Clock()
    budget = Budget(per_minute, clock=clock, sleep=clock.sleep)
    taken = await times(budget, clock, at_once + 1)
    assert taken == pytest.approx([0] * at_once + [60 / per_minute], abs=1e-6)


async def test_no_more_than_rate_and_burst_over_any_stretch() -> None:
    clock = Clock()
    budget = Budget(70, burst=4, clock=clock, sleep=clock.sleep)
    taken = await times(budget, clock, 500)
    assert taken[-1] == pytest.approx((500 - 4) * 60 / 70)


async def test_first_come_first_served() -> None:
    clock = Clock()
    budget = Budget(60, burst=1, clock=clock, sleep=clock.sleep)
    order: list[int] = []

    async def ask(number: int) -> None:
        await budget.take()
        order.append(number)

    await asyncio.gather(*(ask(number) for number in range(20)))
    assert order == list(range(20))


@pytest.mark.parametrize("left", [{0}, {1}, {0, 1}, {0, 2, 4}, {5}], ids=str)
async def test_a_cancelled_wait_costs_the_others_nothing(left: set[int]) -> None:
    clock = Clock()
    budget = Budget(60, burst=1, clock=clock, sleep=clock.sleep)
    await budget.take()
    waiting = [asyncio.create_task(times(budget, clock, 1)) for _ in range(6)]
    await asyncio.sleep(0)  # all have asked; the first sleeps
    assert clock.sleeping
    for number in left:
        waiting[number].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    taken = [task.result()[0] for number, task in enumerate(waiting) if number not in left]
    assert taken == pytest.approx(list(range(1, len(taken) + 1)))


async def test_a_wait_cancelled_as_its_turn_comes_passes_the_turn_on() -> None:
    clock = Clock()
    budget = Budget(60, burst=1, clock=clock, sleep=clock.sleep)
    await budget.take()
    first, second, third = (asyncio.create_task(budget.take()) for _ in range(3))
    first.add_done_callback(lambda _: second.cancel())
    await asyncio.wait_for(third, 5)
    assert second.cancelled()
    assert clock.now_s == pytest.approx(1002)
