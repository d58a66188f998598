"""Questions with a JSON answer, against real servers on the loopback interface."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import web
from serving import Reply, serving

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.intake.budget import Budget
from bridge.intake.http import SourceHttp, open_session
from bridge.intake.provider import Answer, Http, Request, common_refusal


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


@asynccontextmanager
async def sending(*pieces: bytes) -> AsyncIterator[str]:
    """A server that answers with these bytes, a moment between them, and leaves the connection open; its address."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.02)
            await reader.read()
        finally:
            writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jobs"


def fixed(body: bytes = b"{}", status: int = 200, content_type: str = "application/json", **headers: str) -> Reply:
    async def reply(_request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers={"Content-Type": content_type} | named)

    return reply


def budget() -> Budget:
    return Budget(1e6)


async def test_the_json_comes_back_whatever_its_declared_type(session: aiohttp.ClientSession) -> None:
    async with serving(fixed('{"id": "é", "n": [1, null]}'.encode(), 201, "text/plain")) as url:
        http: Http = SourceHttp(session, budget())
        assert await http.json(Request(url), common_refusal) == {"id": "é", "n": [1, None]}


async def test_the_request_goes_out_as_worded(session: aiohttp.ClientSession) -> None:
    seen: list[web.Request] = []
    bodies: list[bytes] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        bodies.append(await request.read())
        return await fixed(Set_Cookie="session=1; Path=/")(request)

    headers = {"Authorization": "Bearer k", "X-Name": "é"}
    params = {"after": "1+2 &é"}
    async with serving(reply) as url:
        http = SourceHttp(session, budget())
        await http.json(Request(f"{url}/a%2Fb%20?x=%2B1", params=params, headers=headers), common_refusal)
        await http.json(Request(url, method="POST", headers=headers, body={"q": ["é"]}), common_refusal)
    get, post = seen
    assert (get.method, post.method) == ("GET", "POST")
    assert get.raw_path == "/jobs/a%2Fb%20?x=%2B1&after=1%2B2+%26%C3%A9"
    assert get.headers["User-Agent"].startswith("jobbridge/")
    assert get.headers["Authorization"] == "Bearer k"
    assert dict(get.raw_headers)[b"X-Name"].decode() == "é"
    assert "Content-Type" not in get.headers
    assert post.headers["Content-Type"] == "application/json"
    assert bodies == [b"", '{"q":["é"]}'.encode()]
    assert "Cookie" not in post.headers
    assert headers == {"Authorization": "Bearer k", "X-Name": "é"}


async def test_the_error_table_decides_about_an_error_status(session: aiohttp.ClientSession) -> None:
    answers: list[Answer] = []
    outcomes: list[str] = []

    def refusal(answer: Answer) -> BridgeError:
        answers.append(answer)
        return Fatal("the key is refused", reason="unauthorized")

    async with serving(fixed(b"x" * (1 << 20), 401, "text/html", Retry_After="7")) as url:
        http = SourceHttp(session, budget(), clock=lambda: 1234.5, on_request=outcomes.append)
        with pytest.raises(Fatal, match="the key is refused"):
            await http.json(Request(url), refusal)
    assert (answers[0].status, answers[0].received_s, answers[0].headers["retry-after"]) == (401, 1234.5, "7")
    assert answers[0].body == b"x" * (64 << 10)
    assert outcomes == ["4xx"]


async def test_retry_after_reaches_the_error_table(session: aiohttp.ClientSession) -> None:
    async with serving(fixed(b"{}", 429, Retry_After="7")) as url:
        with pytest.raises(Temporary) as caught:
            await SourceHttp(session, budget()).json(Request(url), common_refusal)
    assert (caught.value.reason, caught.value.after_s) == ("rate_limited", 7.0)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(session: aiohttp.ClientSession, status: int) -> None:
    outcomes: list[str] = []
    async with serving(fixed(status=status, Location="/elsewhere")) as url:
        with pytest.raises(Rejected, match="/elsewhere") as caught:
            await SourceHttp(session, budget(), on_request=outcomes.append).json(Request(url), common_refusal)
    assert caught.value.reason == "refused"
    assert outcomes == ["3xx"]


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b'{"id": ', b'{"id": "\xff"}', b"NaN"])
async def test_a_success_without_json_is_temporary(session: aiohttp.ClientSession, body: bytes) -> None:
    async with serving(fixed(body, content_type="text/html")) as url:
        with pytest.raises(Temporary) as caught:
            await SourceHttp(session, budget()).json(Request(url), common_refusal)
    assert caught.value.reason == "not_json"
    assert body[:5].decode("ascii", "replace") in str(caught.value)


async def test_an_empty_success_is_an_answer_where_nothing_was_to_be_fetched(session: aiohttp.ClientSession) -> None:
    async with serving(fixed(b"", 204)) as url:
        http = SourceHttp(session, budget())
        assert await http.json(Request(url, method="POST", body={}), common_refusal) == {}
        with pytest.raises(Temporary) as caught:
            await http.json(Request(url), common_refusal)
    assert caught.value.reason == "not_json"


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False), (1 << 20, False)])
async def test_an_answer_over_the_limit_is_rejected(session: aiohttp.ClientSession, size: int, fits: bool) -> None:
    text = "x" * (size - 2)
    async with serving(fixed(f'"{text}"'.encode())) as url:
        http = SourceHttp(session, budget(), answer_bytes_max=1000)
        if fits:
            assert await http.json(Request(url), common_refusal) == text
            return
        with pytest.raises(Rejected) as caught:
            await http.json(Request(url), common_refusal)
    assert caught.value.reason == "too_large"


async def test_the_limit_counts_what_a_compressed_answer_inflates_to(session: aiohttp.ClientSession) -> None:
    packed = gzip.compress(b'"' + b"x" * (1 << 20) + b'"')
    assert len(packed) < 10_000
    async with serving(fixed(packed, Content_Encoding="gzip")) as url:
        assert len(await SourceHttp(session, budget()).json(Request(url), common_refusal)) == 1 << 20
        with pytest.raises(Rejected) as caught:
            await SourceHttp(session, budget(), answer_bytes_max=10_000).json(Request(url), common_refusal)
    assert caught.value.reason == "too_large"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *[b"{"] * 50],
        [CHUNKED, b"not a size\r\n"],
        [b"ICY\r\n\r\n"],
    ],
    ids=["never answers", "answers by drops", "breaks the chunked coding", "does not speak HTTP"],
)
async def test_without_a_whole_answer_by_the_deadline_it_is_temporary(
    session: aiohttp.ClientSession, pieces: list[bytes]
) -> None:
    outcomes: list[str] = []
    async with sending(*pieces) as url:
        http = SourceHttp(session, budget(), timeout_s=0.2, on_request=outcomes.append)
        with pytest.raises(Temporary) as caught:
            await http.json(Request(url), common_refusal)
    assert caught.value.reason == "connect"
    assert outcomes == ["error"]


async def test_a_connection_cut_inside_the_answer_is_temporary(session: aiohttp.ClientSession) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(reply) as url:
        with pytest.raises(Temporary) as caught:
            await SourceHttp(session, budget()).json(Request(url), common_refusal)
    assert caught.value.reason == "connect"


async def test_nobody_listening_is_temporary(session: aiohttp.ClientSession) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        request = Request(f"http://127.0.0.1:{nobody.getsockname()[1]}/")
        with pytest.raises(Temporary) as caught:
            await SourceHttp(session, budget()).json(request, common_refusal)
    assert caught.value.reason == "connect"


async def test_what_cannot_be_put_on_the_wire_is_rejected(session: aiohttp.ClientSession) -> None:
    async with serving(fixed()) as url:
        for request in (
            Request("ftp://127.0.0.1/"),
            Request("http://[half/"),
            Request(url, headers={"X-Key": "secret\nX-Other: 1"}),
        ):
            with pytest.raises(Rejected) as caught:
                await SourceHttp(session, budget()).json(request, common_refusal)
            assert caught.value.reason == "invalid_request"
            assert "secret" not in str(caught.value)


async def test_every_request_takes_from_the_budget_before_it_goes_out(session: aiohttp.ClientSession) -> None:
    requests: list[float] = []
    now_s = 0.0

    async def sleep(wait_s: float) -> None:
        nonlocal now_s
        now_s += wait_s

    async def reply(request: web.Request) -> web.StreamResponse:
        requests.append(now_s)
        return await fixed()(request)

    async with serving(reply) as url:
        http = SourceHttp(session, Budget(60, burst=1, clock=lambda: now_s, sleep=sleep))
        for _ in range(3):
            await http.json(Request(url), common_refusal)
    assert requests == pytest.approx([0, 1, 2])


@pytest.mark.parametrize("ask", [SourceHttp.json, SourceHttp.exchange])
async def test_a_refusal_for_too_many_requests_holds_the_budget_for_everybody(
    session: aiohttp.ClientSession, ask: Callable[..., Awaitable[object]]
) -> None:
    budget = Budget(6000)
    async with serving(fixed(status=429, Retry_After="7")) as url:
        arguments = [common_refusal] if ask is SourceHttp.json else []
        with suppress(Temporary):
            await ask(SourceHttp(session, budget), Request(url), *arguments)
    assert budget.tokens == 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(budget.take(), 0.05)


async def test_what_somebody_waits_for_passes_the_queue(session: aiohttp.ClientSession) -> None:
    paths: list[str] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        paths.append(request.path)
        return await fixed()(request)

    async with serving(reply) as url:
        http = SourceHttp(session, Budget(3000, burst=1))
        looks = [http.json(Request(f"{url}/look"), common_refusal) for _ in range(10)]
        await asyncio.gather(*looks, http.exchange(Request(f"{url}/act")))
    assert "/jobs/act" in paths[:4]


async def test_the_wait_for_the_budget_is_not_on_the_deadline(session: aiohttp.ClientSession) -> None:
    async with serving(fixed()) as url:
        http = SourceHttp(session, Budget(150, burst=1), timeout_s=0.2)
        for _ in range(2):  # the second waits 0.4 s
            assert await http.json(Request(url), common_refusal) == {}


async def test_hundreds_of_questions_at_once_wait_for_no_connection(session: aiohttp.ClientSession) -> None:
    count, asked = 300, 0
    all_asked = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == count:
            all_asked.set()
        await all_asked.wait()
        return await fixed()(request)

    async with serving(reply) as url:
        http = SourceHttp(session, budget())
        await asyncio.wait_for(asyncio.gather(*(http.json(Request(url), common_refusal) for _ in range(count))), 20)
