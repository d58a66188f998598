"""The ArchAstro plug: what it asks for, and how it reads what comes. Frames follow the contract's illustrations."""

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
from bridge.intake.providers.archastro import ArchAstro, ArchAstroSettings
from bridge.intake.providers.archastro.readings import Place, harness_event

API = "http://arch.test/api/v1"
KEY = {"x-archastro-api-key": "sk_1"}


def archastro(answer: Callable[[Request], Any] = lambda request: {}, **settings: Any) -> tuple[ArchAstro, CannedHttp]:
    http = CannedHttp(answer)
    given = {"provider": "archastro", "base_url": "http://arch.test/", "api_key": SecretStr("sk_1")} | settings
    return ArchAstro(ArchAstroSettings.model_validate(given), http), http


def frame(event: str, data: Any, dropped: int = 0) -> Frame:
    return Frame(event, data if isinstance(data, bytes) else orjson.dumps(data), "", dropped)


def read(event: str, data: Any, dropped: int = 0) -> Reading:
    (reading,) = archastro()[0].read(frame(event, data, dropped), None)
    return reading


def refusing(status: int, body: Any) -> Answer:
    return Answer(status, {}, body if isinstance(body, bytes) else orjson.dumps(body), 0.0)


async def filled(provider: ArchAstro, job_id: str, cursor: Cursor | None = None) -> list[Reading]:
    return [reading async for page in provider.backfill(job_id, cursor) for reading in page]


async def found(provider: ArchAstro) -> list[str]:
    return [job_id async for page in provider.jobs() for job_id in page]


# -- requests


@pytest.mark.parametrize(
    ("job_id", "stream", "one"),
    [
        ("session:ase_1", "agent_sessions/ase_1/stream", "agent_sessions/ase_1"),
        ("ase_1", "agent_sessions/ase_1/stream", "agent_sessions/ase_1"),
        ("odd:ase_1", "agent_sessions/odd%3Aase_1/stream", "agent_sessions/odd%3Aase_1"),
        ("session:a/b ü", "agent_sessions/a%2Fb%20%C3%BC/stream", "agent_sessions/a%2Fb%20%C3%BC"),
        ("routine_run:atr_9", "agent_routine_runs/atr_9/stream", "agent_routines/runs/atr_9"),
        ("automation_run:x", "automation_runs/x/stream", "automation_runs/x"),
    ],
)
async def test_the_job_id_names_the_kind_and_each_kind_has_its_own_paths(job_id: str, stream: str, one: str) -> None:
    provider, http = archastro(lambda request: {"status": "running"})
    asked = provider.stream(job_id, Cursor("whatever"))
    assert (asked.url, asked.params, asked.headers) == (f"{API}/{stream}", {}, KEY)
    await provider.status(job_id)
    assert http.requests[0].url == f"{API}/{one}"


@pytest.mark.parametrize("job_id", ["session:", "session:..", "routine_run:.", "automation_run:a\nb"])
async def test_an_id_that_would_leave_its_path_is_refused_before_any_request(job_id: str) -> None:
    provider, http = archastro()
    with pytest.raises(Rejected) as caught:
        await provider.status(job_id)
    with pytest.raises(Rejected):
        provider.stream(job_id, None)
    assert caught.value.reason == "invalid"
    assert http.requests == []


def test_key_token_prefix_and_header_name_are_settings() -> None:
    provider, _ = archastro(token=SecretStr("jwt"), api_prefix="/api/v2", api_key_header="x-api-key")
    asked = provider.stream("s", None)
    assert asked.url == "http://arch.test/api/v2/agent_sessions/s/stream"
    assert asked.headers == {"x-api-key": "sk_1", "Authorization": "Bearer jwt"}
    alone, _ = archastro(api_key=None, token=SecretStr("sat_1"))
    assert alone.stream("s", None).headers == {"Authorization": "Bearer sat_1"}


def test_quiet_streams_are_given_ninety_seconds() -> None:
    assert ArchAstroSettings.model_validate({"provider": "archastro"}).idle_timeout_s == 90


# -- states


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", JobStatus.PENDING),
        ("running", JobStatus.RUNNING),
        ("waiting", JobStatus.WAITING),
        ("completed", JobStatus.COMPLETED),
        ("failed", JobStatus.FAILED),
        ("cancelled", JobStatus.CANCELLED),
        ("hibernating", None),
    ],
)
async def test_the_stream_and_the_status_endpoint_read_a_state_alike(word: str, status: JobStatus | None) -> None:
    body = {"id": "ase_1", "agent": "agi_7", "status": word, "result": {"summary": "x"}, "error": "boom"}
    over = status is not None and status.terminal
    streamed = read("session_update", body)
    asked = await archastro(lambda request: body)[0].status("session:ase_1")
    assert streamed == asked
    assert (asked.status, asked.provider_status, asked.key, asked.kind) == (status, word, None, "session")
    assert (asked.result, asked.error) == (({"summary": "x"}, {"message": "boom"}) if over else (None, None))


def test_a_worker_or_a_delivery_that_failed_is_told_beside_and_decides_nothing() -> None:
    run = {
        "id": "arr_5",
        "routine": "arn_2",
        "status": "running",
        "updated_at": "2026-09-01T11:00:01Z",
        "worker": {"status": "discarded", "attempt": 3, "max_attempts": 3},
        "delivery": {"status": "failed"},
        "duration_ms": None,
    }
    reading = read("run_update", run)
    assert (reading.status, reading.kind, reading.time) == (JobStatus.RUNNING, "routine_run", "2026-09-01T11:00:01Z")
    assert reading.detail == {"worker": run["worker"], "delivery": run["delivery"]}
    assert read("run_update", run | {"status": "skipped"}).status is JobStatus.SKIPPED
    assert read("run_update", {"automation": "aut_1", "status": "pending"}).kind == "automation_run"


def test_the_fingerprint_is_of_the_state_and_not_of_its_spelling() -> None:
    session: dict[str, Any] = {"id": "ase_1", "status": "running", "result": {"a": 1, "b": 2}}
    same = {"status": "running", "error": None, "result": {"b": 2, "a": 1}, "metadata": {"x": 1}}
    fingerprint = read("session_update", session).fingerprint
    assert fingerprint == read("session_update", same).fingerprint
    changes: Sequence[dict[str, Any]] = (
        {"status": "waiting"},
        {"result": {"a": 2}},
        {"error": "x"},
        {"updated_at": "later"},
        {"completed_at": "now"},
        {"worker": {"attempt": 2}},
        {"delivery": {"status": "failed"}},
    )
    assert len({fingerprint, *(read("session_update", session | change).fingerprint for change in changes)}) == 8


@pytest.mark.parametrize("body", [{}, {"status": None}, {"status": 3}, [], "x"])
async def test_an_answer_without_a_status_is_passing_trouble(body: Any) -> None:
    with pytest.raises(Temporary) as caught:
        await archastro(lambda request: body)[0].status("s")
    assert caught.value.reason == "not_json"


# -- harness events


@pytest.mark.parametrize(
    ("event", "type_", "name"),
    [
        ("message", EventType.OUTPUT, "block"),
        ("tool_use", EventType.TOOL, "tool"),
        ("activity", EventType.PROGRESS, "activity"),
        ("needs_input", EventType.STATE, "needs_input"),
        ("session_started", EventType.STATE, "state"),
        ("turn_complete", EventType.STATE, "state"),
        ("error", EventType.STATE, "state"),
        ("finished", EventType.STATE, "state"),
        ("adopted", EventType.STATE, "state"),
        ("harness_raw", EventType.STATE, "state"),
    ],
)
def test_each_harness_event_stands_under_its_own_id_and_none_ends_the_session(
    event: str, type_: EventType, name: str
) -> None:
    body = {"id": "cse_11", "event": event, "harness": "codex", "occurred_at": "t", "payload": {"tool": "shell"}}
    reading = read("session_event", body)
    assert (reading.type, reading.key, reading.time, reading.status) == (type_, "cse_11", "t", None)
    assert reading.detail == {"event": event, "harness": "codex", name: {"tool": "shell"}}
    assert reading.waiting_for == ({"tool": "shell"} if event == "needs_input" else None)
    assert reading.cursor is not None


@pytest.mark.parametrize("event", ["plan_note", None, ["message"]])
def test_an_unknown_harness_event_is_kept_under_its_id(event: Any) -> None:
    reading = read("session_event", {"id": "cse_1", "event": event})
    assert (reading.type, reading.key) == (EventType.UNMAPPED, "cse_1")
    assert reading.detail is not None
    assert reading.detail["reason"] == "unknown_kind"


def test_a_harness_event_without_an_id_moves_no_cursor_and_repeats_under_the_same_key() -> None:
    first = read("session_event", {"event": "message", "payload": {"text": "hi"}})
    again = read("session_event", b'{"event": "message",  "payload": {"text": "hi"}}')
    other = read("session_event", {"event": "message", "payload": {"text": "ho"}})
    assert first.cursor is None
    assert first.key == again.key != other.key


# -- frames that are about the stream, or about nothing


@pytest.mark.parametrize(
    "data",
    [
        {"code": "stream_timeout", "message": "maximum stream duration reached"},
        {"error": {"type": "stream_timeout"}},
        b'"stream_timeout"',
        b"stream_timeout: come back",
    ],
)
def test_the_longest_duration_of_a_stream_asks_for_a_new_one(data: Any) -> None:
    assert read("error", data) == Reading(reopen=True)


def test_another_error_of_the_stream_is_kept_and_decides_nothing() -> None:
    reading = read("error", {"message": "internal"})
    assert (reading.type, reading.status, reading.reopen) == (EventType.UNMAPPED, None, False)
    assert reading.detail == {"reason": "stream_error", "error": '{"message":"internal"}'}


@pytest.mark.parametrize(
    ("event", "data", "reason"),
    [
        ("session_update", b"<html>", "not_json"),
        ("session_update", b"", "not_json"),
        ("session_update", {"id": "ase_1"}, "unknown_kind"),
        ("run_update", {"status": 7}, "unknown_kind"),
        ("run_update", [1], "unknown_kind"),
        ("session_event", "text", "unknown_kind"),
        ("message", {"status": "running"}, "unknown_kind"),
        ("hologram", {"x": 1}, "unknown_kind"),
    ],
)
def test_what_cannot_be_read_is_kept_once_however_often_it_comes(event: str, data: Any, reason: str) -> None:
    reading, again = read(event, data), read(event, data)
    assert reading.type is EventType.UNMAPPED
    assert reading.detail is not None
    assert reading.detail["reason"] == reason
    assert reading.key == again.key
    assert reading.key is not None
    assert reading.status is None


def test_an_oversized_frame_is_kept_in_part_and_says_so() -> None:
    reading = read("session_update", b'{"status":"completed"', dropped=5000)
    assert (reading.type, reading.status) == (EventType.UNMAPPED, None)
    assert reading.detail is not None
    assert (reading.detail["reason"], reading.detail["bytes"], reading.detail["truncated"]) == ("oversized", 5021, True)


# -- logs


def events(count: int) -> list[dict[str, Any]]:
    return [{"id": f"cse_{n}", "event": "message", "payload": {"n": n}} for n in range(count)]


def events_list(log: list[dict[str, Any]]) -> Callable[[Request], Any]:
    def answer(request: Request) -> Any:
        after, ids = request.params.get("after"), [event["id"] for event in log]
        if after is not None and after not in ids:
            return refusing(400, {"error": "invalid_cursor"})
        start = ids.index(after) + 1 if after else 0
        return log[start : start + int(request.params["limit"])]

    return answer


async def test_the_events_list_is_read_page_by_page_behind_the_last_known_event() -> None:
    provider, http = archastro(events_list(events(450)))
    readings = await filled(provider, "session:ase_1")
    assert [reading.key for reading in readings] == [f"cse_{n}" for n in range(450)]
    assert [request.params.get("after") for request in http.requests] == [None, "cse_199", "cse_399"]
    assert http.requests[0].url == f"{API}/agent_sessions/ase_1/events"
    assert await filled(provider, "session:ase_1", readings[-1].cursor) == []
    assert http.requests[-1].params["after"] == "cse_449"


async def test_the_stream_and_the_events_list_share_one_cursor() -> None:
    provider, http = archastro(events_list(events(5)))
    live = read("session_event", events(5)[2])
    assert [reading.key for reading in await filled(provider, "s", live.cursor)] == ["cse_3", "cse_4"]
    assert http.requests[0].params["after"] == "cse_2"


async def test_an_events_list_that_ignores_after_is_left_when_it_brings_nothing_new() -> None:
    provider, http = archastro(lambda request: events(200))
    assert len(await filled(provider, "s")) == 200
    assert len(http.requests) == 2


def journal(count: int, page: int = 100) -> Callable[[Request], Any]:
    """Sequences 1, 3, 5 ...: rising, not without gaps. The last page names no next one."""
    entries = [
        {"id": f"wdr_{n}", "sequence": 2 * n + 1, "type": "node_started", "node_id": f"node-{n}", "record": {"n": n}}
        for n in range(count)
    ]

    def answer(request: Request) -> Any:
        token = request.params.get("after_cursor", "at:0")
        if not token.startswith("at:"):
            return refusing(410, {"message": "cursor expired"})
        start = int(token.removeprefix("at:"))
        more = start + page < count
        return {
            "data": entries[start : start + page],
            "after_cursor": f"at:{start + page}" if more else None,
            "has_more": more,
        }

    return answer


@pytest.mark.parametrize(
    ("job_id", "path"),
    [
        ("routine_run:r", "agent_routines/runs/r/journal"),
        ("automation_run:a", "automation_runs/a/journal"),
    ],
)
async def test_a_journal_is_read_to_its_end_and_then_only_what_was_added(job_id: str, path: str) -> None:
    provider, http = archastro(journal(250))
    readings = await filled(provider, job_id)
    assert [reading.key for reading in readings] == [f"journal.{2 * n + 1}" for n in range(250)]
    assert {request.url for request in http.requests} == {f"{API}/{path}"}

    grown, http = archastro(journal(253))
    added = await filled(grown, job_id, readings[-1].cursor)
    assert [reading.key for reading in added] == ["journal.501", "journal.503", "journal.505"]
    assert [request.params.get("after_cursor") for request in http.requests] == ["at:200"]


async def test_a_journal_entry_is_a_step_of_the_run_and_a_failed_node_is_not_its_end() -> None:
    entries = [
        {"sequence": 1, "type": "execution_started", "record": {}},
        {"sequence": 2, "type": "node_started", "node_id": "fetch", "created_at": "t", "record": {"a": 1}},
        {"sequence": 3, "type": "node_failed", "node_id": "fetch", "record": {"why": "x"}},
        {"sequence": 4, "type": ["odd"]},
    ]
    readings = await filled(archastro(lambda request: {"data": entries})[0], "routine_run:r")
    step, state = EventType.STEP, EventType.STATE
    assert [reading.type for reading in readings] == [state, step, step, state]
    assert [reading.step for reading in readings] == [None, "fetch", None, None]
    assert {reading.status for reading in readings} == {None}
    assert readings[1].detail == {"type": "node_started", "node": "fetch", "record": {"a": 1}}
    assert readings[1].time == "t"


async def test_a_run_without_a_journal_has_nothing_to_tell() -> None:
    provider, http = archastro(lambda request: {"journal": None, "data": [], "has_more": False})
    assert await filled(provider, "automation_run:a") == []
    assert len(http.requests) == 1


async def test_a_journal_whose_pages_never_end_is_left_when_it_brings_nothing_new() -> None:
    page = {"data": [{"sequence": 1}], "has_more": True}
    provider, http = archastro(lambda request: page | {"after_cursor": f"c{len(http.requests)}"})
    assert [reading.key for reading in await filled(provider, "routine_run:r")] == ["journal.1"]
    assert len(http.requests) == 2


async def test_a_refused_place_in_a_log_is_forgotten_and_what_is_known_not_told_again() -> None:
    provider, http = archastro(journal(3))
    readings = await filled(provider, "routine_run:r", Place("expired", 3).cursor())
    assert [reading.key for reading in readings] == ["journal.5"]
    assert [request.params.get("after_cursor") for request in http.requests] == ["expired", None]

    provider, http = archastro(events_list(events(2)))
    assert len(await filled(provider, "s", Place("cse_pruned").cursor())) == 2
    assert [request.params.get("after") for request in http.requests] == ["cse_pruned", None]


async def test_a_log_that_is_unknown_says_nothing_about_the_job() -> None:
    provider, http = archastro(lambda request: refusing(404, {"error": "not_found"}))
    assert await filled(provider, "s") == []
    assert await filled(provider, "routine_run:r", Place("x", 3).cursor()) == []
    assert len(http.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusing(402, {"error": {"code": "plan_not_entitled"}}), Rejected),
        (refusing(400, {}), Rejected),
        (refusing(503, b"<html>"), Temporary),
        ({"data": None}, Temporary),
        ({"data": [{"id": "wdr_1"}]}, Temporary),
        (["cse"], Temporary),
    ],
)
@pytest.mark.parametrize("job_id", ["s", "routine_run:r"])
async def test_a_log_in_trouble_is_told_as_such(job_id: str, answer: Any, error: type[BridgeError]) -> None:
    with pytest.raises(error):
        await filled(archastro(lambda request: answer)[0], job_id)


def test_the_logs_are_asked_beside_the_stream() -> None:
    assert ArchAstro.tells_beside


# -- finding jobs


async def test_listings_are_split_by_status_and_each_kind_is_asked_only_for_words_it_has() -> None:
    def answer(request: Request) -> Any:
        kind = "ase" if request.url.endswith("agent_sessions") else "arr"
        return {"data": [{"id": f"{kind}_{request.params.get('status[]', request.params.get('status'))}"}]}

    provider, http = archastro(answer)
    assert set(await found(provider)) == {
        "session:ase_pending",
        "session:ase_running",
        "session:ase_waiting",
        "routine_run:arr_pending",
        "routine_run:arr_running",
    }
    assert [request.params for request in http.requests if request.url == f"{API}/agent_sessions"] == [
        {"limit": "100", "status[]": word} for word in ("pending", "running", "waiting")
    ]
    assert [request.params for request in http.requests if request.url == f"{API}/agent_routine_runs"] == [
        {"limit": "100", "status": word} for word in ("pending", "running")
    ]


async def test_agents_split_the_listings_further_and_no_status_lists_all() -> None:
    provider, http = archastro(
        lambda request: {"data": []},
        discover_agents=["agi_1", "agi_2"],
        discover_statuses=[],
        discover_objects=["session"],
    )
    assert await found(provider) == []
    assert [request.params for request in http.requests] == [
        {"limit": "100", "agent[]": "agi_1"},
        {"limit": "100", "agent[]": "agi_2"},
    ]


@pytest.mark.parametrize("direction", ["after_cursor", "before_cursor"])
async def test_pages_of_runs_are_followed_whichever_cursor_leads_to_them(direction: str) -> None:
    def answer(request: Request) -> Any:
        start = int(request.params.get(direction, "0"))
        data = [{"id": f"arr_{n}"} for n in range(start, start + 100)]
        return {"data": data, direction: str(start + 100) if start < 200 else None}

    provider, http = archastro(answer, discover_objects=["routine_run"], discover_statuses=["running"])
    assert await found(provider) == [f"routine_run:arr_{n}" for n in range(300)]
    assert len(http.requests) == 3


async def test_pages_of_runs_that_bring_nothing_new_are_left() -> None:
    page = {"data": [{"id": "arr_1"}, {"id": ""}, {"id": 7}, None], "after_cursor": "a", "before_cursor": "b"}
    provider, http = archastro(lambda request: page, discover_objects=["routine_run"], discover_statuses=["running"])
    assert await found(provider) == ["routine_run:arr_1"]
    assert len(http.requests) == 3


async def test_a_crowd_in_one_listing_does_not_hide_the_others() -> None:
    def answer(request: Request) -> Any:
        if request.params["status"] == "running":
            return {"data": [{"id": "rare"}]}
        start = int(request.params.get("after_cursor", "0"))
        return {"data": [{"id": f"p{start}"}], "after_cursor": str(start + 1)}

    provider, _ = archastro(answer, discover_objects=["routine_run"], discover_statuses=["pending", "running"])
    listing = provider.jobs()
    assert [await anext(listing), await anext(listing)] == [["routine_run:p0"], ["routine_run:rare"]]
    await listing.aclose()


# -- errors and credentials


@pytest.mark.parametrize(
    ("status", "body", "error", "reason", "text"),
    [
        (400, {"error": {"code": "bad", "message": "no"}}, Rejected, "refused", "HTTP 400: bad: no"),
        (401, {"error": {"type": "unauthorized"}}, Fatal, "unauthorized", "HTTP 401: unauthorized"),
        (402, {"error": {"code": "plan_not_entitled"}}, Rejected, "denied", "HTTP 402: plan_not_entitled"),
        (
            403,
            {"error": "no_app_scope", "message": "needs one"},
            Rejected,
            "denied",
            "HTTP 403: no_app_scope: needs one",
        ),
        (404, {"message": "unknown"}, Rejected, "not_found", "HTTP 404: unknown"),
        (409, {}, Rejected, "refused", "HTTP 409: {}"),
        (
            422,
            {"error": {"message": "bad", "fields": [{"field": "limit", "message": "too big"}, 3]}},
            Rejected,
            "refused",
            "HTTP 422: bad: limit too big",
        ),
        (429, {"error": ["odd"]}, Temporary, "rate_limited", "HTTP 429: ['odd']"),
        (500, b"<html>", Temporary, "server_error", "HTTP 500: <html>"),
        (503, [1], Temporary, "server_error", "HTTP 503: [1]"),
    ],
)
def test_every_shape_of_error_body_becomes_one_sentence(
    status: int, body: Any, error: type[BridgeError], reason: str, text: str
) -> None:
    raised = archastro()[0].refusal(refusing(status, body))
    assert (type(raised), raised.reason, str(raised)) == (error, reason, text)


async def test_a_refresh_token_is_exchanged_and_its_successor_used_next_time() -> None:
    def answer(request: Request) -> Any:
        number = len(http.requests)
        return {"token": f"jwt_{number}", "refresh_token": f"rt_{number}", "expires_in": 3600}

    provider, http = archastro(answer, token=SecretStr("jwt_0"), refresh_token=SecretStr("rt_0"))
    assert await provider.renew()
    assert provider.stream("s", None).headers["Authorization"] == "Bearer jwt_1"
    assert await provider.renew()
    assert provider.stream("s", None).headers["Authorization"] == "Bearer jwt_2"
    assert [(r.method, r.url, r.headers, r.body) for r in http.requests] == [
        ("POST", f"{API}/auth/refresh", KEY, {"refresh_token": token}) for token in ("rt_0", "rt_1")
    ]


@pytest.mark.parametrize("answer", [refusing(401, {}), refusing(403, {}), {}, {"token": None}, []])
async def test_a_refused_refresh_leaves_the_credential_as_it_was(answer: Any) -> None:
    provider, _ = archastro(lambda request: answer, token=SecretStr("jwt_0"), refresh_token=SecretStr("rt_0"))
    assert not await provider.renew()
    assert provider.stream("s", None).headers["Authorization"] == "Bearer jwt_0"


async def test_without_a_refresh_token_nothing_is_asked_and_trouble_while_asking_passes() -> None:
    provider, http = archastro()
    assert not await provider.renew()
    assert http.requests == []
    provider, _ = archastro(lambda request: refusing(429, {}), refresh_token=SecretStr("rt_0"))
    with pytest.raises(Temporary):
        await provider.renew()


# -- acting


async def test_a_message_and_a_cancel_go_to_the_session() -> None:
    provider, http = archastro(lambda request: {"status": "running"})
    body = {"content": "go on", "role": "user"}
    answer = await provider.act("session:ase_1", Action.INPUT, body)
    assert (answer.status, orjson.loads(answer.body)) == (200, {"status": "running"})
    await provider.act("ase_1", Action.CANCEL, {})
    assert [(r.method, r.url, r.body, r.headers) for r in http.requests] == [
        ("POST", f"{API}/agent_sessions/ase_1/message", body, KEY),
        ("POST", f"{API}/agent_sessions/ase_1/cancel", None, KEY),
    ]


@pytest.mark.parametrize(
    ("job_id", "action", "body", "reason"),
    [
        ("s", Action.INPUT, {}, "invalid"),
        ("s", Action.INPUT, {"content": ""}, "invalid"),
        ("s", Action.INPUT, {"content": {"text": "x"}}, "invalid"),
        ("s", Action.RESUME, {}, "unsupported"),
        ("routine_run:r", Action.CANCEL, {}, "unsupported"),
        ("routine_run:r", Action.INPUT, {"content": "x"}, "unsupported"),
        ("automation_run:a", Action.CANCEL, {}, "unsupported"),
    ],
)
async def test_what_the_api_cannot_take_is_refused_here(
    job_id: str, action: Action, body: dict[str, Any], reason: str
) -> None:
    provider, http = archastro()
    with pytest.raises(Rejected) as caught:
        await provider.act(job_id, action, body)
    assert caught.value.reason == reason
    assert http.requests == []


def test_a_harness_event_without_an_id_is_the_same_whichever_way_its_members_are_ordered() -> None:
    members = [("event", "message"), ("payload", {}), ("harness", "codex")]
    one, other = (harness_event(dict(pairs), b"{}") for pairs in (members, reversed(members)))
    assert one.key == other.key
