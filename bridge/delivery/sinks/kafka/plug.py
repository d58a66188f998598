"""Kafka as a destination: entries become records, and the position they reach is committed along with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from bridge.delivery.sink import Absence, Check, LogPlace, LogSink
from bridge.delivery.sinks.kafka.memory import Memory
from bridge.delivery.sinks.kafka.registry import Registry
from bridge.delivery.sinks.kafka.settings import KafkaSettings
from bridge.delivery.sinks.kafka.whereabouts import Whereabouts
from bridge.delivery.sinks.kafka.writer import KafkaWriter
from bridge.journal.store import Entry
from bridge.plug import Plug


class KafkaSink:
    """Opens the writers, one for each partition of the journal, and finds what they wrote."""

    def __init__(self, name: str, settings: KafkaSettings) -> None:
        self.batch_entries = settings.batch_entries
        self._name = name
        self._settings = settings
        self._memory = Memory(settings.memory_bytes_max)
        self._whereabouts = Whereabouts(settings)
        self._ours: dict[int, set[bytes | None]] = {}

    @asynccontextmanager
    async def writer(self, partition: int, check: Check | None = None) -> AsyncIterator[KafkaWriter]:
        """Start the partition's producer; a transactional one fences every earlier producer of its name."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            registry = None
            if settings.schema_registry is not None:
                registry = await stack.enter_async_context(Registry(settings.schema_registry, settings.mode))
            key = f"{settings.transactional_id_prefix}-{self._name}-{partition}"
            ours = self._ours.setdefault(partition, set())
            writer = KafkaWriter(settings, key, self._memory, registry, ours)
            stack.push_async_callback(writer.close)
            await writer.start(check)
            yield writer

    async def whereabouts(self, entries: Sequence[Entry]) -> Sequence[LogPlace | Absence]:
        """Where the records of these are; read in Kafka now, for seconds at most."""
        return await self._whereabouts.find(entries)


def build(name: str, settings: KafkaSettings) -> LogSink:
    """The sink of that name. The name is part of its memory in Kafka: a renamed sink is a new one."""
    return KafkaSink(name, settings)


PLUG = Plug(kind="kafka", settings=KafkaSettings, build=build)
