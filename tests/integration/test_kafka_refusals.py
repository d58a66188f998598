"""What becomes of records that Apache Kafka refuses, and of those beside them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.produce import ProduceRequest
from brokers import Broker
from cluster import Cluster
from relaying import GUARANTEES, Place, abandon, entries, entry, ids, sized, write

from bridge.delivery.sink import Mark
from bridge.delivery.sinks.kafka import KafkaSink
from bridge.delivery.sinks.kafka.batches import CODECS, Batches
from bridge.delivery.sinks.kafka.records import Record
from bridge.delivery.sinks.kafka.shipping import ship
from bridge.errors import Fatal, Temporary
from bridge.journal.store import DeliveryState, Entry, Outcome


@pytest.fixture
def place(kafka: Broker) -> Place:
    return Place(kafka)


async def configure(cluster: Cluster, topic: str, config: dict[str, str]) -> None:
    await cluster.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])


@asynccontextmanager
async def warm(relay: KafkaSink) -> AsyncIterator[Any]:
    """A writer that wrote `event-0` already: a topic just made may keep its first batch waiting, and a batch that is
    refused on another attempt than its first is no proof of anything."""
    async with relay.writer(0) as writer:
        await write(writer, [entry(0)])
        yield writer


def one_job(first: int, last: int) -> list[Entry]:
    return [entry(position) for position in range(first, last + 1)]


def lose_answers(writer: Any, count: int) -> None:
    """The brokers get the next so many requests to write something, but their answers never come."""
    client = writer._producer.client
    send, left = client.send, iter(range(count))

    async def sent(node: Any, request: Any, **options: Any) -> Any:
        answer = await send(node, request, **options)
        if isinstance(request, ProduceRequest) and next(left, None) is not None:
            raise RequestTimedOutError
        return answer

    client.send = sent


def dead(outcomes: Any, position: int) -> Outcome:
    [outcome] = outcomes
    assert (outcome.position, outcome.state) == (position, DeliveryState.DEAD)
    return outcome  # type: ignore[no-any-return]


def text(record: ConsumerRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


@GUARANTEES
async def test_an_oversized_record_goes_to_the_dead_letters_and_the_rest_on(place: Place, guarantee: str) -> None:
    graves = {"topic": f"{place.topic}.dead", "config": {"max.message.bytes": 2_000_000}}
    relay = place.sink(record_bytes_max=100_000, dead_letters=graves, guarantee=guarantee)
    batch = [*one_job(1, 4), sized(5, 50_000), sized(6, 200_000), *one_job(7, 9)]
    async with warm(relay) as writer:
        outcomes = await write(writer, batch)
        assert "record_bytes_max" in (dead(outcomes, 6).detail or "")
        await write(writer, one_job(10, 11))
    async with relay.writer(0) as writer:
        mark = await writer.recover()
        assert mark == (Mark(11, "event-11") if guarantee == "exactly_once" else None)
    assert await place.ids() == [id_ for id_ in ids(0, 11) if id_ != "event-6"]
    [letter] = await place.read(f"{place.topic}.dead")
    assert orjson.loads(letter.value) == {"truncated": True, "data_bytes": 200_000}
    headers = text(letter)
    assert (headers["ce_id"], headers["ce_subject"], headers["ce_type"]) == ("event-6", "job-1", "job.output")
    assert (headers["dead_letter_reason"], headers["dead_letter_topic"]) == ("record_too_large", place.topic)
    assert (headers["dead_letter_detail"], headers["dead_letter_truncated"]) == (outcomes[0].detail, "true")


async def test_what_became_of_a_batch_with_an_oversized_record_is_known_after_a_crash(place: Place) -> None:
    relay = place.sink(dead_letters={"topic": f"{place.topic}.dead"}, record_bytes_max=2_000_000, partitions=1)
    batch = [entry(1), sized(2, 1_500_000), entry(3)]
    async with warm(relay) as writer:
        await abandon(writer, batch)
    async with relay.writer(0) as writer:
        assert (await place.ids(), await place.read(f"{place.topic}.dead")) == (["event-0"], [])
        outcomes = await write(writer, batch)
        dead(outcomes, 2)
    async with relay.writer(0) as writer:
        assert await writer.recover() == Mark(3, "event-3", tuple(outcomes))
    assert await place.ids() == ["event-0", "event-1", "event-3"]
    assert len(await place.read(f"{place.topic}.dead")) == 1


@GUARANTEES
async def test_a_topics_own_limit_counts_where_it_is_lower(place: Place, cluster: Cluster, guarantee: str) -> None:
    graves = {"topic": f"{place.topic}.dead"}
    relay = place.sink(
        topic_config={"max.message.bytes": 20_000}, partitions=1, dead_letters=graves, guarantee=guarantee
    )
    batch = [sized(n, 3_000) for n in range(1, 40)] + [sized(40, 30_000)] + [sized(n, 3_000) for n in range(41, 60)]
    async with warm(relay) as writer:
        assert writer._targets[place.topic].batch_bytes == 20_000  # not found out by refusals
        outcomes = await write(writer, batch)
        assert place.topic in (dead(outcomes, 40).detail or "")
        assert await write(writer, [entry(60)]) == []
    assert await place.ids() == [id_ for id_ in ids(0, 60) if id_ != "event-40"]
    [letter] = await place.read(f"{place.topic}.dead")
    assert (letter.value, text(letter)["dead_letter_reason"]) == (batch[39].data, "record_too_large")
    assert "dead_letter_truncated" not in text(letter)


async def test_a_record_over_the_topics_limit_may_fit_once_it_is_compressed(place: Place) -> None:
    async with place.sink(topic_config={"max.message.bytes": 20_000}, compression="lz4").writer(0) as writer:
        assert await write(writer, [sized(1, 200_000)]) == []
    assert await place.ids() == ["event-1"]


async def test_a_limit_that_changes_while_the_writer_runs_is_seen(place: Place, cluster: Cluster) -> None:
    async with place.sink(partitions=1).writer(0) as writer:
        await write(writer, [sized(n, 3_000) for n in range(1, 40)])
        await configure(cluster, place.topic, {"max.message.bytes": "20000"})
        assert await write(writer, [sized(n, 3_000) for n in range(40, 80)]) == []
        assert writer._targets.keys() == {place.positions}  # to be looked at again, and its limit with it
        dead(await write(writer, [sized(80, 30_000)]), 80)
        await configure(cluster, place.topic, {"max.message.bytes": "500000"})
        assert await write(writer, [sized(81, 30_000)]) == []
    assert await place.ids() == [id_ for id_ in ids(1, 81) if id_ != "event-80"]


@GUARANTEES
async def test_the_record_that_the_brokers_refuse_is_found_among_many(place: Place, guarantee: str) -> None:
    relay = place.sink(
        topic_config={"message.timestamp.before.max.ms": 3_600_000},
        dead_letters={"topic": f"{place.topic}.dead"},
        partitions=2,
        guarantee=guarantee,
    )
    now_ms = round(time.time() * 1000)
    batch = [event._replace(time=None, recorded_ms=now_ms) for event in entries(1, 300, jobs=10)]
    culprits = {7, 8, 150, 300}
    for position in culprits:
        batch[position - 1] = batch[position - 1]._replace(time="2025-01-02T03:04:05Z")
    async with relay.writer(0) as writer:
        await write(writer, [event._replace(position=0, id="event-0") for event in batch[9:19]])
        outcomes = await write(writer, batch)
        assert {outcome.position for outcome in outcomes} == culprits
        assert await write(writer, [entry(301)._replace(time=None, recorded_ms=now_ms)]) == []
        if guarantee == "exactly_once":
            assert await writer.recover() == Mark(301, "event-301")
    records = await place.read()
    for job in {event.job_key for event in batch}:
        expected = [e.id for e in batch if e.job_key == job and e.position not in culprits]
        assert [text(r)["ce_id"] for r in records if r.key == job.encode()][1 : 1 + len(expected)] == expected
    assert len(records) == 10 + 301 - len(culprits)
    letters = await place.read(f"{place.topic}.dead")
    assert sorted(text(letter)["ce_id"] for letter in letters) == sorted(f"event-{n}" for n in culprits)
    assert {text(letter)["dead_letter_reason"] for letter in letters} == {"timestamp_refused"}


@GUARANTEES
async def test_without_a_dead_letter_topic_the_journal_alone_knows_of_the_dead(place: Place, guarantee: str) -> None:
    async with warm(place.sink(record_bytes_max=2_000_000, guarantee=guarantee)) as writer:
        dead(await write(writer, [entry(1), sized(2, 1_500_000), entry(3)]), 2)
    assert await place.ids() == ["event-0", "event-1", "event-3"]


async def test_a_dead_letter_that_is_refused_too_stops_nothing(place: Place, cluster: Cluster) -> None:
    graves = f"{place.topic}.dead"
    async with place.sink(record_bytes_max=10_000, dead_letters={"topic": graves}).writer(0) as writer:
        dead(await write(writer, [sized(1, 20_000)]), 1)
        await configure(cluster, graves, {"max.message.bytes": "100"})
        outcome = dead(await write(writer, [entry(2), sized(3, 20_000), entry(4)]), 3)
    assert "nor could it be a dead letter" in (outcome.detail or "")
    assert await place.ids() == ["event-2", "event-4"]


async def test_a_refused_row_of_the_table_is_a_dead_letter_of_an_event_that_arrived(
    place: Place, cluster: Cluster
) -> None:
    table, graves = f"{place.topic}.latest", f"{place.topic}.dead"
    async with warm(place.sink(latest={"topic": table}, dead_letters={"topic": graves})) as writer:
        await configure(cluster, table, {"cleanup.policy": "compact", "max.message.bytes": "100"})
        data = b'{"job":{"id":"job-1","source":"auvy-prod","provider":"auvy"}}'
        assert table in (dead(await write(writer, [entry(1, data=data)]), 1).detail or "")
    assert await place.ids() == ["event-0", "event-1"]
    [letter] = await place.read(graves)
    assert text(letter)["dead_letter_topic"] == table


async def test_a_position_that_is_refused_stops_the_sink_and_says_so(place: Place, cluster: Cluster) -> None:
    async with warm(place.sink()) as writer:
        await configure(cluster, place.positions, {"cleanup.policy": "compact", "max.message.bytes": "100"})
        with pytest.raises(Fatal, match=place.positions) as caught:
            await write(writer, [entry(1)])
        assert caught.value.reason == "position_refused"


async def test_a_refusal_after_an_answer_was_lost_blames_no_record(place: Place) -> None:
    async with warm(place.sink(record_bytes_max=2_000_000)) as writer:
        lose_answers(writer, 1)
        with pytest.raises(Temporary, match="another attempt"):
            await write(writer, [sized(1, 1_500_000)])
    assert await place.ids() == ["event-0"]


@pytest.mark.parametrize("transactional", [True, False])
async def test_a_record_that_fails_the_brokers_checks_is_told_apart(
    place: Place, cluster: Cluster, transactional: bool
) -> None:
    await cluster.make(place.topic, 1, {"cleanup.policy": "compact"})
    options = {"transactional_id": place.topic} if transactional else {}
    producer = AIOKafkaProducer(bootstrap_servers=place.broker.bootstrap_servers, enable_idempotence=True, **options)
    first, batches = (Batches(CODECS["none"], transactional=transactional) for _ in range(2))
    good = [Record(b"key", str(n).encode(), [], entry(n).recorded_ms, entry(n)) for n in range(1, 10)]
    keyless: Any = None  # which a compacted topic does not take
    first.add((place.topic, 0), 1, good[0])
    for item in [*good[1:5], good[5]._replace(key=keyless), *good[6:]]:
        batches.add((place.topic, 0), 1 << 20, item)
    await producer.start()
    try:
        if transactional:
            await producer.begin_transaction()
        await ship(producer, first)  # see `warm`
        [refused] = (await ship(producer, batches)).refused
        if transactional:
            await producer.commit_transaction()
    finally:
        await producer.stop()
    assert (refused.reason, refused.record.entry.position) == ("record_refused", 6)
    assert [int(record.value) for record in await place.read()] == [1, 2, 3, 4, 5, 7, 8, 9]


async def test_a_cluster_that_is_merely_unwell_makes_no_dead_letters(place: Place) -> None:
    graves = f"{place.topic}.dead"
    relay = place.sink(dead_letters={"topic": graves}, delivery_timeout_s=1.5)
    async with warm(relay) as writer:
        lose_answers(writer, 1000)
        with pytest.raises(Temporary, match=r"within 1\.5 s"):
            await write(writer, entries(1, 100))
    async with relay.writer(0) as writer:
        assert await writer.recover() == Mark(0, "event-0")
        assert await write(writer, entries(1, 100)) == []
    assert sorted(await place.ids()) == sorted(ids(0, 100))
    assert await place.read(graves) == []
