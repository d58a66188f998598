"""A writer outlives what happens around it: topics that vanish, links that wear out, memory that is taken."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from brokers import Broker
from cluster import Cluster
from relaying import GUARANTEES, Place, entries, ids, sized, write

from bridge.delivery.sink import Mark
from bridge.errors import Fatal


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
