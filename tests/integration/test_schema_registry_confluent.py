"""Framed values judged by an outsider: Confluent's own client, reading them from Apache Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
from brokers import Broker
from relaying import Place, entry
from relaying import write as write_entries
from schema_registry import SchemaRegistry, schema_registry

from bridge.delivery.envelope import structured
from bridge.delivery.sinks.kafka.records import Mode
from bridge.delivery.sinks.kafka.registry import Registry, RegistrySettings
from bridge.delivery.sinks.kafka.subjects import Naming, subject
from bridge.journal.store import Entry

# Asked for by name, since the package brings its own Kafka client: whoever has not got it loses these tests alone.
confluent_kafka = pytest.importorskip("confluent_kafka")
confluent = pytest.importorskip("confluent_kafka.schema_registry")
confluent_json = pytest.importorskip("confluent_kafka.schema_registry.json_schema")

DATA: dict[str, Any] = {
    "job": {"id": "job-1", "source": "auvy-prod", "provider": "auvy", "status": "completed"},
    "result": {"text": "Grüße", "numbers": [1, 2.5]},
}
NAMINGS: tuple[Naming, ...] = ("topic", "record", "topic_record")


@pytest_asyncio.fixture
async def there() -> AsyncIterator[SchemaRegistry]:
    async with schema_registry() as running:
        yield running


def completed(data: Any) -> Entry:
    return entry(1, type_="job.completed", data=orjson.dumps(data))


async def write(place: Place, there: SchemaRegistry, event: Entry, mode: Mode = "binary") -> None:
    """Relay the event once for each way to name subjects."""
    for naming in NAMINGS:
        relay = place.sink(naming, mode=mode, schema_registry={"url": there.url, "subject": naming})
        async with relay.writer(0) as writer:
            assert await write_entries(writer, [event]) == []


async def framed(there: SchemaRegistry, naming: Naming) -> bytes:
    settings = RegistrySettings.model_validate({"url": there.url, "subject": naming})
    async with Registry(settings, "binary") as registry:
        await registry.prepare([("jobs.events", "job.completed")])
        return registry.frame("jobs.events", "job.completed", orjson.dumps(DATA))


def read(place: Place, there: SchemaRegistry) -> list[Any]:
    """What Confluent's consumer makes of each record: the value, valid by the schema its id names, or its error."""
    with confluent.SchemaRegistryClient({"url": there.url}) as client:
        consumer = confluent_kafka.DeserializingConsumer(
            {
                "bootstrap.servers": place.broker.bootstrap_servers,
                "group.id": place.topic,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "value.deserializer": confluent_json.JSONDeserializer(None, schema_registry_client=client),
            }
        )
        consumer.subscribe([place.topic])
        try:
            return [next_value(consumer) for _ in NAMINGS]
        finally:
            consumer.close()


def next_value(consumer: Any) -> Any:
    try:
        while (record := consumer.poll(0.2)) is None:
            pass
    except confluent_kafka.error.ValueDeserializationError as error:
        return error
    return record.value()


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_confluents_consumer_reads_and_validates_our_records(
    kafka: Broker, there: SchemaRegistry, mode: Mode
) -> None:
    event = completed(DATA)
    place = Place(kafka)
    await write(place, there, event, mode)
    value = DATA if mode == "binary" else orjson.loads(structured(event))
    assert await asyncio.to_thread(read, place, there) == [value] * len(NAMINGS)
    assert len(there.subjects) == len(NAMINGS)


async def test_confluents_consumer_refuses_what_our_schema_refuses(kafka: Broker, there: SchemaRegistry) -> None:
    failed = DATA | {"job": DATA["job"] | {"status": "failed"}}
    place = Place(kafka)
    await write(place, there, completed(failed))
    by_topic, by_record, by_both = await asyncio.to_thread(read, place, there)
    assert by_topic == failed  # one schema for all types takes a failed job's data, too
    assert "'completed' was expected" in str(by_record)
    assert "'completed' was expected" in str(by_both)


@pytest.mark.parametrize("naming", NAMINGS)
async def test_confluents_serializer_finds_our_schema_and_writes_the_same_bytes(
    there: SchemaRegistry, naming: Naming
) -> None:
    ours = await framed(there, naming)
    _, text = subject(naming, "binary", "jobs.events", "job.completed")
    options = {"auto.register.schemas": False, "subject.name.strategy.type": naming.upper()}

    def theirs() -> bytes:
        with confluent.SchemaRegistryClient({"url": there.url}) as client:
            serialize = confluent_json.JSONSerializer(text, client, conf=options)
            return bytes(serialize(DATA, confluent_kafka.serialization.SerializationContext("jobs.events", "value")))

    assert await asyncio.to_thread(theirs) == ours
    assert len(there.schemas) == 1


async def test_what_we_send_to_register_is_what_confluents_serializer_sends(there: SchemaRegistry) -> None:
    await framed(there, "topic")
    [text], [ours], [asked] = there.schemas, there.bodies, there.asked

    def register() -> None:
        with confluent.SchemaRegistryClient({"url": there.url}) as client:
            serialize = confluent_json.JSONSerializer(text, client, conf={"subject.name.strategy.type": "TOPIC"})
            serialize(DATA, confluent_kafka.serialization.SerializationContext("jobs.events", "value"))

    await asyncio.to_thread(register)
    assert there.bodies[1] == ours | {"references": []}  # which is what it means to send none
    assert there.asked[1].lower() == asked.lower()
    assert there.schemas == [text]
