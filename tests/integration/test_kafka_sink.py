"""The Kafka sink against a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced
from brokers import committed
from relaying import entries, entry, journal_events, run_until_settled, sink, write

from bridge.delivery.sink import Mark
from bridge.delivery.sinks.kafka import PLUG, KafkaSettings, build, partition_of
from bridge.demo.broker import EmbeddedBroker, embedded_broker
from bridge.errors import Fatal, Temporary
from bridge.journal.store import DeliveryState, Entry
from bridge.journal.stores.sqlite import open_journal
from bridge.kafka.failure import bounded


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """A broker of the test's own: it starts in hundredths of a second, so nothing needs to be shared."""
    async with embedded_broker(tmp_path / "broker") as running:
        yield running


async def test_binary_mode_puts_the_attributes_into_headers_and_the_data_untouched(broker: EmbeddedBroker) -> None:
    data = '{"text": "ü\u2028", "big": 12345678901234567890}'.encode()
    async with sink(broker).writer(0) as writer:
        assert await write(writer, [entry(1, data=data)]) == []
    [record] = await committed(broker.bootstrap_servers, "jobs.events")
    assert record.key == b"auvy-prod/job-1"
    assert record.value == data
    assert record.timestamp == 1_760_000_000_001
    headers = dict(record.headers)
    assert len(headers) == len(record.headers)
    assert headers["content-type"] == b"application/json"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"] == b"event-1"
    assert headers["ce_source"] == b"auvy-prod"
    assert headers["ce_type"] == b"job.output"
    assert "ce_datacontenttype" not in headers


async def test_structured_mode_is_one_json_value(broker: EmbeddedBroker) -> None:
    async with sink(broker, mode="structured").writer(0) as writer:
        await write(writer, [entry(1)])
    [record] = await committed(broker.bootstrap_servers, "jobs.events")
    [(name, content_type)] = record.headers
    assert (name, content_type.partition(b";")[0]) == ("content-type", b"application/cloudevents+json")
    event = orjson.loads(record.value)
    assert (event["id"], event["data"]) == ("event-1", {"n": 1})


async def test_each_job_keeps_its_order_in_the_partition_of_its_key(broker: EmbeddedBroker) -> None:
    written = entries(1, 500, jobs=20)
    async with sink(broker, batch_bytes=2048, compression="lz4").writer(0) as writer:
        await write(writer, written[:300])
        await write(writer, written[300:])
    records = await committed(broker.bootstrap_servers, "jobs.events")
    assert len({record.partition for record in records}) > 1
    assert all(record.partition == partition_of(record.key, 6) for record in records)
    for job in {item.subject for item in written}:
        key = f"auvy-prod/{job}".encode()
        read = [dict(record.headers)["ce_id"] for record in records if record.key == key]
        assert read == [item.id.encode() for item in written if item.subject == job]


async def test_the_topic_follows_its_template(broker: EmbeddedBroker) -> None:
    async with sink(broker, topic="{source}.{kind}").writer(0) as writer:
        await write(writer, [entry(1), entry(2, type_="watch.gap")])
    assert len(await committed(broker.bootstrap_servers, "auvy-prod.job")) == 1
    assert len(await committed(broker.bootstrap_servers, "auvy-prod.watch")) == 1


async def test_the_position_is_kept_when_the_broker_restarts(broker: EmbeddedBroker) -> None:
    relay = sink(broker)
    async with relay.writer(0) as writer:
        await write(writer, entries(1, 10))
    await broker.stop()
    await broker.start()
    async with relay.writer(0) as writer:
        assert await writer.recover() == Mark(10, "event-10")
    assert len(await committed(broker.bootstrap_servers, "jobs.events")) == 10


async def test_a_batch_that_was_cancelled_half_way_is_invisible_and_does_not_count(broker: EmbeddedBroker) -> None:
    relay = sink(broker)
    async with relay.writer(0) as writer:
        await write(writer, entries(1, 10))
        sent = asyncio.Event()
        complete = asyncio.create_task(_stuck_before_commit(writer, sent, entries(11, 20)))
        await sent.wait()
        complete.cancel()
        with suppress(asyncio.CancelledError):
            await complete
    async with relay.writer(0) as writer:
        assert await writer.recover() == Mark(10, "event-10")
        await write(writer, entries(11, 12))
    ids = sorted(dict(record.headers)["ce_id"] for record in await committed(broker.bootstrap_servers, "jobs.events"))
    assert ids == sorted(f"event-{position}".encode() for position in range(1, 13))


async def _stuck_before_commit(writer: Any, sent: asyncio.Event, batch: list[Entry]) -> None:
    async def never() -> None:
        sent.set()
        await asyncio.Event().wait()

    writer._producer.commit_transaction = never
    await write(writer, batch)


async def test_a_commit_whose_answer_is_lost_counts_and_is_not_repeated(broker: EmbeddedBroker) -> None:
    relay = sink(broker, delivery_timeout_s=1.0)
    async with relay.writer(0) as writer:
        client: Any = writer._producer.client
        send = client.send

        async def lose_the_answer(node: Any, request: Any, **options: Any) -> Any:
            answer = await send(node, request, **options)
            if type(request).__name__.startswith("EndTxnRequest"):
                await asyncio.Event().wait()
            return answer

        client.send = lose_the_answer
        with pytest.raises(Temporary, match="within 1 s"):
            await write(writer, entries(1, 10))
    async with relay.writer(0) as writer:
        assert await writer.recover() == Mark(10, "event-10")
    assert len(await committed(broker.bootstrap_servers, "jobs.events")) == 10


async def test_a_process_that_stood_still_past_its_deadline_takes_fencing_for_an_expiry() -> None:
    async def stand_still() -> None:
        async with bounded("k:9092", 0.01, "take a batch"):
            time.sleep(0.02)  # noqa: ASYNC251 - the point is that the loop stands still
            raise ProducerFenced

    with pytest.raises(Temporary, match="expired"):
        await stand_still()


async def test_a_broker_that_goes_away_is_temporary_within_the_deadline_and_nothing_is_lost(
    broker: EmbeddedBroker,
) -> None:
    relay = sink(broker, request_timeout_s=1.0, delivery_timeout_s=1.5)
    async with relay.writer(0) as writer:
        await write(writer, entries(1, 10))
        await broker.stop()
        began = time.monotonic()
        with pytest.raises(Temporary) as caught:
            await write(writer, entries(11, 20))
        assert caught.value.reason == "kafka_unavailable"
    with pytest.raises(Temporary):
        async with relay.writer(0):
            pytest.fail("there is no broker to open a writer at")
    assert time.monotonic() - began < 12
    await broker.start()
    async with relay.writer(0) as writer:
        assert await writer.recover() == Mark(10, "event-10")
        await write(writer, entries(11, 20))
    assert len(await committed(broker.bootstrap_servers, "jobs.events")) == 20


async def test_a_writer_outlives_a_short_restart_of_the_broker(broker: EmbeddedBroker) -> None:
    async with sink(broker).writer(0) as writer:
        await write(writer, entries(1, 10))
        await broker.stop()
        writing = asyncio.create_task(write(writer, entries(11, 20)))
        await asyncio.sleep(0.2)
        await broker.start()
        await writing
    assert len(await committed(broker.bootstrap_servers, "jobs.events")) == 20


async def test_an_oversized_entry_is_dead_and_the_rest_goes_on(broker: EmbeddedBroker) -> None:
    big = b'"' + b"x" * 200_000 + b'"'
    relay = sink(broker, record_bytes_max=100_000, batch_bytes=16_384)
    async with relay.writer(0) as writer:
        outcomes = await write(writer, [entry(1), entry(2, data=big), entry(3, data=big[:90_000] + b'"')])
        [dead] = outcomes
        assert (dead.position, dead.subscription, dead.state) == (2, 7, DeliveryState.DEAD)
        assert "record_bytes_max" in (dead.detail or "")
        assert await writer.recover() == Mark(3, "event-3", tuple(outcomes))
    records = await committed(broker.bootstrap_servers, "jobs.events")
    assert [dict(record.headers)["ce_id"] for record in records] == [b"event-1", b"event-3"]


async def test_a_topic_that_cannot_be_created_names_the_setting(broker: EmbeddedBroker) -> None:
    with pytest.raises(Fatal, match="topic"):
        async with sink(broker, positions_topic="no/slashes").writer(0):
            pytest.fail("the broker cannot have made that topic")


async def test_at_least_once_keeps_no_memory_and_fences_nobody(broker: EmbeddedBroker) -> None:
    relay = sink(broker, guarantee="at_least_once")
    async with relay.writer(0) as one, relay.writer(0) as two:
        await write(one, entries(1, 10))
        await write(two, entries(1, 10))
        assert await one.recover() is None
    assert len(await committed(broker.bootstrap_servers, "jobs.events")) == 20


async def test_recover_from_journal_sets_kafkas_memory_aside(broker: EmbeddedBroker) -> None:
    async with sink(broker).writer(0) as writer:
        await write(writer, entries(1, 10))
    async with sink(broker, recover_from="journal").writer(0) as writer:
        assert await writer.recover() is None


async def test_a_position_that_is_not_ours_is_fatal(broker: EmbeddedBroker) -> None:
    async with sink(broker).writer(0) as writer:
        other = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        await other.start()
        await other.send_and_wait("jobbridge.positions", b"[]", key=b"jobbridge-kafka-0", partition=0)
        await other.stop()
        with pytest.raises(Fatal, match=r"jobbridge\.positions"):
            await writer.recover()


async def test_a_broker_that_was_killed_and_never_came_back_leaves_no_task_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with (
        embedded_broker(tmp_path / "gone") as gone,
        sink(gone, request_timeout_s=0.5, delivery_timeout_s=1.0).writer(0) as writer,
    ):
        await write(writer, entries(1, 10))
        await gone.kill()
        with pytest.raises(Temporary):
            await write(writer, entries(11, 2000))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_everything_goes_through_once_the_broker_is_back(broker: EmbeddedBroker, tmp_path: Path) -> None:
    relay = sink(broker, batch_entries=10, request_timeout_s=0.5, delivery_timeout_s=1.0)
    async with open_journal(tmp_path / "journal.db") as journal:
        await journal.register(["kafka"])
        await journal_events(journal, 25)
        await run_until_settled(relay, journal, 25)
        await broker.stop()
        await journal_events(journal, 25)
        with pytest.raises(Temporary):
            await run_until_settled(relay, journal, 50)
        await broker.start()
        await run_until_settled(relay, journal, 50)
    records = await committed(broker.bootstrap_servers, "jobs.events")
    assert [dict(record.headers)["ce_id"] for record in records] == [f"event-{n}".encode() for n in range(1, 51)]


async def test_another_cluster_than_the_one_delivered_to_stops_the_relay(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with open_journal(tmp_path / "journal.db") as journal, embedded_broker(tmp_path / "other") as other:
        await journal.register(["kafka"])
        await journal_events(journal, 5)
        await run_until_settled(sink(broker), journal, 5)
        await journal_events(journal, 5)
        with pytest.raises(Fatal) as caught:
            await run_until_settled(sink(other), journal, 10)
        assert caught.value.reason == "position_conflict"
        await run_until_settled(sink(other, recover_from="journal"), journal, 10)
        assert len(await committed(other.bootstrap_servers, "jobs.events")) == 5


def test_the_plug_builds_a_sink_with_its_batch_size() -> None:
    options = PLUG.settings.model_validate({"kind": "kafka", "bootstrap_servers": "k:9092", "batch_entries": 10})
    assert isinstance(options, KafkaSettings)
    assert build("kafka", options).batch_entries == 10
    assert PLUG.kind == "kafka"
