"""Any job API that a description describes: `sse` over its event stream, `poll` by its status endpoint alone.

How a stream behaves and what a status word means stands in the description; here is only what is asked, and when.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import orjson
from pydantic import AnyHttpUrl, Field, SecretStr, field_validator, model_validator

from bridge.errors import BridgeError, Rejected, Temporary
from bridge.event import Cursor, Json
from bridge.expression import Unreadable
from bridge.intake.provider import (
    Action,
    Answer,
    Frame,
    Http,
    Provider,
    Reading,
    Request,
    SourceSettings,
    common_refusal,
)
from bridge.intake.providers.described.description import (
    Description,
    Followup,
    HeaderName,
    Listing,
    StreamRoute,
    as_text,
)
from bridge.intake.providers.described.file import InlineOrFile
from bridge.intake.providers.described.readings import Frames, combined, state
from bridge.intake.providers.described.template import Template
from bridge.plug import Plug
from bridge.wire import excerpt

_CREDENTIAL = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
_URL_CHARACTERS = "!$&'()*+,;=:@/?%-._~"


class DescribedSettings(SourceSettings):
    """What every described API needs."""

    api: InlineOrFile = Field(
        description="The API's description: written here, or `{file: path}` from the working directory. "
        "Several are in `config/providers`."
    )
    base_url: AnyHttpUrl | None = Field(None, description="Address of the API, instead of its description's.")
    headers: dict[HeaderName, SecretStr] = Field(
        default_factory=dict, description="Headers of every request. A credential by reference: `Bearer ${KEY}`."
    )

    @field_validator("headers", mode="before")
    @classmethod
    def _credentials_by_reference(cls, headers: object) -> object:
        for name, value in headers.items() if isinstance(headers, Mapping) else ():
            if type(value) is str and _CREDENTIAL.search(str(name)):  # what was fetched is of a type of its own
                raise ValueError(f"{name}: a secret is never written here: refer to it as ${{NAME}} or ${{file:/path}}")
        return headers

    @model_validator(mode="after")
    def _is_complete(self) -> DescribedSettings:
        if self.base_url is None and self.api.base_url is None:
            raise ValueError("`base_url` is needed: the API's description has none")
        if self.discover is not None and self.api.listing is None:
            raise ValueError("`discover` needs a `listing` in the API's description")
        return self


class SseSettings(DescribedSettings):
    """A described API with an event stream."""

    stream_base_url: AnyHttpUrl | None = Field(
        None, description="Address of the streams, instead of the one of the description."
    )

    @model_validator(mode="after")
    def _has_a_stream(self) -> SseSettings:
        if self.api.stream is None:
            raise ValueError("the API's description has no `stream`; `provider: poll` does without")
        return self


class PollSettings(DescribedSettings):
    """A described API whose status is polled; a stream that it may have stays closed."""

    @model_validator(mode="after")
    def _has_a_status(self) -> PollSettings:
        if self.api.status is None:
            raise ValueError("the API's description has no `status` that could be polled")
        return self


class Polled(Provider):
    """The `poll` plug."""

    def __init__(self, settings: DescribedSettings, http: Http) -> None:
        self._api: Description = settings.api
        self._http = http
        self._base_url = str(settings.base_url or self._api.base_url).rstrip("/")
        secrets = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._headers = {**self._api.headers, **secrets}

    async def status(self, job_id: str) -> Reading:
        """Where the word alone does not tell enough, the second question's answer completes the first one's."""
        route = self._api.status
        if route is None:
            raise Rejected("the API's description has no `status`", reason="no_status")
        answer = await self._http.json(self._request(route.url, job_id), common_refusal)
        with _understood(route.url):
            seen = state(route, answer, self._api.statuses, orjson.dumps(answer))
            decided = route.verdict is not None and as_text(route.verdict.of(answer)) is not None
        more = next((more for more in route.then if seen.provider_status in more.when), None)
        return seen if more is None or decided else await self._asked_again(seen, more, job_id)

    async def jobs(self) -> AsyncGenerator[Sequence[str], None]:
        listing = self._api.listing
        if listing is None:
            return
        seen: set[str] = set()
        request: Request | None = self._request(listing.url)
        while request is not None:
            page = await self._http.json(request, common_refusal)
            with _understood(listing.url):
                new = [job_id for job_id in dict.fromkeys(_ids(listing, page)) if job_id not in seen]
                request = _next(listing, page, request)
            if not new:
                return
            seen.update(new)
            yield new

    async def act(self, job_id: str, action: Action, body: Json) -> Answer:
        route = self._api.actions.get(action)
        if route is None:
            return await super().act(job_id, action, body)
        if missing := [name for name in route.required if name not in body]:
            raise Rejected(f"`{missing[0]}` is needed in the body", reason="invalid")
        request = replace(self._request(route.url, job_id), method=route.method, body=body or None)
        return await self._http.exchange(request)

    async def _asked_again(self, seen: Reading, more: Followup, job_id: str) -> Reading:
        refusals: list[Answer] = []

        def refusal(answer: Answer) -> BridgeError:
            refusals.append(answer)
            return common_refusal(answer)

        try:
            answer = await self._http.json(self._request(more.url, job_id), refusal)
        except Rejected as error:
            if error.reason == "too_large":
                return seen  # an answer all the same: only what it says stays unknown
            if more.refused is None or error.reason != "refused" or not refusals:
                raise
            return seen._replace(status=more.refused, error=_error(refusals[-1]))
        with _understood(more.url):
            return combined(seen, more.read(answer, self._api.statuses))

    def _request(self, url: Template, job_id: str | None = None, base_url: str | None = None) -> Request:
        try:
            path = url.fill({} if job_id is None else self._api.names(job_id))
        except ValueError as error:
            raise Rejected(str(error), reason="invalid_job_id") from error
        return Request((base_url or self._base_url) + path, headers=self._headers)


class Streamed(Polled):
    """The `sse` plug."""

    def __init__(self, settings: SseSettings, http: Http) -> None:
        super().__init__(settings, http)
        self._stream: StreamRoute = settings.api.stream
        own = settings.stream_base_url or self._stream.base_url
        self._stream_base_url = str(own).rstrip("/") if own else self._base_url
        self._frames = Frames(self._stream, self._api.status, self._api.statuses)

    def stream(self, job_id: str, cursor: Cursor | None) -> Request:
        request = self._request(self._stream.url, job_id, self._stream_base_url)
        rule = self._stream.cursor
        place = None if rule is None else cursor or rule.first
        if rule is None or not place:
            return request
        headers = {**request.headers, rule.header: place} if rule.header else request.headers
        return replace(request, headers=headers, params={rule.query: place} if rule.query else {})

    def read(self, frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:
        return self._frames.read(frame, cursor)

    def refusal(self, answer: Answer) -> BridgeError:
        error, rule = common_refusal(answer), self._stream.cursor
        if rule is not None and answer.status in rule.refused and isinstance(error, Rejected):
            error.reason = "stale_cursor"
        return error


@contextmanager
def _understood(url: Template) -> Iterator[None]:
    """An answer that cannot be read may be a proxy's; the next one may be better."""
    try:
        yield
    except Unreadable as error:
        raise Temporary(f"the answer of {url} is not as described: {error}", reason="not_json") from error


def _ids(listing: Listing, page: Any) -> Iterator[str]:
    found = listing.ids.of(page)
    if not isinstance(found, list):
        raise Unreadable("there are no ids in it")
    for each in found:
        parts = [as_text(part) for part in each] if isinstance(each, list) else [as_text(each)]
        job_id = "/".join(part for part in parts if part is not None)
        if job_id and None not in parts:
            yield job_id


def _next(listing: Listing, page: Any, last: Request) -> Request | None:
    """The request for the next page: never at another address than the API's own, where its key has no business."""
    place = None if listing.next is None else as_text(listing.next.of(page))
    if place is None:
        return None
    if listing.query is not None:
        return replace(last, params={listing.query: place})
    try:
        here, there = urlsplit(last.url), urlsplit(urljoin(last.url, place))
    except ValueError as error:
        raise Unreadable(f"{place[:100]!r} is no address") from error
    path, query = (quote(part, safe=_URL_CHARACTERS) for part in (there.path, there.query))
    return replace(last, url=urlunsplit((here.scheme, here.netloc, path, query, "")))


def _error(answer: Answer) -> Json:
    """What a route had to say that refused."""
    try:
        told = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        told = {"message": excerpt(answer.body)}
    return {"http_status": answer.status, **(told if isinstance(told, dict) else {"message": told})}


SSE = Plug(kind="sse", settings=SseSettings, build=Streamed)
POLL = Plug(kind="poll", settings=PollSettings, build=Polled)
