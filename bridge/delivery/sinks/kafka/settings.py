"""The options of a Kafka sink."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from bridge.delivery.sink import SinkSettings
from bridge.delivery.sinks.kafka.records import Mode, check_topic_template
from bridge.kafka.connection import Connection


class KafkaSettings(Connection, SinkSettings):
    """Options of one Kafka sink."""

    topic: str = Field(
        "jobs.events",
        description="Topic; may hold `{source}`, `{type}` and `{kind}` (`job` or `watch`, the first part of the type).",
    )
    mode: Mode = Field("binary", description="CloudEvents content mode: attributes as headers, or one JSON value.")
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
    partitions: int = Field(6, ge=1, description="Partitions of a created topic.")
    replication_factor: int | None = Field(None, ge=1, description="Replicas of a created topic; the brokers' default.")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field("none", description="Codec of the batches.")
    batch_entries: int = Field(1000, ge=1, le=10_000, description="Entries in one transaction, at most.")
    batch_bytes: int = Field(
        512 << 10, ge=1024, description="Size at which a record batch is full. Kafka's own 16 KiB costs throughput."
    )
    record_bytes_max: int = Field(
        1_000_000,
        ge=1024,
        description="A larger record is a dead letter. Keep at or below the topic's `max.message.bytes`.",
    )
    delivery_timeout_s: float = Field(
        30.0, gt=0, description="Limit of one transaction, retries inside it included; then a new producer starts."
    )
    transaction_timeout_s: float = Field(
        60.0, gt=0, description="When the broker aborts a transaction by itself; longer than `delivery_timeout_s`."
    )

    @field_validator("topic")
    @classmethod
    def _topic(cls, value: str) -> str:
        return check_topic_template(value)

    @model_validator(mode="after")
    def _timeouts(self) -> KafkaSettings:
        if self.transaction_timeout_s <= self.delivery_timeout_s:
            raise ValueError("transaction_timeout_s must be longer than delivery_timeout_s")
        return self

    def producer(self, transactional_id: str) -> dict[str, Any]:
        """Options of the producer: idempotent, and transactional where the guarantee asks for it."""
        options = self.client() | {
            "enable_idempotence": True,
            "compression_type": None if self.compression == "none" else self.compression,
            "max_batch_size": self.batch_bytes,
        }
        if self.exactly_once:
            options["transactional_id"] = transactional_id
            options["transaction_timeout_ms"] = round(self.transaction_timeout_s * 1000)
        return options

    @property
    def exactly_once(self) -> bool:
        return self.guarantee == "exactly_once"
