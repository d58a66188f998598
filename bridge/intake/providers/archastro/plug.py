"""ArchAstro: agent sessions, routine runs and automation runs, whose streams show the newest state and no history.

Facts: contract page ArchAstro 4.2 to 4.6 and the vendor's Python SDK 0.11.0. A job id names its kind (`session:<id>`,
`routine_run:<id>`, `automation_run:<id>`; a bare id is a session), because the three live under different paths and
the vendor's own id prefixes contradict each other (4.3).

Each kind has a log beside its stream: the harness events of a session, the journal of a run. What a stream shows is
either such an event, under its own id, or the state. Not stated by the vendor, and decided here: `needs_input` tells
what a session waits for, but only a state tells that it waits; an `error` frame is about the stream alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from itertools import product
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import orjson
from pydantic import AnyHttpUrl, Field

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import Cursor, Json, addressable
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
from bridge.intake.providers.archastro.readings import (
    Place,
    error_sentence,
    harness_event,
    has_status,
    job_ids,
    journal_entry,
    listed,
    read,
    state,
    text,
)
from bridge.plug import Plug
from bridge.secret import Secret

_Word = Literal["pending", "running", "waiting", "completed", "failed", "skipped", "cancelled"]


class _Kind(NamedTuple):
    """Where one kind of object lives, and which status word it never has."""

    one: str
    stream: str
    log: str
    lacks: str


_KINDS = {
    "session": _Kind("agent_sessions/{}", "agent_sessions/{}/stream", "agent_sessions/{}/events", "skipped"),
    "routine_run": _Kind(
        "agent_routines/runs/{}", "agent_routine_runs/{}/stream", "agent_routines/runs/{}/journal", "waiting"
    ),
    "automation_run": _Kind("automation_runs/{}", "automation_runs/{}/stream", "automation_runs/{}/journal", "waiting"),
}
_PAGE, _EVENTS_PAGE = 100, 200
"""The most that lists and journals give at once; what the events list gives unasked."""


class ArchAstroSettings(SourceSettings):
    """The agent sessions and runs of one ArchAstro app."""

    base_url: AnyHttpUrl = Field(
        AnyHttpUrl("https://platform.archastro.ai"), description="Address of the API, without the path prefix."
    )
    api_prefix: str = Field("/api/v1", pattern=r"^(/[^/\s]+)*$", description="What every path of the API begins with.")
    api_key: Secret | None = Field(None, description="App key: `sk_...` is enough alone, `pk_...` needs `token` too.")
    api_key_header: str = Field(
        "x-archastro-api-key", pattern=r"^[A-Za-z0-9-]+$", description="Name of the header that carries the app key."
    )
    token: Secret | None = Field(
        None, description="Bearer token: a system user's (`sat_...`), enough alone, or a user's, which expires."
    )
    refresh_token: Secret | None = Field(
        None,
        description="Exchanged for a new bearer token after a 401. It works once; its successors live in memory only, "
        "so a restart needs a fresh one.",
    )
    discover_objects: list[Literal["session", "routine_run"]] = Field(
        ["session", "routine_run"],
        description="Kinds of object that discovery lists. Automation runs have no list: name them or hand them in.",
    )
    discover_statuses: list[_Word] = Field(
        ["pending", "running", "waiting"],
        description="Statuses that discovery lists, one listing each, because a list of sessions stops at 100. "
        "Empty: all jobs in one, ended ones included.",
    )
    discover_agents: list[str] = Field(
        [], description="List each of these agents by itself, where 100 sessions of one status are too few."
    )


class ArchAstro(Provider):
    """The ArchAstro plug."""

    tells_beside = True

    def __init__(self, settings: ArchAstroSettings, http: Http) -> None:
        self._http = http
        self._settings = settings
        self._api = f"{str(settings.base_url).rstrip('/')}{settings.api_prefix}"
        self._key = {settings.api_key_header: settings.api_key.get_secret_value()} if settings.api_key else {}
        self._token = settings.token.get_secret_value() if settings.token else None
        self._refresh_token = settings.refresh_token.get_secret_value() if settings.refresh_token else None

    def stream(self, job_id: str, cursor: Cursor | None) -> Request:  # noqa: ARG002 - nothing to resume (4.5)
        kind, own_id = _named(job_id)
        return self._get(_KINDS[kind].stream, own_id)

    def read(self, frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:  # noqa: ARG002 - ids have no order
        return read(frame)

    async def status(self, job_id: str) -> Reading:
        kind, own_id = _named(job_id)
        body = await self._http.json(self._get(_KINDS[kind].one, own_id), self.refusal)
        if not has_status(body):
            raise Temporary("the API answered without a `status`", reason="not_json")
        return state(body, orjson.dumps(body), session=kind == "session")

    async def backfill(self, job_id: str, cursor: Cursor | None) -> AsyncGenerator[Sequence[Reading], None]:
        """A place in the log that the API refuses is forgotten and the log read from its beginning.

        A log that is not found says nothing about the job: not every job has one, nor every deployment.
        """
        kind, own_id = _named(job_id)
        pages = self._events if kind == "session" else self._journal
        request = self._get(_KINDS[kind].log, own_id)
        place = Place.of(cursor)
        for begin in dict.fromkeys((place, place._replace(token=None))):
            try:
                async with aclosing(pages(request, begin)) as readings_by_page:
                    async for readings in readings_by_page:
                        yield readings
            except Rejected as error:
                if error.reason == "denied" or (begin.token is None and error.reason != "not_found"):
                    raise
            else:
                return

    async def jobs(self) -> AsyncGenerator[Sequence[str], None]:
        """Sessions stop at 100 without a cursor, so they are asked for by status and, if set, by agent (4.9).

        All listings page by page in turn: a crowd in one of them must not hide the others.
        """
        seen: set[str] = set()
        async with AsyncExitStack() as stack:
            listings = [await stack.enter_async_context(aclosing(pages)) for pages in self._listings()]
            while listings:
                for listing in list(listings):
                    page = await anext(listing, None)
                    if page is None:
                        listings.remove(listing)
                    elif new := [job_id for job_id in page if job_id not in seen]:
                        seen.update(new)
                        yield new

    def refusal(self, answer: Answer) -> BridgeError:
        """Error bodies come in three shapes (4.6); the sentence is made of whichever came."""
        return common_refusal(replace(answer, body=error_sentence(answer.body) or answer.body))

    async def renew(self) -> bool:
        """A refresh token works once and brings its successor (SDK, `auth.refresh`)."""
        if self._refresh_token is None:
            return False
        body = {"refresh_token": self._refresh_token}
        try:
            answer = await self._http.json(
                Request(f"{self._api}/auth/refresh", method="POST", headers=self._key, body=body), self.refusal
            )
        except (Rejected, Fatal):
            return False
        token = text(answer.get("token")) if isinstance(answer, dict) else None
        if token is None:
            return False
        self._token, self._refresh_token = token, text(answer.get("refresh_token")) or self._refresh_token
        return True

    async def act(self, job_id: str, action: Action, body: Json) -> Answer:
        """Only sessions listen: a message wakes a waiting one, a cancel may be repeated (4.3)."""
        kind, own_id = _named(job_id)
        if kind != "session" or action is Action.RESUME:
            return await super().act(job_id, action, body)
        if action is Action.CANCEL:
            return await self._http.exchange(replace(self._get("agent_sessions/{}/cancel", own_id), method="POST"))
        if text(body.get("content")) is None:
            raise Rejected("a session takes `content`, a text that is not empty", reason="invalid")
        request = self._get("agent_sessions/{}/message", own_id)
        return await self._http.exchange(replace(request, method="POST", body=body))

    # -- pages

    async def _events(self, request: Request, place: Place) -> AsyncGenerator[Sequence[Reading], None]:
        """A bare list, oldest first, behind the id of an event (SDK, `agent_sessions.events`)."""
        seen: set[str | None] = {place.token}
        after = place.token
        while True:
            params = {"limit": str(_EVENTS_PAGE)} | ({"after": after} if after else {})
            page = await self._http.json(replace(request, params=params), self.refusal)
            if not isinstance(page, list) or not all(isinstance(event, dict) for event in page):
                raise Temporary("the events list answered without a list of events", reason="not_json")
            readings = [harness_event(event, orjson.dumps(event)) for event in page]
            new = [reading for reading in readings if reading.key not in seen]
            if new:
                yield new
            after = text(page[-1].get("id")) if page else None
            if len(page) < _EVENTS_PAGE or not new or after is None:
                return
            seen.update(reading.key for reading in new)

    async def _journal(self, request: Request, place: Place) -> AsyncGenerator[Sequence[Reading], None]:
        """The last page names no next one, so it is read again when the journal has grown (SDK, `RunJournalPage`)."""
        highest = 0
        while True:
            params = {"limit": str(_PAGE)} | ({"after_cursor": place.token} if place.token else {})
            body = await self._http.json(replace(request, params=params), self.refusal)
            entries, following = listed(body), text(body.get("after_cursor"))
            if any(not isinstance(entry.get("sequence"), int) for entry in entries):
                raise Temporary("the journal answered with an entry without a `sequence`", reason="not_json")
            new = [entry for entry in entries if entry["sequence"] > place.sequence]
            reached = max((entry["sequence"] for entry in entries), default=highest)
            place = Place(following or place.token, max(place.sequence, reached))
            if new:
                yield [*map(journal_entry, new[:-1]), journal_entry(new[-1])._replace(cursor=place.cursor())]
            if following is None or body.get("has_more") is False or reached <= highest:
                return
            highest = reached

    def _listings(self) -> Iterator[AsyncGenerator[list[str], None]]:
        """One for each kind, status and agent wished for."""
        wanted = self._settings.discover_statuses
        agents: Sequence[str | None] = self._settings.discover_agents or [None]
        for kind in self._settings.discover_objects:
            words = [word for word in wanted if word != _KINDS[kind].lacks] if wanted else (None,)
            pages = self._sessions if kind == "session" else self._runs
            yield from (pages(status, agent) for status, agent in product(words, agents))

    async def _sessions(self, status: str | None, agent: str | None) -> AsyncGenerator[list[str], None]:
        """The newest 100; filters go as lists, whose plain repeated name the API takes for its last value (4.3)."""
        body = await self._list("agent_sessions", {"status[]": status, "agent[]": agent})
        yield job_ids("session", body)

    async def _runs(self, status: str | None, agent: str | None) -> AsyncGenerator[list[str], None]:
        """The vendor's texts differ on which cursor leads to the older page (4.3): both are followed to their end."""
        filters = {"status": status, "agent[]": agent}
        first = await self._list("agent_routine_runs", filters)
        yield job_ids("routine_run", first)
        for direction in ("after_cursor", "before_cursor"):
            body, seen = first, set(job_ids("routine_run", first))
            while cursor := text(body.get(direction)):
                body = await self._list("agent_routine_runs", {**filters, direction: cursor})
                page = job_ids("routine_run", body)
                if seen.issuperset(page):
                    break
                seen.update(page)
                yield page

    async def _list(self, path: str, filters: Mapping[str, str | None]) -> dict[str, Any]:
        params = {"limit": str(_PAGE)} | {name: value for name, value in filters.items() if value}
        body = await self._http.json(replace(self._get(path), params=params), self.refusal)
        listed(body)
        return dict(body)

    def _get(self, path: str, own_id: str = "") -> Request:
        bearer = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return Request(f"{self._api}/{path.format(quote(own_id, safe=''))}", headers={**self._key, **bearer})


def _named(job_id: str) -> tuple[str, str]:
    """The kind and the vendor's own id. Raises `Rejected` where the id cannot stand in a path."""
    kind, _, own_id = job_id.partition(":")
    if kind not in _KINDS:
        kind, own_id = "session", job_id
    try:
        return kind, addressable(own_id)
    except ValueError as error:
        raise Rejected(f"{job_id!r} names no {kind}: the id {error}", reason="invalid") from error


PLUG = Plug(kind="archastro", settings=ArchAstroSettings, build=ArchAstro)
