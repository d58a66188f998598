"""The words both halves share: the event, its types, the life of a job, cursors and positions."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, NewType

Cursor = NewType("Cursor", str)
"""A provider's resume token. Opaque: only the provider that minted it may read it."""

Position = NewType("Position", int)
"""An entry's place in its partition of the journal: rises by one, without gaps, from 1. Zero: before the first."""


class JobStatus(StrEnum):
    """The canonical life of a job; a provider maps its own words onto these."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def terminal(self) -> bool:
        """True when the job will never move again."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.SKIPPED})

SUSPENDED = frozenset({JobStatus.WAITING, JobStatus.PAUSED})
"""The job goes on only after somebody or something let it."""


class EventType(StrEnum):
    """Every `type` an event can have. `watch.*` speaks of our watching and never of the job itself."""

    QUEUED = "job.queued"
    STARTED = "job.started"
    WAITING = "job.waiting"
    PAUSED = "job.paused"
    RESUMED = "job.resumed"
    PROGRESS = "job.progress"
    STEP = "job.step"
    TOOL = "job.tool"
    STATE = "job.state"
    OUTPUT = "job.output"
    COMPLETED = "job.completed"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"
    SKIPPED = "job.skipped"
    UNMAPPED = "job.unmapped"
    WATCH_STARTED = "watch.started"
    WATCH_GAP = "watch.gap"
    WATCH_STALLED = "watch.stalled"
    WATCH_LOST = "watch.lost"
    WATCH_DENIED = "watch.denied"


JOB_ID_CHARS_MAX = 512


def addressable(job_id: str) -> str:
    """The id itself, where it can stand as one segment of a provider's path and in our own API.

    Raises ValueError: control characters are no ids, and `.` and `..` would climb out of the path they stand in,
    however they are encoded.
    """
    if not 0 < len(job_id) <= JOB_ID_CHARS_MAX:
        raise ValueError(f"must have 1 to {JOB_ID_CHARS_MAX} characters")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in job_id):
        raise ValueError("must not hold control characters")
    if job_id in {".", ".."}:
        raise ValueError("must not be a path step")
    return job_id


class JobKey(NamedTuple):
    """What names a job everywhere: the configured source and the provider's own job id."""

    source: str
    job_id: str

    def __str__(self) -> str:
        return f"{self.source}/{self.job_id}"


@dataclass(frozen=True, slots=True)
class Job:
    """The job as now known; the `job` member of every event's data."""

    id: str
    source: str
    provider: str
    kind: str | None = None
    status: JobStatus | None = None
    provider_status: str | None = None
    """The provider's own status word, as it came."""
    progress: Any = None
    step: Any = None
    waiting_for: Any = None
    """What a person or a message is needed for, while the status is `waiting`."""


class JobEvent(NamedTuple):
    """One normalised event: CloudEvents 1.0 attributes, and `data` already encoded as a JSON object.

    `id` derives from the source, the job and the provider's own position, so that reading a stream twice mints no
    second id. `time` is the provider's, as RFC 3339, or None where it gives none.
    """

    id: str
    source: str
    subject: str
    type: EventType
    data: bytes
    time: str | None = None
    traceparent: str | None = None


Json = Mapping[str, Any]
"""A decoded JSON object."""
