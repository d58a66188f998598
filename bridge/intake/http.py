"""The only place that asks a job API a question with one JSON answer, and the process's one outbound session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
from yarl import URL

from bridge.errors import Rejected, Temporary
from bridge.intake.budget import Budget
from bridge.intake.decoding import decoded
from bridge.intake.provider import Answer, Refusal, Request, common_refusal
from bridge.wire import READ_BYTES, USER_AGENT, excerpt, start_of

_REFUSAL_BYTES_MAX = 64 << 10
_UNSENDABLE = (ValueError, aiohttp.NonHttpUrlClientError)


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """One session for all sources: no cookies, no proxies from the environment, no cap on connections.

    How many connections there are is decided by the sources' budgets and their limits on open streams.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        read_bufsize=READ_BYTES,
    ) as session:
        yield session


class SourceHttp:
    """JSON requests to one source, within its budget, each with a deadline and a limit on its answer."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        budget: Budget,
        *,
        timeout_s: float = 30.0,
        answer_bytes_max: int = 8 << 20,
        clock: Callable[[], float] = time.time,
        on_request: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        """`timeout_s` covers a request from connecting to the last byte, but not its wait for the budget.

        `on_request` hears of every request how it went: `2xx`, `3xx`, `4xx`, `5xx` or `error`.
        """
        self._session = session
        self._budget = budget
        self._timeout_s = timeout_s
        self._answer_bytes_max = answer_bytes_max
        self._clock = clock
        self._on_request = on_request

    async def exchange(self, request: Request) -> Answer:
        """Whatever the answer is, its body cut to the limit. Raises `Temporary` (`connect`) without a whole answer.

        Somebody waits for it, so it goes before most of what else waits for the budget.
        """
        answer = await self._ask(request, prompt=True)
        if answer.status == 429:
            self._budget.heed(common_refusal(answer))
        return replace(answer, body=answer.body[: self._answer_bytes_max])

    async def json(self, request: Request, refusal: Refusal) -> Any:
        """The decoded JSON body of a 2xx answer; an empty body, where nothing was to be fetched, is `{}`.

        Raises what `refusal` makes of a status of 400 or more. `Temporary`: `connect` without a whole answer,
        `not_json`. `Rejected`: `refused` on a redirect, `too_large`, `invalid_request` where it cannot be put on
        the wire.
        """
        answer = await self._ask(request)
        where = f"{request.method} {request.url}"
        if answer.status >= 400:
            raise self._budget.heed(refusal(answer))
        if answer.status >= 300:
            raise Rejected(f"{where}: redirected to {answer.headers.get('Location')}, not followed", reason="refused")
        if len(answer.body) > self._answer_bytes_max:
            raise Rejected(f"{where}: answer of more than {self._answer_bytes_max} bytes", reason="too_large")
        if not answer.body and request.method != "GET":
            return {}
        try:
            return decoded(answer.body)[0]
        except ValueError as error:
            text = f"{where}: HTTP {answer.status} without JSON: {excerpt(answer.body)!r}"
            raise Temporary(text, reason="not_json") from error

    async def _ask(self, request: Request, *, prompt: bool = False) -> Answer:
        await self._budget.take(prompt=prompt)
        headers = dict(request.headers)
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        outcome = "error"
        try:
            # Our own deadline: aiohttp's are dropped when the server breaks the chunked coding.
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(
                    request.method,
                    URL(request.url, encoded=True).extend_query(request.params),
                    headers=headers,
                    data=None if request.body is None else orjson.dumps(dict(request.body)),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(),
                ) as response,
            ):
                received_s = self._clock()
                body = await self._body(response)
                outcome = f"{response.status // 100}xx"
                return Answer(response.status, response.headers, body, received_s)
        except (OSError, ValueError, aiohttp.ClientError) as error:
            text = f"{request.method} {request.url}: {type(error).__name__}: {error}"
            if isinstance(error, _UNSENDABLE) and not isinstance(error, OSError):  # a bad certificate is a ValueError
                raise Rejected(text, reason="invalid_request") from error
            raise Temporary(text, reason="connect") from error
        finally:
            self._on_request(outcome)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, cut behind the limit: one byte too many of an answer tells that it was too large."""
        limit = _REFUSAL_BYTES_MAX if response.status >= 300 else self._answer_bytes_max + 1
        return await start_of(response.content, limit)
