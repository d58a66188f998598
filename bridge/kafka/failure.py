"""What a Kafka client's failures mean for the loop that sees them: the only place that knows its errors by name.

Every call has a deadline of its own here, because an idempotent producer retries without end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import errors as kafka

from bridge.errors import BridgeError, Fatal, Temporary


class Unproven(kafka.KafkaError):  # type: ignore[misc] # the library is untyped
    """A broker took our credentials and did not answer as one that knows them."""


_FENCED = (kafka.ProducerFenced, kafka.InvalidProducerEpoch)

_FATAL: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    (_FENCED, "fenced", "another producer took over `transactional_id_prefix`, so this one stops"),
    (
        (kafka.TransactionalIdAuthorizationFailed,),
        "kafka_denied",
        "the user may not use transactional ids that begin with `transactional_id_prefix`",
    ),
    (
        (kafka.TopicAuthorizationFailedError,),
        "kafka_denied",
        "the user may not use this `topic` or `positions_topic`, or not create it (`create_topics`)",
    ),
    ((kafka.GroupAuthorizationFailedError,), "kafka_denied", "the user may not use this `group_id`"),
    ((kafka.ClusterAuthorizationFailedError,), "kafka_denied", "the user lacks IdempotentWrite or `create_topics`"),
    (
        (kafka.AuthenticationFailedError, kafka.SaslAuthenticationFailed),
        "kafka_denied",
        "they refuse `sasl.username` with `sasl.password`, or the token of `sasl.client_id`",
    ),
    (
        (Unproven,),
        "kafka_denied",
        "they do not prove that they know `sasl.password`: is it they who answer at `bootstrap_servers`?",
    ),
    ((kafka.UnsupportedSaslMechanismError,), "kafka_settings", "change `sasl.mechanism`"),
    (
        (kafka.IllegalSaslStateError,),
        "kafka_settings",
        "this listener takes no credentials: name another port in `bootstrap_servers`, or take `sasl` out",
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

_NAMES_DIFFER = (
    "its certificate lacks the name in `bootstrap_servers`: use that name, or set `tls.check_hostname: false`"
)
_VERIFICATION = {10: "its certificate has expired: renew it there", 62: _NAMES_DIFFER, 64: _NAMES_DIFFER}
"""What is wrong with a broker's certificate, by the X509_V_ERR codes of OpenSSL."""
_NOT_YET_VALID = 9


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
            # The whole process stood still, and the broker ended the transaction meanwhile. Whether there is a
            # successor, the next session finds out before it starts a producer.
            raise _unavailable(f"Kafka at {brokers} did not {what}: the transaction expired") from error
        raise translated(error, brokers, what) from error
    except (kafka.KafkaError, OSError) as error:
        raise translated(error, brokers, what) from error


def translated(error: BaseException, brokers: str, what: str) -> BridgeError:
    """`Fatal` where the error, or one it came from, needs a person; else `Temporary`."""
    cause: BaseException | None = error
    advice: str | None
    while cause is not None:
        for types, reason, advice in _FATAL:
            if isinstance(cause, types):
                return Fatal(f"Kafka at {brokers} did not {what}: {advice} ({cause})", reason=reason)
        if isinstance(cause, ssl.SSLError) and (advice := _certificate_advice(cause)):
            return Fatal(f"Kafka at {brokers} did not {what}: {advice} ({cause})", reason="kafka_denied")
        cause = cause.__cause__
    return _unavailable(f"Kafka at {brokers} did not {what}: {error!r}")


def _certificate_advice(error: ssl.SSLError) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _NOT_YET_VALID:  # it was just renewed, and clocks differ
            return None
        return _VERIFICATION.get(
            error.verify_code, "an unknown authority signed its certificate: `tls.ca_file` must hold that one"
        )
    reason = error.reason or ""
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return "it wants a client certificate that it trusts: set or renew `tls.certificate_file`"
    return None


def _unavailable(text: str) -> Temporary:
    return Temporary(text, reason="kafka_unavailable")
