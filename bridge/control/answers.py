"""How the bridge looks in JSON: the only place for the shapes that the control API answers with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import web

from bridge.control.view import Crew
from bridge.delivery.sink import Absence, LogPlace
from bridge.event import JobKey
from bridge.journal.endpoints import EndpointRecord
from bridge.journal.outcomes import Attempt, Delivery
from bridge.journal.store import JournalHealth, SubscriptionRecord
from bridge.supervision.supervisor import SessionState, SessionStatus

Shape = dict[str, Any]


def answer(shape: Shape, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer that no proxy may keep: it is about this moment."""
    return web.Response(
        status=status,
        body=orjson.dumps(shape),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def address(key: JobKey) -> str:
    """Where a subscription lives: source and job id are one percent-encoded path segment each."""
    return f"/v1/subscriptions/{quote(key.source, safe='')}/{quote(key.job_id, safe='')}"


def subscription(record: SubscriptionRecord, session: SessionStatus | None) -> Shape:
    """One subscription: what the journal remembers, and what its session is doing if it has one."""
    return {
        "source": record.key.source,
        "job_id": record.key.job_id,
        "state": record.state,
        "reason": record.reason,
        "cursor": record.cursor,
        "sequence": record.sequence,
        "origin": record.origin,
        "created": _moment(record.created_ms / 1000),
        "updated": _moment(record.updated_ms / 1000),
        "session": None if session is None else _session(session),
        "job": _job(record.memory),
    }


def group(name: str, kind: str, crew: Crew, sessions: Counter[str]) -> Shape:
    """A source or a sink: its state in one word, why it is parked as a whole, its sessions by state."""
    parked = crew.group_parked(name)
    return {
        "name": name,
        "kind": kind,
        "state": group_state(parked, sessions),
        "reason": parked,
        "sessions": {state.value: sessions[state] for state in SessionState},
    }


def made(record: EndpointRecord) -> Shape:
    """What an endpoint has that was made over the API: its settings, none of which is a secret."""
    return {
        "declared": False,
        "settings": orjson.loads(record.settings),
        "created": _moment(record.created_ms / 1000),
        "updated": _moment(record.updated_ms / 1000),
    }


def group_state(parked: str | None, sessions: Counter[str]) -> str:
    """`parked` as a whole; else the best that any of its sessions is doing; `idle` when it has none."""
    if parked is not None:
        return SessionState.PARKED
    best_first = (SessionState.RUNNING, SessionState.WAITING, SessionState.PARKED)
    return next((state for state in best_first if sessions[state]), "idle")


def tally(sessions: Iterable[SessionStatus]) -> dict[str, Counter[str]]:
    """How many sessions of each group are in each state."""
    groups: dict[str, Counter[str]] = {}
    for session in sessions:
        groups.setdefault(session.group, Counter())[session.state] += 1
    return groups


def backlog(sink: str, health: JournalHealth) -> Shape:
    """What a sink has yet to do."""
    oldest_ms = health.oldest_unsettled_ms.get(sink)
    return {
        "depth": health.depth.get(sink, 0),
        "oldest_unsettled": None if oldest_ms is None else _moment(oldest_ms / 1000),
        "outstanding": health.outstanding.get(sink, {}),
    }


def event(told: Delivery) -> Shape:
    """Which event a delivery is about; `id` is that of the delivery, `event_id` the event's own."""
    return {
        "id": str(told.place),
        "event_id": told.event_id,
        "type": told.type,
        "source": told.source,
        "job_id": told.job_id,
        "sequence": told.sequence,
        "recorded": _moment(told.recorded_ms / 1000),
    }


def outcome(told: Delivery) -> Shape:
    """What became of an event at one sink. `since` is null where nothing more is known than that it was settled."""
    return {
        "state": told.state,
        "since": _moment_or_none(told.since_ms),
        "attempts": told.attempts,
        "first_attempt": _moment_or_none(told.first_ms),
        "next_attempt": _moment_or_none(told.due_ms),
        "status": told.status,
        "detail": told.detail,
        "redriven": told.redriven,
    }


def record(where: LogPlace | Absence | None) -> Shape:
    """Where a log holds an event; null and the reason where it was searched for in vain, nothing where it was not."""
    if where is None:
        return {}
    if isinstance(where, Absence):
        return {"record": None, "record_absent": where}
    return {"record": where._asdict()}


def attempt(tried: Attempt) -> Shape:
    """One attempt; `reason` is null where it was delivered."""
    return {
        "number": tried.number,
        "at": _moment(tried.at_ms / 1000),
        "duration_s": tried.duration_ms / 1000,
        "status": tried.status,
        "reason": tried.reason,
        "address": tried.address,
        "answer": tried.answer,
        "detail": tried.detail,
    }


def _session(status: SessionStatus) -> Shape:
    return {
        "state": status.state,
        "since": _moment(status.since_s),
        "reason": status.reason,
        "detail": status.detail,
        "next_try": None if status.next_try_s is None else _moment(status.next_try_s),
    }


def _job(memory: bytes) -> Shape | None:
    """The job as intake last knew it, out of intake's own JSON; None where there is none to be read."""
    try:
        known = orjson.loads(memory)
    except orjson.JSONDecodeError:
        return None
    job = known.get("job") if isinstance(known, dict) else None
    return job if isinstance(job, dict) else None


def _moment(unix_s: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment_or_none(unix_ms: int) -> str | None:
    return _moment(unix_ms / 1000) if unix_ms else None
