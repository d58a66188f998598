"""Kafka as a destination: entries become records, and the position they reach is committed along with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any, Literal

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from pydantic import Field, field_validator, model_validator

from bridge.delivery.kafka_client import Topics, bounded, close, last_value
from bridge.delivery.kafka_records import Mode, Record, check_topic_template, record, topic_name
from bridge.delivery.sink import LogSink, Mark, SinkSettings
from bridge.errors import Fatal
from bridge.journal.store import DeliveryState, Entry, Outcome
from bridge.plug import Plug

_POSITIONS_PARTITION = 0
"""Positions live in one partition, however many the topic has: a look-up then reads one log."""

_POSITIONS_CONFIG = {"cleanup.policy": "compact", "segment.bytes": str(4 << 20), "min.cleanable.dirty.ratio": "0.1"}


class KafkaSettings(SinkSettings):
    """Options of one Kafka sink."""

    bootstrap_servers: str = Field(description="`host:port` of one or more brokers, separated by commas.")
    client_id: str = Field("jobbridge", description="Name of this client in the brokers' logs and quotas.")
    topic: str = Field(
        "jobs.events",
        description="Topic; may hold `{source}`, `{type}` and `{kind}` (`job` or `watch`, the first part of the type).",
    )
    mode: Mode = Field("binary", description="CloudEvents content mode: attributes as headers, or one JSON value.")
    guarantee: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="`exactly_once` (for read-committed readers) needs transactions; choose the other where the broker "
        "has none.",
    )
    transactional_id_prefix: str = Field(
        "jobbridge",
        min_length=1,
        description="First part of transactional ids and position keys. Each bridge on a cluster needs its own.",
    )
    positions_topic: str = Field(
        "jobbridge.positions", description="Compacted topic that remembers how far each partition was delivered."
    )
    recover_from: Literal["kafka", "journal"] = Field(
        "kafka",
        description="`journal`, for one start: go on from the journal's own position after Kafka lost its memory. "
        "May repeat what Kafka had committed and the journal not yet noted.",
    )
    create_topics: bool = Field(False, description="Create topics that are missing.")
    partitions: int = Field(6, ge=1, description="Partitions of a created topic.")
    replication_factor: int | None = Field(None, ge=1, description="Replicas of a created topic; the brokers' default.")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field("none", description="Codec of the batches.")
    batch_entries: int = Field(1000, ge=1, le=10_000, description="Entries in one transaction, at most.")
    batch_bytes: int = Field(
        512 << 10, ge=1024, description="Size at which a record batch is full. Kafka's own 16 KiB costs throughput."
    )
    record_bytes_max: int = Field(
        1_000_000,
        ge=1024,
        description="A larger record is a dead letter. Keep at or below the topic's `max.message.bytes`.",
    )
    request_timeout_s: float = Field(10.0, gt=0, description="Limit of one request to a broker.")
    delivery_timeout_s: float = Field(
        30.0, gt=0, description="Limit of one transaction, retries inside it included; then a new producer starts."
    )
    transaction_timeout_s: float = Field(
        60.0, gt=0, description="When the broker aborts a transaction by itself; longer than `delivery_timeout_s`."
    )

    @field_validator("topic")
    @classmethod
    def _topic(cls, value: str) -> str:
        return check_topic_template(value)

    @model_validator(mode="after")
    def _timeouts(self) -> KafkaSettings:
        if self.transaction_timeout_s <= self.delivery_timeout_s:
            raise ValueError("transaction_timeout_s must be longer than delivery_timeout_s")
        return self

    def client(self) -> dict[str, Any]:
        """Options of every client, whatever it does: the one place for addresses and, in time, credentials."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": round(self.request_timeout_s * 1000),
        }

    def producer(self, transactional_id: str) -> dict[str, Any]:
        """Options of the producer: idempotent, and transactional where the guarantee asks for it."""
        options = self.client() | {
            "enable_idempotence": True,
            "compression_type": None if self.compression == "none" else self.compression,
            "max_batch_size": self.batch_bytes,
        }
        if self.exactly_once:
            options["transactional_id"] = transactional_id
            options["transaction_timeout_ms"] = round(self.transaction_timeout_s * 1000)
        return options

    @property
    def exactly_once(self) -> bool:
        return self.guarantee == "exactly_once"


class KafkaSink:
    """Opens the writer of one journal partition."""

    def __init__(self, name: str, settings: KafkaSettings) -> None:
        self.batch_entries = settings.batch_entries
        self._name = name
        self._settings = settings

    @asynccontextmanager
    async def writer(self, partition: int) -> AsyncIterator[KafkaWriter]:
        """Start the partition's producer; a transactional one fences every earlier producer of its name."""
        writer = KafkaWriter(self._settings, f"{self._settings.transactional_id_prefix}-{self._name}-{partition}")
        try:
            await writer.start()
            yield writer
        finally:
            await writer.close()


class KafkaWriter:
    """One producer, for one partition of the journal. `key` names it: its transactional id and its position's key."""

    def __init__(self, settings: KafkaSettings, key: str) -> None:
        self._settings = settings
        self._key = key.encode()
        self._producer = AIOKafkaProducer(**settings.producer(key))
        self._in_transaction = False
        self._topics = Topics(settings.client(), settings.create_topics, settings.replication_factor)

    async def start(self) -> None:
        async with self._bounded("start a producer"):
            if self._settings.exactly_once:
                await self._topics.require([self._settings.positions_topic], 1, _POSITIONS_CONFIG)
            await self._producer.start()

    async def close(self) -> None:
        await close(self._producer, in_transaction=self._in_transaction)

    async def recover(self) -> Mark | None:
        """The last committed mark; None where none is kept, or the settings say not to go by it."""
        settings = self._settings
        if not settings.exactly_once or settings.recover_from == "journal":
            return None
        async with self._bounded("tell the position"):
            value = await last_value(settings.client(), settings.positions_topic, _POSITIONS_PARTITION, self._key)
        return Mark(0, "") if value is None else _decode(value, settings.positions_topic)

    async def write(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Write the entries and the mark of the last one, in one transaction where the guarantee asks for it.

        An entry over `record_bytes_max` is dead and the rest goes on. Raises as the seam says.
        """
        settings = self._settings
        async with self._bounded("take a batch"):
            batches, outcomes = await self._batches(entries)
            if not settings.exactly_once:
                await self._send(batches)
                return outcomes
            mark = Record(self._key, _encode(entries[-1], outcomes), [], entries[-1].recorded_ms)
            batches.add(settings.positions_topic, _POSITIONS_PARTITION, mark)
            await self._producer.begin_transaction()
            self._in_transaction = True
            await self._send(batches)
            self._in_transaction = False
            await self._producer.commit_transaction()
            return outcomes

    async def _batches(self, entries: Sequence[Entry]) -> tuple[_Batches, list[Outcome]]:
        settings = self._settings
        topics = [topic_name(settings.topic, entry.source, entry.type) for entry in entries]
        await self._topics.require(topics, settings.partitions)
        partitions = {topic: len(await self._producer.partitions_for(topic)) for topic in set(topics)}
        batches = _Batches(self._producer)
        outcomes = []
        for entry, topic in zip(entries, topics, strict=True):
            item = record(entry, settings.mode)
            if item.bytes_max > settings.record_bytes_max:
                detail = f"record of {item.bytes_max} bytes is over record_bytes_max, {settings.record_bytes_max}"
                outcomes.append(_dead(entry.position, entry.subscription, detail))
            else:
                batches.add(topic, partition_of(item.key, partitions[topic]), item)
        return batches, outcomes

    async def _send(self, batches: _Batches) -> None:
        sent = []
        try:
            for topic, partition, batch in batches.filled:
                sent.append(await self._producer.send_batch(batch, topic, partition=partition))
            # Each must be looked at: the client would commit without those that failed.
            await asyncio.gather(*sent)
        finally:
            for one in sent:
                one.cancel()

    def _bounded(self, what: str) -> AbstractAsyncContextManager[None]:
        return bounded(self._settings.bootstrap_servers, self._settings.delivery_timeout_s, what)


class _Batches:
    """Record batches of one write, in the order in which they must arrive within each Kafka partition."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.filled: list[tuple[str, int, Any]] = []
        self._producer = producer
        self._open: dict[tuple[str, int], Any] = {}

    def add(self, topic: str, partition: int, item: Record) -> None:
        batch = self._open.get((topic, partition))
        if batch is None or not _append(batch, item):
            batch = self._open[topic, partition] = self._producer.create_batch()
            self.filled.append((topic, partition, batch))
            _append(batch, item)  # an empty batch takes a record of any size


def _append(batch: Any, item: Record) -> bool:
    taken = batch.append(timestamp=item.timestamp_ms, key=item.key, value=item.value, headers=item.headers)
    return taken is not None


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """Where the Java client's default partitioner puts the key: murmur2 made positive, modulo."""
    return (int(murmur2(key)) & 0x7FFFFFFF) % partitions


def _dead(position: int, subscription: int, detail: str) -> Outcome:
    return Outcome(position, subscription, DeliveryState.DEAD, attempts=1, detail=detail)


def _encode(last: Entry, outcomes: Sequence[Outcome]) -> bytes:
    dead = [(outcome.position, outcome.subscription, outcome.detail) for outcome in outcomes]
    return orjson.dumps({"position": last.position, "id": last.id, "dead": dead})


def _decode(value: bytes, topic: str) -> Mark:
    try:
        memory = orjson.loads(value)
        dead = (_dead(position, subscription, detail) for position, subscription, detail in memory["dead"])
        return Mark(int(memory["position"]), str(memory["id"]), tuple(dead))
    except (ValueError, TypeError, KeyError) as error:
        raise Fatal(f"topic {topic} holds a position that is none of ours: {value[:100]!r}") from error


def build(name: str, settings: KafkaSettings) -> LogSink:
    """The sink of that name. The name is part of its memory in Kafka: a renamed sink is a new one."""
    return KafkaSink(name, settings)


PLUG = Plug(kind="kafka", settings=KafkaSettings, build=build)
