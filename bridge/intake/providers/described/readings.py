"""What the answers and frames of a described API say. Pure: a description and a payload in, readings out.

The same frame always gets the same key: its key field or SSE id, else a hash of what it says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from bridge.event import Cursor, EventType, JobStatus, Json
from bridge.expression import Unreadable
from bridge.intake.decoding import decoded, not_json, oversized
from bridge.intake.provider import Frame, Reading
from bridge.intake.providers.described.description import (
    CursorRule,
    FrameRule,
    StatusRoute,
    StreamRoute,
    as_text,
    moment,
)

_NUMBERS = re.compile(r"[0-9]{1,20}")
_KINDS_REMEMBERED, _KIND_CHARS_REMEMBERED = 1024, 200
"""Types of frames come from the wire, so what is remembered of them with their rules is bounded."""

Statuses = Mapping[str, JobStatus]


def state(route: StatusRoute, document: Any, statuses: Statuses, payload: bytes) -> Reading:
    """The job as it is now. What came of it counts only once it is over. Raises `Unreadable`."""
    facts = route.read(document, statuses)
    status: JobStatus | None = facts["status"]
    if status is None and facts["provider_status"] is None:
        raise Unreadable("there is no status in it")
    if status is None or not status.terminal:
        facts |= {"result": None, "error": None}
    mark = None
    if route.fingerprint is not None:
        mark = _hash(orjson.dumps(route.fingerprint.of(document), option=orjson.OPT_SORT_KEYS))
    return Reading(**facts, fingerprint=mark, payload=payload)


def combined(first: Reading, second: Mapping[str, Any]) -> Reading:
    """A state with what a second answer adds to it, and knows better."""
    return first._replace(**{name: value for name, value in second.items() if value is not None})


class Frames:
    """The frames of one stream."""

    def __init__(self, stream: StreamRoute, status: StatusRoute | None, statuses: Statuses) -> None:
        self._stream = stream
        self._status = status
        self._statuses = statuses
        self._cursor = stream.cursor or CursorRule()
        self._resumes = stream.cursor is not None
        self._rule = lru_cache(_KINDS_REMEMBERED)(self._first_rule)

    def read(self, frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:
        """What the frame says, as `Provider.read` promises it."""
        if frame.dropped_bytes:
            return self._unmapped(frame, cursor, oversized(frame))
        payload = orjson.dumps(_utf8(frame.data)) if self._stream.data == "text" else frame.data or b"null"
        try:
            document, payload = decoded(payload)
        except ValueError:
            return self._unmapped(frame, cursor, not_json(frame.data))
        try:
            return self._read(frame, cursor, document, payload)
        except Unreadable as error:
            return self._unmapped(frame, cursor, {"reason": "unreadable", "text": str(error)}, payload)

    def _read(self, frame: Frame, cursor: Cursor | None, document: Any, payload: bytes) -> Sequence[Reading]:
        stream = self._stream
        kind = frame.event if stream.type is None else as_text(stream.type.of(document)) or ""
        if kind in stream.keep_alive:
            return ()
        if stream.latest_value and self._status is not None:
            return (state(self._status, document, self._statuses, payload),)
        rule = self._rule(kind) if len(kind) <= _KIND_CHARS_REMEMBERED else self._first_rule(kind)
        own_id = rule is None or rule.own_id
        place = self._place(frame, document)
        if own_id and self._is_behind(place, cursor):
            return ()
        if rule is None:
            facts: dict[str, Any] = {"type": stream.otherwise, "detail": _unknown(stream.otherwise, kind)}
        else:
            facts = {"type": rule.type, **rule.read(document, self._statuses)}
            facts["status"] = facts["status"] or rule.becomes
        if stream.time is not None:
            facts.setdefault("time", moment(stream.time.of(document)))
        key = self._key(frame, document) if own_id else ".".join(filter(None, (frame.id or cursor, kind)))
        return (Reading(**facts, key=key, cursor=place, payload=payload),)

    def _first_rule(self, kind: str) -> FrameRule | None:
        frames = self._stream.frames
        return frames.get(kind) or next((rule for name, rule in frames.items() if fnmatchcase(kind, name)), None)

    def _key(self, frame: Frame, document: Any) -> str:
        key = frame.id if self._stream.key is None else as_text(self._stream.key.of(document))
        return key or _content(frame)

    def _place(self, frame: Frame, document: Any) -> Cursor | None:
        place = frame.id if self._cursor.path is None else as_text(self._cursor.path.of(document))
        return Cursor(place) if place and self._resumes else None

    def _is_behind(self, place: Cursor | None, cursor: Cursor | None) -> bool:
        """Whether that place was passed already, as far as the numbers in it tell."""
        if not self._cursor.ordered or place is None or cursor is None:
            return False
        numbers = _order(place)
        return numbers != () and numbers <= _order(cursor)

    def _unmapped(
        self, frame: Frame, cursor: Cursor | None, detail: Json, payload: bytes | None = None
    ) -> Sequence[Reading]:
        """A frame that cannot be read: only its SSE id may still tell its place."""
        place = Cursor(frame.id) if frame.id and self._resumes and self._cursor.path is None else None
        if self._is_behind(place, cursor):
            return ()
        key = (frame.id if self._stream.key is None else "") or _content(frame)
        return (Reading(type=EventType.UNMAPPED, key=key, cursor=place, detail=detail, payload=payload),)


def _unknown(type_: EventType, kind: str) -> Json:
    return {"reason": "unknown_kind", "kind": kind} if type_ is EventType.UNMAPPED else {"kind": kind}


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _order(cursor: str) -> tuple[int, ...]:
    return tuple(map(int, _NUMBERS.findall(cursor)))


def _content(frame: Frame) -> str:
    return _hash(frame.event.encode() + b"\n" + frame.data)


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest()
