"""Which records Apache Kafka gets, and in which topics."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from aiokafka import ConsumerRecord
from brokers import Broker
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event, to_structured_event
from cluster import Cluster
from relaying import GUARANTEES, Place, abandon, entries, entry, ids, write
from schema_registry import schema_registry

from bridge.delivery.sinks.kafka import partition_of
from bridge.errors import Fatal
from bridge.journal.store import Entry


@pytest.fixture
def place(kafka: Broker) -> Place:
    return Place(kafka)


def of_ids(records: list[ConsumerRecord]) -> list[str]:
    return sorted(dict(record.headers)["ce_id"].decode() for record in records)


async def test_events_are_routed_to_topics_with_configs_of_their_own(place: Place, cluster: Cluster) -> None:
    output, life = f"{place.topic}.output", f"{place.topic}.{{provider}}.{{kind}}"
    relay = place.sink(
        partitions=2,
        topic_config={"cleanup.policy": "delete", "retention.ms": 7_200_000},
        routes=[
            {"types": ["job.output"], "topic": output, "partitions": 3, "config": {"retention.ms": 3_600_000}},
            {"types": ["*"], "sources": ["auvy-prod"], "topic": life, "config": {"max.message.bytes": 123_456}},
        ],
    )
    data = b'{"job":{"id":"job-1","source":"auvy-prod","provider":"auvy"}}'
    types = ["job.started", "job.output", "watch.gap", "job.output", "job.completed"]
    written = [entry(n, type_=type_, data=data) for n, type_ in enumerate(types, 1)]
    async with relay.writer(0) as writer:
        assert await cluster.partitions(output) == 3  # before there is any event
        await write(writer, [*written, written[0]._replace(position=6, id="event-6", source="other")])
    found = {topic: of_ids(await place.read(topic)) for topic in [output, f"{place.topic}.auvy.job", place.topic]}
    assert found == {
        output: ["event-2", "event-4"],
        f"{place.topic}.auvy.job": ["event-1", "event-5"],
        place.topic: ["event-6"],
    }
    assert of_ids(await place.read(f"{place.topic}.auvy.watch")) == ["event-3"]
    assert await cluster.config(output) == {"retention.ms": "3600000"}
    assert await cluster.partitions(f"{place.topic}.auvy.watch") == 1  # the brokers' default
    assert await cluster.config(f"{place.topic}.auvy.watch") == {"max.message.bytes": "123456"}
    assert await cluster.partitions(place.topic) == 2
    assert await cluster.config(place.topic) == {"cleanup.policy": "delete", "retention.ms": "7200000"}


async def test_any_number_of_partitions_will_do_where_none_is_asked_for(place: Place, cluster: Cluster) -> None:
    await cluster.make(place.topic, 4)
    async with place.sink(partitions=None).writer(0) as writer:
        await write(writer, entries(1, 20, jobs=10))
    for record in await place.read():
        assert record.partition == partition_of(record.key, 4)


async def test_the_timestamp_is_when_it_happened_or_when_it_was_journalled(place: Place) -> None:
    happened = entry(1)._replace(time="2025-10-09T08:53:19.5Z")
    for name, timestamp in {"a": "event", "b": "recorded"}.items():
        async with place.sink(name, timestamp=timestamp, topic=f"{place.topic}.{name}").writer(0) as writer:
            await write(writer, [happened])
    [event], [recorded] = await place.read(f"{place.topic}.a"), await place.read(f"{place.topic}.b")
    assert (event.timestamp, event.timestamp_type) == (1_759_999_999_500, 0)
    assert recorded.timestamp == happened.recorded_ms


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_the_official_library_reads_the_record_and_would_write_the_same(place: Place, mode: str) -> None:
    data = '{"job":{"id":"jöb ✓"},"text":"ü\u2028","big":1234567890123456789}'.encode()
    event = entry(1, job="jöb ✓", data=data)._replace(traceparent=TRACE)
    async with place.sink(mode=mode).writer(0) as writer:
        await write(writer, [event])
    [record] = await place.read()
    headers = dict(record.headers)
    assert len(headers) == len(record.headers)
    assert headers.pop("traceparent") == TRACE.encode()
    read = from_kafka_event(KafkaMessage(headers, record.key, record.value))
    assert (read.get_id(), read.get_source(), read.get_subject()) == ("event-1", "auvy-prod", "jöb ✓")
    assert (read.get_extension("traceparent"), read.get_extension("sequence")) == (TRACE, "000000000001")
    assert read.get_data() == orjson.loads(data)
    if mode == "binary":
        again = to_binary_event(read)
        assert (again.headers, record.value) == (headers, data)
    else:
        again = to_structured_event(read)
        assert orjson.loads(again.value) == orjson.loads(record.value)
        assert headers == {"content-type": again.headers["content-type"] + b"; charset=UTF-8"}
        assert data in record.value
    assert again.key == record.key.decode()


async def test_values_are_framed_where_there_is_a_schema_registry(place: Place) -> None:
    async with schema_registry() as registry:
        async with place.sink(schema_registry={"url": registry.url}).writer(0) as writer:
            await write(writer, [entry(1, data=b'{"n":1}')])
        [record] = await place.read()
        assert record.value == b"\0" + (1).to_bytes(4, "big") + b'{"n":1}'
        assert list(registry.subjects) == [f"{place.topic}-value"]


LIFE = ["job.started", "job.progress", "job.output", "job.waiting", "watch.gap", "job.unmapped", "job.completed"]


def history(dice: random.Random, count: int) -> list[Entry]:
    """Events of a few jobs in any order; the data of each names its position, so that no two states are alike."""
    events = []
    for position in range(1, count + 1):
        job, type_ = f"job-{dice.randrange(7)}", dice.choice(LIFE)
        known = {"id": job, "source": "auvy-prod", "provider": "auvy", "progress": position}
        data = {"job": known} | ({"result": {"of": position}} if type_ == "job.completed" else {})
        event = entry(position, job=job, type_=type_, data=orjson.dumps(data))
        events.append(event._replace(subscription=int(job.removeprefix("job-"))))
    return events


def compacted(records: list[ConsumerRecord]) -> dict[str, Any]:
    """What compaction leaves: the last value of every key, and nothing of those that end with a tombstone."""
    last = {record.key.decode(): record.value for record in records}
    return {key: orjson.loads(value) for key, value in last.items() if value is not None}


@GUARANTEES
async def test_the_compacted_table_is_the_last_state_of_every_job(
    place: Place, cluster: Cluster, guarantee: str
) -> None:
    dice = random.Random(f"history {guarantee}")
    table = f"{place.topic}.latest"
    relay = place.sink(guarantee=guarantee, latest={"topic": table, "partitions": 3})
    events, written, batches = history(dice, 400), 0, 0
    while written < len(events):
        async with relay.writer(0) as writer:
            mark = await writer.recover()
            assert mark is None or mark.position == written
            for _ in range(dice.randrange(1, 6)):
                batch = events[written : written + dice.randrange(1, 40)]
                if batch:
                    await write(writer, batch)
                    written, batches = written + len(batch), batches + 1
            if guarantee == "exactly_once" and written < len(events):
                await abandon(writer, events[written : written + 20])
    last = {event.job_key: event for event in events if event.type not in {"watch.gap", "job.unmapped"}}
    expected = {
        key: orjson.loads(event.data)
        | {"type": event.type, "time": event.time, "sequence": event.position, "id": event.id}
        for key, event in last.items()
    }
    records = await place.read(table)
    assert compacted(records) == expected
    assert len(records) <= batches * 7
    assert all(record.partition == partition_of(record.key, 3) for record in records)
    assert sorted(await place.ids()) == sorted(ids(1, 400))
    assert await cluster.config(table) == {"cleanup.policy": "compact"}


async def test_a_row_is_removed_by_a_tombstone_behind_its_last_state(place: Place) -> None:
    table = f"{place.topic}.latest"
    async with place.sink(latest={"topic": table, "tombstone_on": ["job.completed"]}).writer(0) as writer:
        data = b'{"job":{"id":"j","status":"completed"},"result":42}'
        await write(writer, [entry(1), entry(2, job="job-2"), entry(3, type_="job.completed", data=data)])
        records = await place.read(table)
        values = [record.value for record in records if record.key == b"auvy-prod/job-1"]
        assert [value and orjson.loads(value)["result"] for value in values] == [42, None]
        assert set(compacted(records)) == {"auvy-prod/job-2"}


async def test_a_topic_that_would_lose_rows_is_no_place_for_the_table(place: Place, cluster: Cluster) -> None:
    table = f"{place.topic}.latest"
    await cluster.make(table, 1, {"cleanup.policy": "delete"})
    with pytest.raises(Fatal, match=table) as caught:
        async with place.sink(latest={"topic": table}).writer(0):
            pytest.fail("rows would be deleted by age")
    assert caught.value.reason == "topic_unfit"


async def test_the_table_and_its_events_come_in_one_transaction(place: Place) -> None:
    table = f"{place.topic}.latest"
    relay = place.sink(latest={"topic": table})
    async with relay.writer(0) as writer:
        await abandon(writer, [entry(1)])
    async with relay.writer(0):  # ends its predecessor's transaction
        assert (await place.read(table), await place.read()) == ([], [])
