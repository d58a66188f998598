"""Adaptive concurrency: up while it goes well, down by half when it was too much, slowly after an outage."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from bridge.delivery.concurrency import Concurrency


def one_round(limits: Concurrency) -> int:
    """As many acceptances as were under way at once, each followed by the next attempt; the limit afterwards."""
    under_way = deque([limits.begin() for _ in range(limits.limit)])
    for _ in range(len(under_way)):
        limits.accepted(under_way.popleft(), full=True)
        while limits.free:
            under_way.append(limits.begin())
    for _ in under_way:
        limits.ended()
    return limits.limit


def test_begins_with_all_that_is_allowed_and_never_has_more() -> None:
    limits = Concurrency(16)
    assert [one_round(limits) for _ in range(3)] == [16, 16, 16]


def test_what_was_too_much_halves_it_once_for_all_that_were_under_way() -> None:
    limits = Concurrency(16)
    for begun in [limits.begin() for _ in range(16)]:
        limits.overloaded(begun)
    assert (limits.limit, limits.under_way) == (8, 0)


def test_never_falls_below_one() -> None:
    limits = Concurrency(4)
    for _ in range(10):
        limits.overloaded(limits.begin())
    assert limits.limit == 1
    assert limits.free


def test_climbs_by_one_a_round_from_where_it_was_too_much() -> None:
    limits = Concurrency(16)
    limits.overloaded(limits.begin())
    climb = [limits.limit, *(one_round(limits) for _ in range(10))]
    assert all(0 <= after - before <= 1 for before, after in pairwise(climb))
    assert (climb[0], climb[-1]) == (8, 16)


def test_doubles_with_every_round_after_a_slow_start() -> None:
    limits = Concurrency(16)
    limits.start_slowly()
    assert [limits.limit, *(one_round(limits) for _ in range(4))] == [1, 2, 4, 8, 16]


def test_a_limit_that_was_not_reached_proves_nothing() -> None:
    limits = Concurrency(16)
    limits.start_slowly()
    one_round(limits)
    for _ in range(50):
        limits.accepted(limits.begin(), full=False)
    assert limits.limit == 2


def test_an_acceptance_from_before_the_slow_start_proves_nothing() -> None:
    limits = Concurrency(4)
    begun = limits.begin()
    limits.start_slowly()
    limits.accepted(begun, full=True)
    assert limits.limit == 1
