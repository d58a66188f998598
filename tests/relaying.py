"""What a test of the Kafka sink relays: entries, the sink with its settings, and a relay that runs until it is done."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import structlog
from aiokafka import ConsumerRecord
from brokers import Broker, committed

from bridge.delivery.dispatcher import LogDispatcher
from bridge.delivery.sink import LogWriter, Mark
from bridge.delivery.sinks.kafka import KafkaSettings, KafkaSink
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.store import Checkpoint, Entry, Journal, Outcome
from bridge.telemetry.metrics import Metrics

NOTHING = Mark(0, "")

GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])


def entry(position: int, *, job: str = "job-1", data: bytes = b'{"n":1}', type_: str = "job.output") -> Entry:
    return Entry(
        partition=0,
        position=position,
        subscription=7,
        sequence=position,
        recorded_ms=1_760_000_000_000 + position,
        id=f"event-{position}",
        source="auvy-prod",
        subject=job,
        type=type_,
        time="2026-01-02T03:04:05Z",
        traceparent=None,
        data=data,
    )


def sized(position: int, size: int) -> Entry:
    """An entry with so many bytes of data."""
    return entry(position, data=b'"' + b"x" * (size - 2) + b'"')


def entries(first: int, last: int, jobs: int = 5) -> list[Entry]:
    return [entry(position, job=f"job-{position % jobs}") for position in range(first, last + 1)]


def ids(first: int, last: int) -> list[str]:
    return [f"event-{number}" for number in range(first, last + 1)]


async def write(writer: LogWriter, batch: Sequence[Entry]) -> Sequence[Outcome]:
    """Add the batch and flush it."""
    await writer.add(batch)
    return await writer.flush()


class Place:
    """Names of one test's own on the shared broker: topics, transactional ids, positions."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.topic = f"events-{uuid.uuid4().hex[:12]}"
        self.positions = f"{self.topic}.positions"

    def sink(self, name: str = "kafka", **options: Any) -> KafkaSink:
        own = {"topic": self.topic, "positions_topic": self.positions, "transactional_id_prefix": self.topic}
        return sink(self.broker, name, **(own | options))

    async def read(self, topic: str | None = None) -> list[ConsumerRecord]:
        """All records that a read-committed reader gets from the topic, partition by partition."""
        return await committed(self.broker.bootstrap_servers, topic or self.topic)

    async def ids(self) -> list[str]:
        """The ids of all events that a read-committed reader gets, partition by partition."""
        return [dict(record.headers)["ce_id"].decode() for record in await self.read()]


async def abandon(writer: Any, batch: Sequence[Entry]) -> None:
    """Write the entries up to the moment before the commit, and go away: what a crash would leave. Close it then."""
    sent = asyncio.Event()

    async def never() -> None:
        sent.set()
        await asyncio.Event().wait()

    writer._producer.commit_transaction = never
    writing = asyncio.create_task(write(writer, batch))
    await sent.wait()
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing


def sink(at: Broker, name: str = "kafka", **options: Any) -> KafkaSink:
    return KafkaSink(name, settings(at, **options))


def settings(at: Broker, **options: Any) -> KafkaSettings:
    return KafkaSettings.model_validate(
        {"kind": "kafka", "bootstrap_servers": at.bootstrap_servers, "create_topics": True, "partitions": 6} | options
    )


async def journal_events(journal: Journal, count: int) -> None:
    ((job, _),) = await journal.follow([JobKey("auvy-prod", "job-1")], "config")
    numbers = range(job.sequence + 1, job.sequence + count + 1)
    events = [JobEvent(f"event-{n}", "auvy-prod", "job-1", EventType.OUTPUT, b"{}") for n in numbers]
    await journal.append(job, events, Checkpoint(None, b""))


async def run_until_settled(relay: KafkaSink, journal: Journal, upto: int) -> None:
    """Run the relay until the journal has settled so much, then end it. Raises what the relay raises."""
    dispatcher = LogDispatcher("kafka", 0, relay, journal=journal, metrics=Metrics(), log=structlog.get_logger())
    session = asyncio.create_task(dispatcher.run(lambda: None))
    while not session.done() and await journal.position("kafka", 0) < upto:
        await asyncio.wait({session}, timeout=0.01)
    session.cancel()
    with suppress(asyncio.CancelledError):
        await session
