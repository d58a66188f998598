"""A job's trail over the API: where each of its events got to, at every sink."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from bridge.control import answers
from bridge.control.answers import Shape, answer
from bridge.control.asked import Digits, read_query
from bridge.control.problem import Problem
from bridge.control.view import VIEW, View
from bridge.delivery.sink import Absence, LogPlace, SearchableLog
from bridge.event import JobKey
from bridge.journal.outcomes import Delivery, DeliveryState, Place
from bridge.journal.store import Entry

_SEARCHED_MAX = 100
"""Events on a page for which logs are searched: a search reads the log itself, which others want to do as well."""

_Found = Mapping[tuple[str, Place], LogPlace | Absence]
"""Where a sink's log holds an event."""


class Trail(BaseModel):
    """The query of a trail. `after` is the `next` of the page before; with `kafka`, logs are searched."""

    model_config = ConfigDict(extra="forbid")

    after: Digits = 0
    limit: Digits = Field(100, ge=1, le=1000)
    kafka: bool = False


async def trail(request: web.Request) -> web.Response:
    """What became of a job's events, each at every sink. A sink that came later than an event is not named there.

    With `kafka=true`, what was delivered to Kafka has its `record` as well: topic, partition and offset, or null and in
    `record_absent` why: `not_found` to the end of the partition it belongs to, `not_reached` within the limits of such
    a search, `unavailable`. The page is then of 100 events at most.
    """
    wanted, view = read_query(request, Trail), request.config_dict[VIEW]
    key = JobKey(request.match_info["source"], request.match_info["job_id"])
    record = await view.journal.subscription(key)
    if record is None:
        raise Problem(404, "this job was never followed; POST /v1/subscriptions follows it")
    limit = min(wanted.limit, _SEARCHED_MAX) if wanted.kafka else wanted.limit
    told = await view.journal.outcomes.trail(record.id, wanted.after, limit)
    found = await _found(view, told) if wanted.kafka else {}
    events = [list(deliveries) for _, deliveries in groupby(told, lambda one: one.sequence)]
    following = events[-1][0].sequence if len(events) == limit else None
    return answer({"events": [_passage(view, deliveries, found) for deliveries in events], "next": following})


ROUTES = (web.get("/jobs/{source:[^/]+}/{job_id:[^/]+}/trail", trail),)


async def _found(view: View, told: Sequence[Delivery]) -> _Found:
    """All logs are searched at once, each for what it took."""
    entries = await _entries(view, told)
    found: dict[tuple[str, Place], LogPlace | Absence] = {}

    async def search(name: str, log: SearchableLog) -> None:
        places = [one.place for one in told if one.consumer == name and one.state is DeliveryState.DELIVERED]
        wanted = {place: entries[place] for place in places if place in entries}
        where = await log.whereabouts(list(wanted.values()))
        found.update(((name, place), one) for place, one in zip(wanted, where, strict=True))

    async with asyncio.TaskGroup() as searches:
        for name, log in view.logs.items():
            searches.create_task(search(name, log))
    return found


async def _entries(view: View, told: Iterable[Delivery]) -> dict[Place, Entry]:
    """What the deliveries to logs are about, short of what was pruned in this moment."""
    places = dict.fromkeys(one.place for one in told if one.consumer in view.logs)
    entries = [await view.journal.entry(*place) for place in places]
    return {place: entry for place, entry in zip(places, entries, strict=True) if entry is not None}


def _passage(view: View, deliveries: list[Delivery], found: _Found) -> Shape:
    """One event of a job, and what became of it at every sink."""
    sinks = {
        one.consumer: {
            "kind": view.sinks[one.consumer],
            **answers.outcome(one),
            **answers.record(found.get((one.consumer, one.place))),
        }
        for one in deliveries
        if one.state is not None and one.consumer in view.sinks
    }
    return answers.event(deliveries[0]) | {"sinks": sinks}
