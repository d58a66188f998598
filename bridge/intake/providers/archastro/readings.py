"""What ArchAstro's frames and answers say, in canonical words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from bridge.errors import Temporary
from bridge.event import Cursor, EventType, JobStatus, Json
from bridge.intake.decoding import decoded, not_json, oversized
from bridge.intake.provider import Frame, Reading

_STATUSES = {
    "pending": JobStatus.PENDING,
    "running": JobStatus.RUNNING,
    "waiting": JobStatus.WAITING,
    "completed": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
    "skipped": JobStatus.SKIPPED,
    "cancelled": JobStatus.CANCELLED,
}
_HARNESS = dict.fromkeys(
    ("session_started", "turn_complete", "error", "finished", "adopted", "harness_raw"), (EventType.STATE, "state")
) | {
    "message": (EventType.OUTPUT, "block"),
    "tool_use": (EventType.TOOL, "tool"),
    "activity": (EventType.PROGRESS, "activity"),
    "needs_input": (EventType.STATE, "needs_input"),
}
"""Harness event: event type, and the name of its payload in the detail. None of them ends a session (4.5)."""

_BESIDE = ("worker", "delivery", "structured_response", "duration_ms")
"""What a state tells beside its status; a worker's or a delivery's failure is not the run's (4.4)."""
_NEWS = ("status", "result", "error", "updated_at", "completed_at", "worker", "delivery")
"""What makes a state another one (6.2)."""


class Place(NamedTuple):
    """How far a log was read: the token to ask behind, and for journals the highest sequence."""

    token: str | None = None
    sequence: int = 0

    @classmethod
    def of(cls, cursor: Cursor | None) -> Place:
        """The place that a cursor of ours stands for; the beginning without one."""
        return cls(**orjson.loads(cursor)) if cursor else cls()

    def cursor(self) -> Cursor:
        """As the loop keeps it."""
        return Cursor(orjson.dumps(self._asdict()).decode())


def read(frame: Frame) -> Sequence[Reading]:
    """What has no position of its own is known by its content, so that a repeat after a reconnect is a repeat."""
    odd = partial(Reading, type=EventType.UNMAPPED, key=f"frame.{_digest(frame.data)}")
    if frame.event == "error":
        return (_stream_error(frame.data, odd),)
    if frame.dropped_bytes:
        return (odd(detail=oversized(frame)),)
    try:
        body, payload = decoded(frame.data)
    except ValueError:
        return (odd(detail=not_json(frame.data)),)
    match frame.event:
        case "session_event" if isinstance(body, dict):
            return (harness_event(body, payload),)
        case "session_update" | "run_update" if has_status(body):
            return (state(body, payload, session=frame.event == "session_update"),)
    return (odd(detail={"reason": "unknown_kind", "kind": frame.event}, payload=payload),)


def has_status(body: Any) -> bool:
    """Whether this is a session or a run at all."""
    return isinstance(body, dict) and isinstance(body.get("status"), str)


def state(body: dict[str, Any], payload: bytes, *, session: bool) -> Reading:
    """The newest state; result and error only with the end that they belong to."""
    status = _STATUSES.get(body["status"])
    over = status is not None and status.terminal
    return Reading(
        status=status,
        provider_status=body["status"],
        kind="session" if session else "automation_run" if body.get("automation") else "routine_run",
        time=body.get("completed_at") or body.get("updated_at"),
        detail=_told({name: body.get(name) for name in _BESIDE}) or None,
        result=body.get("result") if over else None,
        error=_error(body.get("error")) if over else None,
        payload=payload,
        fingerprint=_digest(orjson.dumps([body.get(name) for name in _NEWS], option=orjson.OPT_SORT_KEYS)),
    )


def harness_event(body: dict[str, Any], payload: bytes) -> Reading:
    """One event of a session's coding harness. The id is its position in the events list."""
    event, position, piece = body.get("event"), text(body.get("id")), body.get("payload")
    type_, name = _HARNESS.get(str(event), (EventType.UNMAPPED, ""))
    known = {"event": event, "harness": body.get("harness"), name: piece}
    unknown = {"reason": "unknown_kind", "kind": event}
    return Reading(
        type=type_,
        key=position or f"frame.{_digest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))}",
        cursor=Place(position).cursor() if position else None,
        time=body.get("occurred_at"),
        waiting_for=piece if event == "needs_input" else None,
        detail=_told(known if name else unknown),
        payload=payload,
    )


def journal_entry(entry: dict[str, Any]) -> Reading:
    """One record of a run's workflow; a node's failure is not the run's."""
    kind, node = entry.get("type"), entry.get("node_id")
    return Reading(
        type=EventType.STEP if kind in ("node_started", "node_completed", "node_failed") else EventType.STATE,
        key=f"journal.{entry['sequence']}",
        time=entry.get("created_at"),
        step=node if kind == "node_started" else None,
        detail=_told({"type": kind, "node": node, "record": entry.get("record")}),
        payload=orjson.dumps(entry),
    )


def listed(body: Any) -> list[dict[str, Any]]:
    """The objects on one page of a list. Raises `Temporary` where it is none."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        raise Temporary("a list answered without `data`", reason="not_json")
    return [one for one in data if isinstance(one, dict)]


def job_ids(kind: str, body: dict[str, Any]) -> list[str]:
    """The ids on one page of a list, as job ids."""
    return [f"{kind}:{own_id}" for one in listed(body) if (own_id := text(one.get("id")))]


def text(value: Any) -> str | None:
    """A text that is not empty; whatever else stands in its place is as good as absent."""
    return value if isinstance(value, str) and value else None


def error_sentence(body: bytes) -> bytes:
    """`code: text` out of an object, a text, or a bare `message`; empty where it is none of them."""
    try:
        about, _ = decoded(body)
    except ValueError:
        return b""
    if not isinstance(about, dict):
        return b""
    error = about.get("error")
    about = error if isinstance(error, dict) else {"code": error, "message": about.get("message")}
    parts = [about.get("code") or about.get("type"), about.get("message")]
    fields = about.get("fields")
    rows = fields if isinstance(fields, list) else []
    parts += [f"{row.get('field')} {row.get('message')}" for row in rows if isinstance(row, dict)]
    return ": ".join(str(part) for part in parts if part).encode()


def _stream_error(data: bytes, odd: Callable[..., Reading]) -> Reading:
    """The shape is not declared: an object or a text. Its one documented word asks for a new stream (4.5)."""
    if b"stream_timeout" in data:
        return Reading(reopen=True)
    return odd(detail={"reason": "stream_error", "error": data.decode("utf-8", "replace")})


def _error(error: Any) -> Json | None:
    if error is None or isinstance(error, dict):
        return error
    return {"message": error if isinstance(error, str) else orjson.dumps(error).decode()}


def _told(members: dict[str, Any]) -> dict[str, Any]:
    """Null and absent are alike (4.9)."""
    return {name: value for name, value in members.items() if value is not None}


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()
