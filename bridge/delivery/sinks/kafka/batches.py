"""Record batches of one write, built by hand: the hot path of the sink."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from bridge.delivery.sinks.kafka.records import Record


class Batches:
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
