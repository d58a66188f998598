"""The TenFive plug: what it asks for, and how it reads what comes. Frames follow the contract's illustrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from doubles import CannedHttp
from pydantic import SecretStr

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobStatus
from bridge.intake.provider import Action, Answer, Frame, Reading, Request
from bridge.intake.providers.tenfive import TenFive, TenFiveSettings

RUNS = "http://tenfive.test/v1/runs"
CONFLICT = Answer(409, {}, b'{"reason_code":"RUN_STATE_CONFLICT"}', 0.0)


def tenfive(answer: Callable[[Request], Any] = lambda request: {}, **settings: Any) -> tuple[TenFive, CannedHttp]:
    http = CannedHttp(answer)
    given = {"provider": "tenfive", "base_url": "http://tenfive.test/", "token": SecretStr("k1:s1")} | settings
    return TenFive(TenFiveSettings.model_validate(given), http), http


def envelope(seq: int, kind: Any = "step.progress", value: Any = None, *, redacted: bool = False) -> dict[str, Any]:
    payload = {"redacted": redacted, "value": {} if value is None else value}
    return {"seq": seq, "type": kind, "timestamp": "2026-03-25T14:30:00.000Z", "payload": payload}


def frame(data: Any, sse_id: str = "", dropped: int = 0) -> Frame:
    return Frame("run_event", data if isinstance(data, bytes) else orjson.dumps(data), sse_id, dropped)


def said(kind: Any, value: Any = None, *, redacted: bool = False) -> Reading:
    """What the second event of a run says, when it is this one."""
    (reading,) = tenfive()[0].read(frame(envelope(2, kind, value, redacted=redacted)), Cursor("1"))
    return reading


async def filled(provider: TenFive, cursor: str | None) -> list[Reading]:
    given = Cursor(cursor) if cursor else None
    return [reading async for page in provider.backfill("r", given) for reading in page]


def lists(events: Sequence[dict[str, Any]], cursor_param: str = "after", page: int = 3) -> Callable[[Request], Any]:
    """A deployment without a description of itself, which lists these events."""

    def answer(request: Request) -> Any:
        if request.url.endswith("/openapi.json"):
            return Answer(404, {}, b"{}", 0.0)
        ahead = [event for event in events if event["seq"] > int(request.params.get(cursor_param, 0))]
        return {"events": ahead[:page]}

    return answer


# -- the stream


def test_the_key_is_sent_as_issued_and_the_run_id_is_escaped() -> None:
    request = tenfive()[0].stream("a/b ü", None)
    assert request.url == f"{RUNS}/a%2Fb%20%C3%BC/events/stream"
    assert request.headers == {"Authorization": "Bearer k1:s1"}


@pytest.mark.parametrize(
    ("frames", "last_event_id"),
    [
        ([(5, "")], "5"),
        ([(5, "5"), (6, "6")], "6"),
        ([(5, "evt-a")], "evt-a"),
        ([(5, "evt-a"), (6, "evt-a")], "evt-a"),  # ids are sticky: the second frame brought none
        ([(5, "evt a b")], "evt a b"),
        ([(5, "evt-a"), (6, "")], "evt-a"),
    ],
)
def test_the_id_goes_back_where_ids_come_and_the_seq_where_none_does(
    frames: list[tuple[int, str]], last_event_id: str
) -> None:
    provider, _ = tenfive()
    cursor: Cursor | None = None
    for seq, sse_id in frames:
        (reading,) = provider.read(frame(envelope(seq), sse_id), cursor)
        cursor = reading.cursor
    assert provider.stream("r", cursor).headers["Last-Event-ID"] == last_event_id


@pytest.mark.parametrize(("cursor", "kept"), [("9", False), ("10", False), ("10 evt-a", False), ("8", True)])
def test_what_is_at_or_below_the_cursor_is_dropped_by_number(cursor: str, kept: bool) -> None:
    assert bool(tenfive()[0].read(frame(envelope(9)), Cursor(cursor))) is kept


@pytest.mark.parametrize(
    ("cursor", "seq", "hole"),
    [(None, 1, False), (None, 2, True), ("4", 5, False), ("4", 7, True), ("4 evt-a", 6, True)],
)
def test_a_jump_in_seq_asks_for_a_backfill_and_is_no_loss(cursor: str | None, seq: int, hole: bool) -> None:
    (reading,) = tenfive()[0].read(frame(envelope(seq)), Cursor(cursor) if cursor else None)
    assert (reading.hole, reading.key) == (hole, str(seq))


@pytest.mark.parametrize(
    ("kind", "value", "type_", "detail"),
    [
        ("step.progress", {"kind": "content_delta", "content_delta": "Key "}, EventType.OUTPUT, {"text": "Key "}),
        (
            "step.progress",
            {"kind": "tool_call", "n": 1},
            EventType.PROGRESS,
            {"progress": {"kind": "tool_call", "n": 1}},
        ),
        ("step.progress", {"kind": "content_delta", "content_delta": 7}, EventType.PROGRESS, ...),
        ("step.done", {"outcome": "retry_step"}, EventType.STEP, {"step": {"outcome": "retry_step"}}),
        ("run.rerouted", {"to": "b"}, EventType.STATE, {"event": "run.rerouted", "state": {"to": "b"}}),
        ("usage.noted", {"n": 1}, EventType.UNMAPPED, {"reason": "unknown_kind", "kind": "usage.noted"}),
        (["run.created"], {}, EventType.UNMAPPED, ...),
    ],
)
def test_each_detail_of_a_run_is_read_with_its_mark_of_redaction(
    kind: Any, value: Any, type_: EventType, detail: Any
) -> None:
    for redacted in (True, False):
        reading = said(kind, value, redacted=redacted)
        assert (reading.type, reading.status, reading.time) == (type_, None, "2026-03-25T14:30:00.000Z")
        if detail is not ...:
            assert reading.detail == detail | {"redacted": redacted}


@pytest.mark.parametrize(
    ("kind", "value", "status", "word"),
    [
        ("run.created", {}, JobStatus.PENDING, "queued"),
        ("run.worker.started", {"to_status": "running"}, JobStatus.RUNNING, "running"),
        ("run.worker.started", {}, JobStatus.RUNNING, "running"),
        ("run.awaiting_input", {}, JobStatus.WAITING, "awaiting_input"),
        ("run.worker.succeeded", {}, JobStatus.COMPLETED, "succeeded"),
        ("run.worker.failed", {}, JobStatus.FAILED, "failed"),
        ("run.cancelled", {}, JobStatus.CANCELLED, "cancelled"),
        ("run.limit_exceeded", {}, JobStatus.FAILED, "failed"),
        # `to_status` counts more than the name, and makes a type that nobody knows useful
        ("run.worker.failed", {"to_status": "queued"}, JobStatus.PENDING, "queued"),
        ("run.worker.lost", {"to_status": "stalled"}, JobStatus.PAUSED, "stalled"),
        ("tool.moved", {"to_status": "running"}, JobStatus.RUNNING, "running"),
        # a word that nobody knows leaves the run where the name of the event puts it
        ("run.worker.succeeded", {"to_status": "accomplished"}, JobStatus.COMPLETED, "accomplished"),
        ("run.dreaming", {"to_status": "asleep"}, None, "asleep"),
    ],
)
def test_a_transition_moves_the_run(kind: str, value: Any, status: JobStatus | None, word: str) -> None:
    reading = said(kind, value)
    assert (reading.type, reading.status, reading.provider_status) == (None, status, word)
    assert reading.detail is not None
    assert reading.detail["event"] == kind


def test_a_waiting_run_tells_what_it_can_be_told() -> None:
    reading = said("run.awaiting_input", {"request_id": "req-1", "prompt": "Approve?"})
    assert reading.waiting_for == {"actions": ["approve", "reject", "submit_input"], "prompt": "Approve?"}


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        (
            "run.worker.failed",
            {"reason_code": "step_failed", "request_id": "req-1", "from_status": "running", "to_status": "failed"},
            {"reason_code": "step_failed", "request_id": "req-1"},
        ),
        ("run.worker.failed", {"error": {"message": "boom", "at": 3}}, {"message": "boom", "at": 3}),
        ("run.limit_exceeded", {"request_id": "r1"}, {"reason": "limit_exceeded", "request_id": "r1"}),
        ("run.limit_exceeded", {"to_status": "failed"}, {"reason": "limit_exceeded"}),
        (
            "run.cancelled",
            {"reason_code": "by_owner", "message": "enough"},
            {"reason_code": "by_owner", "message": "enough"},
        ),
        ("run.cancelled", {}, None),
    ],
)
def test_a_failure_keeps_its_reason_and_its_request(kind: str, value: dict[str, Any], error: Any) -> None:
    reading = said(kind, value)
    assert reading.error == error
    assert reading.detail is not None
    assert {name: reading.detail.get(name) for name in ("reason_code", "request_id")} == {
        name: value.get(name) for name in ("reason_code", "request_id")
    }


@pytest.mark.parametrize("payload", [None, [], "x", {}, {"value": [1]}, {"redacted": True}])
def test_a_payload_of_another_shape_loses_no_event(payload: Any) -> None:
    event = envelope(2, "run.worker.succeeded") | {"payload": payload}
    (reading,) = tenfive()[0].read(frame(event), Cursor("1"))
    assert (reading.key, reading.status) == ("2", JobStatus.COMPLETED)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>", "not_json"),
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        ([1, 2], "no_seq"),
        ({"type": "ping"}, "no_seq"),
        ({"seq": "7"}, "no_seq"),
        ({"seq": True}, "no_seq"),
        ({"seq": -1}, "no_seq"),
        ({"seq": 7.5}, "no_seq"),
    ],
)
def test_a_frame_without_a_seq_is_kept_once_and_moves_no_cursor(data: Any, reason: str) -> None:
    provider, _ = tenfive()
    (reading,) = provider.read(frame(data), Cursor("4"))
    (again,) = provider.read(frame(data), Cursor("9"))
    (other,) = provider.read(frame({"type": "other"}), None)
    assert (reading.type, reading.cursor, reading.hole) == (EventType.UNMAPPED, None, False)
    assert reading.detail is not None
    assert reading.detail["reason"] == reason
    assert reading.key == again.key != other.key


def test_an_oversized_frame_keeps_its_place_where_its_seq_can_still_be_read() -> None:
    provider, _ = tenfive()
    start = b'{"seq":12,"type":"step.progress","payl'
    (reading,) = provider.read(frame(start, dropped=5000), Cursor("11"))
    assert (reading.key, reading.cursor, reading.type) == ("12", "12", EventType.UNMAPPED)
    assert reading.detail == {"reason": "oversized", "bytes": 5038, "start": start.decode(), "truncated": True}
    assert provider.read(frame(start, dropped=5000), Cursor("12")) == ()
    (unplaced,) = provider.read(frame(b'{"type":"x","a":"', dropped=5000), Cursor("11"))
    assert (unplaced.cursor, unplaced.type) == (None, EventType.UNMAPPED)


# -- the list


async def test_the_list_fills_in_what_is_beyond_the_cursor_page_by_page() -> None:
    provider, http = tenfive(lists([envelope(seq) for seq in (1, 2, 4, 5, 8, 9, 10)]))
    readings = await filled(provider, "2 evt-b")
    assert [(reading.key, reading.cursor) for reading in readings] == [
        (str(seq), f"{seq} evt-b") for seq in (4, 5, 8, 9, 10)
    ]
    assert not any(reading.hole for reading in readings)
    asked = [request.params for request in http.requests if request.url == f"{RUNS}/r/events"]
    assert asked == [{"limit": "100", "after": after} for after in ("2", "8", "10")]


async def test_the_list_and_the_stream_tell_the_same_event() -> None:
    event = envelope(3, "run.worker.failed", {"reason_code": "step_failed"})
    provider, _ = tenfive(lists([event]))
    (listed,) = await filled(provider, "2")
    (streamed,) = provider.read(frame(event), Cursor("2"))
    assert listed == streamed


async def test_a_list_that_never_ends_is_left_when_it_brings_nothing_new() -> None:
    def answer(request: Request) -> Any:
        return {"events": [envelope(1), envelope(2)], "next_cursor": f"page-{len(http.requests)}"}

    provider, http = tenfive(answer, events_cursor_param="cursor")
    assert [reading.key for reading in await filled(provider, None)] == ["1", "2"]
    assert [request.params.get("cursor") for request in http.requests] == [None, "page-1"]


async def test_a_next_page_that_the_list_names_is_asked_for_by_that_name() -> None:
    pages = {None: ([1, 2], "opaque"), "opaque": ([3], None)}

    def answer(request: Request) -> Any:
        seqs, following = pages[request.params.get("page_token")]
        return {"items": [envelope(seq) for seq in seqs], "next": following}

    settings = {"events_field": "items", "events_next_field": "next", "events_limit_param": "n", "events_page": 2}
    provider, http = tenfive(answer, events_cursor_param="page_token", **settings)
    assert [reading.key for reading in await filled(provider, None)] == ["1", "2", "3"]
    assert [request.params.get("n") for request in http.requests] == ["2", "2"]


async def test_a_bare_list_and_events_out_of_order_will_do() -> None:
    provider, _ = tenfive(
        lambda request: [envelope(2), envelope(1), "noise"] if not request.params.get("a") else [],
        events_cursor_param="a",
    )
    assert [reading.key for reading in await filled(provider, None)] == ["1", "2"]


@pytest.mark.parametrize("status", [400, 422])
async def test_a_seq_that_is_refused_as_a_cursor_makes_the_list_start_at_its_beginning(status: int) -> None:
    def answer(request: Request) -> Any:
        refused = Answer(status, {}, b'{"reason_code":"CURSOR_INVALID"}', 0.0)
        return refused if request.params.get("after") == "2" else {"events": [envelope(n) for n in (1, 2, 3)]}

    provider, _ = tenfive(answer, events_cursor_param="after")
    assert [reading.key for reading in await filled(provider, "2")] == ["3"]


async def test_a_list_refused_without_a_cursor_is_not_asked_again() -> None:
    provider, http = tenfive(lambda request: Answer(400, {}, b"{}", 0.0), events_cursor_param="after")
    with pytest.raises(Rejected) as caught:
        await filled(provider, None)
    assert caught.value.reason == "refused"
    assert len(http.requests) == 1


async def test_a_list_without_events_is_no_list() -> None:
    provider, _ = tenfive(lambda request: {"data": []}, events_cursor_param="after")
    with pytest.raises(Temporary) as caught:
        await filled(provider, "1")
    assert caught.value.reason == "not_json"


# -- openapi.json


def described(*names: str, path: str = "/v1/runs/{runId}/events") -> dict[str, Any]:
    parameters = [{"in": "path", "name": "since"}, *({"in": "query", "name": name} for name in names)]
    return {"paths": {"/v1/runs/{runId}": {}, path: {"get": {"parameters": parameters}}}}


def cursor_params(http: CannedHttp) -> list[set[str]]:
    return [set(request.params) - {"limit"} for request in http.requests if request.params]


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (described("limit", "after_seq"), "after_seq"),
        (described("limit", "cursor", path="/runs/{id}/events"), "cursor"),
        (described("limit"), "after"),
        (described("cursor", path="/v1/runs/{id}/events/stream"), "after"),
        ({"paths": []}, "after"),
        ({"paths": {"/v1/runs/{id}/events": {"get": {"parameters": [{"$ref": "#/x"}]}}}}, "after"),
        ([], "after"),
        (Answer(404, {}, b"<html>", 0.0), "after"),
        (Answer(401, {}, b"{}", 0.0), "after"),
    ],
)
async def test_the_deployments_description_names_the_cursor_and_is_read_once(document: Any, name: str) -> None:
    provider, http = tenfive(lambda request: document if "openapi" in request.url else {"events": []})
    await filled(provider, "7")
    await filled(provider, "8")
    assert cursor_params(http) == [{name}, {name}]
    (asked,) = (request for request in http.requests if "openapi" in request.url)
    assert asked == Request("http://tenfive.test/openapi.json")  # it asks for no key


async def test_a_description_in_trouble_is_asked_for_again() -> None:
    documents = iter([Answer(503, {}, b"", 0.0), described("since")])
    provider, http = tenfive(lambda request: next(documents) if "openapi" in request.url else {"events": []})
    await filled(provider, "7")
    await filled(provider, "7")
    assert cursor_params(http) == [{"after"}, {"since"}]


async def test_a_cursor_named_in_the_settings_needs_no_description() -> None:
    provider, http = tenfive(lambda request: {"events": []}, events_cursor_param="from")
    await filled(provider, "7")
    assert [request.url for request in http.requests] == [f"{RUNS}/r/events"]
    assert cursor_params(http) == [{"from"}]


# -- the record


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"status": "queued"}, Reading(status=JobStatus.PENDING)),
        ({"status": "awaiting_input"}, Reading(status=JobStatus.WAITING)),
        (
            {"status": "stalled", "reason_code": "lost"},
            Reading(status=JobStatus.PAUSED, detail={"reason_code": "lost"}),
        ),
        ({"status": "hibernating"}, Reading(status=None)),
        (
            {"status": "succeeded", "output": {"a": 1}, "completed_at": "2026-11-01T00:00:00Z", "error": None},
            Reading(status=JobStatus.COMPLETED, result={"a": 1}, time="2026-11-01T00:00:00Z"),
        ),
        ({"status": "succeeded", "result": 0, "output": 1}, Reading(status=JobStatus.COMPLETED, result=0)),
        (
            {"status": "failed", "error": "boom", "reason_code": "step_failed", "request_id": "r1"},
            Reading(
                status=JobStatus.FAILED,
                detail={"reason_code": "step_failed", "request_id": "r1"},
                error={"message": "boom", "reason_code": "step_failed", "request_id": "r1"},
            ),
        ),
        (
            {"status": "failed", "reason_code": "limit_exceeded"},
            Reading(
                status=JobStatus.FAILED,
                detail={"reason_code": "limit_exceeded"},
                error={"reason": "limit_exceeded", "reason_code": "limit_exceeded"},
            ),
        ),
        ({"status": "cancelled"}, Reading(status=JobStatus.CANCELLED)),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
async def test_the_run_record_is_read_leniently(record: dict[str, Any], expected: Reading, wrapped: bool) -> None:
    provider, http = tenfive(lambda request: {"run": record} if wrapped else record)
    reading = await provider.status("j/1")
    assert orjson.loads(reading.payload or b"") == record
    known = {name: getattr(expected, name) for name in expected._fields}
    assert reading == Reading(**known | {"provider_status": record["status"], "payload": reading.payload})
    assert http.requests[0].url == f"{RUNS}/j%2F1"


@pytest.mark.parametrize("body", [[], {}, {"status": 7}, {"run": None}, "queued"])
async def test_a_record_without_a_status_is_asked_for_again(body: Any) -> None:
    with pytest.raises(Temporary) as caught:
        await tenfive(lambda request: body)[0].status("j")
    assert caught.value.reason == "not_json"


# -- errors and actions


@pytest.mark.parametrize(
    ("status", "code", "error", "reason"),
    [
        (400, "CURSOR_INVALID", Rejected, "stale_cursor"),
        (401, "AUTH_KEY_INVALID", Fatal, "unauthorized"),
        (403, "FORBIDDEN", Rejected, "denied"),
        (404, "RUN_NOT_FOUND", Rejected, "not_found"),
        (410, "GONE", Rejected, "gone"),
        (422, "CURSOR_INVALID", Rejected, "stale_cursor"),
        (429, "RATE_LIMITED", Temporary, "rate_limited"),
        (500, "INTERNAL", Temporary, "server_error"),
        (503, None, Temporary, "server_error"),
    ],
)
def test_the_error_table_says_what_to_do_next(
    status: int, code: str | None, error: type[BridgeError], reason: str
) -> None:
    told = {"error": "x" * 300, "reason_code": code, "request_id": "req-9"}
    body = orjson.dumps(told) if code else b"<html>"
    raised = tenfive()[0].refusal(Answer(status, {"Retry-After": "7"}, body, 0.0))
    assert type(raised) is error
    assert raised.reason == reason
    assert code is None or f"HTTP {status}: {code}" in str(raised)
    assert not isinstance(raised, Temporary) or raised.after_s == 7.0


async def test_a_400_of_the_record_is_not_about_a_cursor() -> None:
    provider, _ = tenfive(lambda request: Answer(400, {}, b"{}", 0.0))
    with pytest.raises(Rejected) as caught:
        await provider.status("j")
    assert caught.value.reason == "refused"


@pytest.mark.parametrize(
    ("action", "body", "path"),
    [
        (Action.INPUT, {"action": "approve"}, "signal"),
        (Action.INPUT, {"action": "submit_input", "input": {"amount": 12}}, "signal"),
        (Action.RESUME, {}, "resume"),
        (Action.CANCEL, {"why": "enough"}, "cancel"),
    ],
)
async def test_a_persons_wish_goes_to_the_runs_own_route_and_the_answer_comes_back(
    action: Action, body: dict[str, Any], path: str
) -> None:
    provider, http = tenfive(lambda request: CONFLICT, cancel_path="cancel")
    assert await provider.act("a/b", action, body) is CONFLICT
    headers = {"Authorization": "Bearer k1:s1"}
    assert http.requests == [Request(f"{RUNS}/a%2Fb/{path}", "POST", headers=headers, body=body)]


@pytest.mark.parametrize(
    ("action", "body", "reason"),
    [
        (Action.INPUT, {}, "invalid"),
        (Action.INPUT, {"action": "maybe"}, "invalid"),
        (Action.INPUT, {"action": ["approve"]}, "invalid"),
        (Action.CANCEL, {}, "unsupported"),
    ],
)
async def test_a_wish_that_cannot_be_granted_is_not_passed_on(
    action: Action, body: dict[str, Any], reason: str
) -> None:
    provider, http = tenfive()
    with pytest.raises(Rejected) as caught:
        await provider.act("j", action, body)
    assert caught.value.reason == reason
    assert http.requests == []


async def test_a_next_page_that_is_refused_is_asked_for_again_and_parks_nothing() -> None:
    def answer(request: Request) -> Any:
        if request.params.get("after") == "p2":
            return Answer(400, {}, b'{"reason_code":"BAD_CURSOR"}', 0.0)
        return {"events": [envelope(1)], "next_cursor": "p2"}

    provider, _ = tenfive(answer, events_cursor_param="after")
    pages = provider.backfill("r", None)
    told = await anext(pages)
    with pytest.raises(Temporary, match="BAD_CURSOR") as raised:
        await anext(pages)
    assert (raised.value.reason, [reading.cursor for reading in told]) == ("page_refused", ["1"])


async def test_a_run_whose_events_begin_at_zero_is_read_beyond_a_page_of_one() -> None:
    provider, _ = tenfive(
        lambda request: {
            "events": [e for n in (0, 1) if n > int(request.params.get("after", -1)) for e in [envelope(n)]][:1]
        },
        events_cursor_param="after",
        events_page=1,
    )
    assert [reading.key for reading in await filled(provider, None)] == ["0", "1"]
