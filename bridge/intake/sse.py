"""The only place that reads server-sent events, and the only door for httpx and httpx-sse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream
from httpx_sse import aconnect_sse

from bridge.errors import Rejected, Temporary
from bridge.intake.budget import Budget
from bridge.intake.decoder import Decoder
from bridge.intake.provider import Answer, Frame, Refusal, Request
from bridge.intake.turns import Turns
from bridge.wire import READ_BYTES, USER_AGENT, media_type

__all__ = ["Client", "Decoder", "EventStream", "EventStreams", "Frame", "open_client"]

Client = httpx.AsyncClient  # for those who hand it on without knowing httpx

_REFUSAL_BYTES_MAX = 64 << 10
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})


class EventStream:
    """One open stream; lives as long as the context that opened it."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        decoder: Decoder,
        turns: Turns,
        idle_timeout_s: float,
        on_bytes: Callable[[], None],
    ) -> None:
        self._chunks = chunks
        self._turns = turns
        self._decoder = decoder
        self._idle_timeout_s = idle_timeout_s
        self._on_bytes = on_bytes
        self.unread = False

    @property
    def retry_s(self) -> float | None:
        """The reconnection time the server last asked for, in seconds, not clamped."""
        return None if self._decoder.retry_ms is None else self._decoder.retry_ms / 1000

    def __aiter__(self) -> AsyncIterator[list[Frame]]:
        """The frames of each chunk. Raises `Temporary`: `idle` after silence, `cut` when the connection broke."""
        return self

    async def __anext__(self) -> list[Frame]:
        try:
            # Our own watchdog: aiohttp's goes to sleep for good when the server breaks the chunked coding.
            async with asyncio.timeout(self._idle_timeout_s):
                chunk = await anext(self._chunks)
        except TimeoutError as error:
            raise Temporary(f"not a byte for {self._idle_timeout_s:g} s", reason="idle") from error
        except (OSError, httpx.HTTPError, aiohttp.ClientError) as error:
            raise Temporary(f"stream cut: {type(error).__name__}: {error}", reason="cut") from error
        self._on_bytes()
        self.unread = True
        await self._turns.take(len(chunk))
        self.unread = False
        return self._decoder.feed(chunk)


_AMONG_FEW = "jobbridge.among_few"
_FEW_STREAMS = 32
_FEW_READ_BYTES = 4 * READ_BYTES


class _Transport(AiohttpTransport):
    """Gives what has arrived in larger chunks than 16 KiB: each becomes a journal transaction.

    A stream among few waits for the journal alone, and the more it brings each time the better.
    """

    def __init__(self, among_many: aiohttp.ClientSession, among_few: aiohttp.ClientSession) -> None:
        super().__init__(client=among_many, trust_env=False)
        self._sessions = (among_many, READ_BYTES), (among_few, 2 * _FEW_READ_BYTES)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.client, chunk_bytes = self._sessions[request.extensions[_AMONG_FEW]]
        response = await super().handle_async_request(request)
        if isinstance(response.stream, AiohttpResponseStream):
            response.stream.CHUNK_SIZE = chunk_bytes
        return response


@asynccontextmanager
async def open_client(session: aiohttp.ClientSession) -> AsyncIterator[Client]:
    """httpx over the engine of `session`, which stands thousands of streams where httpx's own does not.

    No cookies, no redirects, nothing from the environment. Closes `session` with itself.
    """
    async with (
        session,
        aiohttp.ClientSession(
            connector=session.connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_FEW_READ_BYTES,
        ) as roomy,
        httpx.AsyncClient(
            transport=_Transport(session, roomy),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={"User-Agent": USER_AGENT},
            trust_env=False,
            follow_redirects=False,
        ) as client,
    ):
        yield client


class EventStreams:
    """Opens the streams of one source: at most `open_streams` at once, each request within the budget."""

    def __init__(
        self,
        client: Client,
        budget: Budget,
        *,
        turns: Turns | None = None,
        open_streams: int = 2000,
        idle_timeout_s: float = 90.0,
        frame_bytes_max: int = 1 << 20,
        request_timeout_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        on_open: Callable[[int], None] = lambda _change: None,
        on_bytes: Callable[[], None] = lambda: None,
        on_request: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        """`turns` are those of all streams of the process; `request_timeout_s` covers connecting and the response's
        headers, and again what a refusal has to say.

        `on_open` hears +1 and -1; `on_bytes` that something arrived on any stream; `on_request` of every request how
        it went: `2xx`, `3xx`, `4xx`, `5xx` or `error`.
        """
        self._client = client
        self._budget = budget
        self._turns = turns or Turns()
        self._places = asyncio.Semaphore(open_streams)
        self._idle_timeout_s = idle_timeout_s
        self._frame_bytes_max = frame_bytes_max
        self._request_timeout_s = request_timeout_s
        self._clock = clock
        self._on_open = on_open
        self._on_bytes = on_bytes
        self._on_request = on_request

    @property
    def full(self) -> bool:
        """Whether another stream would have to wait for a place."""
        return self._places.locked()

    @asynccontextmanager
    async def open(self, request: Request, refusal: Refusal) -> AsyncIterator[EventStream]:
        """Waits for a free place and for the budget, then opens.

        Raises on entering: what `refusal` makes of a status of 400 or more; `Temporary` (`connect`) without an
        answer; `Rejected`: `no_stream` on any answer that is no event stream, `invalid_request` where the request
        cannot be put on the wire.
        """
        async with self._places, AsyncExitStack() as stack:
            await self._budget.take(prompt=True)
            stack.enter_context(self._turns.stream())  # before it is open: many may be opened at once
            response = await self._respond(stack, request)
            if response.status_code >= 400:
                raise self._budget.heed(refusal(await self._answer(response)))
            if trouble := _no_stream(response):
                raise Rejected(f"{request.method} {request.url}: {trouble}", reason="no_stream")
            chunks = await stack.enter_async_context(aclosing(_chunks(response)))
            self._on_open(1)
            stack.callback(self._on_open, -1)
            yield EventStream(chunks, Decoder(self._frame_bytes_max), self._turns, self._idle_timeout_s, self._on_bytes)

    async def _respond(self, stack: AsyncExitStack, request: Request) -> httpx.Response:
        outcome = "error"
        try:
            # Header values as bytes, because a cursor is not always ASCII; ours win over the provider's.
            headers = httpx.Headers([(name.encode(), value.encode()) for name, value in request.headers.items()])
            headers["Accept-Encoding"] = "identity"
            if request.body is not None:
                headers["Content-Type"] = "application/json"
            content = None if request.body is None else orjson.dumps(dict(request.body))
            url = str(httpx.URL(request.url).copy_merge_params(dict(request.params)))
            opening = aconnect_sse(
                self._client,
                request.method,
                url,
                headers=headers,
                content=content,
                timeout=None,
                extensions={_AMONG_FEW: self._turns.streams <= _FEW_STREAMS},
            )
            async with asyncio.timeout(self._request_timeout_s):
                source = await stack.enter_async_context(opening)
            outcome = f"{source.response.status_code // 100}xx"
        except (ValueError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            text = f"{request.method} {request.url}: {type(error).__name__}: {error}"
            raise Rejected(text, reason="invalid_request") from error
        except (OSError, httpx.HTTPError, aiohttp.ClientError) as error:
            raise Temporary(
                f"{request.method} {request.url}: {type(error).__name__}: {error}", reason="connect"
            ) from error
        finally:
            self._on_request(outcome)
        return source.response

    async def _answer(self, response: httpx.Response) -> Answer:
        """A refusal with as much of its body as comes in time: status and headers count even without it."""
        received_s = self._clock()
        body = bytearray()
        with suppress(OSError, httpx.HTTPError, aiohttp.ClientError):
            async with asyncio.timeout(self._request_timeout_s), aclosing(_chunks(response)) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) >= _REFUSAL_BYTES_MAX:
                        break
        return Answer(response.status_code, response.headers, bytes(body[:_REFUSAL_BYTES_MAX]), received_s)


def _no_stream(response: httpx.Response) -> str | None:
    """Why these headers announce no event stream; the charset does not matter, since the format knows only UTF-8."""
    if response.status_code != 200:
        return f"HTTP {response.status_code} instead of a stream"
    content_type = response.headers.get("content-type", "")
    if media_type(content_type) != "text/event-stream":
        return f"a {content_type or 'nameless thing'} instead of an event stream"
    if (encoding := response.headers.get("content-encoding", "").lower()) not in _ENCODINGS:
        return f"an event stream encoded as {encoding}, which we cannot read"
    return None


def _chunks(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it arrives; inflated only for a server that compresses although asked not to."""
    chunks = response.aiter_bytes() if "content-encoding" in response.headers else response.aiter_raw()
    return cast(AsyncGenerator[bytes, None], chunks)
