"""What a test of the Kafka sink relays: entries, the sink with its settings, and a relay that runs until it is done."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from brokers import Broker

from bridge.delivery.dispatcher import LogDispatcher
from bridge.delivery.sink import Mark
from bridge.delivery.sinks.kafka import KafkaSettings, KafkaSink
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.store import Checkpoint, Entry, Journal
from bridge.telemetry.metrics import Metrics

NOTHING = Mark(0, "")


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


def entries(first: int, last: int, jobs: int = 5) -> list[Entry]:
    return [entry(position, job=f"job-{position % jobs}") for position in range(first, last + 1)]


def sink(at: Broker, name: str = "kafka", **options: Any) -> KafkaSink:
    return KafkaSink(name, settings(at, **options))


def settings(at: Broker, **options: Any) -> KafkaSettings:
    return KafkaSettings.model_validate(
        {"kind": "kafka", "bootstrap_servers": at.bootstrap_servers, "create_topics": True} | options
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
