"""How the Kafka client fails, waits and ends: the only place that knows its quirks and names its errors.

Three of them shape this file: an idempotent producer retries without end, so that every call here has a deadline of
its own; `stop` first flushes, which never ends while a broker is away; and a failed batch does not fail the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bridge.errors import BridgeError, Fatal, Temporary

_CLOSE_S = 2.0
_DROP_S = 0.5
_FETCH_MS = 100

_FENCED = (kafka.ProducerFenced, kafka.InvalidProducerEpoch)

_FATAL: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    (_FENCED, "fenced", "another producer took over `transactional_id_prefix`, so this one stops"),
    (
        (kafka.TransactionalIdAuthorizationFailed,),
        "kafka_denied",
        "the user may not use transactional ids that begin with `transactional_id_prefix`",
    ),
    ((kafka.TopicAuthorizationFailedError,), "kafka_denied", "the user may not use this `topic` or `positions_topic`"),
    ((kafka.ClusterAuthorizationFailedError,), "kafka_denied", "the user lacks IdempotentWrite or `create_topics`"),
    (
        (kafka.AuthenticationFailedError, kafka.SaslAuthenticationFailed, kafka.UnsupportedSaslMechanismError),
        "kafka_denied",
        "the brokers refuse the credentials",
    ),
    (
        (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError),
        "record_too_large",
        "lower `record_bytes_max` and `batch_bytes` to the topic's max.message.bytes",
    ),
    ((kafka.InvalidTopicError,), "kafka_settings", "the name in `topic` or `positions_topic` is refused"),
    (
        (kafka.InvalidPartitionsError, kafka.InvalidReplicationFactorError),
        "kafka_settings",
        "change `partitions` or `replication_factor`",
    ),
    (
        (kafka.PolicyViolationError, kafka.InvalidConfigurationError),
        "kafka_settings",
        "the brokers refuse to create such a topic: create it by hand",
    ),
    (
        (kafka.InvalidTransactionTimeout,),
        "kafka_settings",
        "lower `transaction_timeout_s` to the brokers' transaction.max.timeout.ms",
    ),
    (
        (kafka.UnsupportedVersionError, kafka.IncompatibleBrokerVersion),
        "kafka_settings",
        "the brokers lack something: without transactions choose `guarantee: at_least_once`",
    ),
)


@asynccontextmanager
async def bounded(brokers: str, timeout_s: float, what: str) -> AsyncIterator[None]:
    """Give what happens inside `timeout_s`, and turn its failure into `Temporary` or `Fatal`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise _unavailable(f"Kafka at {brokers} did not {what} within {timeout_s:g} s") from error
    except _FENCED as error:
        if loop.time() >= deadline:
            # The whole process stood still, and the broker ended the transaction meanwhile: there is no successor.
            raise _unavailable(f"Kafka at {brokers} did not {what}: the transaction expired") from error
        raise _translated(error, brokers, what) from error
    except (kafka.KafkaError, OSError) as error:
        raise _translated(error, brokers, what) from error


def _translated(error: Exception, brokers: str, what: str) -> BridgeError:
    for types, reason, advice in _FATAL:
        if isinstance(error, types):
            return Fatal(f"Kafka at {brokers} did not {what}: {advice} ({error})", reason=reason)
    return _unavailable(f"Kafka at {brokers} did not {what}: {error!r}")


def _unavailable(text: str) -> Temporary:
    return Temporary(text, reason="kafka_unavailable")


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


@dataclass(slots=True)
class Topics:
    """Which topics are known to exist, and how missing ones are made."""

    client: Mapping[str, Any]
    create: bool
    replication_factor: int | None
    known: set[str] = field(default_factory=set)

    async def require(self, topics: Iterable[str], partitions: int, config: Mapping[str, str] | None = None) -> None:
        """Return once all exist. Raises `Fatal` naming those that are missing where they may not be created."""
        wanted = set(topics) - self.known
        if not wanted:
            return
        admin = AIOKafkaAdminClient(**self.client)
        try:
            await admin.start()
            missing = sorted(wanted.difference(await admin.list_topics()))
            if missing and not self.create:
                raise Fatal(
                    f"Kafka at {self.client['bootstrap_servers']} has no topic {', '.join(missing)} that this user may "
                    "see: create it, or set `create_topics: true`",
                    reason="topic_missing",
                )
            if missing:
                await self._make(admin, [self._new(name, partitions, config) for name in missing])
        finally:
            await admin.close()
        self.known |= wanted

    def _new(self, name: str, partitions: int, config: Mapping[str, str] | None) -> NewTopic:
        # -1 is the brokers' default (KIP-464), which the client takes only beside an empty list of assignments.
        if self.replication_factor is None:
            return NewTopic(name, partitions, -1, replica_assignments={}, topic_configs=dict(config or {}))
        return NewTopic(name, partitions, self.replication_factor, topic_configs=dict(config or {}))

    async def _make(self, admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
        answer = await admin.create_topics(topics)
        for name, code, *text in answer.topic_errors:
            error = kafka.for_code(code)
            if error not in (kafka.NoError, kafka.TopicAlreadyExistsError):
                raise error(f"{name}: {text[0] if text else ''}")


async def last_value(client: Mapping[str, Any], topic: str, partition: int, key: bytes) -> bytes | None:
    """The last committed value under the key, None when there is none. Reads the whole partition: keep it small.

    Reads up to the high watermark, not to the last stable offset: another producer's open transaction may stand
    between the two, in front of the record we look for. Such a transaction ends, and the caller has a deadline.
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
        # The position moves over transaction markers and aborted records, which never come out as records.
        while end is None or await consumer.position(place) < end:
            for record in (await consumer.getmany(place, timeout_ms=_FETCH_MS)).get(place, ()):
                if record.key == key:
                    found = record.value
            end = consumer.highwater(place) if end is None else end
    finally:
        await consumer.stop()
    return found
