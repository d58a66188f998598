"""Kafka as a destination: entries become records, and the position they reach is committed along with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiokafka import AIOKafkaProducer

from bridge.delivery.sink import LogSink, Mark
from bridge.delivery.sinks.kafka import positions
from bridge.delivery.sinks.kafka.batches import Batches, partition_of
from bridge.delivery.sinks.kafka.producer import close
from bridge.delivery.sinks.kafka.records import Record, record, topic_name
from bridge.delivery.sinks.kafka.settings import KafkaSettings
from bridge.delivery.sinks.kafka.topics import Topics
from bridge.journal.store import Entry, Outcome
from bridge.kafka.failure import bounded
from bridge.plug import Plug


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
                await self._topics.require([self._settings.positions_topic], 1, positions.TOPIC_CONFIG)
            await self._producer.start()

    async def close(self) -> None:
        await close(self._producer, in_transaction=self._in_transaction)

    async def recover(self) -> Mark | None:
        """The last committed mark; None where none is kept, or the settings say not to go by it."""
        settings = self._settings
        if not settings.exactly_once or settings.recover_from == "journal":
            return None
        async with self._bounded("tell the position"):
            value = await positions.last_value(
                settings.client(), settings.positions_topic, positions.PARTITION, self._key
            )
        return Mark(0, "") if value is None else positions.decode(value, settings.positions_topic)

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
            mark = Record(self._key, positions.encode(entries[-1], outcomes), [], entries[-1].recorded_ms)
            batches.add(settings.positions_topic, positions.PARTITION, mark)
            await self._producer.begin_transaction()
            self._in_transaction = True
            await self._send(batches)
            self._in_transaction = False
            await self._producer.commit_transaction()
            return outcomes

    async def _batches(self, entries: Sequence[Entry]) -> tuple[Batches, list[Outcome]]:
        settings = self._settings
        topics = [topic_name(settings.topic, entry.source, entry.type) for entry in entries]
        await self._topics.require(topics, settings.partitions)
        partitions = {topic: len(await self._producer.partitions_for(topic)) for topic in set(topics)}
        batches = Batches(self._producer)
        outcomes = []
        for entry, topic in zip(entries, topics, strict=True):
            item = record(entry, settings.mode)
            if item.bytes_max > settings.record_bytes_max:
                detail = f"record of {item.bytes_max} bytes is over record_bytes_max, {settings.record_bytes_max}"
                outcomes.append(positions.dead(entry.position, entry.subscription, detail))
            else:
                batches.add(topic, partition_of(item.key, partitions[topic]), item)
        return batches, outcomes

    async def _send(self, batches: Batches) -> None:
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


def build(name: str, settings: KafkaSettings) -> LogSink:
    """The sink of that name. The name is part of its memory in Kafka: a renamed sink is a new one."""
    return KafkaSink(name, settings)


PLUG = Plug(kind="kafka", settings=KafkaSettings, build=build)
