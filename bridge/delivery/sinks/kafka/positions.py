"""The mark in Kafka: up to where a partition of the journal was delivered, as a record of a compacted topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from bridge.delivery.sink import Mark
from bridge.delivery.sinks.kafka.topics import TopicSpec
from bridge.errors import Fatal
from bridge.journal.store import DeliveryState, Entry, Outcome
from bridge.kafka.consumer import close

PARTITION = 0
"""Positions live in one partition, however many the topic has: a look-up then reads one log."""

_TOPIC_CONFIG = (("min.cleanable.dirty.ratio", "0.1"), ("segment.bytes", str(4 << 20)))

_DETAILS_CHARS = 256 << 10
"""Of all outcomes together: a mark must fit into the topic's max.message.bytes, whatever happened to its batch."""

_FETCH_MS = 100


def required(topic: str) -> TopicSpec:
    """What is wanted of the topic of that name."""
    return TopicSpec(topic, PARTITION + 1, _TOPIC_CONFIG, compacted=True)


def dead(position: int, subscription: int, detail: str) -> Outcome:
    return Outcome(position, subscription, DeliveryState.DEAD, attempts=1, detail=detail)


def encode(last: Entry, outcomes: Sequence[Outcome]) -> bytes:
    chars_max = _DETAILS_CHARS // max(1, len(outcomes))
    lost = [(outcome.position, outcome.subscription, (outcome.detail or "")[:chars_max]) for outcome in outcomes]
    return orjson.dumps({"position": last.position, "id": last.id, "dead": lost})


def decode(value: bytes, topic: str) -> Mark:
    try:
        memory = orjson.loads(value)
        lost = (dead(position, subscription, detail) for position, subscription, detail in memory["dead"])
        return Mark(int(memory["position"]), str(memory["id"]), tuple(lost))
    except (ValueError, TypeError, KeyError) as error:
        raise Fatal(f"topic {topic} holds a position that is none of ours: {value[:100]!r}") from error


async def last_value(
    client: Mapping[str, Any], topic: str, partition: int, key: bytes, *, patient: bool = True
) -> bytes | None:
    """The last committed value under the key, None when there is none. Reads the whole partition: keep it small.

    Reads up to the high watermark, not to the last stable offset: another producer's open transaction may stand
    between the two, in front of the record we look for. Such a transaction ends, and the caller has a deadline. Who is
    not `patient` goes by what is before it: the transaction may be our own, which only a new producer would end.
    """
    place = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(
        **client,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_FETCH_MS,
    )
    found: bytes | None = None
    end: int | None = None
    try:
        await consumer.start()
        consumer.assign([place])
        if not patient:
            end = (await consumer.end_offsets([place]))[place]
        # The position moves over transaction markers and aborted records, which never come out as records.
        while end is None or await consumer.position(place) < end:
            for record in (await consumer.getmany(place, timeout_ms=_FETCH_MS)).get(place, ()):
                if record.key == key:
                    found = record.value
            end = consumer.highwater(place) if end is None else end
    finally:
        await close(consumer)
    return found
