"""The short form of the chaos, for every run of the tests, and proof that its verdict sees what is wrong.

`CHAOS_SEED` asks for another plan than the usual one.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from chaos import Chaos, run_chaos
from verdict import Arrival, Struck, Told, judge, recovery_s, recovery_table

SEED = 11


@pytest.mark.timeout(300)
async def test_kills_of_bridge_and_broker_lose_repeat_and_reorder_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "aiokafka")  # our own reader's troubles are expected
    seed = int(os.environ.get("CHAOS_SEED") or SEED)
    await run_chaos(Chaos(kills=8, events=20_000, seconds=30.0, seed=seed), tmp_path, print)


HISTORY = {"a": 3, "b": 1}


def _record(job: str, number: int, sequence: int, offset: int, type_: str = "job.output") -> Told:
    return Told(f"north:{job}:{number}-0", job, type_, sequence, (0, offset))


def _topic() -> list[Told]:
    watch = Told("north:a:watch.started-1", "a", "watch.started", 1, (0, 1))
    end_a, end_b = _record("a", 3, 4, 5, "job.completed"), _record("b", 1, 1, 3, "job.completed")
    return [watch, _record("a", 1, 2, 2), end_b, _record("a", 2, 3, 4), end_a]


def test_a_topic_that_holds_the_history_has_no_flaw() -> None:
    assert judge(HISTORY, _topic()).flaws == []


def test_a_missing_record_is_lost() -> None:
    topic = [record for record in _topic() if record.number != 2]
    assert judge(HISTORY, topic).lost == ["a lacks its number 2 of 3", "a lacks its event with sequence 3"]


def test_a_job_that_is_missing_altogether_is_lost_with_its_end() -> None:
    verdict = judge(HISTORY, [record for record in _topic() if record.job != "b"])
    assert len(verdict.lost) == len(verdict.ends) == 1


def test_a_record_that_comes_again_is_a_duplicate() -> None:
    topic = _topic()
    verdict = judge(HISTORY, [*topic, topic[1]._replace(place=(0, 6))])
    assert verdict.flaws == verdict.duplicates == ["north:a:1-0 is there 2 times"]


def test_records_that_change_places_are_out_of_order() -> None:
    first, second, *rest = _topic()
    assert len(judge(HISTORY, [second, first, *rest]).out_of_order) == 1


def test_the_providers_numbers_count_where_the_sequence_is_in_order() -> None:
    topic = _topic()
    topic[1], topic[3] = _record("a", 2, 2, 2), _record("a", 1, 3, 4)
    assert len(judge(HISTORY, topic).out_of_order) == 1


def test_a_job_on_two_partitions_is_out_of_order() -> None:
    topic = _topic()
    topic[1] = topic[1]._replace(place=(1, 2))
    assert len(judge(HISTORY, topic).out_of_order) == 1


def test_a_second_end_and_an_event_that_nobody_said_are_flaws() -> None:
    verdict = judge(HISTORY, [*_topic(), _record("a", 4, 5, 6, "job.failed")])
    assert (len(verdict.ends), len(verdict.invented)) == (1, 1)


def test_the_recovery_ends_with_a_record_that_was_written_after_the_blow() -> None:
    arrivals = [Arrival(9.0, 8.9), Arrival(10.5, 9.9), Arrival(12.0, 11.9), Arrival(12.1, 12.0)]
    assert recovery_s(Struck("a", 10.0), arrivals) == pytest.approx(2.0)


def test_the_table_tells_blows_that_fell_on_others_from_those_that_did_not() -> None:
    arrivals = [Arrival(at_s + 0.5, at_s) for at_s in (1.0, 11.0, 21.0)]
    table = recovery_table([Struck("a", 0.5), Struck("a", 10.0), Struck("b", 10.5)], arrivals)
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["a", "2", "1.25", "1.50", "1.50", "1", "1.00"],
        ["b", "1", "1.00", "1.00", "1.00", "0", "-"],
    ]
