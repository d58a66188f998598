"""When an event is tried again: the schedule, the receiver's wish, what is spared, and age."""

from __future__ import annotations

import pytest

from bridge.delivery.schedule import expires_ms, next_wait_s
from bridge.delivery.sink import Patience
from bridge.errors import Temporary
from bridge.journal.store import DeliveryState, Entry, Outcome

NOW_MS = 1_764_000_000_000
PATIENCE = Patience((5.0, 300.0), 600.0, 1, age_max_s=1_000.0, ttl_s={"job.progress": 60.0}.get)
FAILED = Temporary("HTTP 500", status=500)


def tried(attempts: int, spared: int = 0, age_s: float = 0.0) -> Outcome:
    first_ms = NOW_MS - round(age_s * 1000)
    return Outcome(1, 1, DeliveryState.DELIVERED, attempts=attempts, first_ms=first_ms, spared=spared)


@pytest.mark.parametrize(
    ("attempts", "after_s", "dice", "wait_s"),
    [
        (1, None, 0.0, 5.0),
        (1, None, 0.999, pytest.approx(5.5, abs=0.01)),
        (2, None, 0.0, 300.0),
        (3, None, 0.0, None),
        (1, 60.0, 0.0, 60.0),
        (1, 86_400.0, 0.0, 600.0),
        (2, 60.0, 0.0, 300.0),
        (3, 60.0, 0.0, None),
    ],
)
def test_waits_follow_the_schedule_upward_only(
    attempts: int, after_s: float | None, dice: float, wait_s: float | None
) -> None:
    assert next_wait_s(PATIENCE, tried(attempts), Temporary("HTTP 500", status=500, after_s=after_s), NOW_MS, dice) == (
        wait_s
    )


@pytest.mark.parametrize("status", [429, 503])
def test_being_asked_to_wait_counts_against_no_schedule(status: int) -> None:
    busy = Temporary("busy", status=status, after_s=7.0)
    assert next_wait_s(PATIENCE, tried(50, spared=50), busy, NOW_MS, 0.0) == 7.0
    assert next_wait_s(PATIENCE, tried(51, spared=50), FAILED, NOW_MS, 0.0) == 5.0
    assert next_wait_s(PATIENCE, tried(53, spared=50), FAILED, NOW_MS, 0.0) is None


def test_without_a_wish_of_the_receiver_spared_waits_double_up_to_the_limit() -> None:
    waits = [
        next_wait_s(PATIENCE, tried(n, n), Temporary("busy", status=503), NOW_MS, 0.0) for n in (1, 2, 3, 60, 5_000)
    ]
    assert waits == [5.0, 10.0, 20.0, 600.0, 600.0]


@pytest.mark.parametrize(("age_s", "wait_s"), [(999.0, 5.0), (1_001.0, None)])
def test_the_age_of_an_event_bounds_what_the_schedule_does_not_count(age_s: float, wait_s: float | None) -> None:
    busy = Temporary("busy", status=429, after_s=5.0)
    assert next_wait_s(PATIENCE, tried(9, 9, age_s=age_s), busy, NOW_MS, 0.0) == wait_s


def test_where_nothing_is_tried_again_nothing_is_spared_either() -> None:
    busy = Temporary("busy", status=429, after_s=5.0)
    assert next_wait_s(Patience((), 600.0, 1), tried(1, 1), busy, NOW_MS, 0.0) is None


def test_only_types_with_a_time_to_live_expire_and_nothing_that_was_redriven() -> None:
    progress = Entry(0, 1, 1, 1, NOW_MS, "e", "s", "j", "job.progress", None, None, b"")
    once = tried(0)
    assert expires_ms(PATIENCE, progress, once) == NOW_MS + 60_000
    assert expires_ms(PATIENCE, progress, once._replace(redriven=1)) == float("inf")
    assert expires_ms(PATIENCE, progress._replace(type="job.completed"), once) == float("inf")
