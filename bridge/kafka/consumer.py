"""A topic read as a member of a consumer group: the only place that knows how such a consumer joins, commits, leaves.

Offsets are committed when the reader says so and never by themselves: what was read and not committed comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka

from bridge.errors import Fatal, Temporary
from bridge.kafka.connection import Connection
from bridge.kafka.failure import bounded
from bridge.kafka.link import Link

_BATCH_RECORDS = 1000
_IDLE_MS = 2000
_CLOSE_S = 2.0
_DROP_S = 0.5
_COORDINATOR_TASKS = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")

_FATAL: tuple[tuple[type[Exception], str, str], ...] = (
    (kafka.UnknownTopicOrPartitionError, "topic_missing", "there is no such `topic`: create it"),
    (kafka.TopicAuthorizationFailedError, "kafka_denied", "the user may not read this `topic`"),
    (kafka.InvalidTopicError, "kafka_settings", "the name in `topic` is refused"),
    (kafka.GroupAuthorizationFailedError, "kafka_denied", "the user may not use this `group_id`"),
    (kafka.InvalidGroupIdError, "kafka_settings", "the name in `group_id` is refused"),
    (kafka.InconsistentGroupProtocolError, "kafka_settings", "others read in another way under this `group_id`"),
    (
        kafka.InvalidSessionTimeoutError,
        "kafka_settings",
        "keep `session_timeout_s` within the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms",
    ),
)


class Record(NamedTuple):
    """One record as it lies in its partition. A tombstone has no value."""

    partition: int
    offset: int
    value: bytes | None


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc] # the library is untyped
    """Counts how often our partitions were taken away, if only to be given back."""

    count = 0

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002
        self.count += 1

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        pass


class Member:
    """One member of a group, with its share of the topic's partitions. Made by `joined`."""

    def __init__(self, way: Connection, link: Link, topic: str, group_id: str, session_timeout_s: float) -> None:
        self._link = link
        self._where = f"topic {topic} as group {group_id}"
        self._brokers = way.bootstrap_servers
        self._any_place = TopicPartition(topic, 0)
        # The client waits for a rebalance as for any request, and a rebalance waits for members that died.
        self._request_s = way.request_timeout_s + session_timeout_s
        self._look_s = way.request_timeout_s
        self._rebalances = _Rebalances()
        self._given_after = 0
        self._consumer = AIOKafkaConsumer(
            **link.options
            | {
                "group_id": group_id,
                "enable_auto_commit": False,
                "auto_offset_reset": "earliest",
                "isolation_level": "read_committed",
                "request_timeout_ms": round(self._request_s * 1000),
                "session_timeout_ms": round(session_timeout_s * 1000),
                "heartbeat_interval_ms": round(session_timeout_s * 1000 / 3),
            },
        )
        self._consumer.subscribe([topic], listener=self._rebalances)

    @property
    def stale(self) -> bool:
        """Whether to leave and join again: the way to the cluster is to be built anew. Ask before every batch."""
        return self._link.stale

    async def start(self) -> None:
        """Return once partitions are assigned, if only none of them: there may be more members than partitions."""
        async with self._bounded(2 * self._request_s, "join the group"):
            try:
                await self._consumer.start()
            except kafka.UnknownTopicOrPartitionError:
                await self._check_missing()
                raise

    async def records(self) -> Sequence[Record]:
        """What comes next, those of one partition in order; none after two seconds without any.

        Raises `Temporary` when the group or the topic does not answer any more, `Fatal` when we may not read it.
        """
        async with self._bounded(2 * self._request_s + _IDLE_MS / 1000, "give records"):
            batches = await self._consumer.getmany(timeout_ms=_IDLE_MS, max_records=_BATCH_RECORDS)
            self._given_after = self._rebalances.count
        if not batches:
            await self._look()
        return [Record(record.partition, record.offset, record.value) for record in chain(*batches.values())]

    async def commit(self) -> None:
        """Commit all that `records` has given. Once the group rebalances, nothing is: whoever has those partitions
        then gets the records again."""
        if self._rebalances.count != self._given_after:  # the client would commit under its new membership
            return
        async with self._bounded(self._request_s, "take a commit"):
            with suppress(kafka.CommitFailedError):
                await self._consumer.commit()

    async def close(self) -> None:
        """Leave the group, so that others need not wait for the session's end; within seconds, brokers or not."""
        await close(self._consumer)

    async def _check_missing(self) -> None:
        # To the client, brokers that do not answer are brokers without the topic.
        found = await self._consumer._client.fetch_all_metadata()
        if self._any_place.topic in found.topics(exclude_internal_topics=False):
            raise kafka.LeaderNotAvailableError

    async def _look(self) -> None:
        # The client keeps silent about brokers that are away and topics that are gone: it would wait for ever.
        if not self._consumer.partitions_for_topic(self._any_place.topic):
            raise Temporary(f"Kafka at {self._brokers} has lost {self._where}", reason="topic_missing")
        async with self._bounded(self._look_s, "tell offsets"):
            await self._consumer.committed(self._any_place)

    @asynccontextmanager
    async def _bounded(self, timeout_s: float, what: str) -> AsyncIterator[None]:
        async with bounded(self._brokers, timeout_s, f"{what} ({self._where})"):
            try:
                yield
            except kafka.KafkaError as error:
                for kind, reason, advice in _FATAL:
                    if isinstance(error, kind):
                        raise Fatal(
                            f"Kafka at {self._brokers} did not {what} ({self._where}): {advice}", reason=reason
                        ) from error
                raise


@asynccontextmanager
async def joined(way: Connection, *, topic: str, group_id: str, session_timeout_s: float) -> AsyncIterator[Member]:
    """A member of the group, new groups beginning with the topic's first record; it leaves when the context ends.

    Raises `Fatal` naming the setting to change when there is no such topic or the user may not read it.
    """
    member = Member(way, await way.link(), topic, group_id, session_timeout_s)
    try:
        await member.start()
        yield member
    finally:
        await member.close()


async def close(consumer: AIOKafkaConsumer) -> None:
    """End a consumer within seconds whatever its state; one of a group leaves it if the brokers listen."""
    # In a task of its own: the client lets out the cancellation of its own tasks, which would look like ours.
    ending = asyncio.create_task(consumer.stop())
    try:
        await asyncio.wait({ending}, timeout=_CLOSE_S)
    finally:
        await _drop(consumer, ending)


async def _drop(consumer: AIOKafkaConsumer, ending: asyncio.Task[None]) -> None:
    # There is no public way to give up on brokers that are away, and `stop` waits for what was asked of them.
    tasks = {ending, *_tasks(consumer)}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_DROP_S)
    with suppress(TimeoutError):
        async with asyncio.timeout(_DROP_S):
            await consumer._client.close()
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio would report that nobody looked at it


def _tasks(consumer: AIOKafkaConsumer) -> list[asyncio.Task[None]]:
    fetcher = consumer._fetcher
    tasks = [fetcher._fetch_task, *fetcher._pending_tasks] if fetcher else []
    # Which of them there are depends on whether it is one of a group.
    tasks += [getattr(consumer._coordinator, name, None) for name in _COORDINATOR_TASKS]
    return [task for task in tasks if task is not None]
