"""How batches reach the brokers: in order, and past records that the brokers refuse.

A broker refuses a whole batch for the sake of one record in it, and this client does not hand on which. So a refused
batch is sent again in halves, until the record stands alone. Nothing of a refused batch was written, and nothing
behind it in its place was sent: the place's sequence goes on from where it was, inside the same transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka

from bridge.delivery.sinks.kafka.batches import Batch, Batches, Place, Refusal
from bridge.errors import Temporary


class InvalidRecordError(kafka.BrokerResponseError):  # type: ignore[misc]
    """INVALID_RECORD, which this client does not know and would pass on as an unknown error."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker's checks of this record failed."


kafka.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)
_REFUSED = (*_TOO_LARGE, kafka.InvalidTimestampError, InvalidRecordError)


class Shipped(NamedTuple):
    """What became of batches, beyond those that are written."""

    refused: list[Refusal]
    """Records that the brokers refuse by themselves. All others are written."""
    tight: set[str]
    """Topics that took no batch as large as was thought."""


async def ship(producer: AIOKafkaProducer, batches: Batches) -> Shipped:
    """Return once all records are written or refused. Raises the client's error, or `Temporary`, where the
    brokers are unwell: nobody is to blame then."""
    shipped = Shipped([], set())
    under_way = [
        asyncio.create_task(_ship_place(producer, batches, place, queue, shipped))
        for place, queue in batches.places.items()
    ]
    try:
        await asyncio.gather(*under_way)
    finally:
        for task in under_way:
            task.cancel()
    return shipped


async def _ship_place(
    producer: AIOKafkaProducer, batches: Batches, place: Place, queue: Iterable[Batch], shipped: Shipped
) -> None:
    topic, partition = place
    waiting = deque(queue)
    while waiting:
        batch = waiting.popleft()
        try:
            # One at a time: what stood behind a refused one could otherwise be written in front of its halves.
            await (await producer.send_batch(batch, topic, partition=partition))
        except _REFUSED as error:
            if batch.attempts > 1:  # an earlier attempt, whose answer was lost, may have been written
                raise Temporary(f"{topic} refused a batch on another attempt", reason="kafka_unavailable") from error
            _take_back(producer, place, batch.record_count())
            if isinstance(error, _TOO_LARGE):
                shipped.tight.add(topic)
            if batch.record_count() > 1:
                waiting.extendleft(reversed(batches.halves(batch)))
            else:
                shipped.refused.append(_refusal(topic, batch, error))


def _take_back(producer: AIOKafkaProducer, place: Place, count: int) -> None:
    # The client counts a batch's sequence numbers as used, whatever the broker said; the next would be out of order.
    # The Java client takes them back likewise.
    producer._txn_manager.increment_sequence_number(TopicPartition(*place), -count)


def _refusal(topic: str, batch: Batch, error: Exception) -> Refusal:
    [item] = batch.records()
    if isinstance(error, _TOO_LARGE):
        detail = f"record of {item.wire_bytes} bytes is over the max.message.bytes of topic {topic}"
        return Refusal(topic, item, "record_too_large", detail)
    if isinstance(error, kafka.InvalidTimestampError):
        detail = (
            f"topic {topic} takes no record with the timestamp {item.timestamp_ms}: see its message.timestamp "
            "configs, and the clock of this machine"
        )
        return Refusal(topic, item, "timestamp_refused", detail)
    return Refusal(topic, item, "record_refused", f"the brokers' checks for topic {topic} refuse the record")
