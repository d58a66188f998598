"""Exactly once on Apache Kafka itself: what the embedded broker cannot vouch for. One broker serves the whole file."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from apache_kafka import java_partitions
from brokers import Broker, committed, written
from relaying import NOTHING, Place, abandon, entries, entry, ids, journal_events, run_until_settled, write

from bridge.delivery.dispatcher import LogDispatcher
from bridge.delivery.sink import Mark
from bridge.delivery.sinks.kafka import partition_of
from bridge.errors import Fatal, Temporary
from bridge.journal.store import DeliveryState
from bridge.journal.stores.sqlite import open_journal
from bridge.supervision.backoff import Backoff
from bridge.supervision.supervisor import Supervisor, Surroundings
from bridge.telemetry.metrics import Metrics


@pytest.fixture
def place(kafka: Broker) -> Place:
    return Place(kafka)


async def test_a_binary_record_reads_back_byte_for_byte(place: Place) -> None:
    data = '{"text": "ü\u2028", "big": 12345678901234567890}'.encode()
    async with place.sink().writer(0) as writer:
        assert await write(writer, [entry(1, data=data)]) == []
    [record] = await committed(place.broker.bootstrap_servers, place.topic)
    assert (record.key, record.value, record.timestamp) == (b"auvy-prod/job-1", data, 1_760_000_000_001)
    headers = dict(record.headers)
    assert headers["content-type"] == b"application/json"
    assert (headers["ce_id"], headers["ce_type"]) == (b"event-1", b"job.output")


async def test_a_structured_record_is_one_json_value(place: Place) -> None:
    async with place.sink(mode="structured").writer(0) as writer:
        await write(writer, [entry(1)])
    [record] = await committed(place.broker.bootstrap_servers, place.topic)
    [(name, content_type)] = record.headers
    assert (name, content_type.partition(b";")[0]) == ("content-type", b"application/cloudevents+json")
    event = orjson.loads(record.value)
    assert (event["id"], event["data"]) == ("event-1", {"n": 1})


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_one_that_the_broker_takes(place: Place, compression: str) -> None:
    async with place.sink(compression=compression, partitions=1).writer(0) as writer:
        await write(writer, entries(1, 100))
    assert await place.ids() == ids(1, 100)


async def test_keys_go_where_the_java_client_puts_them(place: Place, tmp_path: Path) -> None:
    dice = random.Random(4)
    jobs = [
        "",
        "j",
        "jöb-✓",
        *("".join(dice.choices("abcdef-0123456789", k=dice.randrange(1, 40))) for _ in range(200)),
    ]
    keys = [f"auvy-prod/{job}" for job in jobs]
    expected = await asyncio.to_thread(java_partitions, keys, 6, tmp_path)
    assert [partition_of(key.encode(), 6) for key in keys] == expected
    async with place.sink(partitions=6).writer(0) as writer:
        await write(writer, [entry(n, job=job) for n, job in enumerate(jobs, 1)])
    records = await committed(place.broker.bootstrap_servers, place.topic)
    assert {record.key.decode(): record.partition for record in records} == dict(zip(keys, expected, strict=True))


async def test_an_aborted_transaction_is_invisible_to_readers_and_to_recovery(place: Place) -> None:
    async with place.sink().writer(0) as writer:
        await write(writer, entries(1, 10))
        await abandon(writer, entries(11, 20))
    async with place.sink().writer(0) as writer:
        assert await writer.recover() == Mark(10, "event-10")
        await write(writer, entries(11, 12))
    assert sorted(await place.ids()) == sorted(ids(1, 12))
    assert len(await written(place.broker.bootstrap_servers, place.topic)) == 22  # hidden, not absent


async def test_a_successor_fences_a_predecessor_in_the_middle_of_a_transaction(place: Place) -> None:
    async with place.sink().writer(0) as old:
        go_on, sent = asyncio.Event(), asyncio.Event()
        producer: Any = old._producer
        commit = producer.commit_transaction

        async def sleep_first() -> None:
            sent.set()
            await go_on.wait()
            await commit()

        producer.commit_transaction = sleep_first
        writing = asyncio.create_task(write(old, entries(1, 10)))
        await sent.wait()
        async with place.sink().writer(0) as new:
            assert await new.recover() == NOTHING
            await write(new, entries(1, 10))
            go_on.set()
            with pytest.raises(Fatal) as caught:
                await writing
            assert caught.value.reason == "fenced"
    assert sorted(await place.ids()) == sorted(ids(1, 10))


async def test_the_copy_of_a_journal_that_went_on_elsewhere_fences_nobody_out(place: Place, tmp_path: Path) -> None:
    async with open_journal(tmp_path / "copy.db") as journal, place.sink().writer(0) as healthy:
        await journal.register(["kafka"])
        await journal_events(journal, 5)
        await write(healthy, entries(1, 10))
        with pytest.raises(Fatal) as caught:
            await run_until_settled(place.sink(), journal, 5)
        assert caught.value.reason == "position_conflict"
        assert await write(healthy, entries(11, 12)) == []
    assert sorted(await place.ids()) == sorted(ids(1, 12))


async def test_a_process_that_slept_past_its_transactions_end_recovers_and_is_not_told_that_it_was_fenced(
    place: Place,
) -> None:
    relay = place.sink(delivery_timeout_s=0.5, transaction_timeout_s=1.0)
    async with relay.writer(0) as writer:
        await write(writer, entries(1, 10))
        producer: Any = writer._producer
        commit = producer.commit_transaction

        async def sleep_first() -> None:
            time.sleep(2.0)  # noqa: ASYNC251 - the whole process stands still, as a suspended one does
            await commit()

        producer.commit_transaction = sleep_first
        with pytest.raises(Temporary):
            await write(writer, entries(11, 12))
    async with relay.writer(0) as writer:
        assert await writer.recover() == Mark(10, "event-10")
        await write(writer, entries(11, 12))
    assert sorted(await place.ids()) == sorted(ids(1, 12))


async def test_an_oversized_entry_is_dead_and_the_rest_goes_on(place: Place) -> None:
    big = b'"' + b"x" * 200_000 + b'"'
    async with place.sink(record_bytes_max=100_000, batch_bytes=16_384).writer(0) as writer:
        outcomes = await write(writer, [entry(1), entry(2, data=big), entry(3, data=big[:90_000] + b'"')])
        [dead] = outcomes
        assert (dead.position, dead.state) == (2, DeliveryState.DEAD)
        assert await writer.recover() == Mark(3, "event-3", tuple(outcomes))
    assert await place.ids() == ["event-1", "event-3"]


async def test_a_batch_of_records_up_to_their_limit_is_taken(place: Place) -> None:
    async with place.sink(partitions=1).writer(0) as writer:
        assert await write(writer, [entry(n, data=b'"' + b"x" * 990_000 + b'"') for n in range(1, 6)]) == []
    assert await place.ids() == ids(1, 5)


async def test_more_replicas_than_there_are_brokers_is_fatal_and_names_the_setting(place: Place) -> None:
    with pytest.raises(Fatal, match="replication_factor") as caught:
        async with place.sink(replication_factor=3000).writer(0):
            pytest.fail("there are not that many brokers")
    assert caught.value.reason == "kafka_settings"


async def test_a_transaction_timeout_over_the_brokers_limit_is_fatal_and_names_the_setting(place: Place) -> None:
    with pytest.raises(Fatal, match="transaction_timeout_s") as caught:
        async with place.sink(transaction_timeout_s=100_000).writer(0):
            pytest.fail("the broker's limit is a quarter of an hour")
    assert caught.value.reason == "kafka_settings"


async def test_nothing_is_lost_or_repeated_when_the_broker_is_killed_while_entries_flow(
    place: Place, tmp_path: Path
) -> None:
    """The real supervisor runs the relay; the broker dies twice in the middle of it."""
    relay = place.sink(batch_entries=50, partitions=1, request_timeout_s=2.0, delivery_timeout_s=5.0)
    async with open_journal(tmp_path / "journal.db") as journal:
        await journal.register(["kafka"])
        metrics, log = Metrics(), structlog.get_logger()
        session = LogDispatcher("kafka", 0, relay, journal=journal, metrics=metrics, log=log)
        around = Surroundings(metrics, log, lambda: Backoff(lambda: 0.5, base_s=0.1, cap_s=0.5), time.time)
        parked: list[Fatal] = []
        running = asyncio.create_task(Supervisor(session, around, lambda _, error: parked.append(error)).run())
        under_way = [running]
        try:
            for kills in range(2):
                flowing = asyncio.create_task(_flow(journal, 40))
                under_way.append(flowing)
                while await journal.position("kafka", 0) < kills * 4000 + 500:
                    assert not running.done(), parked
                    await asyncio.sleep(0.005)
                await place.broker.kill()
                await place.broker.start()
                await flowing
            while await journal.position("kafka", 0) < 8000:
                assert not running.done(), parked
                await asyncio.sleep(0.02)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.wait(under_way)
    assert await place.ids() == ids(1, 8000)


async def _flow(journal: Any, bursts: int) -> None:
    for _ in range(bursts):
        await journal_events(journal, 100)
        await asyncio.sleep(0.01)
