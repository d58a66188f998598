"""The budget under a clock that moves only when somebody sleeps."""

from __future__ import annotations

import asyncio

import pytest

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
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


async def test_a_burst_goes_at_once_and_the_rest_at_a_rate_that_makes_up_for_it() -> None:
    clock = Clock()
    budget = Budget(60, burst=3, clock=clock, sleep=clock.sleep)
    every_s = 60 / 58
    assert await times(budget, clock, 6) == pytest.approx([0, 0, 0, every_s, 2 * every_s, 3 * every_s], abs=1e-6)


async def test_what_is_not_used_is_saved_up_to_the_burst_only() -> None:
    clock = Clock()
    budget = Budget(60, burst=3, clock=clock, sleep=clock.sleep)
    await times(budget, clock, 3)
    clock.now_s += 2 * 60 / 58
    assert await times(budget, clock, 3) == pytest.approx([0, 0, 60 / 58], abs=1e-6)
    clock.now_s += 86_400
    assert await times(budget, clock, 4) == pytest.approx([0, 0, 0, 60 / 58], abs=1e-6)


@pytest.mark.parametrize(("per_minute", "at_once"), [(300, 25), (50, 4), (12, 1), (1, 1), (0.5, 1)])
async def test_the_default_burst_is_five_seconds_worth_and_at_least_one(per_minute: float, at_once: int) -> None:
    clock = Clock()
    budget = Budget(per_minute, clock=clock, sleep=clock.sleep)
    taken = await times(budget, clock, at_once + 1)
    assert taken[:at_once] == pytest.approx([0] * at_once, abs=1e-6)
    assert taken[at_once] > 0.1


@pytest.mark.parametrize("quiet_s", [0.0, 7.0, 300.0])
@pytest.mark.parametrize(("per_minute", "burst"), [(50, None), (60, 1), (60, 20), (60, 60), (60, 500), (3, None)])
async def test_no_stretch_of_a_minute_ever_holds_more_than_the_budget(
    per_minute: float, burst: float | None, quiet_s: float
) -> None:
    clock = Clock()
    budget = Budget(per_minute, burst, clock=clock, sleep=clock.sleep)
    taken: list[float] = []
    for _ in range(4):
        start_s = clock.now_s
        taken += [start_s + taken_s for taken_s in await times(budget, clock, 100)]
        clock.now_s += quiet_s
    fullest = max(sum(start_s <= taken_s < start_s + 60 - 1e-6 for taken_s in taken) for start_s in taken)
    assert fullest == per_minute


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


async def letting_through(budget: Budget, looks: int, streams: int) -> list[str]:
    """The order in which requests are let through that all ask while there is nothing to take, looks first."""
    order: list[str] = []
    await budget.take()

    async def ask(name: str, prompt: bool) -> None:
        await budget.take(prompt=prompt)
        order.append(name)

    asked = [ask(f"look {n}", False) for n in range(looks)] + [ask(f"stream {n}", True) for n in range(streams)]
    await asyncio.gather(*asked)
    return order


async def test_prompt_requests_pass_the_queue_but_only_every_second_time() -> None:
    clock = Clock()
    budget = Budget(60, burst=1, clock=clock, sleep=clock.sleep)
    order = await letting_through(budget, looks=300, streams=4)
    assert order[:8] == [f"{kind} {n}" for n in range(4) for kind in ("look", "stream")]
    assert order[8:] == [f"look {n}" for n in range(4, 300)]


async def test_many_prompt_requests_starve_nobody_either() -> None:
    clock = Clock()
    budget = Budget(60, burst=1, clock=clock, sleep=clock.sleep)
    order = await letting_through(budget, looks=3, streams=300)
    assert [order.index(f"look {n}") for n in range(3)] == [0, 2, 4]


@pytest.mark.parametrize("prompt", [True, False])
async def test_a_cancelled_front_of_either_queue_costs_nobody_anything(prompt: bool) -> None:
    clock = Clock()
    budget = Budget(60, burst=1, clock=clock, sleep=clock.sleep)
    await budget.take()
    fronts = {lane: asyncio.create_task(budget.take(prompt=lane)) for lane in (False, True)}
    behind = [asyncio.create_task(budget.take(prompt=lane)) for lane in (False, True)]
    await asyncio.sleep(0)
    fronts[prompt].cancel()
    await asyncio.wait_for(asyncio.gather(*behind), 5)
    assert clock.now_s == pytest.approx(1003)
    assert budget.waiting == 0


async def test_a_hold_stops_everybody_and_leaves_no_burst_behind_it() -> None:
    clock = Clock()
    budget = Budget(60, burst=4, clock=clock, sleep=clock.sleep)
    await budget.take()
    budget.hold(10)
    every_s = 60 / 57
    assert await times(budget, clock, 3) == pytest.approx([10, 10 + every_s, 10 + 2 * every_s])


async def test_a_hold_reaches_those_who_wait_already() -> None:
    clock = Clock()
    budget = Budget(60, burst=1, clock=clock, sleep=clock.sleep)
    await budget.take()
    waiting = asyncio.create_task(times(budget, clock, 1))
    await asyncio.sleep(0)
    assert clock.sleeping
    budget.hold(10)
    assert await waiting == pytest.approx([10])


async def test_the_longest_hold_counts_and_none_is_longer_than_a_minute() -> None:
    clock = Clock()
    budget = Budget(60, burst=1, clock=clock, sleep=clock.sleep)
    budget.hold(10)
    budget.hold(3)
    assert await times(budget, clock, 1) == pytest.approx([10])
    budget.hold(86_400)
    assert await times(budget, clock, 1) == pytest.approx([60])


@pytest.mark.parametrize(
    ("refusal", "held_s"),
    [
        (Temporary("429", reason="rate_limited", after_s=12.0), 12.0),
        (Temporary("429", reason="rate_limited"), 5.0),
        (Temporary("503", reason="server_error", after_s=12.0), 0.0),
        (Rejected("404", reason="not_found"), 0.0),
        (Fatal("401", reason="unauthorized"), 0.0),
    ],
    ids=str,
)
async def test_only_a_refusal_for_too_many_requests_holds_the_budget(refusal: BridgeError, held_s: float) -> None:
    clock = Clock()
    budget = Budget(60, burst=2, clock=clock, sleep=clock.sleep)
    assert budget.heed(refusal) is refusal
    assert await times(budget, clock, 1) == pytest.approx([held_s])


async def test_it_tells_how_many_wait_and_how_many_could_go() -> None:
    clock = Clock()
    budget = Budget(60, burst=3, clock=clock, sleep=clock.sleep)
    assert budget.waiting == 0
    assert budget.tokens == pytest.approx(3)
    for left in (2, 1, 0):
        await budget.take()
        assert budget.tokens == pytest.approx(left)
    waiting = [asyncio.create_task(budget.take(prompt=n == 0)) for n in range(3)]
    await asyncio.sleep(0)
    assert (budget.waiting, budget.tokens) == (3, 0)
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert budget.waiting == 0
    clock.now_s += 86_400
    budget.hold(2)
    assert budget.tokens == 0
