"""Rows of the table of latest states."""

from __future__ import annotations

from typing import Any

import orjson
from relaying import entry

from bridge.delivery.sinks.kafka.latest import rows
from bridge.delivery.sinks.kafka.records import Record
from bridge.journal.store import Entry


def told(position: int, type_: str, job: str = "job-1", **data: Any) -> Entry:
    known = {"id": job, "source": "auvy-prod", "provider": "auvy", "status": "running"} | data.pop("known", {})
    event = entry(position, job=job, type_=type_, data=orjson.dumps({"job": known} | data))
    return event._replace(subscription=int(job.removeprefix("job-")))


def of(entries: list[Entry], *tombstone_on: str, bytes_max: int = 1 << 20) -> list[Record]:
    return list(rows(entries, tombstone_on, bytes_max, "event"))


def test_a_row_is_the_job_as_now_known_and_the_event_that_told_it() -> None:
    [row] = of([told(3, "job.completed", result={"n": 1}, detail={"why": "x"}, payload={"raw": True})])
    assert row.key == b"auvy-prod/job-1"
    assert orjson.loads(row.value or b"") == {
        "job": {"id": "job-1", "source": "auvy-prod", "provider": "auvy", "status": "running"},
        "result": {"n": 1},
        "type": "job.completed",
        "time": "2026-01-02T03:04:05Z",
        "sequence": 3,
        "id": "event-3",
    }


def test_there_is_one_row_a_job_and_it_is_the_last() -> None:
    written = of([told(1, "job.started"), told(2, "job.output", "job-2"), told(3, "job.step"), told(4, "job.output")])
    assert [(row.key, row.entry.position) for row in written] == [(b"auvy-prod/job-1", 4), (b"auvy-prod/job-2", 2)]


def test_what_says_nothing_about_the_job_leaves_its_row_alone() -> None:
    ended = told(1, "job.completed", result="done")
    [row] = of([ended, told(2, "job.unmapped"), told(3, "watch.lost")])
    assert row.entry == ended
    assert of([told(4, "watch.started")]) == []


def test_a_tombstone_follows_the_state_that_ends_the_row() -> None:
    row, tombstone, other = of(
        [told(1, "job.completed"), told(2, "job.output", "job-2"), told(3, "watch.started")], "job.completed"
    )
    assert (row.entry.type, tombstone.key, tombstone.value, tombstone.headers) == ("job.completed", row.key, None, [])
    assert other.value is not None


def test_a_type_that_says_nothing_about_the_job_ends_the_row_where_that_is_asked_for() -> None:
    row, tombstone = of([told(1, "job.output"), told(2, "watch.lost")], "watch.lost")
    assert (row.entry.type, tombstone.value) == ("watch.lost", None)


def test_a_row_that_is_too_large_still_names_the_job_and_its_status() -> None:
    big = told(1, "job.failed", known={"progress": "x" * 5000}, error={"text": "y" * 5000})
    [row] = of([big], bytes_max=2000)
    assert row.wire_bytes <= 2000
    thin = orjson.loads(row.value or b"")
    assert thin["job"] == {"id": "job-1", "source": "auvy-prod", "provider": "auvy", "status": "running"}
    assert (thin["type"], thin["truncated"]) == ("job.failed", ["error", "progress"])
