"""Reads a whole topic as a consumer would: read-committed, from the first record to the end."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from bridge.demo.proof import Arrival
from bridge.kafka.consumer import close

_SILENCE_MS = 2000


async def read_topic(bootstrap_servers: str, topic: str) -> list[Arrival]:
    """Every committed record, partition by partition in order; none when the topic does not exist.

    Stops at the end offsets, or when the broker has been silent for two seconds: what is then missing shows as lost.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        # Of topics that are not subscribed to, the client itself remembers nothing.
        known = await consumer._client.fetch_all_metadata()
        partitions = [TopicPartition(topic, number) for number in known.partitions_for_topic(topic) or ()]
        if not partitions:
            return []
        consumer.assign(partitions)
        records = await _until_end(consumer, partitions)
    finally:
        await close(consumer)
    return [_arrival(record) for record in sorted(records, key=lambda record: (record.partition, record.offset))]


async def _until_end(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition]
) -> list[ConsumerRecord[bytes | None, bytes | None]]:
    ends = await consumer.end_offsets(partitions)
    records: list[ConsumerRecord[bytes | None, bytes | None]] = []
    while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
        batches = await consumer.getmany(timeout_ms=_SILENCE_MS)
        if not batches:
            break
        records += [record for batch in batches.values() for record in batch]
    return records


def _arrival(record: ConsumerRecord[bytes | None, bytes | None]) -> Arrival:
    attributes = {name: value.decode() for name, value in record.headers}
    return Arrival(
        id=attributes["ce_id"],
        job=attributes["ce_subject"],
        type=attributes["ce_type"],
        sequence=int(attributes["ce_sequence"]),
        partition=record.partition,
    )
