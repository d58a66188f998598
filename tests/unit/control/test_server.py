"""Who gets in, what is refused and how, and what never leaves the room."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, NamedTuple

import pytest

from bridge.control.problem import BODY_BYTES_MAX
from bridge.control.server import application, serve
from bridge.errors import Fatal, Temporary

from .room import TOKEN, Room, open_room

V1 = "/v1/subscriptions"
JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def _problem(room: Room, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Any:
    """The problem that the request earns, its form checked; plus the headers it came with."""
    async with room.http.request(method, room.url(path), headers=headers, data=body) as reply:
        problem = await reply.json(content_type="application/problem+json")
        assert problem["status"] == reply.status
        assert problem["type"] == "about:blank"
        assert problem["title"]
        assert problem["detail"]
        assert TOKEN not in str(problem)
        return problem, reply.headers


@pytest.mark.parametrize("token", [None, ""])
@pytest.mark.parametrize("path", [V1, "/v1/sources", "/v1/nowhere", "/v1/"])
async def test_without_a_token_set_the_api_is_closed(token: str | None, path: str) -> None:
    async with open_room(token=token) as room:
        problem, _ = await _problem(room, "GET", path, {"Authorization": "Bearer "})
        assert (problem["status"], problem["detail"]) == (403, "closed: set control.token")


@pytest.mark.parametrize("path", [V1, "/v1/nowhere", "/%761/subscriptions", "/v1", "/v1/subscriptions/auvy/1?x=1"])
async def test_nothing_under_v1_is_told_without_a_token(path: str) -> None:
    async with open_room() as room:
        problem, headers = await _problem(room, "GET", path, {})
        assert (problem["status"], headers["WWW-Authenticate"]) == (401, 'Bearer realm="jobbridge"')


@pytest.mark.parametrize(
    "given",
    [
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        "Bearer é",
    ],
)
async def test_a_wrong_token_is_refused(given: str) -> None:
    async with open_room() as room:
        problem, headers = await _problem(room, "GET", V1, {"Authorization": given})
        assert problem["status"] == 401
        assert 'error="invalid_token"' in headers["WWW-Authenticate"]


async def test_bytes_that_are_no_text_and_repeated_tokens_are_refused() -> None:
    async with open_room() as room:
        for lines in (b"Authorization: Bearer \xff\xfe", b"Authorization: Bearer x\r\n" * 2):
            request = b"GET /v1/sources HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n\r\n" % lines.strip()
            assert (await room.raw(request)).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_compared_without_case(scheme: str) -> None:
    async with open_room() as room:
        status, _ = await room.call("GET", V1, headers={"Authorization": f"{scheme} {TOKEN}"})
        assert status == 200


def _body(**members: Any) -> bytes:
    return json.dumps({"source": "auvy", "job_id": "1"} | members).encode()


class Hostile(NamedTuple):
    """A request, the status it earns, and the members or parameters that the problem names."""

    status: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None = None
    faulty: tuple[str, ...] = ()


HOSTILE = [
    Hostile(404, "GET", "/livez/", {}),
    Hostile(404, "GET", "/v1/nowhere", BEARER),
    Hostile(404, "GET", "/v1/subscriptions/auvy/", BEARER),
    Hostile(404, "GET", "/v1/subscriptions/auvy/a/b", BEARER),
    Hostile(404, "GET", "/v1/subscriptions/auvy/%00", BEARER),
    Hostile(404, "GET", "/v1/subscriptions/%2F/%2F", BEARER),
    Hostile(404, "GET", "/v1/subscriptions/auvy/" + "x" * 7000, BEARER),
    Hostile(405, "POST", "/livez", {}),
    Hostile(405, "DELETE", "/metrics", {}, b"x"),
    Hostile(405, "PUT", V1, BEARER | JSON, _body()),
    Hostile(405, "GET", "/v1/subscriptions/auvy/1/pause", BEARER),
    Hostile(400, "GET", f"{V1}?limit=0", BEARER, None, ("limit",)),
    Hostile(400, "GET", f"{V1}?limit=1001", BEARER, None, ("limit",)),
    Hostile(400, "GET", f"{V1}?limit=1_0", BEARER, None, ("limit",)),
    Hostile(400, "GET", f"{V1}?limit=%D9%A3", BEARER, None, ("limit",)),
    Hostile(400, "GET", f"{V1}?limit=", BEARER, None, ("limit",)),
    Hostile(400, "GET", f"{V1}?limit=1&limit=1", BEARER, None, ("limit",)),
    Hostile(400, "GET", f"{V1}?after={'9' * 19}", BEARER, None, ("after",)),
    Hostile(400, "GET", f"{V1}?after=x", BEARER, None, ("after",)),
    Hostile(400, "GET", f"{V1}?state=asleep&colour=red", BEARER, None, ("state", "colour")),
    Hostile(415, "POST", V1, BEARER, b""),
    Hostile(415, "POST", V1, BEARER | {"Content-Type": "text/plain"}, _body()),
    Hostile(400, "POST", V1, BEARER | JSON, b""),
    Hostile(400, "POST", V1, BEARER | JSON, b"{"),
    Hostile(400, "POST", V1, BEARER | JSON, b"\xff\xfe"),
    Hostile(400, "POST", V1, BEARER | JSON, b"[" * 60_000),
    Hostile(400, "POST", V1, BEARER | JSON, b'{"source":"auvy","job_id":"\\ud800"}'),
    Hostile(400, "POST", V1, BEARER | JSON | {"Content-Encoding": "gzip"}, b"this is no gzip"),
    Hostile(422, "POST", V1, BEARER | JSON, b"[]", ("#",)),
    Hostile(422, "POST", V1, BEARER | JSON, b"{}", ("#/source", "#/job_id")),
    Hostile(422, "POST", V1, BEARER | JSON, _body(job_id=1), ("#/job_id",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(job_id=""), ("#/job_id",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(job_id="x" * 513), ("#/job_id",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(job_id="a\nb"), ("#/job_id",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(job_id="a\x00"), ("#/job_id",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(job_id="\x7f"), ("#/job_id",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(job_id="\x85"), ("#/job_id",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(job_id=".."), ("#/job_id",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(source="nope"), ("#/source",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(source="x" * 60_000), ("#/source",)),
    Hostile(422, "POST", V1, BEARER | JSON, _body(**{"a/b~é": 1}), ("#/a~1b~0%C3%A9",)),
    Hostile(413, "POST", V1, BEARER | JSON, b" " * (BODY_BYTES_MAX + 1)),
    Hostile(413, "POST", V1, BEARER | JSON, _body(job_id="x" * BODY_BYTES_MAX)),
]


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_a_hostile_request_earns_a_problem_and_changes_nothing(hostile: Hostile) -> None:
    async with open_room() as room:
        problem, _ = await _problem(room, hostile.method, hostile.path, hostile.headers, hostile.body)
        assert problem["status"] == hostile.status
        named = [error.get("pointer") or error.get("parameter") for error in problem.get("errors", [])]
        assert named == list(hostile.faulty)
        assert await room.states() == {}
        assert room.alarms() == []


@pytest.mark.parametrize(
    "query", ["source=%FF", "source=%00", "source=%ED%A0%80", "source=" + "x" * 7000, "", "&&", "after=0"]
)
async def test_an_odd_query_that_means_something_is_answered(query: str) -> None:
    async with open_room() as room:
        assert await room.call("GET", f"{V1}?{query}") == (200, {"subscriptions": [], "next": None})
        assert room.alarms() == []


async def test_thousands_of_faults_earn_a_short_answer() -> None:
    async with open_room() as room:
        body = _body(**{f"k{number}": 0 for number in range(5000)})
        problem, headers = await _problem(room, "POST", V1, BEARER | JSON, body)
        assert (len(problem["errors"]), int(headers["Content-Length"]) < 4096) == (16, True)


async def test_a_method_that_is_not_taken_names_those_that_are() -> None:
    async with open_room() as room:
        _, headers = await _problem(room, "DELETE", V1, BEARER)
        assert headers["Allow"] == "GET,HEAD,POST"


async def test_a_body_right_at_the_limit_is_read() -> None:
    async with open_room() as room:
        body = _body().ljust(BODY_BYTES_MAX)
        assert (await room.call("POST", V1, data=body, headers=BEARER | JSON))[0] == 201


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=abc", ",;=,;", "x" * 4000, "*/*;q=nan"])
async def test_the_scrape_survives_any_accept_header(accept: str) -> None:
    async with open_room() as room, room.http.get(room.url("/metrics"), headers={"Accept": accept}) as reply:
        assert reply.status == 200


async def test_a_body_that_trickles_is_given_up() -> None:
    async with open_room(deadline_s=0.1) as room:
        lines = f"POST {V1} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        answer = await room.raw(f'{lines}Content-Length: 100\r\n\r\n{{"sou'.encode())
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_bug() -> None:
    async with open_room() as room:
        lines = f"POST {V1} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        await room.raw(f'{lines}Content-Length: 100\r\n\r\n{{"sou'.encode(), leave=True)
        assert (await room.call("GET", V1))[0] == 200
        assert room.alarms() == []


async def test_a_journal_that_hangs_or_cannot_take_a_write_earns_503_and_a_wait() -> None:
    async with open_room(deadline_s=0.1) as room:
        room.journal.hang = True
        problem, headers = await _problem(room, "GET", V1, BEARER)
        assert (problem["status"], headers["Retry-After"]) == (503, "1")
        room.journal.hang = False
        room.journal.trouble = Temporary("disk full", after_s=2.5)
        problem, headers = await _problem(room, "POST", V1, BEARER | JSON, _body())
        assert (problem["status"], problem["detail"], headers["Retry-After"]) == (503, "disk full", "3")


async def test_an_error_nobody_foresaw_is_logged_whole_and_told_to_nobody() -> None:
    async with open_room() as room:
        room.journal.trouble = RuntimeError("secret of the house")
        problem, _ = await _problem(room, "GET", f"{V1}/auvy/1?token={TOKEN}", BEARER)
        assert problem["status"] == 500
        assert "secret" not in str(problem)
        assert "Traceback" not in str(problem)
        assert "secret of the house" in room.logged()
        assert "/v1/subscriptions/{source}/{job_id}" in room.logged()
        assert TOKEN not in room.logged()


@pytest.mark.parametrize(
    "request_bytes",
    [
        f"GET /v1/sources HTTP/1.1\r\nAuthorization Bearer {TOKEN}\r\n\r\n".encode(),
        f"GET /v1/sources HTTP/1.1\r\nAuthorization: Bearer\x00{TOKEN}\r\n\r\n".encode(),
        f"GET /v1/sources {TOKEN} HTTP/1.1\r\n\r\n".encode(),
        f"GET /é{TOKEN} HTTP/1.1\r\n\r\n".encode(),
    ],
)
async def test_what_is_no_http_is_refused_and_its_bytes_are_not_logged(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_room() as room:
        assert b" 400 " in await room.raw(request_bytes)
        assert "control.connection" in room.logged()
        assert room.alarms() == []
        assert TOKEN not in room.logged() + caplog.text
        assert (await room.call("GET", V1))[0] == 200


async def test_steering_is_logged_without_the_token() -> None:
    async with open_room() as room:
        assert (await room.call("POST", V1, json={"source": "auvy", "job_id": "1"}))[0] == 201
        await room.call("POST", f"{V1}/auvy/1/pause")
        await room.call("DELETE", f"{V1}/auvy/1")
        await room.call("POST", "/v1/sources/auvy/resume")
        assert [json.loads(call.args[0])["event"] for call in room.log.calls] == [
            "control.follow",
            "control.steer",
            "control.steer",
            "control.resume",
        ]
        assert TOKEN not in room.logged() + repr(room.view)


async def test_a_port_in_use_is_one_sentence_that_names_address_and_setting() -> None:
    async with open_room() as room:
        with pytest.raises(Fatal) as refusal:
            async with serve(application(room.view), "127.0.0.1", room.port):
                pass
        assert str(refusal.value) == (
            f"cannot listen on 127.0.0.1:{room.port}: address already in use; set control.host or control.port"
        )


async def test_a_host_that_is_not_ours_is_one_sentence_too() -> None:
    async with open_room() as room:
        with pytest.raises(Fatal, match=r"^cannot listen on 192\.0\.2\.1:0: .+; set control\.host or control\.port$"):
            async with serve(application(room.view), "192.0.2.1", 0):
                pass


async def test_leaving_the_context_frees_the_port() -> None:
    async with open_room() as room:
        port = room.port
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_request_under_way_does_not_hold_up_the_end_for_long() -> None:
    loop = asyncio.get_running_loop()
    async with open_room(deadline_s=60.0) as room:
        room.journal.hang = True
        waiting = asyncio.create_task(room.call("GET", V1))
        await room.journal.asked.wait()
        started_s = loop.time()
        waiting.cancel()
        await asyncio.wait([waiting])
    assert loop.time() - started_s < 5
