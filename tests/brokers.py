"""What a test can do to a Kafka broker, and what its readers see."""

from __future__ import annotations

from typing import Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition


class Broker(Protocol):
    """A broker under test, whichever it is."""

    bootstrap_servers: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def kill(self) -> None: ...


async def committed(bootstrap_servers: str, topic: str) -> list[ConsumerRecord]:
    """Everything a read-committed reader gets from a topic, partition by partition, in order."""
    return await _read(bootstrap_servers, topic, "read_committed")


async def written(bootstrap_servers: str, topic: str) -> list[ConsumerRecord]:
    """Everything in a topic, records of aborted and of open transactions included."""
    return await _read(bootstrap_servers, topic, "read_uncommitted")


async def _read(bootstrap_servers: str, topic: str, isolation_level: str) -> list[ConsumerRecord]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        isolation_level=isolation_level,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        # Up to the high watermark: right after a commit the last stable offset may still stand in front of its records.
        ends: dict[TopicPartition, int | None] = dict.fromkeys(consumer.assignment())
        records: list[ConsumerRecord] = []
        while any([end is None or await consumer.position(place) < end for place, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=50)).values():
                records += batch
            ends = {place: consumer.highwater(place) if end is None else end for place, end in ends.items()}
        return sorted(records, key=lambda record: (record.partition, record.offset))
    finally:
        await consumer.stop()
