"""From readings to events: one job's life, folded. Pure: the same readings on the same memory give the same events.

The rules that hold for every provider live here and nowhere else: how an event is named after a change of status,
how its id is made, that a job ends exactly once, and what every event tells about its job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson

from bridge.event import SUSPENDED, EventType, Job, JobEvent, JobKey, JobStatus, Json
from bridge.intake.provider import Payloads, Reading

_BY_STATUS = {
    JobStatus.PENDING: EventType.QUEUED,
    JobStatus.RUNNING: EventType.STARTED,
    JobStatus.WAITING: EventType.WAITING,
    JobStatus.PAUSED: EventType.PAUSED,
    JobStatus.COMPLETED: EventType.COMPLETED,
    JobStatus.FAILED: EventType.FAILED,
    JobStatus.CANCELLED: EventType.CANCELLED,
    JobStatus.SKIPPED: EventType.SKIPPED,
}
_RFC_3339 = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
"""What providers call a time is anything; only this may go on as an event's `time`."""
_KNOWN_BYTES_MAX = 16 << 10
_KNOWN = ("status", "provider_status", "kind", "progress", "step", "waiting_for")
_FIRST_KNOWN = Reading._fields.index(_KNOWN[0])
_KNOWN_AT = slice(_FIRST_KNOWN, _FIRST_KNOWN + len(_KNOWN))
_NOTHING_KNOWN = (None,) * len(_KNOWN)


class Lifecycle:
    """One job as its readings told it so far. `memory` carries it over a restart."""

    def __init__(
        self,
        key: JobKey,
        provider: str,
        memory: bytes,
        *,
        payloads: Payloads = "unless_told",
        event_bytes_max: int = 1 << 20,
    ) -> None:
        self._key = key
        self._event_bytes_max = event_bytes_max
        self._payloads = payloads != "never"
        self._told_payloads = payloads == "always"
        kept: dict[str, Any] = orjson.loads(memory) if memory else {}
        known = kept.get("job", {})
        status = known.get("status")
        self.job = Job(
            id=key.job_id,
            source=key.source,
            provider=provider,
            status=None if status is None else JobStatus(status),
            **{name: known.get(name) for name in _KNOWN if name != "status"},
        )
        self._fingerprint: str | None = kept.get("fingerprint")
        self._changes: int = kept.get("changes", 0)
        self._watches: int = kept.get("watches", 0)
        self.watching: bool = kept.get("watching", False)
        """False until `watch.started` was said, and again once our watching was given up."""
        self.late = 0
        """Readings that came after the job's end, since this object was made."""
        self._job_json = self._encode_job()

    @property
    def ended(self) -> bool:
        """True once the terminal event was made."""
        return self.job.status is not None and self.job.status.terminal

    @property
    def given_up(self) -> bool:
        """True while the last word about our watching is that it stopped."""
        return self._watches > 0 and not self.watching

    def memory(self) -> bytes:
        """What a later `Lifecycle` of the same job needs to go on from here."""
        return orjson.dumps(
            {
                "job": orjson.Fragment(self._job_json),
                "fingerprint": self._fingerprint,
                "changes": self._changes,
                "watches": self._watches,
                "watching": self.watching,
            }
        )

    def apply(self, readings: Iterable[Reading]) -> list[JobEvent]:
        """The events that these readings make, in order."""
        events: list[JobEvent] = []
        for reading in readings:
            if reading.key is None:
                events.extend(self._observe(reading))
            elif self.ended:
                events.append(self._late(reading))
            else:
                events.append(self._happened(reading, reading.key))
        return events

    def watch(self, type: EventType, detail: Json) -> JobEvent:  # noqa: A002 - the attribute's own name
        """An event about our watching, which leaves the job as it is."""
        self._watches += 1
        self.watching = type not in {EventType.WATCH_LOST, EventType.WATCH_DENIED}
        return self._event(f"watch.{self._watches}", type, Reading(detail=detail))

    def _happened(self, reading: Reading, key: str) -> JobEvent:
        before = self.job.status
        self._learn(reading)
        return self._event(key, reading.type or self._named(before), reading)

    def _observe(self, reading: Reading) -> list[JobEvent]:
        """A state reading makes an event only where it says something new, under an id of its ordinal.

        The ordinal is remembered with the journalled events, so neither a restart nor a second look mints another.
        """
        if self.ended:
            return []
        before, seen = self.job, self._fingerprint
        self._learn(reading)
        self._fingerprint = reading.fingerprint or seen
        if self.job.status is not before.status:
            type_ = self._named(before.status)
        elif self.job.progress != before.progress:
            type_ = EventType.PROGRESS
        elif self.job.step != before.step:
            type_ = EventType.STEP
        elif self.job != before or self._fingerprint != seen:
            type_ = EventType.STATE
        else:
            return []
        self._changes += 1
        return [self._event(f"status.{self._changes}", type_, reading)]

    def _late(self, reading: Reading) -> JobEvent:
        """What comes after the end is kept and changes nothing."""
        self.late += 1
        detail = {"reason": "after_end", "type": reading.type, **(reading.detail or {})}
        late = Reading(time=reading.time, detail=detail, payload=reading.payload)
        return self._event(reading.key or "", EventType.UNMAPPED, late)

    def _named(self, before: JobStatus | None) -> EventType:
        now = self.job.status
        if now is None:
            return EventType.UNMAPPED
        if now is before:
            return EventType.STATE
        if now is JobStatus.RUNNING and before in SUSPENDED:
            return EventType.RESUMED
        return _BY_STATUS[now]

    def _learn(self, reading: Reading) -> None:
        """Take over what the reading says about the job; what it leaves out stays as known."""
        if reading[_KNOWN_AT] == _NOTHING_KNOWN:
            return
        news = {name: _bounded(value) for name in _KNOWN if (value := getattr(reading, name)) is not None}
        if news.get("status", JobStatus.WAITING) is not JobStatus.WAITING:
            news["waiting_for"] = None
        if any(getattr(self.job, name) != value for name, value in news.items()):
            self.job = replace(self.job, **news)
            self._job_json = self._encode_job()

    def _encode_job(self) -> bytes:
        job = self.job
        known = {"id": job.id, "source": job.source, "provider": job.provider}
        known |= {name: value for name in _KNOWN if (value := getattr(job, name)) is not None}
        return orjson.dumps(known)

    def _event(self, key: str, type_: EventType, reading: Reading) -> JobEvent:
        encoded = self._encode(reading)
        if len(encoded) > self._event_bytes_max:
            encoded = _cut(orjson.loads(encoded), self._event_bytes_max)
        source, job_id = self._key
        time = reading.time if isinstance(reading.time, str) and _RFC_3339.fullmatch(reading.time) else None
        return JobEvent(f"{source}:{job_id}:{key}", source, job_id, type_, encoded, time)

    def _encode(self, reading: Reading) -> bytes:
        """The members with a value, joined by hand: two of them are encoded already."""
        parts = [b'{"job":', self._job_json]
        if reading.detail is not None:
            parts += (b',"detail":', orjson.dumps(reading.detail))
        if reading.result is not None:
            parts += (b',"result":', orjson.dumps(reading.result))
        if reading.error is not None:
            parts += (b',"error":', orjson.dumps(reading.error))
        if self._payloads and reading.payload is not None and (self._told_payloads or not reading.told):
            parts += (b',"payload":', reading.payload)
        parts.append(b"}")
        return b"".join(parts)


def _cut(data: dict[str, Any], bytes_max: int) -> bytes:
    """The data without the members that make it too large, largest sacrifice of detail last; each one is named.

    `detail` and `error` stay as far as they fit, as their first characters under `start`.
    """
    kept, truncated = dict(data), []
    for member in ("payload", "result", "detail", "error"):
        if member not in kept:
            continue
        truncated.append(member)
        gone = orjson.dumps(kept.pop(member))
        if member in {"detail", "error"}:
            start = gone[: bytes_max // 4].decode("utf-8", "ignore")
            kept[member] = {"reason": "too_large", "bytes": len(gone), "start": start}
        encoded = orjson.dumps({**kept, "truncated": truncated})
        if len(encoded) <= bytes_max:
            break
    return encoded


def _bounded(value: Any) -> Any:
    """What every later event repeats must be small; all of it is in the payload of the event that told it."""
    encoded = orjson.dumps(value)
    if len(encoded) <= _KNOWN_BYTES_MAX:
        return value
    return f"{encoded[:_KNOWN_BYTES_MAX].decode('utf-8', 'ignore')}... ({len(encoded)} bytes)"
