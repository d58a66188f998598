"""A receiver's rate, in virtual time."""

from __future__ import annotations

import asyncio

import virtual_time

from bridge.delivery.sinks.webhook.rate import Rate


async def starts_s(rate: Rate, count: int) -> list[float]:
    async def one() -> float:
        await rate.turn()
        return asyncio.get_running_loop().time()

    return await asyncio.gather(*(one() for _ in range(count)))


def test_starts_are_evenly_spaced_in_the_order_in_which_they_came() -> None:
    assert virtual_time.run(starts_s(Rate(4), 5)) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_without_a_limit_nobody_waits() -> None:
    assert virtual_time.run(starts_s(Rate(None), 1_000)) == [0.0] * 1_000


def test_a_quiet_time_saves_up_nothing() -> None:
    async def later() -> list[float]:
        rate = Rate(2)
        await rate.turn()
        await asyncio.sleep(10)
        return await starts_s(rate, 3)

    assert virtual_time.run(later()) == [10.0, 10.5, 11.0]
