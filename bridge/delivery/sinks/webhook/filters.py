"""Which events a receiver wants: patterns, and a predicate on the event itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator

from bridge.delivery.envelope import cloudevent_attributes
from bridge.delivery.patterns import any_of
from bridge.delivery.sink import Unjudged
from bridge.event import EventType
from bridge.expression import JmesPath, Unreadable
from bridge.journal.store import Entry


def _fits_some_type(pattern: str) -> str:
    if not any(fnmatchcase(type_, pattern) for type_ in EventType):
        raise ValueError(f"{pattern[:60]!r} fits no event type; there are: {', '.join(EventType)}")
    return pattern


TypePattern = Annotated[str, AfterValidator(_fits_some_type)]


class Filters:
    """What a receiver subscribed to. All of it must fit."""

    def __init__(
        self, types: Iterable[str], sources: Iterable[str], jobs: Iterable[str], when: JmesPath | None
    ) -> None:
        self._types, self._sources, self._jobs = any_of(types), any_of(sources), any_of(jobs)
        self._when = when

    def want(self, entry: Entry) -> bool:
        """Whether the receiver is to have the event: also where that cannot be judged, as when it is delivered."""
        try:
            return self.judge(entry)
        except Unjudged:
            return True

    def judge(self, entry: Entry) -> bool:
        """Whether the receiver wants the event. Data is decoded only for a predicate, and after all else fitted.

        Raises `Unjudged` where the predicate cannot be applied, or would take too long.
        """
        return bool(
            self._types.match(entry.type) and self._sources.match(entry.source) and self._jobs.match(entry.subject)
        ) and (self._when is None or _holds(self._when, entry))


def _holds(predicate: JmesPath, entry: Entry) -> bool:
    """Whether it is true of the event in CloudEvents form."""
    event: dict[str, Any] = dict(cloudevent_attributes(entry))
    event["data"] = orjson.loads(entry.data)
    try:
        return predicate.holds(event)
    except Unreadable as error:
        raise Unjudged(str(error)) from error
