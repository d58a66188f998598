"""AUVY Jobs API: a replayable stream whose SSE ids are cursors, with a status endpoint beside it.

Facts: the vendor's Jobs API and streaming pages; contract page AUVY 1.2 to 1.7. Not stated there, and decided here:
`waiting` and `paused` are found by the status endpoint only; a listing may shift under its offset, so pages overlap.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import AnyHttpUrl, Field

from bridge.errors import BridgeError, Rejected, Temporary
from bridge.event import Cursor, EventType, JobStatus, Json
from bridge.intake.decoding import decoded, not_json, oversized
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
from bridge.plug import Plug
from bridge.secret import Secret

_STATUSES = {
    "queued": JobStatus.PENDING,
    "pending": JobStatus.PENDING,
    "running": JobStatus.RUNNING,
    "waiting": JobStatus.WAITING,
    "paused": JobStatus.PAUSED,
    "completed": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
    "canceled": JobStatus.CANCELLED,
}
_KINDS = {
    "token": (EventType.OUTPUT, "text", "token"),
    "content_block": (EventType.OUTPUT, "block", None),
    "reflex_call": (EventType.TOOL, "tool", None),
    "state_update": (EventType.STATE, "state", None),
    "signal": (EventType.STATE, "signal", None),
}
"""Chunk kind: event type, name of the detail, and the one field it comes from (None: the whole chunk)."""

_INEXACT = re.compile(rb"[0-9.]{17}|[0-9][eE][+-]?[0-9]{3}")
"""Numbers that decoding may round, and whatever looks like one in a text."""

_PLACE_DIGITS_MAX = 20
_PAGE, _OVERLAP = 100, 0.1


class AuvySettings(SourceSettings):
    """An AUVY workspace, or one shared job of it."""

    base_url: AnyHttpUrl = Field(
        AnyHttpUrl("https://api.auvy.ai"),
        description="Address of the API, without `/v1`; another one for self-hosting.",
    )
    token: Secret | None = Field(None, description="API key (`ak_live_...`). Not needed with `share_token` alone.")
    share_token: Secret | None = Field(
        None, description="Follow jobs over the public share route with this token instead of the workspace's."
    )
    cancelled_when: re.Pattern[str] | None = Field(
        None,
        description="AUVY has no cancelled status: a failed job whose `failedReason` matches this counts as cancelled.",
    )
    workspace_id: str | None = Field(
        None, description="Workspace named in input that is passed on, where the caller names none."
    )
    discover_statuses: list[str] = Field(
        ["pending", "running", "waiting", "paused"],
        description="Statuses that discovery lists, one listing each. Empty: all jobs in one, ended ones included.",
    )


class Auvy(Provider):
    """The AUVY plug."""

    def __init__(self, settings: AuvySettings, http: Http) -> None:
        self._http = http
        self._settings = settings
        self._cancelled: set[str] = set()
        """Jobs cancelled through us: AUVY itself has no such status and will call them failed (1.3)."""
        self._v1 = f"{str(settings.base_url).rstrip('/')}/v1"
        self._share = settings.share_token.get_secret_value() if settings.share_token else None
        token = settings.token.get_secret_value() if settings.token else None
        self._headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}

    def stream(self, job_id: str, cursor: Cursor | None) -> Request:
        """`after` takes the stream id; the header `Last-Event-ID` is not documented and not relied on (1.4)."""
        params = {"after": cursor} if cursor else {}
        if self._share is not None:
            url = f"{self._v1}/public/jobs/{quote(job_id, safe='')}/stream"
            return Request(url, params={**params, "t": self._share}, headers=self._headers)
        return Request(f"{self._job(job_id)}/stream", params=params, headers=self._headers)

    def read(self, frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:
        place = _place(frame.id)
        if place is None:
            key, reached = _digest(frame), None
        elif cursor is not None and place <= (_place(cursor) or (0, 0)):
            return ()
        else:
            key, reached = frame.id, Cursor(frame.id)
        if frame.dropped_bytes:
            return (Reading(EventType.UNMAPPED, key, reached, detail=oversized(frame)),)
        try:
            chunk, payload = decoded(frame.data)
        except ValueError:
            return (Reading(EventType.UNMAPPED, key, reached, detail=not_json(frame.data)),)
        return (_chunk(chunk, key, reached, payload),)

    async def status(self, job_id: str) -> Reading:
        """AUVY mixes naming: `failedReason` and `waitingFor` stand among snake case fields (1.2).

        A share token opens no status route that is documented, so a shared job has no second witness.
        """
        if not self._headers:
            raise Rejected("the status endpoint needs `token`; a share token opens the stream only", reason="no_status")
        request = Request(f"{self._job(job_id)}/status", headers=self._headers)
        body = await self._http.json(request, self._error)
        if not isinstance(body, dict) or not isinstance(body.get("status"), str):
            raise Temporary("the status endpoint answered without a `status`", reason="not_json")
        status = _STATUSES.get(body["status"])
        reason = body.get("failedReason")
        if status is JobStatus.FAILED and (job_id in self._cancelled or self._was_cancelled(reason)):
            status = JobStatus.CANCELLED
        return Reading(
            status=status,
            provider_status=body["status"],
            progress=body.get("progress"),
            step=body.get("current_step"),
            waiting_for=body.get("waitingFor"),
            time=body.get("finished_at") if status is not None and status.terminal else None,
            result=body.get("result"),
            error=None if reason is None else _error(reason),
            payload=orjson.dumps(body),
        )

    async def jobs(self) -> AsyncGenerator[Sequence[str], None]:
        """Page by page over all statuses at once: a crowd in one of them must not hide the others."""
        statuses: Sequence[str | None] = self._settings.discover_statuses or [None]
        seen: dict[str | None, set[str]] = {status: set() for status in statuses}
        offsets = dict.fromkeys(seen, 0)
        while seen:
            for status, known in list(seen.items()):
                page, step = await self._page(status, offsets[status])
                new = [job_id for job_id in dict.fromkeys(page) if job_id not in known]
                known.update(new)
                offsets[status] += step
                if new:
                    yield new
                if not new or not step:
                    del seen[status]

    def refusal(self, answer: Answer) -> BridgeError:
        """400 on a stream can only be about its `after` (1.7)."""
        error = self._error(answer)
        if answer.status == 400:
            error.reason = "stale_cursor"
        return error

    def _error(self, answer: Answer) -> BridgeError:
        """The documented error table (1.5); a 429 may tell its wait in the body."""
        body = _error_body(answer.body)
        code, after_s = body.get("code"), body.get("retryAfter")
        error = common_refusal(answer)
        if isinstance(error, Temporary) and error.after_s is None and isinstance(after_s, int | float):
            error.after_s = float(after_s)
        if answer.status == 403 and isinstance(code, str) and code in {"trial_expired", "cost_cap"}:
            error.reason = code
        return error

    async def act(self, job_id: str, action: Action, body: Json) -> Answer:
        """Input must fit the paused run (1.2); what can be told without the run is told here."""
        if action is Action.INPUT:
            body = self._intervention(body)
        request = Request(f"{self._job(job_id)}/{action.value}", method="POST", headers=self._headers, body=body)
        answer = await self._http.exchange(request)
        if action is Action.CANCEL and answer.status < 300:
            self._cancelled.add(job_id)
        return answer

    def _intervention(self, body: Json) -> Json:
        given = body.get("input")
        if not isinstance(given, dict) or not {"interventionId", "action"} <= given.keys():
            raise Rejected("`input` must be an object with `interventionId` and `action`", reason="invalid")
        workspace_id = body.get("workspace_id", self._settings.workspace_id)
        if workspace_id is None:
            raise Rejected("`workspace_id` is needed, here or in the source's settings", reason="invalid")
        return {"workspace_id": workspace_id, "input": {"type": "intervention_response", **given}}

    async def _page(self, status: str | None, offset: int) -> tuple[list[str], int]:
        """The ids on a page, and how far to go on for the next: zero behind the last one."""
        params = {"limit": str(_PAGE), "offset": str(offset)} | ({"status": status} if status else {})
        body = await self._http.json(Request(f"{self._v1}/jobs", params=params, headers=self._headers), self._error)
        jobs = body.get("jobs") if isinstance(body, dict) else None
        if not isinstance(jobs, list):
            raise Temporary("the job list answered without `jobs`", reason="not_json")
        ids = (job.get("job_id", job.get("id")) for job in jobs if isinstance(job, dict))
        limit = body.get("limit")  # the server may give fewer than asked for
        full = min(_PAGE, limit) if isinstance(limit, int) else _PAGE
        step = len(jobs) - int(len(jobs) * _OVERLAP) if len(jobs) >= full else 0
        return [job_id for job_id in ids if isinstance(job_id, str) and job_id], step

    def _job(self, job_id: str) -> str:
        return f"{self._v1}/jobs/{quote(job_id, safe='')}"

    def _was_cancelled(self, reason: Any) -> bool:
        pattern = self._settings.cancelled_when
        return pattern is not None and isinstance(reason, str) and pattern.search(reason) is not None


def _chunk(chunk: Any, key: str, cursor: Cursor | None, payload: bytes) -> Reading:
    """What one decoded chunk says (1.4); new kinds are promised by the vendor, so they are kept, not refused."""
    kind = chunk.get("type") if isinstance(chunk, dict) else None
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    if known is not None:
        type_, name, field = known
        piece = chunk.get(field) if field else {k: v for k, v in chunk.items() if k != "type"}
        # Each kind has a detail of its own name; a text by itself is exact, and looking through all of it is dear.
        told = len(chunk) == 2 and type(piece) is str if field else _INEXACT.search(payload) is None
        return Reading(type_, key, cursor, detail={name: piece}, payload=payload, told=told)
    here = partial(Reading, key=key, cursor=cursor, payload=payload)
    if kind == "complete":
        return here(status=JobStatus.COMPLETED, provider_status="completed", result=chunk.get("result"))
    if kind == "error":
        return here(status=JobStatus.FAILED, provider_status="failed", error=_error(chunk.get("error")))
    return here(type=EventType.UNMAPPED, detail={"reason": "unknown_kind", "kind": kind})


@lru_cache(maxsize=1024)
def _place(stream_id: str) -> tuple[int, int] | None:
    """Redis-style ids compare as a pair of integers, never as text; None for anything else, which has no place."""
    first, _, second = stream_id.partition("-")
    digits = stream_id.isascii() and first.isdigit() and second.isdigit()
    return (int(first), int(second)) if digits and max(len(first), len(second)) <= _PLACE_DIGITS_MAX else None


def _digest(frame: Frame) -> str:
    """Names a frame without a stream id by what it says, so that reading it again mints no second event."""
    return hashlib.sha256(b"%b\n%b" % (frame.id.encode(), frame.data)).hexdigest()[:32]


def _error(word: Any) -> Json:
    return {"message": word if isinstance(word, str) else orjson.dumps(word).decode()}


def _error_body(body: bytes) -> dict[str, Any]:
    try:
        error = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return error if isinstance(error, dict) else {}


PLUG = Plug(kind="auvy", settings=AuvySettings, build=Auvy)
