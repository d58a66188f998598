"""The latest state of every job, as a table in a compacted topic: job key -> the job as now known. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import orjson
from pydantic import Field

from bridge.delivery.envelope import DATA_TYPE, rfc3339
from bridge.delivery.sinks.kafka.records import Record, Timestamp, stamp_ms
from bridge.delivery.sinks.kafka.routes import TopicName, TopicSettings
from bridge.delivery.sinks.kafka.topics import TopicSpec
from bridge.event import EventType
from bridge.journal.store import Entry

_HEADERS = [("content-type", DATA_TYPE.encode())]
_STATE = ("job", "result", "error", "truncated")
_THIN = ("id", "source", "provider", "kind", "status")


class LatestSettings(TopicSettings):
    """A table of every job's present state: one record per job in a compacted topic."""

    topic: TopicName = Field(description="Compacted topic of the table; its key is that of the events.")
    tombstone_on: list[EventType] = Field(
        default_factory=list,
        description="Event types after which a job's row is removed, such as `job.completed`. The state is written "
        "first, so that whoever follows the table sees it.",
    )

    def required(self) -> TopicSpec:
        """What is wanted of the topic."""
        return self.spec(self.topic)._replace(compacted=True)


def silent(type_: str) -> bool:
    """Whether such events say nothing new about the job: `watch.*` are about our watching, and what could not be
    read changes nothing, but may follow the job's end and would take its result out of the table."""
    return type_.startswith("watch.") or type_ == EventType.UNMAPPED


def rows(
    entries: Iterable[Entry], tombstone_on: Collection[str], bytes_max: int, timestamp: Timestamp
) -> Iterable[Record]:
    """One row per job, out of its last entry that tells of its state; a tombstone behind it where that ends the row.

    A row over `bytes_max` is cut down to what names the job and its status; `truncated` tells what it lacks.
    """
    last = {entry.job_key: entry for entry in entries if entry.type in tombstone_on or not silent(entry.type)}
    for key, entry in last.items():
        row = Record(key.encode(), _row(entry, full=True), _HEADERS, stamp_ms(entry, timestamp), entry)
        if row.wire_bytes > bytes_max:
            row = row._replace(value=_row(entry, full=False))
        yield row
        if entry.type in tombstone_on:
            yield row._replace(value=None, headers=[])


def _row(entry: Entry, *, full: bool) -> bytes:
    data = orjson.loads(entry.data)
    state: dict[str, Any] = {name: data[name] for name in _STATE if name in data}
    if not full:
        job = state.pop("job")
        left_out = [name for name in job if name not in _THIN]
        state = {
            "job": {name: job[name] for name in _THIN if name in job},
            "truncated": sorted({*state.get("truncated", ()), *left_out, *(state.keys() - {"truncated"})}),
        }
    return orjson.dumps(
        state
        | {
            "type": entry.type,
            "time": entry.time or rfc3339(entry.recorded_ms),
            "sequence": entry.sequence,
            "id": entry.id,
        }
    )
