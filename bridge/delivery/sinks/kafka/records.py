"""What one entry looks like as a Kafka record, by the CloudEvents Kafka binding 1.0.2. Pure: no client, no network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from bridge.delivery.envelope import (
    DATA_TYPE,
    STRUCTURED_TYPE,
    batch_attributes,
    job_attributes,
    own_attributes,
    structured,
)
from bridge.journal.store import Entry

Mode = Literal["binary", "structured"]
Timestamp = Literal["event", "recorded"]
Header = tuple[str, bytes]

_NEVER_FILLED = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 0)
_BATCH_HEADER_BYTES = 61

_CONTENT_TYPE = "datacontenttype"
_DATA_HEADER = ("content-type", DATA_TYPE.encode())
_STRUCTURED_HEADERS = [("content-type", STRUCTURED_TYPE.encode())]

_OWN_NAMES = {name: "ce_" + name for name in ("id", "sequence", "time", "traceparent")}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Record(NamedTuple):
    """One record, short of its topic and partition."""

    key: bytes
    value: bytes | None
    """None is a tombstone: compaction takes the key's records away."""
    headers: list[Header]
    timestamp_ms: int
    entry: Entry
    """What it is about."""

    @property
    def wire_bytes(self) -> int:
        """Its size on the wire, alone in a batch and not compressed: what `max.message.bytes` is held against."""
        sized = _NEVER_FILLED.size_in_bytes(0, 0, self.key, self.value, self.headers)
        return _BATCH_HEADER_BYTES + int(sized)


def record(entry: Entry, mode: Mode, timestamp: Timestamp = "event") -> Record:
    """The entry in binary mode (attributes as `ce_` headers, section 3.2) or structured mode (one JSON value, 3.3).

    A trace goes on twice: as the event's own (the Distributed Tracing extension), and as the record's W3C header, which
    is where instrumented consumers look.
    """
    key, shared = _job(entry.source, entry.subject)
    if mode == "structured":
        value, headers = structured(entry), _STRUCTURED_HEADERS
    else:
        value, headers = entry.data, _with_own(shared, entry)
    if entry.traceparent is not None:
        headers = [*headers, ("traceparent", entry.traceparent.encode())]
    return Record(key, value, headers, stamp_ms(entry, timestamp), entry)


def attribute_headers(entry: Entry) -> list[Header]:
    """The headers of binary mode. `datacontenttype` is the record's content-type header, nothing else (3.2.1)."""
    _, shared = _job(entry.source, entry.subject)
    return _with_own(shared, entry)


@lru_cache(maxsize=16_384)
def _job(source: str, subject: str) -> tuple[bytes, Sequence[Header]]:
    """A job's key, and the headers that all its records share."""
    attributes = job_attributes(source, subject)
    shared = [("ce_" + name, value.encode()) for name, value in attributes if name != _CONTENT_TYPE]
    return f"{source}/{subject}".encode(), (*shared, _DATA_HEADER)


@lru_cache(maxsize=1024)
def _batch(type_: str, recorded_ms: int) -> Sequence[Header]:
    """The headers that all records of a type share which were journalled together."""
    return [("ce_" + name, value.encode()) for name, value in batch_attributes(type_, recorded_ms)]


def _with_own(shared: Sequence[Header], entry: Entry) -> list[Header]:
    own = [(_OWN_NAMES[name], value.encode()) for name, value in own_attributes(entry)]
    return [*shared, *_batch(entry.type, entry.recorded_ms), *own]


def stamp_ms(entry: Entry, timestamp: Timestamp) -> int:
    """The timestamp in Unix milliseconds: when it was recorded or, for `event`, the event's own time where it has one.

    Never later than recorded: brokers refuse records from the future, and a provider's clock may be ahead.
    """
    if timestamp == "recorded" or entry.time is None:
        return entry.recorded_ms
    try:
        happened_ms = (datetime.fromisoformat(entry.time) - _EPOCH) // _MILLISECOND
    except (ValueError, TypeError):  # no time, a leap second, no time zone
        return entry.recorded_ms
    return min(happened_ms, entry.recorded_ms) if happened_ms > 0 else entry.recorded_ms
