"""What became of events, over the API: list, count, look, redrive, replay, drop.

A delivery is one event at one sink. Its id is the event's place in the journal, such as `0-17`.
"""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bridge.control import answers
from bridge.control.answers import Shape, answer
from bridge.control.asked import Digits, read_body, read_query
from bridge.control.problem import Problem
from bridge.control.view import VIEW, View
from bridge.errors import Rejected
from bridge.journal.outcomes import (
    BEGINNING,
    DROPPABLE,
    NEVER_GOT,
    REDRIVABLE,
    Delivery,
    DeliveryState,
    Place,
    Selection,
)

_ALL = frozenset(DeliveryState)
_DEAD = frozenset({DeliveryState.DEAD})


def _place(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    partition, dash, position = value.partition("-")
    if not (dash and all(part.isascii() and part.isdigit() and len(part) <= 18 for part in (partition, position))):
        raise ValueError("must be the id of a delivery, such as 0-17")
    return Place(int(partition), int(position))


def _states(value: Any) -> Any:
    return frozenset(value.split(",")) if isinstance(value, str) else value


Id = Annotated[Place, BeforeValidator(_place)]


class Filter(BaseModel):
    """Which events. Every condition that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    source: str | None = None
    job_id: str | None = None
    type: str | None = None
    since: AwareDatetime | None = None
    """Journalled then or later."""

    def selection(self, sink: str, states: frozenset[DeliveryState], place: Place | None = None) -> Selection:
        since_ms = 0 if self.since is None else int(self.since.timestamp() * 1000)
        return Selection(sink, states, since_ms, self.source, self.job_id, self.type, place)


class Listing(Filter):
    """The query of a list: states with commas between them, all when absent. `after` is the `next` of the page
    before."""

    state: Annotated[frozenset[DeliveryState], BeforeValidator(_states)] = _ALL
    after: Id = BEGINNING
    limit: Digits = Field(100, ge=1, le=1000)


class Counting(Filter):
    """The query of a count."""


class Change(Filter):
    """The body that changes deliveries: one by its id, those of a filter, or `all`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    delivery: Id | None = None
    states: frozenset[DeliveryState] | None = None
    all: bool = False
    dry_run: bool = False

    @model_validator(mode="after")
    def _names_something(self) -> Change:
        filtered = any(value is not None for value in (self.source, self.job_id, self.type, self.since, self.states))
        if not (self.all or filtered or self.delivery):
            raise ValueError('name a delivery, give a filter, or say "all": true')
        return self


class Redrive(Change):
    """The body that has deliveries made anew."""

    per_second: float | None = Field(None, ge=0.01, allow_inf_nan=False)
    """So many become due in a second, instead of all at once."""


async def listing(request: web.Request) -> web.Response:
    """One page, in the journal's order. It may hold less than its limit, even nothing, although `next` is given."""
    wanted = read_query(request, Listing)
    selection = wanted.selection(_sink(request), wanted.state)
    page = await _view(request).journal.outcomes.page(selection, wanted.after, wanted.limit)
    following = None if page.following is None else str(page.following)
    return answer({"deliveries": [_shape(one) for one in page.deliveries], "next": following})


async def counts(request: web.Request) -> web.Response:
    """How many deliveries are in each state."""
    wanted = read_query(request, Counting)
    counted = await _view(request).journal.outcomes.count(wanted.selection(_sink(request), _ALL))
    return answer({"counts": {state.value: counted.get(state, 0) for state in DeliveryState}})


async def look(request: web.Request) -> web.Response:
    """One delivery and the attempts that are kept of it."""
    sink = _sink(request)
    delivery = await _found(request, sink, _place(request.match_info["id"]))
    attempts = await _view(request).journal.outcomes.attempts(sink, delivery.place)
    return answer(_shape(delivery) | {"history": [answers.attempt(one) for one in attempts]})


async def redrive(request: web.Request) -> web.Response:
    """Deliver anew: dead ones, unless other states are named."""
    return await _redrive(request, await read_body(request, Redrive), _DEAD)


async def replay(request: web.Request) -> web.Response:
    """Deliver what the endpoint never got, dropped and expired ones included, unless other states are named."""
    return await _redrive(request, await read_body(request, Redrive), NEVER_GOT)


async def drop(request: web.Request) -> web.Response:
    """Give up dead ones, unless other states are named."""
    wanted, sink = await read_body(request, Change), _sink(request)
    selection = await _selected(request, wanted, sink, _DEAD, DROPPABLE)
    count = await _view(request).journal.outcomes.drop(selection, dry_run=wanted.dry_run)
    return _changed(request, "control.drop", sink, count, dry_run=wanted.dry_run)


_SINK = "/endpoints/{name:[^/]+}"

ROUTES = (
    web.get(f"{_SINK}/deliveries", listing),
    web.get(f"{_SINK}/deliveries/counts", counts),
    web.get(_SINK + "/deliveries/{id:[0-9]{1,9}-[0-9]{1,18}}", look),
    web.post(f"{_SINK}/redrive", redrive),
    web.post(f"{_SINK}/replay", replay),
    web.post(f"{_SINK}/drop", drop),
)


async def _redrive(request: web.Request, wanted: Redrive, states: frozenset[DeliveryState]) -> web.Response:
    sink = _sink(request)
    selection = await _selected(request, wanted, sink, states, REDRIVABLE)
    try:
        count = await _view(request).journal.outcomes.redrive(
            selection, per_second=wanted.per_second, dry_run=wanted.dry_run
        )
    except Rejected as error:
        raise Problem(409, str(error)) from error
    return _changed(request, "control.redrive", sink, count, dry_run=wanted.dry_run)


async def _selected(
    request: web.Request,
    wanted: Change,
    sink: str,
    default: frozenset[DeliveryState],
    allowed: frozenset[DeliveryState],
) -> Selection:
    """What the body names. One by its id must be there, and in a state that allows it."""
    if wanted.delivery is not None:
        delivery = await _found(request, sink, wanted.delivery)
        if delivery.state not in (wanted.states or allowed) & allowed:
            raise Problem(409, f"the delivery is {delivery.state}: only {_named(allowed)} ones allow this")
        return wanted.selection(sink, allowed, wanted.delivery)
    states = default if wanted.states is None else wanted.states
    if others := states - allowed:
        fault = {"detail": f"only {_named(allowed)} ones allow this, not {_named(others)}", "pointer": "#/states"}
        raise Problem(422, fault["detail"], errors=[fault])
    return wanted.selection(sink, states)


def _changed(request: web.Request, what: str, sink: str, count: int, *, dry_run: bool) -> web.Response:
    if not dry_run:
        _view(request).log.info(what, sink=sink, count=count)
    return answer({"count": count, "dry_run": dry_run})


async def _found(request: web.Request, sink: str, place: Place) -> Delivery:
    page = await _view(request).journal.outcomes.page(Selection(sink, _ALL, place=place), limit=1)
    if not page.deliveries:
        raise Problem(404, "there is no such delivery: the event was pruned, never was, or is older than the sink")
    return page.deliveries[0]


def _sink(request: web.Request) -> str:
    name, sinks = request.match_info["name"], _view(request).sinks
    if name not in sinks:
        raise Problem(404, f"there is no such sink; known: {', '.join(sorted(sinks)) or 'none'}")
    return name


def _view(request: web.Request) -> View:
    return request.config_dict[VIEW]


def _shape(delivery: Delivery) -> Shape:
    return answers.event(delivery) | answers.outcome(delivery)


def _named(states: frozenset[DeliveryState]) -> str:
    return ", ".join(sorted(states))
