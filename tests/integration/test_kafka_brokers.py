"""What the Kafka sink promises on every broker: the embedded one of the demo, and Apache Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from brokers import Broker
from relaying import NOTHING, Place, entries, ids, journal_events, run_until_settled, write

from bridge.delivery.sink import Mark
from bridge.demo.broker import embedded_broker
from bridge.errors import Fatal
from bridge.journal.stores.sqlite import open_journal


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Broker]:
    async with embedded_broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture(params=["embedded", "kafka"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.getfixturevalue(request.param))


async def test_the_position_comes_back_after_a_restart(place: Place) -> None:
    async with place.sink().writer(0) as writer, place.sink().writer(1) as other:
        assert await writer.recover() == NOTHING
        await write(writer, entries(1, 10))
        await write(other, entries(1, 3))
        await write(writer, entries(11, 25))
    async with place.sink().writer(0) as writer, place.sink().writer(1) as other, place.sink("b").writer(0) as second:
        assert await writer.recover() == Mark(25, "event-25")
        assert await other.recover() == Mark(3, "event-3")
        assert await second.recover() == NOTHING


async def test_a_crash_between_commit_and_settling_repeats_nothing(place: Place, tmp_path: Path) -> None:
    relay = place.sink(batch_entries=10)
    async with open_journal(tmp_path / "journal.db") as journal:
        await journal.register(["kafka"])
        await journal_events(journal, 25)
        async with relay.writer(0) as writer:
            await write(writer, await journal.pending(0, 0, limit=10))
        assert await journal.position("kafka", 0) == 0
        await run_until_settled(relay, journal, 25)
    assert await place.ids() == ids(1, 25)


async def test_an_open_transaction_of_another_sink_does_not_hide_the_position(place: Place) -> None:
    other = AIOKafkaProducer(bootstrap_servers=place.broker.bootstrap_servers, transactional_id=f"{place.topic}-other")
    async with place.sink().writer(0) as writer:
        await other.start()
        try:
            await other.begin_transaction()
            await other.send_and_wait(place.positions, b"{}", key=b"other", partition=0)
            await write(writer, entries(1, 10))
            recovering = asyncio.create_task(writer.recover())
            await asyncio.sleep(0.3)
            assert not recovering.done()
            await other.abort_transaction()
            assert await recovering == Mark(10, "event-10")
        finally:
            await other.stop()


async def test_a_successor_fences_its_predecessor(place: Place) -> None:
    async with place.sink().writer(0) as old:
        await write(old, entries(1, 10))
        async with place.sink().writer(0) as new:
            assert await new.recover() == Mark(10, "event-10")
            with pytest.raises(Fatal, match="transactional_id_prefix") as caught:
                await write(old, entries(11, 20))
            assert caught.value.reason == "fenced"
            await write(new, entries(11, 20))
    assert sorted(await place.ids()) == sorted(ids(1, 20))


@pytest.mark.parametrize(("guarantee", "missing"), [("exactly_once", "positions"), ("at_least_once", "events-")])
async def test_a_missing_topic_is_fatal_and_named(place: Place, guarantee: str, missing: str) -> None:
    relay = place.sink(create_topics=False, guarantee=guarantee)
    with pytest.raises(Fatal, match=missing) as caught:
        async with relay.writer(0) as writer:
            await write(writer, entries(1, 1))
    assert caught.value.reason == "topic_missing"
    assert "create_topics" in str(caught.value)
