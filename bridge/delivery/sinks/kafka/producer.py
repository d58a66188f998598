"""How a producer ends, whatever its state: `stop` first flushes, which never ends while a broker is away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import chain

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

_CLOSE_S = 2.0
_DROP_S = 0.5


async def close(producer: AIOKafkaProducer, *, in_transaction: bool) -> None:
    """End a producer within seconds whatever its state; an open transaction is aborted if the brokers listen."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            if in_transaction:
                # After a fatal error the client refuses to abort, by an assertion; the broker does it without us.
                with suppress(AssertionError, kafka.KafkaError):
                    await producer.abort_transaction()
            await producer.stop()
    except (TimeoutError, OSError, kafka.KafkaError):
        await _drop(producer)
    _hush(producer)


async def _drop(producer: AIOKafkaProducer) -> None:
    # There is no public way to give up what waits for a broker that is away, and `stop` waits for just that.
    producer._closed = True
    accumulator = producer._message_accumulator
    for batch in [*accumulator._pending_batches, *chain(*accumulator._batches.values())]:
        batch.done_noack()  # nobody listens any more; an error would only be reported as never looked at
    if (sender := producer._sender.sender_task) is not None:
        for _ in range(2):  # cancelled once it still waits for its requests, cancelled twice it lets go of them
            sender.cancel()
            await asyncio.wait({sender}, timeout=_DROP_S)
    await producer.client.close()


def _hush(producer: AIOKafkaProducer) -> None:
    # A producer that failed keeps its error in futures that nobody awaits; asyncio would report each of them.
    waiters = [batch._drain_waiter for batch in chain(*producer._message_accumulator._batches.values())]
    waiters.append(producer._txn_manager._transaction_waiter)
    for waiter in waiters:
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()
