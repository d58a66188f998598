"""The eyes of these tests: what is lost, out of order or repeated does not escape them."""

from __future__ import annotations

import pytest
from arrivals import Arrival, complete, flaws, repeats

WANTED = {"good": {"job": 2}}


def arrival(sequence: int, event: str, at_ms: float) -> Arrival:
    return Arrival("good", f"msg_{event}", "job", f"api:job:{event}", sequence, at_ms, 0.0)


FIRST, SECOND, THIRD = arrival(1, "watch.1", 1), arrival(2, "1-0", 2), arrival(3, "2-0", 3)


def test_everything_in_order_has_no_flaw_however_often_it_comes() -> None:
    arrivals = [FIRST, SECOND, THIRD, SECOND._replace(at_ms=4)]
    assert flaws(arrivals, WANTED) == []
    assert complete(arrivals, WANTED)
    assert [(repeat.first_ms, repeat.again_ms) for repeat in repeats(arrivals)] == [(2, 4)]


@pytest.mark.parametrize(
    ("arrivals", "flaw"),
    [
        ([FIRST, THIRD], "lacks events of job"),
        ([FIRST, THIRD], "lacks 1 of the 2 numbers of job"),
        ([FIRST, SECOND], "lacks 1 of the 2 numbers of job"),
        ([FIRST, THIRD, SECOND._replace(at_ms=4)], "out of order"),
        ([FIRST, SECOND, THIRD, THIRD._replace(endpoint="other")], "did not ask for"),
        ([], "lacks 2 of the 2 numbers of job"),
    ],
)
def test_a_flaw_is_told(arrivals: list[Arrival], flaw: str) -> None:
    assert any(flaw in told for told in flaws(arrivals, WANTED))
