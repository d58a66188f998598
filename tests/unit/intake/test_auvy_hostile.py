"""The AUVY plug against data that no documentation promises: nothing is lost, nothing raises, nothing is unbounded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from bridge.errors import Rejected, Temporary
from bridge.event import Cursor, EventType, JobKey, JobStatus
from bridge.intake.decoding import decoded
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Answer, Frame, Reading, Refusal, Request
from bridge.intake.providers.auvy import Auvy, AuvySettings

KEY = JobKey("auvy", "j")


class Answering:
    """One decoded answer to every request, or the nth to the nth."""

    def __init__(self, *bodies: Any) -> None:
        self._bodies = list(bodies)
        self.requests: list[Request] = []

    async def json(self, request: Request, refusal: Refusal) -> Any:
        self.requests.append(request)
        return self._bodies.pop(0) if len(self._bodies) > 1 else self._bodies[0]

    async def exchange(self, request: Request) -> Answer:
        raise NotImplementedError


def auvy(*bodies: Any, **settings: Any) -> Auvy:
    given = {"provider": "auvy", "token": SecretStr("ak")} | settings
    return Auvy(AuvySettings.model_validate(given), Answering(*bodies))


def read_all(provider: Auvy, frames: list[Frame]) -> list[Reading]:
    """As the loop reads a batch: each frame behind the cursor of the one before."""
    readings: list[Reading] = []
    cursor: Cursor | None = None
    for frame in frames:
        for reading in provider.read(frame, cursor):
            readings.append(reading)
            cursor = reading.cursor or cursor
    return readings


def token(text: str, stream_id: str) -> Frame:
    return Frame("message", orjson.dumps({"type": "token", "token": text}), stream_id)


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    "ids",
    [
        ["", "", ""],  # no ids at all
        ["odd", "1-0", "2-0"],  # an odd one must not shut out all that follow
        ["evt_1", "evt_2", "evt_3"],
        ["status.1", "watch.1", "1-0"],  # our own keys, taken
        ["x" * 100_000, "1-0", "x" * 99_999],
    ],
)
def test_frames_with_ids_that_are_no_stream_ids_become_events_of_their_own(ids: list[str]) -> None:
    provider, texts = auvy(), ["a", "b", "c"]
    readings = read_all(provider, [token(text, id_) for text, id_ in zip(texts, ids, strict=True)])
    assert [reading.detail for reading in readings] == [{"text": text} for text in texts]
    keys = [reading.key or "" for reading in readings]
    assert len(set(keys)) == 3
    assert all(0 < len(key) < 100 and ":" not in key for key in keys)
    assert not {"status.1", "watch.1"} & set(keys)
    again = read_all(provider, [token(text, id_) for text, id_ in zip(texts, ids, strict=True)])
    assert [reading.key for reading in again] == keys


def test_only_a_stream_id_is_ever_sent_back_as_a_cursor() -> None:
    readings = read_all(auvy(), [token("a", "odd"), token("b", "1-0"), token("c", "")])
    assert [reading.cursor for reading in readings] == [None, "1-0", None]


@pytest.mark.parametrize("levels", [201, 255, 300, 900, 1010])
@pytest.mark.parametrize("kind", ["complete", "error", "state_update", "token", "hitherto_unknown"])
def test_deep_chunks_become_events_that_any_receiver_can_decode(kind: str, levels: int) -> None:
    piece = nested(levels)
    data = b'{"type":"%b","result":%b,"error":%b,"token":%b}' % (kind.encode(), piece, piece, piece)
    [event] = Lifecycle(KEY, "auvy", b"").apply(auvy().read(Frame("message", data, "1-0"), None))
    assert orjson.dumps(orjson.loads(event.data))
    assert event.type is not None


@pytest.mark.parametrize("levels", [200, 300, 1000])
async def test_deep_answers_of_the_status_endpoint_can_be_told_and_remembered(levels: int) -> None:
    body, _ = decoded(b'{"status":"running","progress":%b,"waitingFor":%b,"failedReason":%b}' % ((nested(levels),) * 3))
    life = Lifecycle(KEY, "auvy", b"")
    reading = await auvy(body).status("j")
    assert len(life.apply([reading])) == 1
    assert Lifecycle(KEY, "auvy", life.memory()).apply([reading]) == []


def test_a_flat_chunk_of_many_pieces_is_left_as_it_came() -> None:
    data = orjson.dumps({"type": "state_update", "rows": [{"n": n} for n in range(1000)]})
    [reading] = auvy().read(Frame("message", data, "1-0"), None)
    assert reading.payload is data
    assert reading.detail == {"state": {"rows": [{"n": n} for n in range(1000)]}}


@pytest.mark.parametrize(
    "data",
    [b'"\\ud800"', b"NaN", b"1e999", b"\xef\xbb\xbf{}", b"{}x", b"", b"[" * 2000, b'{"type":"complete"', b"\x00"],
)
def test_what_is_no_json_for_the_decoder_is_never_spliced_into_an_event(data: bytes) -> None:
    [reading] = auvy().read(Frame("message", data, "1-0"), None)
    assert reading.type is EventType.UNMAPPED
    assert reading.payload is None
    [event] = Lifecycle(KEY, "auvy", b"").apply([reading])
    assert orjson.loads(event.data)["detail"]["reason"] == "not_json"


@pytest.mark.parametrize(
    ("finished_at", "time"),
    [
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("2026-11-01T00:00:00.123+02:00", "2026-11-01T00:00:00.123+02:00"),
        (1764000000000, None),
        ({"seconds": 1}, None),
        ("yesterday", None),
        ("2026-11-01", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-11-01T00:00:00Z\r\nX: y", None),
    ],
)
async def test_a_time_that_is_no_rfc_3339_never_reaches_an_event(finished_at: Any, time: str | None) -> None:
    reading = await auvy({"status": "completed", "finished_at": finished_at}).status("j")
    [event] = Lifecycle(KEY, "auvy", b"").apply([reading])
    assert event.time == time


@pytest.mark.parametrize("code", [[], {}, [["cost_cap"]], 7, None])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_an_error_body_with_odd_types_is_judged_by_its_status(status: int, code: Any) -> None:
    body = orjson.dumps({"code": code, "retryAfter": code, "message": code})
    assert auvy().refusal(Answer(status, {}, body, 0.0)).reason in {
        "stale_cursor", "unauthorized", "denied", "not_found", "rate_limited", "server_error",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 99999999999999999999 Jan 2026 00:00:00 GMT",
        "Mon, 01 Jan 99999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2026 00:00:00 +99999999999999999999",
    ],
)
def test_a_retry_after_beyond_every_calendar_is_as_good_as_absent(value: str) -> None:
    error = auvy().refusal(Answer(429, {"Retry-After": value}, b"", 0.0))
    assert isinstance(error, Temporary)
    assert error.after_s is None


@pytest.mark.parametrize(
    ("error", "message"),
    [("boom", "boom"), ({"code": 7}, '{"code":7}'), (None, "null"), ([1], "[1]")],
)
def test_an_error_is_told_in_the_providers_own_words(error: Any, message: str) -> None:
    data = orjson.dumps({"type": "error", "error": error})
    [reading] = auvy().read(Frame("message", data, "1-0"), None)
    assert (reading.status, reading.error) == (JobStatus.FAILED, {"message": message})


async def test_a_status_of_another_type_is_temporary() -> None:
    bodies: list[Any] = [[], {"status": 7}, {"status": None}, "completed", None]
    for body in bodies:
        with pytest.raises(Temporary):
            await auvy(body).status("j")


async def test_a_share_token_alone_still_has_no_status() -> None:
    with pytest.raises(Rejected):
        await auvy({}, token=None, share_token=SecretStr("sh")).status("j")


def listing(jobs: list[Any], limit_max: int = 100) -> Any:
    class Listing(Answering):
        async def json(self, request: Request, refusal: Refusal) -> Any:
            self.requests.append(request)
            offset, limit = int(request.params["offset"]), min(int(request.params["limit"]), limit_max)
            here = [job for job in jobs if request.params.get("status") in (None, job.get("status"))]
            return {"jobs": here[offset : offset + limit], "total": len(here), "limit": limit, "offset": offset}

    return Listing()


async def listed(http: Any, pages_max: int = 1000, **settings: Any) -> list[str]:
    provider = Auvy(AuvySettings.model_validate({"provider": "auvy", "token": SecretStr("ak")} | settings), http)
    found: list[str] = []
    async for page in provider.jobs():
        found += page
        pages_max -= 1
        if not pages_max:
            break
    return found


async def test_a_server_that_gives_smaller_pages_than_asked_for_hides_no_job() -> None:
    jobs = [{"job_id": f"job_{n}"} for n in range(120)]
    assert len(await listed(listing(jobs, limit_max=25), discover_statuses=[])) == 120
    assert len(await listed(listing(jobs, limit_max=5), discover_statuses=[])) == 120


async def test_an_odd_job_on_a_page_does_not_end_the_listing() -> None:
    jobs: list[Any] = [{"job_id": f"job_{n}"} for n in range(250)]
    jobs[7] = {"job_id": None}
    assert len(await listed(listing(jobs), discover_statuses=[])) == 249


async def test_a_crowd_in_one_status_does_not_hide_the_jobs_in_another() -> None:
    """Discovery reads so many pages at most: those must not all go to the first status."""
    jobs = [{"job_id": f"job_{n}", "status": "pending"} for n in range(5000)]
    jobs.append({"job_id": "the_one", "status": "waiting"})
    assert "the_one" in await listed(listing(jobs), pages_max=20)


async def test_small_listings_cost_one_request_each() -> None:
    http = listing([{"job_id": "a", "status": "running"}])
    assert await listed(http) == ["a"]
    assert len(http.requests) == 4


async def test_a_huge_status_is_told_once_and_not_repeated_by_every_event_after_it() -> None:
    life, huge = Lifecycle(KEY, "auvy", b"", event_bytes_max=1 << 30), "ü" * 1_000_000
    body = {"status": "waiting", "progress": {"log": huge}, "current_step": huge, "waitingFor": [huge]}
    reading = await auvy(body).status("j")
    [told] = life.apply([reading])
    assert orjson.loads(told.data)["payload"] == body
    [event] = life.apply(auvy().read(token("a", "1-0"), None))
    assert len(event.data) < 100_000
    assert len(life.memory()) < 100_000
    assert Lifecycle(KEY, "auvy", life.memory()).apply([reading]) == []
