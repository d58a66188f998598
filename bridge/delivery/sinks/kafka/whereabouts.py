"""Where events lie in Kafka: the only place that reads back what was written, and only when somebody asks.

Nothing is kept for it: settings and key tell topic and partition, and the timestamp where in it to begin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from bridge.delivery.envelope import own_attributes
from bridge.delivery.sink import Absence, LogPlace
from bridge.delivery.sinks.kafka.batches import partition_of
from bridge.delivery.sinks.kafka.records import stamp_ms
from bridge.delivery.sinks.kafka.routes import Routes
from bridge.delivery.sinks.kafka.settings import KafkaSettings
from bridge.delivery.sinks.kafka.topics import partition_counts
from bridge.errors import BridgeError
from bridge.journal.store import Entry
from bridge.kafka.consumer import close
from bridge.kafka.failure import bounded

_SEARCH_S = 4.0
_READ_S = 3.0
_BYTES_MAX = 64 << 20
"""Of what one search reads, short of the little that is fetched ahead of it."""
_RECORD_BYTES = 200
"""What a record takes besides its value, about."""
_CHUNK_RECORDS = 500
_FETCH_MS = 100
_CLOCKS_DIFFER_MS = 10_000
"""Brokers may stamp records themselves (`LogAppendTime`), by a clock that is behind ours."""
_SCHEMA_ID_BYTES = 5
"""Of the framing with a schema registry's ids: a zero, and the id."""

_Found = dict[str, LogPlace | Absence]


class Whereabouts:
    """Searches one sink's topics, for one asker at a time."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()

    async def find(self, entries: Sequence[Entry]) -> list[LogPlace | Absence]:
        """As the seam of the logs has it. Where an event was written twice, the first record is told."""
        wanted = {dict(own_attributes(entry))["id"]: entry for entry in entries}
        found: _Found = dict.fromkeys(wanted, Absence.UNAVAILABLE)
        with suppress(BridgeError):
            async with bounded(self._settings.bootstrap_servers, _SEARCH_S, "tell where records are"), self._turn:
                if wanted:
                    await self._search(wanted, found)
        return [found[event_id] for event_id in wanted]

    async def _search(self, wanted: Mapping[str, Entry], found: _Found) -> None:
        link = await self._settings.link()
        routes = Routes(self._settings.all_routes)
        topics = {event_id: routes.topic(entry) for event_id, entry in wanted.items()}
        partitions = await partition_counts(link.options, set(topics.values()))
        found |= {event_id: Absence.NOT_FOUND for event_id, topic in topics.items() if topic not in partitions}
        key = next(iter(wanted.values())).job_key.encode()
        consumer = AIOKafkaConsumer(
            **link.options,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_MS,
        )
        try:
            await consumer.start()
            reader = _Reader(consumer, key, found)
            for topic, count in partitions.items():
                stamps = {
                    event_id: stamp_ms(entry, self._settings.timestamp)
                    for event_id, entry in wanted.items()
                    if topics[event_id] == topic
                }
                await reader.read(TopicPartition(topic, partition_of(key, count)), stamps)
        finally:
            await close(consumer)


class _Reader:
    """Reads one partition after the other for what has the key, and writes down what is found."""

    def __init__(self, consumer: AIOKafkaConsumer, key: bytes, found: _Found) -> None:
        self._consumer = consumer
        self._key = key
        self._found = found
        self._bytes_left = _BYTES_MAX
        self._ends_s = time.monotonic() + _READ_S

    async def read(self, place: TopicPartition, stamps: Mapping[str, int]) -> None:
        """Look for these events, each no earlier in the partition than the first record of its timestamp or later.

        They stand there in this order: what comes before one that is found and was not found itself is not there.
        Up to the high watermark, for the reason that the look-up of positions has: what was delivered may stand behind
        the open transaction of another.
        """
        event_ids, sought, end = list(stamps), "", None
        while event_ids and self._bytes_left > 0 and time.monotonic() < self._ends_s:
            if sought != event_ids[0]:
                sought = event_ids[0]
                await self._go_to(place, stamps[sought])
            batches = await self._consumer.getmany(place, timeout_ms=_FETCH_MS, max_records=_CHUNK_RECORDS)
            for record in batches.get(place, ()):
                self._look_at(record, event_ids)
            end = self._consumer.highwater(place) if end is None else end
            if end is not None and await self._consumer.position(place) >= end:
                self._miss(event_ids)
                return
        self._found |= dict.fromkeys(event_ids, Absence.NOT_REACHED)

    async def _go_to(self, place: TopicPartition, stamp: int) -> None:
        """Pass over what is older; never back."""
        first = (await self._consumer.offsets_for_times({place: max(0, stamp - _CLOCKS_DIFFER_MS)}))[place]
        offset = (await self._consumer.end_offsets([place]))[place] if first is None else first.offset
        if place not in self._consumer.assignment():
            self._consumer.assign([place])
        elif offset <= await self._consumer.position(place):
            return
        self._consumer.seek(place, offset)

    def _look_at(self, record: ConsumerRecord, event_ids: list[str]) -> None:
        self._bytes_left -= len(record.value or b"") + _RECORD_BYTES
        if record.key != self._key or (event_id := _event_id(record)) not in event_ids:
            return
        nth = event_ids.index(event_id)
        self._miss(event_ids[:nth])
        del event_ids[: nth + 1]
        self._found[event_id] = LogPlace(record.topic, record.partition, record.offset)

    def _miss(self, event_ids: Iterable[str]) -> None:
        self._found |= dict.fromkeys(event_ids, Absence.NOT_FOUND)


def _event_id(record: ConsumerRecord) -> Any:
    """The id in either content mode, whichever it is by now; None in what is no event."""
    event_id = dict(record.headers).get("ce_id")
    if event_id is not None:
        return event_id.decode("utf-8", "replace")
    value = record.value or b""
    try:
        event = orjson.loads(value[_SCHEMA_ID_BYTES:] if value[:1] == b"\0" else value)
    except orjson.JSONDecodeError:
        return None
    return event.get("id") if isinstance(event, dict) else None
