"""What TenFive's events and run records say, in canonical words. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from bridge.event import Cursor, EventType, JobStatus, Json
from bridge.intake.decoding import decoded, not_json, oversized
from bridge.intake.provider import Frame, Reading

_STATUSES = {
    "queued": JobStatus.PENDING,
    "running": JobStatus.RUNNING,
    "awaiting_input": JobStatus.WAITING,
    "stalled": JobStatus.PAUSED,
    "succeeded": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
    "limit_exceeded": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
    "canceled": JobStatus.CANCELLED,
}
_MOVES = {
    "run.created": "queued",
    "run.worker.started": "running",
    "run.awaiting_input": "awaiting_input",
    "run.worker.succeeded": "succeeded",
    "run.worker.failed": "failed",
    "run.limit_exceeded": "failed",
    "run.cancelled": "cancelled",
}
"""Event type: the status it leads to where its payload has no `to_status` (2.4)."""

_TRANSITION = ("from_status", "to_status", "reason_code", "request_id")
SIGNALS = ("approve", "reject", "submit_input")
"""What a waiting run can be told (2.2)."""

_SEQ_FIRST = re.compile(rb'\s*\{\s*"seq"\s*:\s*(\d{1,18})\s*,')


class Place(NamedTuple):
    """A cursor: the last `seq`, and the SSE id it or an earlier event came under, where ids come and differ."""

    seq: int = -1
    id: str = ""

    @classmethod
    def of(cls, cursor: Cursor | None) -> Place:
        seq, _, sse_id = (cursor or "").partition(" ")
        return cls(int(seq) if seq.isascii() and seq.isdigit() else -1, sse_id)

    def at(self, seq: int, sse_id: str = "") -> Cursor:
        """A later cursor. An id that is behind only makes the server repeat itself."""
        known = sse_id or self.id
        return Cursor(f"{seq} {known}" if known and known != str(seq) else str(seq))


def from_frame(frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:
    """What a frame says beyond the cursor.

    One without a readable `seq` is named by its content, so that a replay brings no second event.
    """
    event, payload, seq, flaw = _opened(frame)
    if seq is None:
        return (Reading(EventType.UNMAPPED, f"frame.{sha256(frame.data).hexdigest()[:16]}", detail=flaw),)
    place = Place.of(cursor)
    if seq <= place.seq:
        return ()
    here = partial(Reading, key=str(seq), cursor=place.at(seq, frame.id), hole=seq > max(place.seq, 0) + 1)
    return (here(type=EventType.UNMAPPED, detail=flaw) if flaw else _event(event, partial(here, payload=payload)),)


def from_list(events: Sequence[tuple[int, Json]], cursor: Cursor | None) -> Sequence[Reading]:
    """What listed events say beyond the cursor, each with its `seq`."""
    place = Place.of(cursor)
    return [
        _event(event, partial(Reading, key=str(seq), cursor=place.at(seq), payload=orjson.dumps(event)))
        for seq, event in events
        if seq > place.seq
    ]


def from_record(record: Json, word: str) -> Reading:
    """What a run record with this status says (2.2). Little of it is documented; the rest is taken where it is."""
    status = _STATUSES.get(word)
    ended = status is not None and status.terminal
    return Reading(
        status=status,
        provider_status=word,
        time=_text(_first(record, "completed_at", "finished_at", "ended_at")) if ended else None,
        detail={name: record[name] for name in ("reason_code", "request_id") if record.get(name)} or None,
        result=_first(record, "result", "output"),
        error=_failure(record, word) if ended and status is not JobStatus.COMPLETED else None,
        payload=orjson.dumps(record),
    )


def _opened(frame: Frame) -> tuple[Any, bytes | None, int | None, Json | None]:
    """The envelope, its JSON and its `seq` where they can be read; what is wrong with the frame otherwise."""
    if frame.dropped_bytes:
        first = _SEQ_FIRST.match(frame.data)
        return None, None, int(first[1]) if first else None, oversized(frame)
    try:
        event, payload = decoded(frame.data)
    except ValueError:
        return None, None, None, not_json(frame.data)
    seq = seq_of(event)
    return event, payload, seq, {"reason": "no_seq", "frame": event} if seq is None else None


def _event(event: Json, here: Callable[..., Reading]) -> Reading:
    """What one envelope says (2.4). A transition's own `to_status` counts more than the name of its event."""
    kind, wrapped = event.get("type"), event.get("payload")
    redacted, value = (wrapped.get("redacted"), wrapped.get("value")) if isinstance(wrapped, dict) else (None, None)
    here = partial(here, time=_text(event.get("timestamp")))
    if not isinstance(kind, str):
        return here(type=EventType.UNMAPPED, detail={"reason": "unknown_kind", "kind": kind})
    told: Json = value if isinstance(value, dict) else {}
    if kind == "step.progress":
        if told.get("kind") == "content_delta" and isinstance(text := told.get("content_delta"), str):
            return here(type=EventType.OUTPUT, detail={"text": text, "redacted": redacted})
        return here(type=EventType.PROGRESS, detail={"progress": value, "redacted": redacted})
    if kind == "step.done":
        return here(type=EventType.STEP, detail={"step": value, "redacted": redacted})
    if word := _text(told.get("to_status")) or _MOVES.get(kind):
        noted = {name: told[name] for name in _TRANSITION if name in told}
        return _moved(kind, word, told, partial(here, detail={"event": kind, "redacted": redacted, **noted}))
    if kind.startswith(("run.", "step.")):
        return here(type=EventType.STATE, detail={"event": kind, "state": value, "redacted": redacted})
    return here(type=EventType.UNMAPPED, detail={"reason": "unknown_kind", "kind": kind, "redacted": redacted})


def _moved(kind: str, word: str, value: Json, here: Callable[..., Reading]) -> Reading:
    """The run moved. A word nobody knows leaves it where the name of the event puts it."""
    status = _STATUSES.get(word) or _STATUSES.get(_MOVES.get(kind, ""))
    here = partial(here, status=status, provider_status=word)
    match status:
        case JobStatus.WAITING:
            asked = {name: told for name, told in value.items() if name not in _TRANSITION}
            return here(waiting_for={"actions": list(SIGNALS), **asked})
        case JobStatus.COMPLETED:
            return here(result=_first(value, "result", "output"))
        case JobStatus.FAILED | JobStatus.CANCELLED:
            return here(error=_failure(value, kind))
    return here()


def _failure(body: Json, ending: str) -> Json | None:
    """Why a run ended as it did, as far as its last event or its record tells; `ending` is what that is called."""
    told = body.get("error")
    error = dict(told) if isinstance(told, dict) else {"message": told or body.get("message")}
    error |= {name: body.get(name) for name in ("reason_code", "request_id")}
    if "limit_exceeded" in (ending.removeprefix("run."), body.get("reason_code")):
        error["reason"] = "limit_exceeded"
    return {name: told for name, told in error.items() if told is not None} or None


def seq_of(event: Any) -> int | None:
    """Its place in the run; None for what is no event."""
    seq = event.get("seq") if isinstance(event, dict) else None
    return seq if type(seq) is int and seq >= 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _first(body: Json, *names: str) -> Any:
    return next((body[name] for name in names if body.get(name) is not None), None)
