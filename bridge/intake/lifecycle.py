"""From readings to events: one job's life, folded. Pure: the same readings on the same memory give the same events.

The rules that hold for every provider live here and nowhere else: how an event is named after a change of status,
how its id is made, that a job ends exactly once, and what every event tells about its job.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson

from bridge.event import EventType, Job, JobEvent, JobKey, JobStatus, Json
from bridge.intake.provider import Reading

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
_SUSPENDED = frozenset({JobStatus.WAITING, JobStatus.PAUSED})
_KNOWN = ("status", "provider_status", "kind", "progress", "step", "waiting_for")


class Lifecycle:
    """One job as its readings told it so far. `memory` carries it over a restart."""

    def __init__(self, key: JobKey, provider: str, memory: bytes, *, payloads: bool = True) -> None:
        self._key = key
        self._payloads = payloads
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

    def memory(self) -> bytes:
        """What a later `Lifecycle` of the same job needs to go on from here."""
        return orjson.dumps(
            {
                "job": orjson.Fragment(self._job_json),
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
        before = self.job
        self._learn(reading)
        if self.job.status is not before.status:
            type_ = self._named(before.status)
        elif self.job.progress != before.progress:
            type_ = EventType.PROGRESS
        elif self.job.step != before.step:
            type_ = EventType.STEP
        elif self.job != before:
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
        if now is JobStatus.RUNNING and before in _SUSPENDED:
            return EventType.RESUMED
        return _BY_STATUS[now]

    def _learn(self, reading: Reading) -> None:
        """Take over what the reading says about the job; what it leaves out stays as known."""
        news = {name: value for name in _KNOWN if (value := getattr(reading, name)) is not None}
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
        data: dict[str, Any] = {"job": orjson.Fragment(self._job_json)}
        if reading.detail is not None:
            data["detail"] = reading.detail
        if reading.result is not None:
            data["result"] = reading.result
        if reading.error is not None:
            data["error"] = reading.error
        if self._payloads and reading.payload is not None:
            data["payload"] = orjson.Fragment(reading.payload)
        source, job_id = self._key
        return JobEvent(f"{source}:{job_id}:{key}", source, job_id, type_, orjson.dumps(data), reading.time)
