"""Waits between tries, with loaded dice."""

import random

import pytest

from bridge.supervision.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    backoff = Backoff(dice=lambda: 0.999999, base_s=1.0, cap_s=10.0)
    waits = [backoff.next_s() for _ in range(6)]
    assert [round(wait, 3) for wait in waits] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_jitter_is_full() -> None:
    dice = random.Random(7)
    backoff = Backoff(dice=dice.random, base_s=8.0, cap_s=8.0)
    waits = [backoff.next_s() for _ in range(4000)]
    assert min(waits) < 0.1
    assert max(waits) > 7.9
    assert 3.8 < sum(waits) / len(waits) < 4.2


@pytest.mark.parametrize(("asked_s", "wait_s"), [(3.0, 3.0), (500.0, 30.0), (None, 0.0), (0.0, 0.0)])
def test_the_other_side_sets_a_floor_that_is_clamped(asked_s: float | None, wait_s: float) -> None:
    backoff = Backoff(dice=lambda: 0.0, floor_max_s=30.0)
    assert backoff.next_s(asked_s) == wait_s


def test_reset_begins_again_from_the_base() -> None:
    backoff = Backoff(dice=lambda: 0.5, base_s=1.0)
    first = backoff.next_s()
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == first


def test_ten_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(dice=lambda: 0.5, cap_s=60.0)
    assert [backoff.next_s() for _ in range(10_000)][-1] == 30.0
