"""The Flow Relay plug: what it asks for, and how it reads what comes. Bodies follow the contract's illustrations."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from doubles import CannedHttp
from pydantic import SecretStr, ValidationError

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import EventType, JobKey, JobStatus
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Action, Answer, Frame, Request
from bridge.intake.providers.flowrelay import FlowRelay, FlowRelaySettings

BORN, MOVED = "2026-06-20T14:03:00Z", "2026-06-20T14:03:31Z"


def settings(**given: Any) -> FlowRelaySettings:
    return FlowRelaySettings.model_validate({"provider": "flowrelay", "token": SecretStr("fr_1")} | given)


def flowrelay(answer: Any) -> tuple[FlowRelay, CannedHttp]:
    """The plug where every request is answered alike."""
    http = CannedHttp(lambda _: answer)
    return FlowRelay(settings(base_url="http://flow.test/api/v1/"), http), http


def job(status: str = "processing", result: Any = None, **members: Any) -> dict[str, Any]:
    """A body as the vendor's own client declares it."""
    later = dict.fromkeys(("result_kind", "result_id", "error", "error_code", "error_meta"))
    about = {"id": "job_9f3c", "project_id": "prj_1", "kind": "handoff", "status": status}
    return {"job": about | later | {"created_at": BORN, "updated_at": MOVED} | members, "result": result}


async def told(*bodies: Any) -> list[tuple[EventType, dict[str, Any]]]:
    """The events that the bodies make when they are polled one after the other, with their data."""
    life = Lifecycle(JobKey("fr", "job_9f3c"), "flowrelay", b"", payloads="never")
    events = []
    for body in bodies:
        provider, _ = flowrelay(body)
        events += life.apply([await provider.status("job_9f3c")])
    return [(event.type, orjson.loads(event.data)) for event in events]


def test_the_defaults_keep_within_the_vendors_limits() -> None:
    default = settings()
    assert (default.requests_per_minute, default.status_interval_s) == (50, 2)
    assert str(default.base_url) == "https://www.flowrelay.it/api/v1"


@pytest.mark.parametrize("given", [{"status_interval_s": 0.9}, {"token": None}, {"requests_per_minute": 0}])
def test_settings_that_the_vendor_would_not_take_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**given)


async def test_there_is_one_route_and_nothing_else_to_ask() -> None:
    provider, http = flowrelay(job())
    await provider.status("a/b ü")
    assert http.requests == [
        Request("http://flow.test/api/v1/jobs/a%2Fb%20%C3%BC", headers={"Authorization": "Bearer fr_1"})
    ]
    assert provider.stream("j", None) is None
    assert provider.read(Frame("message", b"{}", ""), None) == ()
    assert [page async for page in provider.jobs()] == []
    assert [readings async for readings in provider.backfill("j", None)] == []
    assert len(http.requests) == 1


@pytest.mark.parametrize("action", list(Action))
async def test_nothing_can_be_asked_of_a_job_and_none_is_ever_started(action: Action) -> None:
    provider, http = flowrelay(job())
    with pytest.raises(Rejected) as caught:
        await provider.act("j", action, {})
    assert caught.value.reason == "unsupported"
    assert http.requests == []


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", JobStatus.PENDING),
        ("processing", JobStatus.RUNNING),
        ("completed", JobStatus.COMPLETED),
        ("failed", JobStatus.FAILED),
        ("hibernating", None),
        ("COMPLETED", None),
    ],
)
async def test_status_words_are_mapped_and_unknown_ones_end_nothing(word: str, status: JobStatus | None) -> None:
    body = job(word)
    provider, _ = flowrelay(body)
    reading = await provider.status("job_9f3c")
    assert (reading.status, reading.provider_status, reading.key) == (status, word, None)
    assert (reading.kind, reading.time) == ("handoff", MOVED)
    assert reading.detail == {"project_id": "prj_1", "created_at": BORN}
    assert orjson.loads(reading.payload or b"") == body


async def test_the_embedded_result_comes_with_the_completion() -> None:
    body = job("completed", {"title": "Handoff", "body": "…"}, result_kind="handoff", result_id="ho_1a2b")
    ((type_, data),) = await told(body)
    assert type_ is EventType.COMPLETED
    assert data["result"] == {"title": "Handoff", "body": "…"}
    assert data["detail"] == {
        "project_id": "prj_1",
        "created_at": BORN,
        "result_kind": "handoff",
        "result_id": "ho_1a2b",
    }


@pytest.mark.parametrize("gone", [{"result": None}, {}])
async def test_a_result_that_is_no_longer_there_leaves_its_id(gone: dict[str, Any]) -> None:
    body = {"job": job("completed", result_kind="insight", result_id="in_7")["job"]} | gone
    ((type_, data),) = await told(body)
    assert type_ is EventType.COMPLETED
    assert "result" not in data
    assert (data["detail"]["result_kind"], data["detail"]["result_id"]) == ("insight", "in_7")


@pytest.mark.parametrize("code", ["plan_violation", "quota_exceeded", "generation_failed", "no_result", "new_code"])
async def test_a_failed_job_is_an_outcome_whatever_its_code_resembles(code: str) -> None:
    ((type_, data),) = await told(job("failed", error="No.", error_code=code, error_meta={"flow": "x"}))
    assert type_ is EventType.FAILED
    assert data["error"] == {"code": code, "message": "No.", "meta": {"flow": "x"}}


async def test_a_failure_without_a_reason_has_no_error() -> None:
    ((type_, data),) = await told(job("failed"))
    assert type_ is EventType.FAILED
    assert "error" not in data


async def test_a_change_of_status_is_news_even_when_updated_at_stands_still() -> None:
    bodies = [job(status, updated_at=BORN) for status in ("pending", "processing", "completed")]
    assert [type_ for type_, _ in await told(*bodies)] == [EventType.QUEUED, EventType.STARTED, EventType.COMPLETED]


async def test_updated_at_alone_is_no_news() -> None:
    bodies = [job(updated_at=f"2026-06-20T14:03:{second:02}Z") for second in range(5)]
    assert [type_ for type_, _ in await told(*bodies)] == [EventType.STARTED]


async def test_an_end_that_was_reached_between_two_looks_is_told_alone() -> None:
    assert [type_ for type_, _ in await told(job("pending"), job("failed"))] == [EventType.QUEUED, EventType.FAILED]


async def test_the_fingerprint_covers_what_can_be_seen_and_nothing_else() -> None:
    bodies = [
        job(),
        job(updated_at="2026-06-20T15:00:00Z"),
        job(something_new=1),
        job(error_code="generation_failed"),
        job(result_kind="handoff"),
        job(error_meta={"a": 1, "b": 2}),
        job(error_meta={"b": 2, "a": 1}),
    ]
    prints = [(await flowrelay(body)[0].status("j")).fingerprint for body in bodies]
    assert prints[0] == prints[1] == prints[2]
    assert prints[5] == prints[6]
    assert len(set(prints)) == 4
    assert all(prints)


@pytest.mark.parametrize("body", [None, [], {}, {"job": None}, {"job": {}}, {"job": {"status": 7}}, {"status": "done"}])
async def test_an_answer_without_a_status_is_tried_again(body: Any) -> None:
    provider, _ = flowrelay(body)
    with pytest.raises(Temporary) as caught:
        await provider.status("j")
    assert caught.value.reason == "not_json"


async def test_odd_members_do_not_hurt() -> None:
    body = job("completed", result=[], kind=7, updated_at=None, error=["?"], error_code="", project_id=None)
    provider, _ = flowrelay(body)
    reading = await provider.status("j")
    assert (reading.status, reading.kind, reading.time, reading.result) == (JobStatus.COMPLETED, None, None, [])
    assert reading.error == {"code": "", "message": ["?"]}


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, Rejected, "refused"),
        (401, Fatal, "unauthorized"),
        (403, Rejected, "denied"),
        (404, Rejected, "not_found"),
        (429, Temporary, "rate_limited"),
        (500, Temporary, "server_error"),
        (502, Temporary, "server_error"),
    ],
)
async def test_the_error_table_says_what_to_do_next(status: int, error: type[BridgeError], reason: str) -> None:
    provider, _ = flowrelay(Answer(status, {}, b'{"error":"Slow down."}', 0.0))
    with pytest.raises(error) as caught:
        await provider.status("j")
    assert caught.value.reason == reason
    assert "Slow down." in str(caught.value)


def test_a_job_in_which_nothing_moves_is_told_of_after_as_long_as_the_vendors_client_waits() -> None:
    settings = FlowRelaySettings.model_validate({"provider": "flowrelay", "token": SecretStr("fr_k")})
    assert (settings.stalled_after_s, settings.stalled_interval_s) == (180, 30)
