"""Endpoints over the API: list, look, make, change, remove, change secrets, try, disable and enable.

Those that the configuration declares are shown beside those that were made here, and can only be tried and enabled.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote
from uuid import uuid4

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge.control import answers
from bridge.control.answers import Shape, answer, tally
from bridge.control.asked import Digits, read_body, read_query
from bridge.control.problem import Problem, invalid_body
from bridge.control.view import VIEW, View
from bridge.delivery.made import Draft
from bridge.delivery.sink import EndpointSink, Trial
from bridge.errors import BridgeError, Fatal, Rejected
from bridge.journal.endpoints import EndpointChange, EndpointRecord, EndpointState
from bridge.journal.store import Entry
from bridge.plug import NAME

_MONTH_S = 2_592_000.0
_DECLARED = "this endpoint is declared in the configuration: it is changed there"


class Page(BaseModel):
    """The query of a list. `after` is the `next` of the page before."""

    model_config = ConfigDict(extra="forbid")

    after: str = Field("", max_length=63)
    limit: Digits = Field(100, ge=1, le=1000)


class New(BaseModel):
    """The body that makes one: its name, and its settings as the configuration has them."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Annotated[str, Field(pattern=NAME)]


class Alteration(BaseModel):
    """The body that changes settings: null takes one back to its default."""

    model_config = ConfigDict(extra="allow", strict=True)


class Rotation(BaseModel):
    """The body that asks for a new secret."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_s: float = Field(86_400.0, ge=0, le=_MONTH_S)
    """How long the secret before goes on signing beside it."""


async def listing(request: web.Request) -> web.Response:
    """Declared ones with the first page, then those made here by name. Secrets are never shown."""
    wanted, view = read_query(request, Page), _view(request)
    records = await view.journal.endpoints.page(wanted.after, wanted.limit)
    declared = [] if wanted.after else [_declared(view, name) for name in view.endpoints.declared]
    following = records[-1].name if len(records) == wanted.limit else None
    return answer({"endpoints": [*declared, *(_made(view, record) for record in records)], "next": following})


async def look(request: web.Request) -> web.Response:
    """One endpoint."""
    view, name = _view(request), _name(request)
    if name in view.endpoints.declared:
        return answer(_declared(view, name))
    return answer(_made(view, await _record(request)))


async def make(request: web.Request) -> web.Response:
    """A new endpoint, for events from now on. A secret that is made here is in this answer and in no other."""
    wanted, view = await read_body(request, New), _view(request)
    _refuse_closed(view)
    if wanted.name in view.endpoints.taken:
        raise Problem(409, f"the configuration uses the name {wanted.name}")
    draft = _drafted(lambda: view.endpoints.maker.draft(wanted.name, wanted.model_extra or {}))
    try:
        record = await view.journal.endpoints.add(wanted.name, draft.settings, draft.sealed)
    except Rejected as error:
        raise Problem(409, str(error)) from error
    view.log.info("control.endpoint", endpoint=record.name, change="made")
    place = f"/v1/endpoints/{quote(record.name, safe='')}"
    return answer({**_made(view, record), **draft.shown}, 201, {"Location": place})


async def change(request: web.Request) -> web.Response:
    """Other settings for the same endpoint; its place in the journal stays. Headers are given as a whole."""
    wanted, view, record = await read_body(request, Alteration), _view(request), await _record(request)
    _refuse_closed(view)
    draft = _drafted(lambda: view.endpoints.maker.altered(record, wanted.model_extra or {}))
    return answer(_made(view, await _keep(request, record, draft, "changed")))


async def rotate(request: web.Request) -> web.Response:
    """A new secret signs first, and the one before beside it until `overlap_s` have passed."""
    wanted = await read_body(request, Rotation) if request.can_read_body else Rotation()
    view, record = _view(request), await _record(request)
    _refuse_closed(view)
    draft = _drafted(lambda: view.endpoints.maker.rotated(record, wanted.overlap_s))
    return answer({**_made(view, await _keep(request, record, draft, "rotated")), **draft.shown})


async def remove(request: web.Request) -> web.Response:
    """Send nothing more, and forget its secrets. Its name cannot be given away again."""
    view, name = _view(request), _name(request)
    if name in view.endpoints.declared:
        raise Problem(409, _DECLARED)
    if not await view.journal.endpoints.remove(name):
        raise _unknown()
    view.log.info("control.endpoint", endpoint=name, change="removed")
    return web.Response(status=204)


async def disable(request: web.Request) -> web.Response:
    """Send nothing until somebody enables it; what it does not get meanwhile is kept for it."""
    record = await _steer(request, await _record(request), EndpointState.DISABLED, "disabled over the API")
    return answer(_made(_view(request), record))


async def enable(request: web.Request) -> web.Response:
    """Send again, after somebody or the receiver itself has stopped it."""
    view, name = _view(request), _name(request)
    record = None if name in view.endpoints.declared else await _record(request)
    await view.journal.endpoint_health.enable(name)
    if record is not None and record.state is EndpointState.DISABLED:
        record = await _steer(request, record, EndpointState.ACTIVE)
    await view.crew.resume(name)
    view.log.info("control.resume", group=name)
    return answer(_declared(view, name) if record is None else _made(view, record))


async def try_out(request: web.Request) -> web.Response:
    """One signed event of type `endpoint.test`, at once, and what came of it. Nothing follows from the answer."""
    view, name = _view(request), _name(request)
    sink: EndpointSink | None = view.endpoints.declared.get(name)
    if sink is None:
        sink = view.endpoints.maker.sink(await _record(request))
    trial, entry, started_s = Trial(1), _test_event(name), time.monotonic()
    reason = detail = None
    try:
        async with asyncio.timeout(view.deadline_s * 0.9), sink.endpoint() as endpoint:
            await endpoint.deliver(entry, trial)
    except TimeoutError:
        reason, detail = "timeout", f"{name}: no answer within {view.deadline_s * 0.9:g} s"
    except BridgeError as error:
        reason, detail = error.reason, str(error)
    return answer(
        {
            "delivered": reason is None,
            "event_id": entry.id,
            "status": trial.status,
            "duration_s": round(time.monotonic() - started_s, 3),
            "address": trial.address,
            "answer": trial.answer,
            "reason": reason,
            "detail": detail,
        }
    )


_ONE = "/endpoints/{name:[^/]+}"

ROUTES = (
    web.get("/endpoints", listing),
    web.post("/endpoints", make),
    web.get(_ONE, look),
    web.patch(_ONE, change),
    web.delete(_ONE, remove),
    web.post(f"{_ONE}/rotate-secret", rotate),
    web.post(f"{_ONE}/test", try_out),
    web.post(f"{_ONE}/disable", disable),
    web.post(f"{_ONE}/enable", enable),
)


def _drafted(draft: Callable[[], Draft]) -> Draft:
    try:
        return draft()
    except ValidationError as error:
        raise invalid_body(error) from error
    except (Fatal, Rejected) as error:
        raise Problem(409, str(error)) from error


def _refuse_closed(view: View) -> None:
    if view.endpoints.maker.closed:
        raise Problem(403, view.endpoints.maker.closed)


async def _keep(request: web.Request, record: EndpointRecord, draft: Draft, what: str) -> EndpointRecord:
    new = EndpointChange(draft.settings, draft.sealed)
    return await _change(request, record, new, what)


async def _steer(
    request: web.Request, record: EndpointRecord, state: EndpointState, reason: str | None = None
) -> EndpointRecord:
    return await _change(request, record, EndpointChange(state=state, reason=reason), state.value)


async def _change(request: web.Request, record: EndpointRecord, new: EndpointChange, what: str) -> EndpointRecord:
    view = _view(request)
    try:
        changed = await view.journal.endpoints.change(record.name, new, revision=record.revision)
    except Rejected as error:
        raise Problem(409, str(error)) from error
    view.log.info("control.endpoint", endpoint=record.name, change=what)
    return changed


async def _record(request: web.Request) -> EndpointRecord:
    view, name = _view(request), _name(request)
    if name in view.endpoints.declared:
        raise Problem(409, _DECLARED)
    record = await view.journal.endpoints.record(name)
    if record is None:
        raise _unknown()
    return record


def _unknown() -> Problem:
    return Problem(404, "there is no such endpoint; POST /v1/endpoints makes one")


def _name(request: web.Request) -> str:
    return request.match_info["name"]


def _view(request: web.Request) -> View:
    return request.config_dict[VIEW]


def _declared(view: View, name: str) -> Shape:
    settings = view.endpoints.about[name]
    return _group(view, name, view.sinks[name]) | {"declared": True, "settings": settings}


def _made(view: View, record: EndpointRecord) -> Shape:
    shape = _group(view, record.name, view.endpoints.maker.kind)
    if record.state is not EndpointState.ACTIVE:
        shape |= {"state": record.state, "reason": record.reason}
    return shape | answers.made(record)


def _group(view: View, name: str, kind: str) -> Shape:
    sessions = tally(view.crew.states()).get(name, Counter())
    return answers.group(name, kind, view.crew, sessions)


def _test_event(name: str) -> Entry:
    data = {"job": {"id": "test", "status": "completed"}, "endpoint": name}
    now_ms = time.time_ns() // 1_000_000
    return Entry(
        0, 0, 0, 0, now_ms, f"test-{uuid4()}", "jobbridge", "test", "endpoint.test", None, None, orjson.dumps(data)
    )
