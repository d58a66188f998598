"""The options of a Kafka sink."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from bridge.delivery.sink import SinkSettings
from bridge.delivery.sinks.kafka import positions
from bridge.delivery.sinks.kafka.dead_letters import DeadLetterSettings
from bridge.delivery.sinks.kafka.latest import LatestSettings
from bridge.delivery.sinks.kafka.records import Mode, Timestamp
from bridge.delivery.sinks.kafka.registry import RegistrySettings
from bridge.delivery.sinks.kafka.routes import RouteSettings, TopicConfig, TopicTemplate
from bridge.delivery.sinks.kafka.topics import TopicSpec
from bridge.kafka.connection import Connection


class KafkaSettings(Connection, SinkSettings):
    """Options of one Kafka sink."""

    topic: TopicTemplate = Field(
        "jobs.events",
        description="Topic of what no route takes; may hold `{source}`, `{provider}`, `{type}` and `{kind}` (`job` or "
        "`watch`, the first part of the type).",
    )
    partitions: int | None = Field(
        None, ge=1, description="Partitions of that topic, at least; the brokers' default where it is created."
    )
    topic_config: TopicConfig = Field(
        default_factory=dict, description="Configs with which that topic is created, such as `retention.ms`."
    )
    routes: list[RouteSettings] = Field(
        default_factory=list, description="Topics of their own for some types or sources; the first that fits counts."
    )
    dead_letters: DeadLetterSettings | None = Field(
        None, description="Topic for events whose records Kafka refuses; without it only the journal keeps them."
    )
    latest: LatestSettings | None = Field(None, description="Table of every job's present state, kept with the events.")
    schema_registry: RegistrySettings | None = Field(None, description="Frame values with a schema registry's ids.")
    mode: Mode = Field("binary", description="CloudEvents content mode: attributes as headers, or one JSON value.")
    timestamp: Timestamp = Field(
        "event",
        description="Timestamp of a record: the event's own time, or when it was journalled. Retention by time goes by "
        "it: an event that was old when it came is deleted early.",
    )
    guarantee: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="`exactly_once` (for read-committed readers) needs transactions; choose the other where the broker "
        "has none.",
    )
    transactional_id_prefix: str = Field(
        "jobbridge",
        min_length=1,
        description="First part of transactional ids and position keys. Each bridge on a cluster needs its own.",
    )
    positions_topic: str = Field(
        "jobbridge.positions", description="Compacted topic that remembers how far each partition was delivered."
    )
    recover_from: Literal["kafka", "journal"] = Field(
        "kafka",
        description="`journal`, for one start: go on from the journal's own position after Kafka lost its memory. "
        "May repeat what Kafka had committed and the journal not yet noted.",
    )
    create_topics: bool = Field(False, description="Create topics that are missing.")
    replication_factor: int | None = Field(None, ge=1, description="Replicas of a created topic; the brokers' default.")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field("none", description="Codec of the batches.")
    batch_entries: int = Field(4000, ge=1, le=10_000, description="Entries in one transaction, at most.")
    batch_bytes: int = Field(
        512 << 10, ge=1024, description="Size at which a record batch is full. Kafka's own 16 KiB costs throughput."
    )
    record_bytes_max: int = Field(
        1_000_000,
        ge=1024,
        description="A larger record is a dead letter, as is one over its topic's `max.message.bytes`.",
    )
    memory_bytes_max: int = Field(
        64 << 20,
        ge=1 << 20,
        description="Bytes that all partitions' writers hold at once; a batch that finds none left waits.",
    )
    delivery_timeout_s: float = Field(
        30.0, gt=0, description="Limit of one transaction, retries inside it included; then a new producer starts."
    )
    transaction_timeout_s: float = Field(
        60.0, gt=0, description="When the broker aborts a transaction by itself; longer than `delivery_timeout_s`."
    )

    @model_validator(mode="after")
    def _timeouts(self) -> KafkaSettings:
        if self.transaction_timeout_s <= self.delivery_timeout_s:
            raise ValueError("transaction_timeout_s must be longer than delivery_timeout_s")
        return self

    @model_validator(mode="after")
    def _each_topic_has_one_use(self) -> KafkaSettings:
        wanted: dict[str, TopicSpec] = {}
        for route in self.all_routes:
            if wanted.setdefault(route.topic, route.spec(route.topic)) != route.spec(route.topic):
                raise ValueError(f"topic {route.topic} has different `partitions` or configs in two of the routes")
        for spec in self.own_topics:
            if spec.name in wanted:
                raise ValueError(f"topic {spec.name} has two uses: every one needs a topic of its own")
            wanted[spec.name] = spec
        return self

    def producer(self, transactional_id: str) -> dict[str, Any]:
        """What makes the producer idempotent, and transactional where the guarantee asks for it."""
        options: dict[str, Any] = {"enable_idempotence": True}
        if self.exactly_once:
            options["transactional_id"] = transactional_id
            options["transaction_timeout_ms"] = round(self.transaction_timeout_s * 1000)
        return options

    @property
    def exactly_once(self) -> bool:
        return self.guarantee == "exactly_once"

    @property
    def all_routes(self) -> list[RouteSettings]:
        """The routes, and behind them the sink's own topic for all that is left over."""
        rest = RouteSettings(topic=self.topic, partitions=self.partitions, config=self.topic_config)
        return [*self.routes, rest]

    @property
    def own_topics(self) -> list[TopicSpec]:
        """What is wanted of the topics that hold no events."""
        specs = [each.required() for each in (self.dead_letters, self.latest) if each is not None]
        if self.exactly_once:
            specs.append(positions.required(self.positions_topic))
        return specs
