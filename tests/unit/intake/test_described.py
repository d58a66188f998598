"""Described APIs: what a description may say, what is asked for, and how answers and frames are read by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from doubles import CannedHttp
from pydantic import SecretStr, ValidationError

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobStatus
from bridge.intake.provider import Action, Answer, Frame, Reading, Request
from bridge.intake.providers.described import Polled, PollSettings, SseSettings, Streamed
from bridge.secret import Referenced

PROVIDERS = Path(__file__).parents[3] / "config" / "providers"
KEYS = {
    "openai": {"Authorization": "Bearer k"},
    "langgraph": {"x-api-key": "k"},
    "replicate": {"Authorization": "Bearer k"},
    "fal": {"Authorization": "Key k"},
}

PLAIN: dict[str, Any] = {
    "base_url": "http://plain.test",
    "statuses": {"going": "running", "done": "completed", "broken": "failed"},
    "stream": {"url": "/jobs/{job_id}/events", "frames": {"token": {"type": "job.output", "detail": {"text": "t"}}}},
    "status": {"url": "/jobs/{job_id}", "status": "state"},
}


def canned(answer: Callable[[Request], Any] | Any) -> CannedHttp:
    return CannedHttp(answer if callable(answer) else lambda _request: answer)


def described(name: str, answer: Any = None, **settings: Any) -> tuple[Streamed, CannedHttp]:
    """One of the descriptions in `config/providers`, at work."""
    http = canned(answer)
    given = {
        "provider": "sse",
        "api": {"file": str(PROVIDERS / f"{name}.yaml")},
        "base_url": f"http://{name}.test",
        "headers": {key: SecretStr(value) for key, value in KEYS[name].items()},
    } | settings
    return Streamed(SseSettings.model_validate(given), http), http


def plain(answer: Any = None, **changes: Any) -> tuple[Streamed, CannedHttp]:
    """A small API written here, with some of it changed."""
    http = canned(answer)
    return Streamed(SseSettings.model_validate({"provider": "sse", "api": PLAIN | changes}), http), http


def frame(data: Any, event: str = "message", frame_id: str = "", dropped: int = 0) -> Frame:
    return Frame(event, data if isinstance(data, bytes) else orjson.dumps(data), frame_id, dropped)


def one(provider: Streamed, *parts: Any, cursor: str | None = None, **more: Any) -> Reading:
    (reading,) = provider.read(frame(*parts, **more), Cursor(cursor) if cursor else None)
    return reading


def said(reading: Reading) -> dict[str, Any]:
    """What a reading says, without its place and payload."""
    places = {"key", "cursor", "payload", "told", "fingerprint", "hole", "reopen"}
    return {n: v for n in reading._fields if n not in places and (v := getattr(reading, n)) is not None}


# -- OpenAI background responses


def test_openai_resumes_behind_the_sequence_number() -> None:
    provider, _ = described("openai")
    request = provider.stream("resp_1", Cursor("41"))
    assert request.url == "http://openai.test/v1/responses/resp_1?stream=true"
    assert request.params == {"starting_after": "41"}
    assert request.headers == {"Authorization": "Bearer k"}
    assert provider.stream("resp_1", None).params == {}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            {"type": "response.created", "response": {"status": "queued"}},
            {"status": JobStatus.PENDING, "provider_status": "queued"},
        ),
        (
            {"type": "response.in_progress", "response": {"status": "in_progress"}},
            {"status": JobStatus.RUNNING, "provider_status": "in_progress"},
        ),
        (
            {"type": "response.output_text.delta", "delta": "Hel", "item_id": "m"},
            {"type": EventType.OUTPUT, "detail": {"text": "Hel"}},
        ),
        (
            {"type": "response.reasoning_summary_text.delta", "delta": "hm"},
            {"type": EventType.OUTPUT, "detail": {"reasoning": "hm"}},
        ),
        (
            {"type": "response.output_item.added", "item": {"type": "message", "id": "m"}},
            {"type": EventType.STEP, "step": "message", "detail": {"item": {"type": "message", "id": "m"}}},
        ),
        (
            {"type": "response.web_search_call.searching", "item_id": "ws"},
            {"type": EventType.TOOL, "detail": {"kind": "response.web_search_call.searching", "item": "ws"}},
        ),
        (
            {"type": "response.code_interpreter_call_code.delta", "delta": "x", "item_id": "ci"},
            {"type": EventType.TOOL, "detail": {"kind": "response.code_interpreter_call_code.delta", "item": "ci"}},
        ),
        ({"type": "response.hologram"}, {"type": EventType.STATE, "detail": {"kind": "response.hologram"}}),
        (
            {"type": "response.completed", "response": {"status": "completed", "output": [{"text": "Hello"}]}},
            {"status": JobStatus.COMPLETED, "provider_status": "completed", "result": [{"text": "Hello"}]},
        ),
        (
            {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}},
            {"status": JobStatus.FAILED, "provider_status": "failed", "error": {"code": "server_error"}},
        ),
        (
            {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}},
            {"status": JobStatus.FAILED, "error": {"reason": "max_output_tokens"}},
        ),
        (
            {"type": "error", "code": "c", "message": "m"},
            {"status": JobStatus.FAILED, "error": {"code": "c", "message": "m", "param": None}},
        ),
    ],
    ids=lambda value: value.get("type", "") if isinstance(value, dict) else None,
)
def test_openai_frames_are_read_by_their_type(payload: dict[str, Any], expected: dict[str, Any]) -> None:
    provider, _ = described("openai")
    reading = one(provider, payload | {"sequence_number": 7}, payload["type"])
    assert said(reading) == expected
    assert (reading.key, reading.cursor) == ("7", "7")
    assert orjson.loads(reading.payload or b"") == payload | {"sequence_number": 7}


@pytest.mark.parametrize(("number", "kept"), [(9, False), (10, False), (11, True), (100, True)])
def test_openai_frames_at_or_below_the_cursor_are_dropped_by_number(number: int, kept: bool) -> None:
    provider, _ = described("openai")
    payload = {"type": "response.output_text.delta", "delta": "x", "sequence_number": number}
    assert bool(provider.read(frame(payload), Cursor("10"))) is kept


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"status": "queued", "output": []}, {"status": JobStatus.PENDING, "provider_status": "queued"}),
        (
            {"status": "completed", "model": "o1", "output": [1], "error": None, "completed_at": 1764000000},
            {
                "status": JobStatus.COMPLETED,
                "provider_status": "completed",
                "kind": "o1",
                "result": [1],
                "time": "2025-11-24T16:00:00Z",
            },
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            {
                "status": JobStatus.FAILED,
                "provider_status": "incomplete",
                "error": {"reason": "content_filter"},
            },
        ),
        ({"status": "cancelled"}, {"status": JobStatus.CANCELLED, "provider_status": "cancelled"}),
        ({"status": "hibernating"}, {"provider_status": "hibernating"}),
    ],
)
async def test_openai_status_words_are_translated_and_unknown_ones_kept(body: Any, expected: Any) -> None:
    provider, http = described("openai", body)
    reading = await provider.status("resp_1")
    assert said(reading) == expected
    assert orjson.loads(reading.payload or b"") == body
    assert http.requests[0].url == "http://openai.test/v1/responses/resp_1"


# -- LangGraph runs


def test_langgraph_takes_its_id_apart_and_begins_by_replaying_all() -> None:
    provider, _ = described("langgraph")
    request = provider.stream("t ü/r", None)
    assert request.url == "http://langgraph.test/threads/t%20%C3%BC/runs/r/stream"
    assert request.headers == {"x-api-key": "k", "Last-Event-ID": "-1"}
    assert provider.stream("t/r", Cursor("17-0")).headers["Last-Event-ID"] == "17-0"


@pytest.mark.parametrize("job_id", ["lonely", "/r", "t/", "../r", "t/.."])
async def test_an_id_that_does_not_fit_the_routes_is_refused(job_id: str) -> None:
    provider, http = described("langgraph")
    with pytest.raises(Rejected) as streaming:
        provider.stream(job_id, None)
    with pytest.raises(Rejected) as asking:
        await provider.status(job_id)
    assert (streaming.value.reason, asking.value.reason) == ("invalid_job_id", "invalid_job_id")
    assert http.requests == []


@pytest.mark.parametrize(
    ("event", "data", "expected"),
    [
        ("metadata", {"run_id": "r"}, {"status": JobStatus.RUNNING}),
        ("values", {"a": 1}, {"status": JobStatus.RUNNING, "detail": {"values": {"a": 1}}}),
        (
            "updates",
            {"__interrupt__": [{"value": "ok?"}]},
            {
                "status": JobStatus.WAITING,
                "waiting_for": [{"value": "ok?"}],
                "detail": {"updates": {"__interrupt__": [{"value": "ok?"}]}},
            },
        ),
        (
            "messages",
            [{"content": "Hel"}, {"node": "n"}],
            {"type": EventType.OUTPUT, "detail": {"text": "Hel", "chunk": [{"content": "Hel"}, {"node": "n"}]}},
        ),
        ("messages/partial", [1], {"type": EventType.OUTPUT, "detail": {"messages": [1]}}),
        ("updates|sub:1", {"n": 1}, {"status": JobStatus.RUNNING, "detail": {"updates": {"n": 1}}}),
        ("hologram", 1, {"type": EventType.UNMAPPED, "detail": {"reason": "unknown_kind", "kind": "hologram"}}),
        ("error", {"message": "m"}, {"status": JobStatus.FAILED, "error": {"message": "m"}}),
    ],
)
def test_langgraph_frames_are_read_by_their_event_name(event: str, data: Any, expected: Any) -> None:
    provider, _ = described("langgraph")
    assert said(one(provider, data, event, frame_id="5-0")) == expected


def test_the_end_of_a_run_has_no_id_of_its_own_and_still_always_the_same_key() -> None:
    provider, _ = described("langgraph")
    same_connection = one(provider, b"", "end", frame_id="5-0", cursor="5-0")
    next_connection = one(provider, b"", "end", cursor="5-0")
    assert (same_connection.key, same_connection.status) == ("5-0.end", JobStatus.COMPLETED)
    assert next_connection.key == same_connection.key
    assert one(provider, {}, "values", frame_id="5-0").key == "5-0"


@pytest.mark.parametrize(
    ("run", "state", "expected"),
    [
        ({"status": "pending"}, None, {"status": JobStatus.PENDING}),
        ({"status": "timeout"}, None, {"status": JobStatus.FAILED}),
        ({"status": "success"}, {"answer": 1}, {"status": JobStatus.COMPLETED, "result": {"answer": 1}}),
        (
            {"status": "interrupted"},
            {"tasks": [{"interrupts": []}, {"interrupts": [{"value": "ok?"}]}]},
            {"status": JobStatus.WAITING, "waiting_for": [{"value": "ok?"}]},
        ),
        ({"status": "interrupted"}, {"tasks": []}, {"status": JobStatus.CANCELLED}),
        ({"status": "interrupted", "cancel_reason": "user"}, None, {"status": JobStatus.CANCELLED}),
    ],
)
async def test_langgraph_asks_again_where_the_word_does_not_tell(run: Any, state: Any, expected: Any) -> None:
    provider, http = described("langgraph", lambda request: run if request.url.endswith("/runs/r") else state)
    reading = await provider.status("t/r")
    assert said(reading) == expected | {"provider_status": run["status"]}
    assert len(http.requests) == (1 if state is None else 2)


# -- Replicate predictions


def test_replicate_streams_from_another_host() -> None:
    provider, _ = described("replicate")
    assert provider.stream("p1", None).url == "https://streaming.api.replicate.com/v1/predictions/p1"
    elsewhere, _ = described("replicate", stream_base_url="http://streams.test/")
    request = elsewhere.stream("p1", Cursor("1690212292:0"))
    assert request.url == "http://streams.test/v1/predictions/p1"
    assert request.headers["Last-Event-ID"] == "1690212292:0"


@pytest.mark.parametrize(
    ("event", "data", "expected"),
    [
        ("output", b"Once\nupon", {"type": EventType.OUTPUT, "detail": {"text": "Once\nupon"}}),
        ("output", b"42", {"type": EventType.OUTPUT, "detail": {"text": "42"}}),
        ("output", b"", {"type": EventType.OUTPUT, "detail": {"text": ""}}),
        ("logs", b"step 1", {"type": EventType.STATE, "detail": {"logs": "step 1"}}),
        ("error", b"boom", {"type": EventType.STATE, "detail": {"error": "boom"}}),
        ("done", b'{"reason": "canceled"}', {"status": JobStatus.COMPLETED}),
    ],
)
def test_replicate_frames_are_plain_text(event: str, data: bytes, expected: Any) -> None:
    provider, _ = described("replicate")
    reading = one(provider, data, event, frame_id="1690212292:0")
    assert said(reading) == expected
    assert (reading.key, reading.cursor) == ("1690212292:0", "1690212292:0")
    assert orjson.loads(reading.payload or b"") == data.decode()


async def test_replicate_results_count_only_once_the_prediction_is_over() -> None:
    body: dict[str, Any] = {"status": "processing", "output": ["a"], "error": None}
    provider, _ = described("replicate", lambda _request: body)
    assert said(await provider.status("p1")) == {"status": JobStatus.RUNNING, "provider_status": "processing"}
    body |= {"status": "failed", "error": "boom"}
    failed = await provider.status("p1")
    assert (failed.status, failed.error, failed.result) == (JobStatus.FAILED, {"message": "boom"}, ["a"])


@pytest.mark.parametrize("place", ["mailto:.evil.test/x", "//evil.test/x", "http://evil.test:1/x", "https://evil.test"])
async def test_no_page_leads_to_another_host(place: str) -> None:
    provider, http = described("replicate", lambda request: {"results": [{"id": request.url}], "next": place})
    async for _ in provider.jobs():
        if len(http.requests) == 2:
            break
    assert urlsplit(http.requests[1].url).netloc == "replicate.test"


async def test_a_listing_follows_addresses_but_never_takes_its_key_elsewhere() -> None:
    pages = {
        "/v1/predictions": {
            "results": [{"id": "a"}, {"id": "b"}, {"no": "id"}],
            "next": "http://evil.test/v1/predictions?c=2",
        },
        "/v1/predictions?c=2": {"results": [{"id": "b"}, {"id": "c"}], "next": "?c=3"},
        "/v1/predictions?c=3": {"results": [{"id": "a"}], "next": "?c=4"},
    }
    provider, http = described("replicate", lambda request: pages[request.url.removeprefix("http://replicate.test")])
    assert [page async for page in provider.jobs()] == [["a", "b"], ["c"]]
    assert len(http.requests) == 3


# -- fal queue requests

REQUEST = "fal-ai/fast-sdxl/req_1"


def test_fal_keeps_the_slash_in_the_name_of_a_model() -> None:
    provider, _ = described("fal")
    request = provider.stream(REQUEST, None)
    assert request.url == "http://fal.test/fal-ai/fast-sdxl/requests/req_1/status/stream?logs=1"
    assert (request.headers, request.params) == ({"Authorization": "Key k"}, {})


def test_fal_frames_are_states_that_can_be_told_apart() -> None:
    provider, _ = described("fal")
    states = [
        {"status": "IN_QUEUE", "queue_position": 0},
        {"status": "IN_QUEUE", "queue_position": 0, "response_url": "elsewhere"},
        {"status": "IN_PROGRESS", "logs": [{"message": "one"}]},
        {"status": "IN_PROGRESS", "logs": [{"message": "one"}, {"message": "two"}]},
    ]
    queued, again, logged, more = (one(provider, state) for state in states)
    assert {reading.key for reading in (queued, again, logged, more)} == {None}
    assert said(queued) == {
        "status": JobStatus.PENDING,
        "provider_status": "IN_QUEUE",
        "progress": {"queue_position": 0},
    }
    assert queued.fingerprint == again.fingerprint
    assert len({reading.fingerprint for reading in (queued, logged, more)}) == 3
    assert more.detail == {"log": "two"}


@pytest.mark.parametrize(
    ("state", "answer", "expected"),
    [
        ({"status": "COMPLETED"}, {"image": 1}, {"status": JobStatus.COMPLETED, "result": {"image": 1}}),
        (
            {"status": "COMPLETED"},
            Answer(422, {}, b'{"detail": "bad prompt"}', 0.0),
            {"status": JobStatus.FAILED, "error": {"http_status": 422, "detail": "bad prompt"}},
        ),
        (
            {"status": "COMPLETED"},
            Answer(400, {}, b"<html>no", 0.0),
            {"status": JobStatus.FAILED, "error": {"http_status": 400, "message": "<html>no"}},
        ),
        (
            {"status": "COMPLETED", "error": "runner died", "error_type": "runner"},
            None,
            {"status": JobStatus.FAILED, "error": {"message": "runner died", "type": "runner"}},
        ),
    ],
)
async def test_fal_tells_only_by_the_stored_answer_whether_it_failed(state: Any, answer: Any, expected: Any) -> None:
    provider, http = described("fal", lambda request: state if "/status" in request.url else answer)
    assert said(await provider.status(REQUEST)) == expected | {"provider_status": "COMPLETED"}
    assert len(http.requests) == (1 if answer is None else 2)


async def test_a_stored_answer_too_large_to_read_is_an_answer_all_the_same() -> None:
    def answer(request: Request) -> Any:
        if "/status" in request.url:
            return {"status": "COMPLETED"}
        raise Rejected("more than 8 MiB", reason="too_large")

    provider, _ = described("fal", answer)
    assert said(await provider.status(REQUEST)) == {"status": JobStatus.COMPLETED, "provider_status": "COMPLETED"}


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (401, Fatal, "unauthorized"),
        (403, Rejected, "denied"),
        (404, Rejected, "not_found"),
        (429, Temporary, "rate_limited"),
        (500, Temporary, "server_error"),
    ],
)
async def test_what_is_about_us_is_never_taken_for_the_jobs_failure(
    status: int, error: type[BridgeError], reason: str
) -> None:
    answers = {True: {"status": "COMPLETED"}, False: Answer(status, {}, b"{}", 0.0)}
    provider, _ = described("fal", lambda request: answers["/status" in request.url])
    with pytest.raises(error) as caught:
        await provider.status(REQUEST)
    assert caught.value.reason == reason


# -- what any description may say


def test_a_frame_without_an_id_has_a_key_that_depends_on_what_it_says() -> None:
    provider, _ = plain()
    first, again, other = (one(provider, {"t": t}, "token") for t in ("a", "a", "b"))
    assert first.key == again.key != other.key
    assert first.cursor is None


def test_a_frame_that_only_shows_life_says_nothing() -> None:
    provider, _ = plain(stream=PLAIN["stream"] | {"keep_alive": ["ping"]})
    assert provider.read(frame({"at": 1}, "ping"), None) == ()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (frame(b"<html>", "token", "7"), "not_json"),
        (frame({"t": 5}, "length", "7"), "unreadable"),
        (frame(b'{"t": "aaaa', "token", "7", dropped=5000), "oversized"),
        (frame({"t": 5}, "hologram", "7"), "unknown_kind"),
        (frame([1], "", "7"), "unknown_kind"),
    ],
    ids=["not_json", "unreadable", "oversized", "unknown", "unnamed"],
)
def test_what_cannot_be_read_is_kept_at_its_place(given: Frame, reason: str) -> None:
    frames = PLAIN["stream"]["frames"] | {"length": {"type": "job.state", "detail": {"n": "length(t)"}}}
    provider, _ = plain(stream={"url": "/s", "frames": frames, "cursor": {"header": "Last-Event-ID"}})
    (reading,) = provider.read(given, None)
    assert reading.type is EventType.UNMAPPED
    assert (reading.detail or {})["reason"] == reason
    assert (reading.key, reading.cursor) == ("7", "7")


def test_an_unreadable_frame_of_a_stream_with_a_payload_cursor_moves_no_cursor() -> None:
    provider, _ = described("openai")
    broken = one(provider, b"<html>", frame_id="7")
    assert (broken.cursor, broken.type) == (None, EventType.UNMAPPED)
    assert broken.key == one(provider, b"<html>", frame_id="7").key != "7"


@pytest.mark.parametrize(
    ("frame_id", "kept"), [("9-0", False), ("10-0", False), ("10-2", True), ("odd", True), ("", True)]
)
def test_cursors_that_rise_are_compared_by_their_numbers(frame_id: str, kept: bool) -> None:
    provider, _ = plain(stream=PLAIN["stream"] | {"cursor": {"query": "after", "ordered": True}})
    assert bool(provider.read(frame({"t": "x"}, "token", frame_id), Cursor("10-1"))) is kept


def test_only_the_statuses_described_are_about_the_cursor() -> None:
    provider, _ = plain(stream=PLAIN["stream"] | {"cursor": {"query": "after", "refused": [400, 410, 503]}})
    reasons = {status: provider.refusal(Answer(status, {}, b"", 0.0)).reason for status in (400, 410, 404, 503)}
    assert reasons == {400: "stale_cursor", 410: "stale_cursor", 404: "not_found", 503: "server_error"}


@pytest.mark.parametrize("body", [[], {}, {"state": None}, {"state": {"a": 1}}, "<html>"])
async def test_an_answer_without_a_status_is_asked_for_again(body: Any) -> None:
    provider, _ = plain(body)
    with pytest.raises(Temporary) as caught:
        await provider.status("j")
    assert caught.value.reason == "not_json"


async def test_without_a_status_route_there_is_no_second_witness() -> None:
    provider, _ = plain(status=None)
    with pytest.raises(Rejected) as caught:
        await provider.status("j")
    assert caught.value.reason == "no_status"


async def test_a_listing_by_cursor_ends_when_a_page_brings_nothing_new() -> None:
    listing = {"url": "/jobs?limit=2", "ids": "jobs[].[thread, run]", "next": "next", "query": "after"}
    provider, http = plain({"jobs": [{"thread": "t", "run": 1}, {"thread": "t"}], "next": "same"}, listing=listing)
    assert [page async for page in provider.jobs()] == [["t/1"]]
    assert [request.params for request in http.requests] == [{}, {"after": "same"}]


async def test_a_person_s_wish_goes_to_the_route_described() -> None:
    actions = {"input": {"url": "/jobs/{job_id}/input", "method": "PUT", "required": ["answer"]}}
    provider, http = plain({"ok": True}, actions=actions)
    answer = await provider.act("a/b", Action.INPUT, {"answer": 1})
    assert answer.status == 200
    (request,) = http.requests
    assert (request.method, request.url, request.body) == ("PUT", "http://plain.test/jobs/a%2Fb/input", {"answer": 1})
    for action, reason in ((Action.INPUT, "invalid"), (Action.CANCEL, "unsupported")):
        with pytest.raises(Rejected) as caught:
            await provider.act("a/b", action, {})
        assert caught.value.reason == reason


async def test_polling_leaves_the_stream_of_a_description_closed() -> None:
    settings = PollSettings.model_validate({"provider": "poll", "api": PLAIN})
    provider = Polled(settings, canned({"state": "going"}))
    assert provider.stream("j", None) is None
    assert (await provider.status("j")).status is JobStatus.RUNNING


# -- what is refused when it is configured


def sentence(kind: type[SseSettings] | type[PollSettings] = SseSettings, **settings: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"provider": "sse", "api": PLAIN} | settings)
    (flaw,) = caught.value.errors()
    return f"{'.'.join(map(str, flaw['loc']))}: {flaw['msg']}"


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("status", {"url": "/j", "status": "a["}, "api.status.status: Value error, 'a[' is no JMESPath"),
        ("status", {"url": "/j", "status": "size(a)"}, "there is no function size()"),
        ("status", {"url": "/j", "status": "&a"}, "`&` has its place"),
        ("status", {"url": "/j"}, "api: Value error, status: needs a `status` or a `verdict`"),
        (
            "status",
            {"url": "/{run_id}", "status": "s"},
            "api: Value error, status.url: nothing here is called {run_id}",
        ),
        ("status", {"url": "j", "status": "s"}, "api.status.url: Value error, 'j' is no template"),
        ("status", {"url": "/{Job}", "status": "s"}, "is no template"),
        ("status", {"url": "//evil.test/", "status": "s"}, "is no template"),
        ("statuses", {"going": "runing"}, "api.statuses.going: Input should be 'pending'"),
        ("stream", {"url": "/s", "frames": {"x": {"type": "job.ouput"}}}, "api.stream.frames.x.type: Input should be"),
        ("stream", {"url": "/s", "frames": {"x": {"type": "job.completed"}}}, "api.stream.frames.x.type"),
        ("stream", {"url": "/s", "frames": {"x": {}}}, "api.stream.frames.x: Value error, needs either a `type`"),
        ("stream", {"url": "/s", "frames": {"x": {"type": "job.state", "becomes": "failed"}}}, "needs either"),
        ("stream", {"url": "/s", "colour": 1}, "api.stream.colour: Extra inputs"),
        ("stream", None, "Value error, the API's description has no `stream`"),
        ("base_url", None, "`base_url` is needed"),
        ("headers", {"A B": "c"}, "api.headers.A B"),
        ("headers", {"A": "b\nc"}, "api.headers.A: String should match"),
    ],
)
def test_a_mistake_in_a_description_is_named_with_its_place(part: str, value: Any, expected: str) -> None:
    assert expected in sentence(api=PLAIN | {part: value})


def test_jobs_cannot_be_discovered_where_nothing_lists_them() -> None:
    assert "`discover` needs a `listing`" in sentence(discover={})


def test_a_polled_description_needs_a_status() -> None:
    assert "no `status` that could be polled" in sentence(PollSettings, api=PLAIN | {"status": None})


def test_the_latest_value_cannot_be_read_without_saying_how() -> None:
    stream = {"url": "/s", "latest_value": True}
    assert "stream.latest_value" in sentence(api=PLAIN | {"status": None, "stream": stream})


def test_mistakes_in_a_file_are_told_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text("statuses: {a: gone}\nstream: {url: /s, type: 'a['}\n")
    told = sentence(api={"file": str(path)})
    assert f"{path}: statuses.a: Input should be 'pending'" in told
    assert f"{path}: stream.type: 'a[' is no JMESPath" in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "is not valid YAML"),
        ("a: &x 1\nb: *x", "aliases (*name) are not used here"),
        ("a: !!python/name:os.system x", "statuses: Field required"),
        ("x" * 70_000, "is larger than 65536 bytes"),
        ("[" * 5_000 + "]" * 5_000, "is nested too deeply"),
        ("", "Input should be"),
    ],
    ids=["syntax", "alias", "tag", "large", "deep", "empty"],
)
def test_a_file_that_is_no_description_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    assert expected in sentence(api={"file": str(path)})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path}/none.yaml cannot be read" in sentence(api={"file": f"{tmp_path}/none.yaml"})


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "Cookie", "X-Auth-Token"])
def test_a_credential_is_never_written_down(name: str) -> None:
    told = sentence(headers={name: "Bearer hush"})
    assert f"{name}: a secret is never written here" in told
    assert "hush" not in told
    headers: Mapping[str, Any] = {name: Referenced("Bearer hush"), "X-Region": "eu"}
    settings = SseSettings.model_validate({"provider": "sse", "api": PLAIN, "headers": headers})
    assert "hush" not in repr(settings) + settings.model_dump_json()
    assert Streamed(settings, canned({})).stream("j", None).headers == {name: "Bearer hush", "X-Region": "eu"}


@pytest.mark.parametrize("path", sorted(PROVIDERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_description_in_config_can_be_polled_too(path: Path) -> None:
    settings = PollSettings.model_validate(
        {"provider": "poll", "api": {"file": str(path)}, "base_url": "http://x.test"}
    )
    assert settings.api.status is not None


# -- states that must stay what they are


@pytest.mark.parametrize("path", ["to_number(id)", "sum(sizes)"])
async def test_a_number_that_json_cannot_go_on_with_is_unreadable_and_no_bug(path: str) -> None:
    answer = orjson.loads(b'{"state":"going","id":"99999999999999999999999","sizes":[18446744073709551615,1]}')
    for name in ("fingerprint", "progress"):
        provider, _ = plain(answer, status={"url": "/jobs/{job_id}", "status": "state", name: path})
        with pytest.raises(Temporary, match="not as described"):
            await provider.status("j")


async def test_a_fingerprint_does_not_depend_on_the_order_of_members() -> None:
    marks = []
    for order in (("a", "b"), ("b", "a")):
        route = {"url": "/jobs/{job_id}", "status": "state", "fingerprint": "seen"}
        provider, _ = plain({"state": "going", "seen": dict.fromkeys(order, 1)}, status=route)
        marks.append((await provider.status("j")).fingerprint)
    assert marks[0] == marks[1]


def test_types_of_frames_are_remembered_only_while_they_are_short() -> None:
    provider, _ = plain()
    for n in range(50):
        one(provider, {}, event=f"{n}" * 5000)
    assert provider._frames._rule.cache_info().currsize == 0
