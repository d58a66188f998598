"""How entries look as Kafka records, and where the Java client would put them."""

from __future__ import annotations

import orjson
import pytest

from bridge.delivery.envelope import cloudevent_attributes
from bridge.delivery.sinks.kafka import partition_of
from bridge.delivery.sinks.kafka.batches import CODECS, Batches
from bridge.delivery.sinks.kafka.records import record
from bridge.journal.store import Entry

ENTRY = Entry(
    partition=0,
    position=9,
    subscription=7,
    sequence=3,
    recorded_ms=1_760_000_000_123,
    id="e-1",
    source="auvy-prod",
    subject="jöb",
    type="job.output",
    time="2026-01-02T03:04:05Z",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    data=b'{"job":{"id":"j"}}',
)


def test_binary_headers_are_the_attributes_in_utf8_without_percent_encoding() -> None:
    written = record(ENTRY, "binary")
    expected = [(f"ce_{name}", value) for name, value in cloudevent_attributes(ENTRY) if name != "datacontenttype"]
    assert sorted((name, value.decode()) for name, value in written.headers) == sorted(
        [*expected, ("content-type", "application/json"), ("traceparent", ENTRY.traceparent or "")]
    )
    assert dict(written.headers)["ce_subject"] == "jöb".encode()
    assert (written.key, written.value) == ("auvy-prod/jöb".encode(), ENTRY.data)


def test_an_event_without_a_trace_has_no_trace_header() -> None:
    written = record(ENTRY._replace(traceparent=None), "binary")
    assert not {"traceparent", "ce_traceparent"} & dict(written.headers).keys()


def test_structured_value_holds_attributes_and_data() -> None:
    written = record(ENTRY, "structured")
    event = orjson.loads(written.value or b"")
    assert (event["id"], event["subject"], event["data"]) == ("e-1", "jöb", {"job": {"id": "j"}})
    assert [name for name, _ in written.headers] == ["content-type", "traceparent"]


@pytest.mark.parametrize("size", [2, 200, 20_000, 2_000_000])
def test_the_size_of_a_record_is_that_of_the_batch_that_holds_it_alone(size: int) -> None:
    written = record(ENTRY._replace(data=b"x" * size), "binary")
    batches = Batches(CODECS["none"], transactional=True)
    batches.add(("topic", 0), 1, written)
    [[batch]] = batches.places.values()
    assert batch.size() == written.wire_bytes


@pytest.mark.parametrize(
    ("time", "stamp_ms"),
    [
        ("2025-10-09T08:53:20.122Z", 1_760_000_000_122),
        ("2025-10-09T10:53:20.122999+02:00", 1_760_000_000_122),
        ("2025-10-09T08:53:20.124Z", 1_760_000_000_123),
        ("2026-01-02T03:04:05Z", 1_760_000_000_123),
        ("1969-12-31T23:59:59Z", 1_760_000_000_123),
        ("2025-06-30T23:59:60Z", 1_760_000_000_123),
        ("2025-10-09T08:53:20", 1_760_000_000_123),
        ("yesterday", 1_760_000_000_123),
        (None, 1_760_000_000_123),
    ],
)
def test_the_timestamp_is_the_events_own_but_never_later_than_recorded(time: str | None, stamp_ms: int) -> None:
    assert record(ENTRY._replace(time=time), "binary", "event").timestamp_ms == stamp_ms
    assert record(ENTRY._replace(time=time), "binary", "recorded").timestamp_ms == ENTRY.recorded_ms


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_hash_as_in_the_java_client(key: bytes, signed: int) -> None:
    assert partition_of(key, 1 << 31) == signed & 0x7FFFFFFF
    assert partition_of(key, 6) == (signed & 0x7FFFFFFF) % 6


def test_a_batch_stays_within_its_bytes_and_every_record_keeps_its_place() -> None:
    batches = Batches(CODECS["none"], transactional=True)
    written = [
        record(ENTRY._replace(data=b"x" * size, position=size), "binary") for size in [10, 4000, 4001, 90_000, 1]
    ]
    for item in written:
        batches.add(("topic", 0), 10_000, item)
    [queue] = batches.places.values()
    assert [[entry.position for entry in batch.entries] for batch in queue] == [[10, 4000, 4001], [90_000], [1]]
    assert [batch.record_count() for batch in queue] == [3, 1, 1]


@pytest.mark.parametrize("codec", CODECS)
def test_halves_hold_the_records_of_the_batch(codec: str) -> None:
    batches = Batches(CODECS[codec], transactional=True)
    written = [record(ENTRY._replace(position=position, time=None), "binary") for position in range(5)]
    written[3] = written[3]._replace(value=None, headers=[], timestamp_ms=7)
    for item in written:
        batches.add(("topic", 0), 1 << 20, item)
    [[batch]] = batches.places.values()
    batch._build()
    first, second = batches.halves(batch)
    for half in (first, second):
        half._build()
    assert (first.records(), second.records()) == (written[:2], written[2:])
