"""The AUVY plug: what it asks for, and how it reads what comes. Frames follow the contract's illustrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from doubles import CannedHttp
from pydantic import SecretStr

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobStatus
from bridge.intake.provider import Answer, Frame, Reading, Request
from bridge.intake.providers.auvy import Auvy, AuvySettings


def auvy(answer: Callable[[Request], Any] = lambda request: {}, **settings: Any) -> tuple[Auvy, CannedHttp]:
    http = CannedHttp(answer)
    given = {"provider": "auvy", "base_url": "http://auvy.test/", "token": SecretStr("ak_live_1")} | settings
    return Auvy(AuvySettings.model_validate(given), http), http


def frame(data: Any, stream_id: str = "1764000000120-1", dropped: int = 0) -> Frame:
    return Frame("message", data if isinstance(data, bytes) else orjson.dumps(data), stream_id, dropped)


def test_the_stream_resumes_with_after_and_escapes_the_job_id() -> None:
    provider, _ = auvy()
    request = provider.stream("a/b ü", Cursor("17-0"))
    assert request.url == "http://auvy.test/v1/jobs/a%2Fb%20%C3%BC/stream"
    assert request.params == {"after": "17-0"}
    assert request.headers == {"Authorization": "Bearer ak_live_1"}
    assert provider.stream("j", None).params == {}


def test_a_share_token_takes_the_public_route() -> None:
    provider, _ = auvy(token=None, share_token=SecretStr("sh_1"))
    request = provider.stream("j", Cursor("17-0"))
    assert request.url == "http://auvy.test/v1/public/jobs/j/stream"
    assert request.params == {"after": "17-0", "t": "sh_1"}
    assert request.headers == {}


async def test_a_share_token_alone_has_no_status_to_ask() -> None:
    provider, http = auvy(token=None, share_token=SecretStr("sh_1"))
    with pytest.raises(Rejected) as caught:
        await provider.status("j")
    assert caught.value.reason == "no_status"
    assert http.requests == []


@pytest.mark.parametrize(
    ("chunk", "type_", "detail"),
    [
        ({"type": "token", "token": "Hel"}, EventType.OUTPUT, {"text": "Hel"}),
        (
            {"type": "content_block", "kind": "table", "rows": 2},
            EventType.OUTPUT,
            {"block": {"kind": "table", "rows": 2}},
        ),
        ({"type": "reflex_call", "name": "lookup"}, EventType.TOOL, {"tool": {"name": "lookup"}}),
        ({"type": "state_update", "state": "running"}, EventType.STATE, {"state": {"state": "running"}}),
        ({"type": "signal", "x": 1}, EventType.STATE, {"signal": {"x": 1}}),
        ({"type": "hologram"}, EventType.UNMAPPED, {"reason": "unknown_kind", "kind": "hologram"}),
        ({"type": ["token"]}, EventType.UNMAPPED, {"reason": "unknown_kind", "kind": ["token"]}),
        ([1, 2], EventType.UNMAPPED, {"reason": "unknown_kind", "kind": None}),
        (b"<html>not json", EventType.UNMAPPED, {"reason": "not_json", "text": "<html>not json"}),
        (b"", EventType.UNMAPPED, {"reason": "not_json", "text": ""}),
    ],
)
def test_each_kind_of_chunk_is_read_and_none_is_refused(chunk: Any, type_: EventType, detail: Any) -> None:
    provider, _ = auvy()
    (reading,) = provider.read(frame(chunk), None)
    assert (reading.type, reading.detail, reading.key, reading.cursor) == (
        type_,
        detail,
        "1764000000120-1",
        "1764000000120-1",
    )


@pytest.mark.parametrize(
    ("chunk", "told"),
    [
        ({"type": "token", "token": "Hel"}, True),
        ({"type": "token", "token": "Hel", "index": 3}, False),
        ({"type": "token", "text": "Hel"}, False),
        ({"type": "content_block", "kind": "table", "rows": [1, None]}, True),
        ({"type": "signal"}, True),
        ({"type": "complete", "result": 1}, False),
        ({"type": "hologram"}, False),
    ],
)
def test_the_payload_is_told_only_where_it_can_be_made_again(chunk: dict[str, Any], told: bool) -> None:
    provider, _ = auvy()
    (reading,) = provider.read(frame(chunk), None)
    assert reading.told is told
    if told:
        (name,) = reading.detail or {}
        piece = (reading.detail or {})[name]
        kinds = {"block": "content_block", "signal": "signal"}
        assert chunk == ({"type": "token", "token": piece} if name == "text" else {"type": kinds[name], **piece})


@pytest.mark.parametrize(
    "number",
    [b"123456789012345678901234567890", b"0.1000000000000000055511151231257827", b"1E-400", b"-9007199254740993.0"],
)
@pytest.mark.parametrize("chunk", [b'{"type":"token","token":%b}', b'{"type":"content_block","block":{"n":[%b]}}'])
def test_the_payload_is_not_told_where_decoding_has_rounded_a_number_of_it(chunk: bytes, number: bytes) -> None:
    provider, _ = auvy()
    (reading,) = provider.read(frame(chunk % number), None)
    assert not reading.told
    assert number in (reading.payload or b"")


def test_the_last_chunk_claims_the_end_with_its_result_or_error() -> None:
    provider, _ = auvy()
    (complete,) = provider.read(frame({"type": "complete", "result": {"text": "Hello"}}), None)
    (error,) = provider.read(frame({"type": "error", "error": "model refused"}), None)
    assert (complete.status, complete.result) == (JobStatus.COMPLETED, {"text": "Hello"})
    assert (error.status, error.error) == (JobStatus.FAILED, {"message": "model refused"})


def test_an_oversized_frame_is_kept_in_part_and_says_so() -> None:
    provider, _ = auvy()
    (reading,) = provider.read(frame(b'{"type":"token","token":"aaaa', dropped=5000), None)
    assert reading.type is EventType.UNMAPPED
    assert reading.detail == {
        "reason": "oversized",
        "bytes": 5029,
        "start": '{"type":"token","token":"aaaa',
        "truncated": True,
    }
    assert reading.payload is None


@pytest.mark.parametrize(
    ("stream_id", "cursor", "kept"),
    [
        ("9-0", "10-0", False),  # as text, 9-0 would come after 10-0
        ("10-0", "10-0", False),
        ("10-2", "10-10", False),
        ("10-10", "10-2", True),
        ("1764000000120-1", "1764000000120-0", True),
        ("odd", "10-0", True),
    ],
)
def test_frames_at_or_before_the_cursor_are_dropped_by_number(stream_id: str, cursor: str, kept: bool) -> None:
    provider, _ = auvy()
    assert bool(provider.read(frame({"type": "token"}, stream_id), Cursor(cursor))) is kept


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"status": "pending"}, Reading(status=JobStatus.PENDING, provider_status="pending")),
        (
            {"status": "waiting", "waitingFor": {"interventionId": "i1"}},
            Reading(status=JobStatus.WAITING, provider_status="waiting", waiting_for={"interventionId": "i1"}),
        ),
        (
            {"status": "running", "progress": 40, "current_step": "fetch"},
            Reading(status=JobStatus.RUNNING, provider_status="running", progress=40, step="fetch"),
        ),
        (
            {"status": "failed", "failedReason": "boom", "finished_at": "2026-11-01T00:00:00Z"},
            Reading(
                status=JobStatus.FAILED,
                provider_status="failed",
                error={"message": "boom"},
                time="2026-11-01T00:00:00Z",
            ),
        ),
        (
            {"status": "failed", "failedReason": "cancelled by user"},
            Reading(status=JobStatus.CANCELLED, provider_status="failed", error={"message": "cancelled by user"}),
        ),
        ({"status": "hibernating"}, Reading(status=None, provider_status="hibernating")),
    ],
)
async def test_the_status_endpoint_is_read_with_its_mixed_names(body: dict[str, Any], expected: Reading) -> None:
    provider, http = auvy(lambda request: body, cancelled_when="(?i)cancel")
    reading = await provider.status("j/1")
    assert orjson.loads(reading.payload or b"") == body
    assert reading == Reading(**{f: getattr(expected, f) for f in expected._fields} | {"payload": reading.payload})
    assert http.requests[0].url == "http://auvy.test/v1/jobs/j%2F1/status"


@pytest.mark.parametrize(
    ("status", "body", "error", "reason"),
    [
        (400, {"code": "VALIDATION_ERROR"}, Rejected, "stale_cursor"),
        (401, {"code": "AUTH_REQUIRED"}, Fatal, "unauthorized"),
        (403, {"code": "FORBIDDEN"}, Rejected, "denied"),
        (403, {"code": "trial_expired"}, Rejected, "trial_expired"),
        (403, {"code": "cost_cap"}, Rejected, "cost_cap"),
        (404, {"code": "RESOURCE_NOT_FOUND"}, Rejected, "not_found"),
        (410, {}, Rejected, "gone"),
        (429, {"code": "RATE_LIMIT", "retryAfter": 7}, Temporary, "rate_limited"),
        (500, {"code": "INTERNAL_SERVER_ERROR"}, Temporary, "server_error"),
        (503, "<html>", Temporary, "server_error"),
    ],
)
def test_the_error_table_says_what_to_do_next(status: int, body: Any, error: type[BridgeError], reason: str) -> None:
    provider, _ = auvy()
    raised = provider.refusal(Answer(status, {}, orjson.dumps(body), 0.0))
    assert type(raised) is error
    assert raised.reason == reason
    if status == 429:
        assert isinstance(raised, Temporary)
        assert raised.after_s == 7.0


async def test_a_400_of_the_status_endpoint_is_not_about_a_cursor() -> None:
    provider, _ = auvy(lambda request: Answer(400, {}, b"{}", 0.0))
    with pytest.raises(Rejected) as caught:
        await provider.status("j")
    assert caught.value.reason == "refused"


async def test_a_listing_that_shifts_under_its_offset_loses_no_job() -> None:
    """New jobs arrive at the head between two pages: what was on one page slides onto the next."""
    jobs = [f"job_{n}" for n in range(250)]

    def answer(request: Request) -> Any:
        offset, limit = int(request.params["offset"]), int(request.params["limit"])
        page = jobs[offset : offset + limit]
        jobs[0:0] = [f"new_{len(jobs)}_{n}" for n in range(5)]
        return {"jobs": [{"job_id": job_id} for job_id in page], "total": len(jobs)}

    provider, _ = auvy(answer, discover_statuses=[])
    found = [job_id async for page in provider.jobs() for job_id in page]
    assert set(found) >= {f"job_{n}" for n in range(250)}
    assert len(found) == len(set(found))


async def test_a_listing_that_never_ends_is_left_when_it_brings_nothing_new() -> None:
    provider, http = auvy(lambda request: {"jobs": [{"job_id": "same"}] * 100}, discover_statuses=[])
    assert [page async for page in provider.jobs()] == [["same"]]
    assert len(http.requests) == 2
