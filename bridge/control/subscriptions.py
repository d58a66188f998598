"""Subscriptions over the API: list, look, follow, pause, resume, remove.

A job id is the provider's and may hold anything, slashes included, so it is always exactly one percent-encoded path
segment: `/v1/subscriptions/auvy/a%2Fpause` is the job `a/pause`, `/v1/subscriptions/auvy/a/pause` pauses the job `a`.
"""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bridge.control import answers
from bridge.control.answers import Shape, answer
from bridge.control.asked import Digits, read_body, read_query
from bridge.control.problem import Problem
from bridge.control.view import VIEW
from bridge.event import JobKey, addressable
from bridge.journal.store import SubscriptionRecord, SubscriptionState


class Follow(BaseModel):
    """The body that asks for a job to be followed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(min_length=1, max_length=512)
    job_id: Annotated[str, AfterValidator(addressable)]


class Page(BaseModel):
    """The query of a list. `after` is the `next` of the page before."""

    model_config = ConfigDict(extra="forbid")

    source: str | None = None
    state: SubscriptionState | None = None
    limit: Digits = Field(100, ge=1, le=1000)
    after: Digits = 0


async def listing(request: web.Request) -> web.Response:
    """One page, oldest first. Removed ones are listed only when asked for, so a page can hold less than its limit."""
    page = read_query(request, Page)
    view = request.config_dict[VIEW]
    records = await view.journal.subscriptions(
        after_id=page.after, limit=page.limit, source=page.source, state=page.state
    )
    sessions = {session.name: session for session in view.crew.states()}
    shapes = [
        answers.subscription(record, sessions.get(str(record.key)))
        for record in records
        if record.state is not SubscriptionState.REMOVED or page.state is SubscriptionState.REMOVED
    ]
    following = str(records[-1].id) if len(records) == page.limit else None
    return answer({"subscriptions": shapes, "next": following})


async def follow(request: web.Request) -> web.Response:
    """Follow a job: 201 when that is new, 200 when it was followed already."""
    wanted = await read_body(request, Follow)
    view = request.config_dict[VIEW]
    if wanted.source not in view.sources:
        fault = {"detail": f"known sources: {', '.join(sorted(view.sources)) or 'none'}", "pointer": "#/source"}
        raise Problem(422, f"there is no such source; {fault['detail']}", errors=[fault])
    key = JobKey(wanted.source, wanted.job_id)
    [(record, new)] = await view.journal.follow([key], "api")
    if new:
        view.log.info("control.follow", source=key.source, job_id=key.job_id)
    return answer(_shown(request, record), 201 if new else 200, {"Location": answers.address(key)})


async def look(request: web.Request) -> web.Response:
    """One subscription."""
    return answer(_shown(request, await found(request)))


async def pause(request: web.Request) -> web.Response:
    """Stop following until somebody resumes; 409 when the job is over."""
    return await _steer(request, SubscriptionState.PAUSED)


async def resume(request: web.Request) -> web.Response:
    """Go on, from paused or parked alike; 409 when the job is over."""
    return await _steer(request, SubscriptionState.ACTIVE)


async def remove(request: web.Request) -> web.Response:
    """Never follow this job again, unless it is asked for anew. Repeating it is harmless."""
    view = request.config_dict[VIEW]
    key = _key(request)
    if await view.journal.steer(key, SubscriptionState.REMOVED) is None:
        raise _unknown()
    view.log.info("control.steer", source=key.source, job_id=key.job_id, state="removed")
    return web.Response(status=204)


_ONE = "/subscriptions/{source:[^/]+}/{job_id:[^/]+}"

ROUTES = (
    web.get("/subscriptions", listing),
    web.post("/subscriptions", follow),
    web.get(_ONE, look),
    web.delete(_ONE, remove),
    web.post(f"{_ONE}/pause", pause),
    web.post(f"{_ONE}/resume", resume),
)


async def _steer(request: web.Request, state: SubscriptionState) -> web.Response:
    view = request.config_dict[VIEW]
    record = await found(request)
    if record.state is not state:
        record = _still_there(await view.journal.steer(record.key, state))
        view.log.info("control.steer", source=record.key.source, job_id=record.key.job_id, state=record.state.value)
    if record.state is SubscriptionState.ENDED:
        raise Problem(409, "the job is over and its terminal event journalled: there is nothing left to follow")
    return answer(_shown(request, record))


async def found(request: web.Request) -> SubscriptionRecord:
    """The record of the job that the address names, if it is followed."""
    return _still_there(await request.config_dict[VIEW].journal.subscription(_key(request)))


def _still_there(record: SubscriptionRecord | None) -> SubscriptionRecord:
    if record is None or record.state is SubscriptionState.REMOVED:
        raise _unknown()
    return record


def _key(request: web.Request) -> JobKey:
    return JobKey(request.match_info["source"], request.match_info["job_id"])


def _unknown() -> Problem:
    return Problem(404, "this job is not followed; POST /v1/subscriptions follows it")


def _shown(request: web.Request, record: SubscriptionRecord) -> Shape:
    name = str(record.key)
    states = request.config_dict[VIEW].crew.states()
    return answers.subscription(record, next((session for session in states if session.name == name), None))
