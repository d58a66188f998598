"""Opening and reading streams against real servers on the loopback interface, badly behaved ones included."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import groupby

import httpx
import pytest
from aiohttp import web
from serving import Reply, serving

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.intake.budget import Budget
from bridge.intake.http import open_session
from bridge.intake.provider import Answer, OpenStream, Request, Streams, common_refusal
from bridge.intake.sse import EventStreams, Frame, open_client
from bridge.intake.turns import Turns
from bridge.wire import READ_BYTES

streaming = partial(serving, path="/stream")
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_session() as session, open_client(session) as client:
        yield client


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[str]:
    """A server of raw bytes, for what no web server would send; its address."""
    talks: set[asyncio.Task[None]] = set()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/stream"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def fixed(
    body: bytes = b"data: a\n\n", status: int = 200, content_type: str = "text/event-stream", **headers: str
) -> Reply:
    async def reply(_request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers={"Content-Type": content_type} | named)

    return reply


async def event_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


def budget() -> Budget:
    return Budget(1e6)


async def collect(stream: OpenStream) -> list[Frame]:
    return [frame async for frames in stream for frame in frames]


async def read(streams: Streams, url: str) -> list[Frame]:
    async with streams.open(Request(url), common_refusal) as stream:
        return await collect(stream)


async def test_frames_ids_and_retry_come_through(client: httpx.AsyncClient) -> None:
    body = b"\xef\xbb\xbfretry: 2500\n\n: ping\n\nid: 1\ndata: a\n\nevent: e\ndata: b\n\n"
    async with (
        streaming(fixed(body, content_type="Text/Event-Stream; charset=latin-1")) as url,
        EventStreams(client, budget()).open(Request(url), common_refusal) as stream,
    ):
        assert stream.retry_s is None
        assert await collect(stream) == [
            Frame("message", b"a", "1"),
            Frame("e", b"b", "1"),
        ]
        assert stream.retry_s == 2.5


async def test_what_has_arrived_and_waits_for_its_turn_is_known_to_be_unread(client: httpx.AsyncClient) -> None:
    turns = Turns(1)
    async with (
        streaming(fixed()) as url,
        EventStreams(client, budget(), turns=turns).open(Request(url), common_refusal) as stream,
    ):
        crowd = [asyncio.create_task(turns.take(1)) for _ in range(100)]
        reading = asyncio.create_task(collect(stream))
        known = [stream.unread]
        while not reading.done():
            crowd.append(asyncio.create_task(turns.take(1)))
            await asyncio.sleep(0)
            known.append(stream.unread)
        assert await reading == [Frame("message", b"a", "")]
        assert [now for now, _ in groupby(known)] == [False, True, False]
        await asyncio.gather(*crowd)


@pytest.mark.parametrize(("others", "share"), [(0, 3), (1000, 1)])
async def test_streams_that_nobody_reads_on_take_a_bounded_share_of_memory(
    client: httpx.AsyncClient, others: int, share: int
) -> None:
    """The journal is full: every stream holds what it read last and what arrived since, and more of it among few."""
    sent = 0
    part = b"data: %b\n\n" % (b"x" * 1015) * 16

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = await event_stream(request)
        while True:
            await response.write(part)
            sent += len(part)

    async with streaming(reply) as url, AsyncExitStack() as stack:
        turns = Turns()
        turns.streams = others
        streams, held = EventStreams(client, budget(), turns=turns), []
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for _ in range(10):
            stream = await stack.enter_async_context(streams.open(Request(url), common_refusal))
            held.append(await anext(aiter(stream)))
        before = -1
        while before < sent:  # until all have to wait
            before = sent
            await asyncio.sleep(0.1)
        bytes_held, _ = tracemalloc.get_traced_memory()
        assert bytes_held / len(held) < share * 700 << 10
        for frames in held:
            assert sum(len(frame.data) for frame in frames) <= share * READ_BYTES


async def test_the_request_is_what_an_event_source_sends(client: httpx.AsyncClient) -> None:
    seen: list[web.Request] = []
    bodies: list[bytes] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        bodies.append(await request.read())
        return await fixed(Set_Cookie="session=1; Path=/")(request)

    headers = {"accept": "*/*", "Last-Event-ID": "é→1", "Authorization": "Bearer k", "ACCEPT-ENCODING": "gzip"}
    params = {"after": "1+2 &é"}
    async with streaming(reply) as url:
        request = Request(f"{url}/a%2Fb?x=%2B1", params=params, headers=headers)
        streams = EventStreams(client, budget())
        async with streams.open(request, common_refusal):
            pass
        async with streams.open(Request(url, method="POST", headers=headers, body={"q": 1}), common_refusal):
            pass
    get, post = seen
    assert get.method == "GET"
    assert get.raw_path == "/stream/a%2Fb?x=%2B1&after=1%2B2+%26%C3%A9"
    assert get.headers.getall("Accept") == ["text/event-stream"]
    assert get.headers.getall("Accept-Encoding") == ["identity"]
    assert get.headers["Cache-Control"] == "no-store"
    assert get.headers["User-Agent"].startswith("jobbridge/")
    assert get.headers["Authorization"] == "Bearer k"
    assert dict(get.raw_headers)[b"last-event-id"].decode() == "é→1"
    assert headers == {"accept": "*/*", "Last-Event-ID": "é→1", "Authorization": "Bearer k", "ACCEPT-ENCODING": "gzip"}
    assert (post.method, post.headers["Content-Type"]) == ("POST", "application/json")
    assert bodies == [b"", b'{"q":1}']
    assert "Cookie" not in post.headers


@pytest.mark.parametrize(
    "reply",
    [
        fixed(status=204),
        fixed(status=201),
        fixed(status=301, Location="/elsewhere"),
        fixed(status=307, Location="/elsewhere"),
        fixed(b"<html>Sign in</html>", content_type="text/html; charset=utf-8"),
        fixed(content_type="application/json"),
        fixed(content_type="text/event-stream-not"),
        fixed(content_type="application/text/event-stream"),
        fixed(content_type=""),
        fixed(content_encoding="br"),
    ],
    ids=["204", "201", "301", "307", "login page", "json", "longer type", "type inside type", "no type", "brotli"],
)
async def test_what_is_no_event_stream_is_rejected(client: httpx.AsyncClient, reply: Reply) -> None:
    outcomes: list[str] = []
    async with streaming(reply) as url:
        with pytest.raises(Rejected) as caught:
            await read(EventStreams(client, budget(), on_request=outcomes.append), url)
    assert caught.value.reason == "no_stream"
    assert len(outcomes) == 1  # a redirect is not followed


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [(500, Temporary, "server_error"), (401, Fatal, "unauthorized"), (404, Rejected, "not_found")],
)
async def test_an_error_status_is_no_stream_whatever_its_type(
    client: httpx.AsyncClient, status: int, error: type[BridgeError], reason: str
) -> None:
    outcomes: list[str] = []
    opened: list[int] = []
    async with streaming(fixed(b"data: sorry\n\n", status)) as url:
        with pytest.raises(error, match="data: sorry") as caught:
            await read(EventStreams(client, budget(), on_request=outcomes.append, on_open=opened.append), url)
    assert caught.value.reason == reason
    assert outcomes == [f"{status // 100}xx"]
    assert opened == []


async def test_retry_after_reaches_the_error_table(client: httpx.AsyncClient) -> None:
    reply = fixed(b"{}", 429, "application/json", Retry_After="Thu, 01 Jan 1970 00:16:50 GMT")
    async with streaming(reply) as url:
        with pytest.raises(Temporary) as caught:
            await read(EventStreams(client, budget(), clock=lambda: 1000.0), url)
    assert (caught.value.reason, caught.value.after_s) == ("rate_limited", 10.0)


async def test_the_body_of_a_refusal_is_cut(client: httpx.AsyncClient) -> None:
    answers: list[Answer] = []

    def refusal(answer: Answer) -> BridgeError:
        answers.append(answer)
        return Temporary("no")

    async with streaming(fixed(b"x" * (1 << 20), 503)) as url:
        with pytest.raises(Temporary):
            async with EventStreams(client, budget()).open(Request(url), refusal):
                pass
    assert answers[0].body == b"x" * (64 << 10)


async def test_a_refusal_whose_body_never_ends_is_still_a_refusal(client: httpx.AsyncClient) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 100\r\n\r\nslowly")
        await reader.read()

    async with talking(talk) as url:
        with pytest.raises(Temporary, match="slowly") as caught:
            await read(EventStreams(client, budget(), request_timeout_s=0.2), url)
    assert (caught.value.reason, caught.value.after_s) == ("rate_limited", 7.0)


async def test_comments_keep_a_stream_alive_and_silence_ends_it(client: httpx.AsyncClient) -> None:
    arrivals: list[None] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(10):  # twice the idle limit altogether
            writer.write(chunk(b":"))
            await asyncio.sleep(0.1)
        writer.write(chunk(b"\ndata: a\n\n"))
        await reader.read()

    streams = EventStreams(client, budget(), idle_timeout_s=0.5, on_bytes=lambda: arrivals.append(None))
    async with talking(talk) as url, streams.open(Request(url), common_refusal) as stream:
        heard = [await anext(aiter(stream)) for _ in range(11)]
        with pytest.raises(Temporary, match=r"0\.5 s") as caught:
            await anext(aiter(stream))
    assert caught.value.reason == "idle"
    assert heard == [*[[]] * 10, [Frame("message", b"a", "")]]
    assert len(arrivals) == 11


@pytest.mark.parametrize("last_words", [b"5\r\nda", b""], ids=["inside a chunk", "between chunks"])
async def test_a_cut_is_told_from_an_end(client: httpx.AsyncClient, last_words: bytes) -> None:
    heard = asyncio.Event()

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: a\n\ndata: b"))
        await heard.wait()
        writer.write(last_words)

    async with talking(talk) as url, EventStreams(client, budget()).open(Request(url), common_refusal) as stream:
        assert await anext(aiter(stream)) == [Frame("message", b"a", "")]
        heard.set()
        with pytest.raises(Temporary) as caught:
            await collect(stream)
    assert caught.value.reason == "cut"


async def test_broken_chunked_coding_ends_like_silence(client: httpx.AsyncClient) -> None:
    heard = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: a\n\n"))
        await heard.wait()
        writer.write(b"not a size\r\n")
        await reader.read()

    streams = EventStreams(client, budget(), idle_timeout_s=0.2)
    async with talking(talk) as url, streams.open(Request(url), common_refusal) as stream:
        assert await anext(aiter(stream)) == [Frame("message", b"a", "")]
        heard.set()
        with pytest.raises(Temporary) as caught:
            await anext(aiter(stream))
    assert caught.value.reason == "idle"


async def test_a_reset_is_a_cut(client: httpx.AsyncClient) -> None:
    heard = asyncio.Event()

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: a\n\n"))
        await heard.wait()
        linger = b"\x01\0\0\0\0\0\0\0"  # on, for no time: closing resets the connection
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with talking(talk) as url, EventStreams(client, budget()).open(Request(url), common_refusal) as stream:
        await anext(aiter(stream))
        heard.set()
        with pytest.raises(Temporary) as caught:
            await anext(aiter(stream))
    assert caught.value.reason == "cut"


async def test_an_unfinished_event_at_a_clean_end_is_dropped(client: httpx.AsyncClient) -> None:
    async with streaming(fixed(b"data: a\n\ndata: b\n")) as url:
        assert await read(EventStreams(client, budget()), url) == [Frame("message", b"a", "")]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_server_that_compresses_although_asked_not_to_is_read_as_it_writes(
    client: httpx.AsyncClient, encoding: str
) -> None:
    heard = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Content-Encoding": encoding})
        await response.prepare(request)
        await response.write(packer.compress(b"data: a\n\n") + packer.flush(zlib.Z_SYNC_FLUSH))
        await heard.wait()
        await response.write(packer.compress(b"data: b\n\n") + packer.flush())
        return response

    frames: list[Frame] = []
    async with streaming(reply) as url, EventStreams(client, budget()).open(Request(url), common_refusal) as stream:
        async for some in stream:
            frames += some
            if frames:
                heard.set()
    assert [frame.data for frame in frames] == [b"a", b"b"]


async def test_nonsense_that_claims_to_be_gzip_is_a_cut(client: httpx.AsyncClient) -> None:
    async with streaming(fixed(content_encoding="gzip")) as url:
        with pytest.raises(Temporary) as caught:
            await read(EventStreams(client, budget()), url)
    assert caught.value.reason == "cut"


async def test_a_server_that_never_answers_is_left_at_the_deadline(client: httpx.AsyncClient) -> None:
    left = asyncio.Event()
    outcomes: list[str] = []

    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()

    async with talking(talk) as url:
        with pytest.raises(Temporary) as caught:
            await read(EventStreams(client, budget(), request_timeout_s=0.1, on_request=outcomes.append), url)
        await asyncio.wait_for(left.wait(), 5)
    assert caught.value.reason == "connect"
    assert outcomes == ["error"]


@pytest.mark.parametrize(
    "answer", [b"", b"ICY 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nBad"], ids=["hang up", "not HTTP", "half"]
)
async def test_no_http_answer_is_no_connection(client: httpx.AsyncClient, answer: bytes) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with talking(talk) as url:
        with pytest.raises(Temporary) as caught:
            await read(EventStreams(client, budget()), url)
    assert caught.value.reason == "connect"


async def test_nobody_listening_is_no_connection(client: httpx.AsyncClient) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(Temporary) as caught:
            await read(EventStreams(client, budget()), f"http://127.0.0.1:{nobody.getsockname()[1]}/")
    assert caught.value.reason == "connect"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://127.0.0.1:99999/"])
async def test_an_address_that_is_none_is_rejected(client: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(Rejected) as caught:
        await read(EventStreams(client, budget()), url)
    assert caught.value.reason == "invalid_request"


async def test_a_header_that_cannot_be_sent_is_rejected(client: httpx.AsyncClient) -> None:
    async with streaming(fixed()) as url:
        request = Request(url, headers={"X-Key": "secret\nX-Other: 1"})
        with pytest.raises(Rejected) as caught:
            async with EventStreams(client, budget()).open(request, common_refusal):
                pass
    assert caught.value.reason == "invalid_request"
    assert "secret" not in str(caught.value)


async def test_three_hundred_streams_are_open_at_once_over_one_client(client: httpx.AsyncClient) -> None:
    count, now_open = 300, 0
    changes: list[int] = []
    all_open = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        nonlocal now_open
        response = await event_stream(request)
        await response.write(b"data: a\n\n")
        now_open += 1
        if now_open == count:
            all_open.set()
        await all_open.wait()
        await response.write(b"data: b\n\n")
        return response

    async with streaming(reply) as url:
        streams = EventStreams(client, budget(), on_open=changes.append)
        frames = await asyncio.wait_for(asyncio.gather(*(read(streams, url) for _ in range(count))), 20)
    assert [[frame.data for frame in some] for some in frames] == [[b"a", b"b"]] * count
    assert (changes.count(1), changes.count(-1), len(changes)) == (count, count, 2 * count)


async def test_a_stream_beyond_the_limit_waits_for_a_free_place(
    client: httpx.AsyncClient, stack: AsyncExitStack
) -> None:
    requests: list[str] = []
    hold = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        requests.append(request.path)
        response = await event_stream(request)
        await hold.wait()
        return response

    async with streaming(reply) as url:
        streams = EventStreams(client, budget(), open_streams=2)
        await stack.enter_async_context(streams.open(Request(f"{url}/1"), common_refusal))
        async with streams.open(Request(f"{url}/2"), common_refusal):
            third = asyncio.create_task(stack.enter_async_context(streams.open(Request(f"{url}/3"), common_refusal)))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(third), 0.1)
            assert requests == ["/stream/1", "/stream/2"]
        await asyncio.wait_for(third, 5)
        assert requests == ["/stream/1", "/stream/2", "/stream/3"]
        await stack.aclose()
        hold.set()


async def test_a_refused_stream_gives_its_place_back(client: httpx.AsyncClient) -> None:
    async with streaming(fixed(status=404)) as url:
        streams = EventStreams(client, budget(), open_streams=1)
        for _ in range(3):
            with pytest.raises(Rejected):
                await asyncio.wait_for(read(streams, url), 5)


async def test_every_request_takes_from_the_budget_before_it_goes_out(client: httpx.AsyncClient) -> None:
    requests: list[float] = []
    now_s = 0.0

    async def sleep(wait_s: float) -> None:
        nonlocal now_s
        now_s += wait_s

    async def reply(request: web.Request) -> web.StreamResponse:
        requests.append(now_s)
        return await fixed(status=503)(request)

    async with streaming(reply) as url:
        streams = EventStreams(client, Budget(60, burst=1, clock=lambda: now_s, sleep=sleep))
        for _ in range(3):
            with pytest.raises(Temporary):
                await read(streams, url)
    assert requests == pytest.approx([0, 1, 2])


async def test_a_refusal_for_too_many_requests_holds_the_budget_for_everybody(client: httpx.AsyncClient) -> None:
    budget = Budget(6000)
    async with streaming(fixed(status=429)) as url:
        with pytest.raises(Temporary):
            await read(EventStreams(client, budget), url)
    assert budget.tokens == 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(budget.take(), 0.05)


async def test_a_stream_passes_the_queue_of_looks(client: httpx.AsyncClient) -> None:
    order: list[str] = []

    async def reply(request: web.Request) -> web.StreamResponse:
        order.append("stream")
        return await fixed(status=503)(request)

    async def look(budget: Budget) -> None:
        await budget.take()
        order.append("look")

    async with streaming(reply) as url:
        budget = Budget(3000, burst=1)
        looks = [asyncio.create_task(look(budget)) for _ in range(10)]
        with pytest.raises(Temporary):
            await read(EventStreams(client, budget), url)
        await asyncio.gather(*looks)
    assert "stream" in order[:4]


@pytest.mark.parametrize("how", ["leave", "cancel"])
async def test_leaving_or_cancelling_closes_the_connection(client: httpx.AsyncClient, how: str) -> None:
    left, began = asyncio.Event(), asyncio.Event()
    changes: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: a\n\n"))
        assert await reader.read() == b""
        left.set()

    async def listen(url: str) -> None:
        async with EventStreams(client, budget(), on_open=changes.append).open(Request(url), common_refusal) as stream:
            async for _ in stream:
                began.set()
                if how == "leave":
                    break

    async with talking(talk) as url:
        listening = asyncio.create_task(listen(url))
        await began.wait()
        if how == "cancel":
            listening.cancel()
        await asyncio.wait([listening])
        assert listening.cancelled() == (how == "cancel")
        await asyncio.wait_for(left.wait(), 5)
    assert changes == [1, -1]


async def test_an_oversized_frame_is_reported_and_the_stream_goes_on(client: httpx.AsyncClient) -> None:
    body = b"id: 1\ndata: " + b"x" * (3 << 20) + b"\n\nid: 2\ndata: b\n\n"
    async with streaming(fixed(body)) as url:
        big, small = await read(EventStreams(client, budget(), frame_bytes_max=1 << 20), url)
    assert (big.id, len(big.data), big.dropped_bytes) == ("1", 4096, (3 << 20) - 4096)
    assert small == Frame("message", b"b", "2")
