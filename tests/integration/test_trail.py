"""Where Kafka holds a job's events, as a search there tells it, against what a consumer reads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from apache_kafka import free_ports
from brokers import Broker
from relaying import Place, abandon, entries, entry, write

from bridge.app import assemble
from bridge.delivery import sinks
from bridge.delivery.sink import Absence, LogPlace
from bridge.delivery.sinks.kafka import whereabouts
from bridge.event import EventType, JobEvent, JobKey
from bridge.intake import providers
from bridge.journal.store import Entry, Journal
from bridge.settings import load

TOKEN = "open-sesame-7d1c"
CONFIG = """\
sources:
  idle: {provider: auvy, base_url: "http://127.0.0.1:9", token: "${KEY}"}
sinks:
  lake:
    kind: kafka
    bootstrap_servers: BROKERS
    topic: TOPIC
    positions_topic: TOPIC.positions
    transactional_id_prefix: TOPIC
    partitions: 6
    create_topics: true
    routes: [{types: [job.completed], topic: TOPIC.ends, partitions: 3}]
journal: {url: "sqlite:///JOURNAL"}
control: {port: 0, token: "${TOKEN}"}
supervision: {drain_timeout_s: 0.1}
"""

Call = Callable[[str], Awaitable[Any]]


@pytest.fixture
def place(kafka: Broker) -> Place:
    return Place(kafka)


async def told(place: Place, *topics: str) -> dict[str, LogPlace]:
    """Where a consumer reads each event, by its id."""
    return {
        dict(record.headers)["ce_id"].decode(): LogPlace(record.topic, record.partition, record.offset)
        for topic in topics or (place.topic,)
        for record in await place.read(topic)
    }


def of_job(job: str, batch: list[Entry]) -> list[Entry]:
    return [one for one in batch if one.subject == job]


async def test_each_record_is_found_where_a_consumer_reads_it(place: Place) -> None:
    sink, all_entries = place.sink(partitions=2), entries(1, 60)
    async with sink.writer(0) as writer:
        await write(writer, all_entries[:30])
        await abandon(writer, all_entries[30:])  # what was aborted takes offsets that no event has
    async with sink.writer(0) as writer:
        await write(writer, all_entries[30:])
    read = await told(place)
    for job in (f"job-{n}" for n in range(5)):
        wanted = of_job(job, all_entries)
        assert await sink.whereabouts(wanted) == [read[one.id] for one in wanted]


async def test_events_that_are_far_apart_are_found_without_reading_what_is_between(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = place.sink(partitions=1, timestamp="recorded")
    spread = [one._replace(recorded_ms=1_760_000_000_000 + one.position * 60_000) for one in entries(1, 3000)]
    async with sink.writer(0) as writer:
        await write(writer, spread)
    read = await told(place)
    monkeypatch.setattr(whereabouts, "_BYTES_MAX", 2 * whereabouts._CHUNK_RECORDS * whereabouts._RECORD_BYTES)
    wanted = [spread[4], spread[2904]]
    assert await sink.whereabouts(wanted) == [read[one.id] for one in wanted]


async def test_structured_events_and_those_that_were_stamped_out_of_order_are_found(place: Place) -> None:
    sink = place.sink(mode="structured", partitions=1)
    times = ["2026-01-02T03:04:05Z", "2025-12-01T00:00:00Z", "2024-01-01T00:00:00Z", None]
    batch = [entry(nth)._replace(time=time) for nth, time in enumerate(times, 1)]
    async with sink.writer(0) as writer:
        await write(writer, batch)
    records = await place.read()
    assert await sink.whereabouts(batch) == [LogPlace(place.topic, 0, record.offset) for record in records]


async def test_what_is_not_in_kafka_is_told_apart_from_what_the_search_did_not_reach(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, batch = place.sink(partitions=1), [entry(nth) for nth in range(1, 1201)]
    async with sink.writer(0) as writer:
        await write(writer, [*batch[:1], *batch[2:]])
    read = await told(place)
    never = entry(1201)
    assert await sink.whereabouts([*batch[:3], never]) == [
        read["event-1"], Absence.NOT_FOUND, read["event-3"], Absence.NOT_FOUND,
    ]  # fmt: skip
    elsewhere = place.sink(topic=f"{place.topic}.elsewhere")
    assert await elsewhere.whereabouts(batch[:1]) == [Absence.NOT_FOUND]
    monkeypatch.setattr(whereabouts, "_BYTES_MAX", 1)
    assert await sink.whereabouts([batch[0], batch[-1]]) == [read["event-1"], Absence.NOT_REACHED]
    monkeypatch.setattr(whereabouts, "_READ_S", 0.0)
    assert await sink.whereabouts(batch[:1]) == [Absence.NOT_REACHED]


async def test_a_trail_tells_topic_partition_and_offset_when_it_is_asked_to(place: Place, tmp_path: Path) -> None:
    async with bridge(place, place.broker.bootstrap_servers, tmp_path) as (journal, call):
        for job in ("a", "b"):
            await journalled(journal, job, EventType.OUTPUT, EventType.STEP, EventType.COMPLETED)
        await asyncio.wait_for(journal.settled(["lake"]), 30)
        plain = await call("jobs/elsewhere/a/trail")
        assert [set(one["sinks"]["lake"]) & {"record", "record_absent"} for one in plain["events"]] == [set()] * 3
        shown = await call("jobs/elsewhere/a/trail?kafka=true&limit=1000")
    read = await told(place, place.topic, f"{place.topic}.ends")
    assert [(one["event_id"], one["sinks"]["lake"]["record"]) for one in shown["events"]] == [
        (f"a-{nth}", read[f"a-{nth}"]._asdict()) for nth in (1, 2, 3)
    ]
    assert shown["events"][2]["sinks"]["lake"]["record"]["topic"] == f"{place.topic}.ends"


async def test_a_trail_answers_while_the_brokers_are_away(place: Place, tmp_path: Path) -> None:
    async with bridge(place, place.broker.bootstrap_servers, tmp_path) as (journal, _):
        await journalled(journal, "a", EventType.OUTPUT)
        await asyncio.wait_for(journal.settled(["lake"]), 30)
    [nobody] = free_ports(1)
    async with bridge(place, f"127.0.0.1:{nobody}", tmp_path) as (journal, call):
        await journalled(journal, "a", EventType.OUTPUT, EventType.STEP)
        first, second = (await call("jobs/elsewhere/a/trail?kafka=true"))["events"]
    lake = first["sinks"]["lake"]
    assert (lake["state"], lake["record"], lake["record_absent"]) == ("delivered", None, "unavailable")
    assert (second["sinks"]["lake"]["state"], "record" in second["sinks"]["lake"]) == ("pending", False)


@asynccontextmanager
async def bridge(place: Place, brokers: str, folder: Path) -> AsyncIterator[tuple[Journal, Call]]:
    """A bridge at work over the journal in that folder; its journal, and somebody with the token."""
    path = folder / "jobbridge.yaml"
    config = CONFIG.replace("BROKERS", brokers).replace("TOPIC", place.topic)
    path.write_text(config.replace("JOURNAL", str(folder / "journal.db")))
    plugs = providers.catalogue(), sinks.catalogue()
    environ = {**os.environ, "KEY": "ak_live_12345678", "TOKEN": TOKEN}
    settings = load(path, environ, *plugs)
    async with assemble(settings, *plugs, structlog.get_logger()) as running, aiohttp.ClientSession() as http:
        stopping = asyncio.Event()
        at_work = asyncio.create_task(running.run(stopping))

        async def call(path: str) -> Any:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with http.get(f"http://127.0.0.1:{running.port}/v1/{path}", headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        yield running.journal, call
        stopping.set()
        await at_work


async def journalled(journal: Journal, job_id: str, *types: EventType) -> None:
    [(job, _)] = await journal.follow([JobKey("elsewhere", job_id)], "config")
    events = [JobEvent(f"{job_id}-{nth}", *job.key, type_, b"{}") for nth, type_ in enumerate(types, start=1)]
    await journal.append(job, events, None)
