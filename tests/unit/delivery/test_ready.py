"""Whose turn it is: neither fresh lanes nor those back from the journal can keep the others waiting."""

from __future__ import annotations

from bridge.delivery.alarms import Alarms
from bridge.delivery.ready import Ready


async def test_fresh_lanes_and_lanes_that_come_back_take_turns() -> None:
    ready = Ready(workers=4)
    for lane in (1, 2, 3):
        ready.put(lane, back=False)
        ready.put(lane + 10, back=True)
    turns = []
    for _ in range(6):
        lane, back = await ready.get()
        turns.append(lane)
        ready.done(back)
    assert turns == [1, 11, 2, 12, 3, 13]


async def test_lanes_that_come_back_get_at_most_half_of_the_workers_while_fresh_ones_wait() -> None:
    ready = Ready(workers=4)
    for lane in range(10):
        ready.put(lane, back=False)
        ready.put(lane + 100, back=True)
    at_work = [(await ready.get())[1] for _ in range(6)]
    assert sum(at_work) == 2


async def test_all_workers_are_theirs_while_nothing_fresh_waits() -> None:
    ready = Ready(workers=4)
    for lane in range(4):
        ready.put(lane, back=True)
    assert [(await ready.get())[0] for _ in range(4)] == [0, 1, 2, 3]


def test_a_lane_wakes_at_the_earliest_time_asked_for_and_once() -> None:
    alarms = Alarms()
    assert alarms.set(1, 500)
    assert alarms.set(2, 300)
    assert alarms.set(1, 200)
    assert not alarms.set(1, 400)
    assert alarms.wait_s(100) == 0.1
    assert alarms.due(199) == []
    assert alarms.due(450) == [1, 2]
    assert alarms.due(1_000) == []
    assert alarms.wait_s(0) is None
