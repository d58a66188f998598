"""Streams take turns, and nobody else in the loop waits for all of them."""

from __future__ import annotations

import asyncio

from bridge.intake.turns import Turns


async def test_a_stream_alone_goes_on_at_once() -> None:
    turns = Turns(100)
    before = asyncio.create_task(asyncio.sleep(0))  # ready in the next pass, and not before
    await turns.take(50)
    assert not before.done()
    await before


async def test_in_one_pass_of_the_loop_only_so_many_bytes_are_read_in_the_order_asked_for() -> None:
    turns = Turns(100)
    passes, log = 0, []

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    async def read(name: int) -> None:
        await turns.take(60)
        log.append((passes, name))

    counting = asyncio.create_task(count())
    await asyncio.gather(*(read(name) for name in range(20)))
    counting.cancel()
    assert [name for _, name in log] == list(range(20))
    by_pass = [each for each, _ in log]
    assert max(by_pass.count(each) for each in by_pass) == 2  # 120 bytes: the second began within the budget
    assert passes >= 10


async def test_one_with_more_than_a_pass_allows_is_read_all_the_same() -> None:
    turns = Turns(100)
    await turns.take(10_000)
    async with asyncio.timeout(5):
        await turns.take(10_000)


async def test_a_stream_that_is_closed_while_it_waits_keeps_nobody_from_their_turn() -> None:
    turns = Turns(100)
    await turns.take(100)
    doomed, patient = asyncio.create_task(turns.take(100)), asyncio.create_task(turns.take(100))
    await asyncio.sleep(0)
    doomed.cancel()
    async with asyncio.timeout(5):
        await patient


async def test_it_rests_when_nobody_reads() -> None:
    turns = Turns(100)
    await turns.take(10)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not turns._passing
