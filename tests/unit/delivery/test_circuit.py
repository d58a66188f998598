"""The circuit: outages begin with many jobs, end with one accepted event, and cost one probe at a time."""

from __future__ import annotations

import pytest

from bridge.delivery.circuit import Circuit, CircuitState


def circuit(jobs: int = 3, dice: float = 0.0) -> Circuit:
    return Circuit(jobs, wait_s=5.0, wait_max_s=15.0, dice=lambda: dice)


def opened() -> Circuit:
    one = circuit()
    assert [one.refused(job, 0.0) for job in (1, 2, 3)] == [None, None, 5.0]
    return one


def test_opens_when_jobs_in_a_row_are_refused() -> None:
    one = opened()
    assert one.state is CircuitState.OPEN
    assert not one.admits


def test_one_job_that_fails_for_ever_opens_nothing() -> None:
    one = circuit()
    assert [one.refused(7, 0.0) for _ in range(100)] == [None] * 100
    assert one.admits


def test_an_acceptance_in_between_begins_the_row_anew() -> None:
    one = circuit()
    for job in (1, 2):
        one.refused(job, 0.0)
    one.accepted()
    assert [one.refused(job, 0.0) for job in (3, 4)] == [None, None]
    assert one.admits


def test_one_probe_decides() -> None:
    one = opened()
    admitted = []
    for step in (one.half_open, one.begin, one.accepted):
        step()
        admitted.append(one.admits)
    assert admitted == [True, False, True]


def test_waits_double_with_every_refused_probe_up_to_their_limit() -> None:
    one = opened()
    waits = []
    for _ in range(3):
        one.half_open()
        one.begin()
        waits.append(one.refused(1, 0.0))
    assert waits == [10.0, 15.0, 15.0]


def test_waits_begin_anew_after_an_outage() -> None:
    one = opened()
    one.accepted()
    assert [one.refused(job, 0.0) for job in (1, 2, 3)] == [None, None, 5.0]


@pytest.mark.parametrize(("after_s", "wait_s"), [(0.0, pytest.approx(5.25)), (60.0, 60.0)])
def test_waits_are_jittered_upward_and_no_shorter_than_the_receiver_wants(after_s: float, wait_s: float) -> None:
    one = circuit(jobs=1, dice=0.5)
    assert one.refused(1, after_s) == wait_s


def test_late_refusals_of_what_went_out_before_change_nothing() -> None:
    one = opened()
    assert one.refused(4, 0.0) is None
    one.half_open()
    one.begin()
    assert one.refused(4, 0.0) == 10.0
