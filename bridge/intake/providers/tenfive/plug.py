"""TenFive Agent Harness (Runs API): a stream whose cursor is `seq` in the payload, with the same events in a list.

Facts: the vendor's quickstart, events and run lifecycle pages; contract page TenFive 2.1 to 2.7. Not stated there, and
decided here: `Last-Event-ID` is always sent, for it can do no harm; the list is asked behind the last `seq`, under the
parameter name that the deployment's own `openapi.json` tells, and from its beginning where that is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import AnyHttpUrl, Field

from bridge.errors import BridgeError, Rejected, Temporary
from bridge.event import Cursor, Json
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
from bridge.intake.providers.tenfive.readings import SIGNALS, Place, from_frame, from_list, from_record, seq_of
from bridge.plug import Plug
from bridge.secret import Secret

_CURSOR_PARAM = "after"
_EVENTS_PATH = re.compile(r"/runs/\{[^{}]+\}/events/?$")
_CURSOR_NAME = re.compile(r"cursor|after|since|seq", re.IGNORECASE)


class TenFiveSettings(SourceSettings):
    """A TenFive deployment, seen with one API key."""

    base_url: AnyHttpUrl = Field(description="Address of the deployment, without `/v1`; the vendor publishes none.")
    token: Secret = Field(description="API key as issued, `key_id:secret`.")
    cancel_path: str | None = Field(
        None,
        description="What follows `/v1/runs/{id}` in the route that cancels, such as `/cancel`. It is not documented, "
        "so cancelling is refused when absent.",
    )
    events_cursor_param: str | None = Field(
        None,
        description="Query parameter of the event list that takes the last `seq`. When absent, what the deployment's "
        "`openapi.json` tells, else `after`.",
    )
    events_limit_param: str = Field("limit", description="Query parameter that takes its page size.")
    events_page: int = Field(100, ge=1, description="Events asked for in one page.")
    events_field: str = Field("events", description="Member of its answer that holds the events; a bare list will do.")
    events_next_field: str = Field(
        "next_cursor", description="Member that holds the next page's cursor. Where it is not sent, the last `seq`."
    )


class TenFive(Provider):
    """The TenFive plug."""

    def __init__(self, settings: TenFiveSettings, http: Http) -> None:
        self._http = http
        self._settings = settings
        self._base = str(settings.base_url).rstrip("/")
        self._headers: Mapping[str, str] = {"Authorization": f"Bearer {settings.token.get_secret_value()}"}
        self._cursor_param = settings.events_cursor_param
        self._learning = asyncio.Lock()

    def stream(self, job_id: str, cursor: Cursor | None) -> Request:
        """Whether `Last-Event-ID` is honoured, and whether a connection replays, is not stated: both are safe (2.7)."""
        place = Place.of(cursor)
        last = {"Last-Event-ID": place.id or str(place.seq)} if cursor else {}
        return Request(f"{self._run(job_id)}/events/stream", headers={**self._headers, **last})

    def read(self, frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:
        return from_frame(frame, cursor)

    async def status(self, job_id: str) -> Reading:
        body = await self._http.json(Request(self._run(job_id), headers=self._headers), self._error)
        record = body.get("run", body) if isinstance(body, dict) else None
        word = record.get("status") if isinstance(record, dict) else None
        if not (isinstance(record, dict) and isinstance(word, str)):
            raise Temporary("the run record answered without a `status`", reason="not_json")
        return from_record(record, word)

    async def backfill(self, job_id: str, cursor: Cursor | None) -> AsyncGenerator[Sequence[Reading], None]:
        """The event list, page by page, until a page tells nothing beyond the one before it.

        Where our `seq` is refused as a cursor, the list is read from its beginning.
        """
        settings, reached = self._settings, -1
        url, cursor_param = f"{self._run(job_id)}/events", await self._learn()
        asked = {cursor_param: str(Place.of(cursor).seq)} if cursor else {}
        refusal = self._refused_place if asked else self._error
        while True:
            params = {settings.events_limit_param: str(settings.events_page), **asked}
            try:
                body = await self._http.json(Request(url, params=params, headers=self._headers), refusal)
            except Rejected as error:
                if error.reason != "stale_cursor":
                    raise
                asked, refusal = {}, self._error
                continue
            page, following = self._page(body)
            events = [event for event in page if event[0] > reached]
            yield from_list(events, cursor)
            if following is None or not events:
                return
            reached, asked, refusal = events[-1][0], {cursor_param: following}, self._refused_page

    def refusal(self, answer: Answer) -> BridgeError:
        """Of a stream or a list, 400 and 422 can only be about the cursor."""
        error = self._error(answer)
        if answer.status in {400, 422}:
            error.reason = "stale_cursor"
        return error

    async def act(self, job_id: str, action: Action, body: Json) -> Answer:
        match action:
            case Action.INPUT:
                if body.get("action") not in SIGNALS:
                    raise Rejected(f"`action` must be one of {', '.join(SIGNALS)}", reason="invalid")
                path = "/signal"
            case Action.RESUME:
                path = "/resume"
            case Action.CANCEL:
                if self._settings.cancel_path is None:
                    raise Rejected("TenFive documents no route for cancel; set `cancel_path`", reason="unsupported")
                path = f"/{self._settings.cancel_path.lstrip('/')}"
        url = f"{self._run(job_id)}{path}"
        return await self._http.exchange(Request(url, method="POST", headers=self._headers, body=body))

    def _refused_page(self, answer: Answer) -> BridgeError:
        """Of a later page, a refusal is about its cursor: the last `seq` that was read will do the next time."""
        error = self._refused_place(answer)
        return Temporary(str(error), reason="page_refused") if error.reason == "stale_cursor" else error

    def _refused_place(self, answer: Answer) -> BridgeError:
        """Of a list behind a place, 410 too: where it is the run that has gone, the list without a place says so."""
        error = self.refusal(answer)
        if answer.status == 410:
            error.reason = "stale_cursor"
        return error

    def _error(self, answer: Answer) -> BridgeError:
        """The documented envelope `error`, `reason_code`, `request_id` (2.5), with the code first."""
        try:
            body = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict) or "reason_code" not in body:
            return common_refusal(answer)
        told = f"{body['reason_code']}: {body.get('error')} (request {body.get('request_id')})"
        return common_refusal(Answer(answer.status, answer.headers, told.encode(), answer.received_s))

    async def _learn(self) -> str:
        """What the list's cursor is called: the deployment's own description is read once, and not missed."""
        async with self._learning:
            if self._cursor_param is None:
                document = None
                try:
                    document = await self._http.json(Request(f"{self._base}/openapi.json"), common_refusal)
                except BridgeError as error:
                    if isinstance(error, Temporary) and error.reason != "not_json":
                        return _CURSOR_PARAM  # in trouble, not absent: ask again next time
                self._cursor_param = _described(document) or _CURSOR_PARAM
            return self._cursor_param

    def _page(self, body: Any) -> tuple[list[tuple[int, Json]], str | None]:
        """The events of one answer in order, and the cursor of the next page, if there can be one."""
        settings = self._settings
        listed = body.get(settings.events_field) if isinstance(body, dict) else body
        if not isinstance(listed, list):
            raise Temporary(f"the event list answered without `{settings.events_field}`", reason="not_json")
        events = sorted(((seq, e) for e in listed if (seq := seq_of(e)) is not None), key=lambda event: event[0])
        following: Any = events[-1][0] if events else None
        if isinstance(body, dict):
            following = body.get(settings.events_next_field, following)
        return events, None if following in (None, "") else str(following)

    def _run(self, job_id: str) -> str:
        return f"{self._base}/v1/runs/{quote(job_id, safe='')}"


def _described(document: Any) -> str | None:
    """The event list's cursor parameter, as an OpenAPI document declares it."""
    try:
        lists = [item["get"]["parameters"] for path, item in document["paths"].items() if _EVENTS_PATH.search(path)]
        names = [str(parameter["name"]) for one in lists for parameter in one if parameter["in"] == "query"]
    except (AttributeError, LookupError, TypeError):
        return None
    return next((name for name in names if _CURSOR_NAME.search(name)), None)


PLUG = Plug(kind="tenfive", settings=TenFiveSettings, build=TenFive)
