"""How entries look as Kafka records, and where the Java client would put them."""

from __future__ import annotations

import orjson
import pytest
from pydantic import ValidationError

from bridge.delivery.envelope import cloudevent_attributes
from bridge.delivery.sinks.kafka import KafkaSettings, partition_of
from bridge.delivery.sinks.kafka.records import check_topic_template, record, topic_name
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
    assert [(name, value.decode()) for name, value in written.headers] == [
        *expected,
        ("content-type", "application/json"),
    ]
    assert dict(written.headers)["ce_subject"] == "jöb".encode()
    assert (written.key, written.value) == ("auvy-prod/jöb".encode(), ENTRY.data)
    assert written.timestamp_ms == ENTRY.recorded_ms


def test_structured_value_holds_attributes_and_data() -> None:
    written = record(ENTRY, "structured")
    event = orjson.loads(written.value)
    assert (event["id"], event["subject"], event["data"]) == ("e-1", "jöb", {"job": {"id": "j"}})
    assert [name for name, _ in written.headers] == ["content-type"]


def test_the_size_bound_is_above_all_that_is_in_the_record() -> None:
    written = record(ENTRY, "binary")
    content = len(written.key) + len(written.value) + sum(len(n.encode()) + len(v) for n, v in written.headers)
    assert content < written.bytes_max < content + 500


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


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("jobs.events", "jobs.events"),
        ("jobs.{source}", "jobs.auvy_prod_1"),
        ("{kind}-{type}", "watch-watch.gap"),
        ("x" * 300, "x" * 249),
    ],
)
def test_topic_names_follow_the_template_and_hold_what_kafka_allows(template: str, name: str) -> None:
    assert topic_name(template, "auvy prod/1", "watch.gap") == name


@pytest.mark.parametrize("template", ["", ".", "a b", "jobs/{source}", "{job}", "{source!r}", "{source.x}", "{", "{}"])
def test_a_topic_that_can_never_be_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_topic_template(template)


@pytest.mark.parametrize(
    "options",
    [
        {"topic": "{job}"},
        {"delivery_timeout_s": 60, "transaction_timeout_s": 60},
        {"guarantee": "perhaps"},
        {"record_bytes_max": 0},
        {"unheard_of": 1},
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KafkaSettings.model_validate({"kind": "kafka", "bootstrap_servers": "k:9092"} | options)
