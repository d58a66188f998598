"""Readings folded into events."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bridge.event import EventType, JobEvent, JobKey, JobStatus
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Payloads, Reading

KEY = JobKey("auvy-prod", "job_1")


def life(memory: bytes = b"", *, payloads: Payloads = "unless_told") -> Lifecycle:
    return Lifecycle(KEY, "auvy", memory, payloads=payloads)


def data(event: JobEvent) -> dict[str, Any]:
    decoded: dict[str, Any] = orjson.loads(event.data)
    return decoded


def state(status: JobStatus, **more: Any) -> Reading:
    return Reading(status=status, provider_status=status.value, **more)


def test_an_event_tells_its_job_its_piece_and_the_payload_as_it_came() -> None:
    reading = Reading(type=EventType.OUTPUT, key="17-0", detail={"text": "Hel"}, payload=b'{ "token": "Hel" }')
    (event,) = life().apply([reading])
    assert (event.id, event.source, event.subject, event.type) == (
        "auvy-prod:job_1:17-0",
        "auvy-prod",
        "job_1",
        "job.output",
    )
    assert event.data.endswith(b'"payload":{ "token": "Hel" }}')
    assert data(event) == {
        "job": {"id": "job_1", "source": "auvy-prod", "provider": "auvy"},
        "detail": {"text": "Hel"},
        "payload": {"token": "Hel"},
    }


@pytest.mark.parametrize(
    ("payloads", "told", "kept"),
    [("always", True, True), ("unless_told", True, False), ("unless_told", False, True), ("never", False, False)],
)
def test_a_payload_is_kept_as_set(payloads: Payloads, told: bool, kept: bool) -> None:
    reading = Reading(type=EventType.OUTPUT, key="1-0", payload=b"{}", told=told)
    (event,) = life(payloads=payloads).apply([reading])
    assert ("payload" in data(event)) is kept


def test_what_comes_after_the_end_keeps_its_payload_whatever_it_told() -> None:
    job = life()
    end = Reading(status=JobStatus.COMPLETED, key="1-0")
    *_, late = job.apply([end, Reading(type=EventType.OUTPUT, key="2-0", payload=b"{}", told=True)])
    assert "payload" in data(late)


@pytest.mark.parametrize(
    ("path", "types"),
    [
        (["pending", "running", "completed"], ["job.queued", "job.started", "job.completed"]),
        (["running", "waiting", "running", "failed"], ["job.started", "job.waiting", "job.resumed", "job.failed"]),
        (["paused", "running", "cancelled"], ["job.paused", "job.resumed", "job.cancelled"]),
        (["running", "running", "skipped", "running"], ["job.started", "job.skipped"]),
        (["waiting", "paused", "waiting"], ["job.waiting", "job.paused", "job.waiting"]),
    ],
)
def test_looks_at_the_status_become_events_only_where_it_moved(path: list[str], types: list[str]) -> None:
    events = life().apply([state(JobStatus(status)) for status in path])
    assert [event.type for event in events] == types
    assert [event.id.rpartition(":")[2] for event in events] == [f"status.{n + 1}" for n in range(len(types))]


def test_progress_and_step_found_by_looking_are_events_of_their_own() -> None:
    looks = [state(JobStatus.RUNNING, progress=p, step=s) for p, s in [(1, "a"), (1, "a"), (2, "a"), (2, "b")]]
    assert [event.type for event in life().apply(looks)] == ["job.started", "job.progress", "job.step"]


def test_what_a_job_waits_for_is_forgotten_when_it_goes_on() -> None:
    folded = life()
    (waiting,) = folded.apply([state(JobStatus.WAITING, waiting_for={"question": "ok?"})])
    (resumed,) = folded.apply([state(JobStatus.RUNNING)])
    assert data(waiting)["job"]["waiting_for"] == {"question": "ok?"}
    assert "waiting_for" not in data(resumed)["job"]


def test_a_job_ends_once_and_what_comes_later_is_kept_as_unmapped() -> None:
    folded = life()
    end = Reading(key="9-0", status=JobStatus.COMPLETED, result={"text": "Hello"})
    late = Reading(type=EventType.OUTPUT, key="9-1", detail={"text": "x"}, payload=b'{"token":"x"}')
    contradiction = Reading(key="9-2", status=JobStatus.FAILED)
    events = folded.apply([end, late, contradiction, state(JobStatus.FAILED)])
    assert [event.type for event in events] == ["job.completed", "job.unmapped", "job.unmapped"]
    assert data(events[0])["result"] == {"text": "Hello"}
    assert data(events[1])["detail"] == {"reason": "after_end", "type": "job.output", "text": "x"}
    assert data(events[1])["payload"] == {"token": "x"}
    assert folded.job.status is JobStatus.COMPLETED
    assert folded.late == 2


def test_memory_carries_everything_over_a_restart() -> None:
    before = life()
    before.watch(EventType.WATCH_STARTED, {})
    before.apply([state(JobStatus.RUNNING, progress=40), state(JobStatus.WAITING, waiting_for="approval")])
    after = life(before.memory())
    assert after.job == before.job
    assert after.watching
    assert after.apply([state(JobStatus.WAITING, waiting_for="approval")]) == []
    (resumed,) = after.apply([state(JobStatus.RUNNING)])
    assert resumed.id == "auvy-prod:job_1:status.3"
    assert after.watch(EventType.WATCH_LOST, {}).id == "auvy-prod:job_1:watch.2"
    assert not after.watching


def test_an_unknown_status_word_is_kept_and_moves_nothing() -> None:
    folded = life()
    folded.apply([state(JobStatus.RUNNING)])
    (event,) = folded.apply([Reading(status=None, provider_status="defragmenting")])
    assert event.type == EventType.STATE
    assert data(event)["job"]["provider_status"] == "defragmenting"
    assert folded.job.status is JobStatus.RUNNING


def test_a_fingerprint_tells_a_change_that_nothing_else_shows_and_survives_a_restart() -> None:
    folded = life()
    folded.apply([state(JobStatus.RUNNING, fingerprint="a")])
    assert folded.apply([state(JobStatus.RUNNING, fingerprint="a")]) == []
    (event,) = folded.apply([state(JobStatus.RUNNING, fingerprint="b", detail={"attempt": 2})])
    assert event.type == EventType.STATE
    assert life(folded.memory()).apply([state(JobStatus.RUNNING, fingerprint="b")]) == []


@pytest.mark.parametrize(
    ("reading", "truncated"),
    [
        (Reading(type=EventType.OUTPUT, key="1", detail={"text": "x"}, payload=b'"' + b"p" * 9000 + b'"'), ["payload"]),
        (
            Reading(status=JobStatus.COMPLETED, key="1", result="r" * 9000, payload=b'"' + b"p" * 9000 + b'"'),
            ["payload", "result"],
        ),
        (Reading(type=EventType.OUTPUT, key="1", detail={"text": "d" * 9000}), ["detail"]),
        (Reading(status=JobStatus.FAILED, key="1", error={"message": "e" * 9000}), ["error"]),
    ],
)
def test_a_large_event_is_cut_and_names_what_was_cut(reading: Reading, truncated: list[str]) -> None:
    (event,) = Lifecycle(KEY, "auvy", b"", event_bytes_max=8192).apply([reading])
    assert len(event.data) <= 8192
    told = data(event)
    assert told["truncated"] == truncated
    for member in truncated:
        if member in {"detail", "error"}:
            assert told[member]["bytes"] > 9000
            assert len(told[member]["start"]) > 1000
        else:
            assert member not in told
