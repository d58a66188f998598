"""Record batches of one write, built by hand: the hot path of the sink."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from bridge.delivery.sinks.kafka.records import Record
from bridge.journal.store import Entry

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
"""Codecs by their number in a batch's attributes."""

_UNBOUNDED = 1 << 30

Place = tuple[str, int]
"""Topic and partition. Order is kept within each."""


class Batch(BatchBuilder):  # type: ignore[misc]
    """One record batch, and what is in it should the brokers refuse it."""

    def __init__(self, bytes_max: int, codec: int, *, transactional: bool) -> None:
        super().__init__(bytes_max, codec, is_transactional=transactional)
        self.entries: list[Entry] = []
        """What its records are about, one by one."""
        self.attempts = 0
        """How often it was put into a request."""

    def add(self, item: Record) -> bool:
        """Whether the record was added; an empty batch takes one of any size."""
        # The client's own `append` is this behind checks and serializers, at twice the cost.
        offset = len(self.entries)
        if self._builder.append(offset, item.timestamp_ms, item.key, item.value, item.headers) is None:
            return False
        self.entries.append(item.entry)
        self._relative_offset = offset + 1
        return True

    def records(self) -> list[Record]:
        """What was sent, read back: records are not kept beside the batch, which would be dear and rarely of use."""
        sent = MemoryRecords(bytes(self._buffer)).next_batch()
        return [
            Record(one.key, one.value, list(one.headers), one.timestamp, entry)
            for one, entry in zip(sent, self.entries, strict=True)
        ]

    def _build(self) -> Any:
        self.attempts += 1
        return super()._build()


class Refusal(NamedTuple):
    """A record that will never get where it should go."""

    topic: str
    record: Record
    reason: str
    """A word from a small fixed set."""
    detail: str


class Batches:
    """Record batches in the order in which they must arrive, place by place."""

    def __init__(self, codec: int, *, transactional: bool) -> None:
        self.places: dict[Place, list[Batch]] = {}
        self._codec = codec
        self._transactional = transactional

    def add(self, place: Place, bytes_max: int, item: Record) -> None:
        """Put the record behind those of its place; a batch that holds more than one stays within `bytes_max`."""
        queue = self.places.get(place)
        if queue is None:
            queue = self.places[place] = []
        elif queue[-1].add(item):
            return
        queue.append(self._batch(bytes_max, [item]))

    def halves(self, batch: Batch) -> list[Batch]:
        """The same records in two batches."""
        records = batch.records()
        middle = len(records) // 2
        return [self._batch(_UNBOUNDED, records[:middle]), self._batch(_UNBOUNDED, records[middle:])]

    def _batch(self, bytes_max: int, records: Iterable[Record]) -> Batch:
        batch = Batch(bytes_max, self._codec, transactional=self._transactional)
        for item in records:
            batch.add(item)
        return batch


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """Where the Java client's default partitioner puts the key: murmur2 made positive, modulo."""
    return (int(murmur2(key)) & 0x7FFFFFFF) % partitions
