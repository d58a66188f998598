"""Which topics there must be: the only place that looks them up, holds them against what is wanted and makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.metadata import MetadataRequest

from bridge.errors import Fatal

_BROKERS_DEFAULT = -1
_LOOK_S = 0.05

_RECORD_BYTES = "max.message.bytes"
_RECORD_BYTES_UNKNOWN = (1 << 31) - 1
_CLEANUP = "cleanup.policy"


class TopicSpec(NamedTuple):
    """What is wanted of one topic."""

    name: str
    partitions: int | None = None
    """At least so many; None takes what there is, and creates as many as is the brokers' default."""
    config: tuple[tuple[str, str], ...] = ()
    """Of the topic where it is created; what exists keeps its own."""
    compacted: bool = False
    """Compacted and nothing else, or it would lose what it is for: deletion by time takes each key's last record."""


class _Topic(NamedTuple):
    """What there is."""

    leaders: list[int]
    config: Mapping[str, str]
    """Empty where the user may not read it: a right that whoever may write often lacks."""

    @property
    def led(self) -> bool:
        return -1 not in self.leaders


class Topics:
    """The topics known to be there and fit, as they were when first seen.

    What is known stays so until it is forgotten, the number of partitions included: one that grows meanwhile would
    move the keys of running jobs to other partitions, and their order with them.
    """

    def __init__(self, client: Mapping[str, Any], create: bool, replication_factor: int | None) -> None:
        """`client`: options of every Kafka client. A `replication_factor` of None is the brokers' default."""
        self._client = client
        self._create = create
        self._replication_factor = replication_factor
        self._known: dict[str, _Topic] = {}

    async def require(self, wanted: Iterable[TopicSpec]) -> None:
        """Return once all exist as they are wanted; those that are missing are created where that is allowed.

        Raises `Fatal` naming what a person must change, and the client's own errors, which the caller translates.
        """
        unknown = {spec.name: spec for spec in wanted if spec.name not in self._known}
        if not unknown:
            return
        admin = AIOKafkaAdminClient(**self._client)
        try:
            await admin.start()
            found = await _look(admin, unknown)
            if missing := [spec for name, spec in unknown.items() if name not in found]:
                await self._make(admin, missing)
                found |= await _appeared(admin, [spec.name for spec in missing])
        finally:
            await admin.close()
        if unfit := [text for name, spec in unknown.items() for text in self._unfit(spec, found[name])]:
            raise Fatal("; ".join(unfit), reason="topic_unfit")
        self._known |= found

    def record_bytes_max(self, name: str) -> int:
        """The largest record batch that the required topic takes: its max.message.bytes, or no limit where unread."""
        return int(self._known[name].config.get(_RECORD_BYTES, _RECORD_BYTES_UNKNOWN))

    def partitions(self, name: str) -> int:
        """How many partitions the required topic had when it was first seen."""
        return len(self._known[name].leaders)

    def forget(self, name: str) -> None:
        """Look at it again when it is next required, as after the brokers denied that it exists."""
        self._known.pop(name, None)

    async def _make(self, admin: AIOKafkaAdminClient, missing: list[TopicSpec]) -> None:
        if not self._create:
            names = ", ".join(sorted(spec.name for spec in missing))
            raise Fatal(
                f"Kafka at {self._servers} has no topic {names}: create it, or set `create_topics: true`",
                reason="topic_missing",
            )
        answer = await admin.create_topics([self._new(spec) for spec in missing])
        for name, code, *text in answer.topic_errors:
            error = kafka.for_code(code)
            # Another writer may have been faster.
            if error not in (kafka.NoError, kafka.TopicAlreadyExistsError):
                raise error(f"creating topic {name}: {text[0] if text else ''}")

    def _new(self, spec: TopicSpec) -> NewTopic:
        partitions = spec.partitions or _BROKERS_DEFAULT
        replicas = self._replication_factor or _BROKERS_DEFAULT
        # The client takes a default of the brokers' (KIP-464) only beside an empty list of assignments.
        assignments: dict[int, list[int]] | None = {} if _BROKERS_DEFAULT in (partitions, replicas) else None
        config = {_CLEANUP: "compact"} if spec.compacted else {}
        return NewTopic(spec.name, partitions, replicas, assignments, config | dict(spec.config))

    def _unfit(self, spec: TopicSpec, topic: _Topic) -> Iterable[str]:
        there = f"topic {spec.name} at {self._servers}"
        if spec.partitions is not None and len(topic.leaders) < spec.partitions:
            yield (
                f"{there} has {len(topic.leaders)} of the {spec.partitions} partitions asked for: lower `partitions`, "
                "or add the others, which moves keys to them"
            )
        policy = topic.config.get(_CLEANUP, "compact")
        if spec.compacted and policy != "compact":
            yield (
                f"{there} has {_CLEANUP}={policy} and would lose what it must keep: kafka-configs.sh "
                f"--bootstrap-server {self._servers} --alter --entity-type topics --entity-name {spec.name} "
                f"--add-config {_CLEANUP}=compact"
            )

    @property
    def _servers(self) -> str:
        return str(self._client["bootstrap_servers"])


async def partition_counts(client: Mapping[str, Any], names: Collection[str]) -> dict[str, int]:
    """How many partitions those of the topics have that there are; none is made. Raises the client's own errors."""
    admin = AIOKafkaAdminClient(**client)
    try:
        await admin.start()
        return {name: len(topic.leaders) for name, topic in (await _look(admin, names)).items()}
    finally:
        await admin.close()


async def _appeared(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, _Topic]:
    # Creation is answered before every broker has heard of it, and nothing tells when they have.
    while True:
        found = await _look(admin, names)
        if len(found) == len(names) and all(topic.led for topic in found.values()):
            return found
        await asyncio.sleep(_LOOK_S)


async def _look(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, _Topic]:
    """Those of the topics that exist. Raises the client's error for one that cannot: its name, a right."""
    # The client's own look-up asks for topics to be created as the brokers please, and they do so by default.
    answer = await admin._send_request(MetadataRequest(list(names), allow_auto_topic_creation=False))
    leaders = {
        name: [leader for _, _, leader, *_ in partitions]
        for code, name, _, partitions in answer.topics
        if _exists(code, name)
    }
    if not leaders:
        return {}
    asked = {_RECORD_BYTES: "", _CLEANUP: ""}
    [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, asked) for name in leaders])
    return {
        name: _Topic(leaders[name], {key: value for key, value, *_ in entries})
        for code, _, _, name, entries in answer.resources
        if kafka.for_code(code) is kafka.TopicAuthorizationFailedError or _exists(code, name)
    }


def _exists(code: int, name: str) -> bool:
    error = kafka.for_code(code)
    if error not in (kafka.NoError, kafka.UnknownTopicOrPartitionError):
        raise error(f"looking at topic {name}")
    return error is kafka.NoError
