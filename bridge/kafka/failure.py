"""What a Kafka client's failures mean for the loop that sees them: the only place that knows its errors by name.

Every call has a deadline of its own here, because an idempotent producer retries without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import errors as kafka

from bridge.errors import BridgeError, Fatal, Temporary

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
