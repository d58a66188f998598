"""A writer outlives what happens around it: topics that vanish, links that wear out, memory that is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from brokers import Broker
from cluster import Cluster
from relaying import GUARANTEES, Place, entries, entry, ids, sized, write

from bridge.delivery.sink import Mark
from bridge.errors import Fatal, Temporary


@pytest.fixture
def place(kafka: Broker) -> Place:
    return Place(kafka)


@GUARANTEES
async def test_a_topic_that_was_deleted_underneath_is_made_anew(place: Place, cluster: Cluster, guarantee: str) -> None:
    async with place.sink(guarantee=guarantee).writer(0) as writer:
        await write(writer, entries(1, 10))
        await cluster.delete(place.topic)
        assert await write(writer, entries(11, 20)) == []
        assert await write(writer, entries(21, 30)) == []
    assert sorted(await place.ids()) == sorted(ids(11, 30))


@GUARANTEES
async def test_a_topic_that_was_deleted_underneath_is_missed_long_before_the_deadline(
    place: Place, cluster: Cluster, guarantee: str
) -> None:
    for topic, partitions in {place.topic: 6, place.positions: 1}.items():
        await cluster.make(topic, partitions, {"cleanup.policy": "compact"})
    async with place.sink(create_topics=False, guarantee=guarantee, delivery_timeout_s=55.0).writer(0) as writer:
        await write(writer, entries(1, 10))
        await cluster.delete(place.topic)
        async with asyncio.timeout(30):
            with pytest.raises(Fatal, match=place.topic) as caught:
                await write(writer, entries(11, 20))
        assert caught.value.reason == "topic_missing"


def _wear_out(writer: Any) -> None:
    writer._link = replace(writer._link, ends_s=0.0)
    assert writer._link.stale


@GUARANTEES
async def test_a_stale_link_is_replaced_between_two_batches(place: Place, guarantee: str) -> None:
    async with place.sink(guarantee=guarantee).writer(0) as writer:
        await writer.recover()
        await write(writer, entries(1, 10))
        for first in (11, 21):
            _wear_out(writer)
            worn = writer._producer
            await write(writer, entries(first, first + 9))
            assert writer._producer is not worn
            assert not writer._link.stale
        if guarantee == "exactly_once":
            assert await writer.recover() == Mark(30, "event-30")
    assert sorted(await place.ids()) == sorted(ids(1, 30))


async def test_a_writer_that_was_replaced_does_not_renew_itself_over_its_successor(place: Place) -> None:
    async with place.sink().writer(0) as old:
        await old.recover()
        await write(old, entries(1, 10))
        async with place.sink().writer(0) as new:
            assert await new.recover() == Mark(10, "event-10")
            await write(new, entries(11, 20))
            _wear_out(old)
            with pytest.raises(Fatal, match="transactional_id_prefix") as caught:
                await write(old, entries(11, 20))
            assert caught.value.reason == "fenced"
            await write(new, entries(21, 30))
    assert sorted(await place.ids()) == sorted(ids(1, 30))


async def test_writers_of_one_sink_share_its_memory(place: Place) -> None:
    relay = place.sink(memory_bytes_max=1 << 20)
    async with relay.writer(0) as one, relay.writer(1) as two:
        going_on, sent = asyncio.Event(), asyncio.Event()
        producer: Any = one._producer
        commit = producer.commit_transaction

        async def sleep_first() -> None:
            sent.set()
            await going_on.wait()
            await commit()

        producer.commit_transaction = sleep_first
        first = asyncio.create_task(write(one, [sized(1, 900_000)]))
        await sent.wait()
        second = asyncio.create_task(write(two, [sized(n, 900_000) for n in range(2, 5)]))
        done, _ = await asyncio.wait({second}, timeout=0.5)
        assert not done
        first.cancel()
        await asyncio.wait({first})
        assert await second == []
    async with relay.writer(0):
        assert sorted(await place.ids()) == ids(2, 4)


@GUARANTEES
async def test_what_was_added_and_never_flushed_leaves_no_trace_and_gives_its_memory_back(
    place: Place, guarantee: str
) -> None:
    relay = place.sink(memory_bytes_max=1 << 20, guarantee=guarantee)
    async with relay.writer(1) as other:
        async with relay.writer(0) as writer:
            await write(writer, [sized(1, 300_000)])
            await writer.add([sized(2, 300_000)])
            await writer.add([sized(3, 300_000)])
            waiting = asyncio.create_task(other.add([sized(4, 900_000)]))
            done, _ = await asyncio.wait({waiting}, timeout=0.5)
            assert not done
        async with asyncio.timeout(5):
            await waiting
        assert await other.flush() == []
    assert sorted(await place.ids()) == ["event-1", "event-4"]
    if guarantee == "exactly_once":
        async with relay.writer(0) as writer:
            assert await writer.recover() == Mark(1, "event-1")


async def test_a_flush_that_fails_gives_back_the_memory_of_all_steps_and_the_next_lots_with_the_writer(
    place: Place,
) -> None:
    relay = place.sink()
    free = relay._memory._free
    async with relay.writer(0) as writer:
        for each in entries(1, 2000):
            await writer.add([each])
        producer: Any = writer._producer

        async def expire() -> None:
            await writer.add(entries(2001, 2010))
            raise KafkaTimeoutError("away")

        producer.commit_transaction = expire
        with pytest.raises(Temporary, match="away"):
            await writer.flush()
        assert relay._memory._free == free - 10 * 1024 - sum(len(each.data) for each in entries(2001, 2010))
    assert relay._memory._free == free
    async with relay.writer(0) as writer:  # ends the transaction
        assert await writer.recover() == Mark(0, "")
    assert await place.ids() == []


@GUARANTEES
async def test_what_was_added_before_its_topic_was_deleted_is_delivered(
    place: Place, cluster: Cluster, guarantee: str
) -> None:
    async with place.sink(guarantee=guarantee).writer(0) as writer:
        await write(writer, entries(1, 10))
        await writer.add(entries(11, 20))
        await cluster.delete(place.topic)
        await writer.add(entries(21, 30))
        assert await writer.flush() == []
        assert await write(writer, entries(31, 40)) == []
    assert sorted(await place.ids()) == sorted(ids(11, 40))


async def test_a_topic_that_is_forgotten_while_another_batch_is_added_is_looked_at_again(place: Place) -> None:
    async with place.sink(topic=f"{place.topic}.{{source}}").writer(0) as opened:
        writer: Any = opened
        require = writer._require

        async def overtaken(topics: Iterable[str]) -> None:
            writer._require = require
            await require(topics)
            for topic in topics:
                writer._forget(topic)

        writer._require = overtaken
        assert await write(writer, entries(1, 10)) == []
    assert len(await place.read(f"{place.topic}.auvy-prod")) == 10


@GUARANTEES
async def test_a_stale_link_is_replaced_under_what_was_added_already(place: Place, guarantee: str) -> None:
    async with place.sink(guarantee=guarantee, topic=f"{place.topic}.{{type}}").writer(0) as opened:
        writer: Any = opened
        await writer.recover()
        await write(writer, entries(1, 10))
        await writer.add(entries(11, 20))
        _wear_out(writer)
        flushing = asyncio.create_task(writer.flush())
        await asyncio.sleep(0)
        await writer.add([entry(21, type_="job.tool")])  # of a topic that is looked at over the new link
        assert await flushing == []
        assert await writer.flush() == []
    assert len(await place.read(f"{place.topic}.job.output")) == 20
    assert len(await place.read(f"{place.topic}.job.tool")) == 1


async def test_a_table_and_dead_letters_of_a_batch_that_was_added_in_steps(place: Place, cluster: Cluster) -> None:
    await cluster.make(place.topic, 2, {"max.message.bytes": "20000"})
    table, dead = f"{place.topic}.latest", f"{place.topic}.dead"
    sink = place.sink(partitions=None, latest={"topic": table}, dead_letters={"topic": dead}, record_bytes_max=100_000)
    states = [entry(n, data=b'{"job":{"id":"job-1","n":%d}}' % n) for n in range(1, 10)]
    states[2] = states[2]._replace(data=b'{"job":{"id":"job-1"},"x":"%s"}' % (b"x" * 50_000))
    states[5] = states[5]._replace(data=b'{"job":{"id":"job-1"},"x":"%s"}' % (b"x" * 150_000))
    async with sink.writer(0) as writer:
        for first in (0, 3, 6):
            await writer.add(states[first : first + 3])
        outcomes = await writer.flush()
        assert [outcome.position for outcome in outcomes] == [3, 6]
        mark = await writer.recover()
        assert mark is not None
        assert (mark.position, [outcome.position for outcome in mark.outcomes]) == (9, [3, 6])
    assert await place.ids() == [f"event-{n}" for n in (1, 2, 4, 5, 7, 8, 9)]
    assert [record.value for record in await place.read(table)][-1].startswith(b'{"job":{"id":"job-1","n":9}')
    assert len(await place.read(table)) == 1
    assert sorted(dict(record.headers)["ce_id"] for record in await place.read(dead)) == [b"event-3", b"event-6"]


async def test_a_topic_that_is_new_after_an_idle_time_is_looked_at_over_a_new_link(place: Place) -> None:
    async with place.sink(topic=f"{place.topic}.{{type}}").writer(0) as opened:
        writer: Any = opened
        await writer.recover()
        await write(writer, entries(1, 10))
        dead = writer._link.options | {"bootstrap_servers": "127.0.0.1:1"}  # as an expired certificate would be
        writer._link = replace(writer._link, ends_s=0.0, options=dead)
        writer._topics._client = dead
        assert await write(writer, [entry(11, type_="job.tool")]) == []
        assert await writer.recover() == Mark(11, "event-11")
    assert len(await place.read(f"{place.topic}.job.tool")) == 1


async def test_a_link_that_wears_out_during_a_flush_is_replaced_behind_it(place: Place) -> None:
    async with place.sink(topic=f"{place.topic}.{{type}}").writer(0) as opened:
        writer: Any = opened
        await write(writer, entries(1, 10))
        producer, going_on, sent = writer._producer, asyncio.Event(), asyncio.Event()
        commit = producer.commit_transaction

        async def slowly() -> None:
            sent.set()
            await going_on.wait()
            await commit()

        producer.commit_transaction = slowly
        await writer.add(entries(11, 20))
        flushing = asyncio.create_task(writer.flush())
        await sent.wait()
        _wear_out(writer)
        await writer.add([entry(21, type_="job.tool")])
        assert writer._producer is producer
        going_on.set()
        assert await flushing == []
        assert await writer.flush() == []
        assert writer._producer is not producer
    assert len(await place.read(f"{place.topic}.job.output")) == 20
    assert len(await place.read(f"{place.topic}.job.tool")) == 1
