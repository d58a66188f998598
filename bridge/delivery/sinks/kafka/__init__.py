"""The Kafka sink: what is configured, what becomes a record, where it goes, and how its writer runs."""

from bridge.delivery.sinks.kafka.batches import partition_of
from bridge.delivery.sinks.kafka.plug import PLUG, KafkaSink, build
from bridge.delivery.sinks.kafka.settings import KafkaSettings

__all__ = ["PLUG", "KafkaSettings", "KafkaSink", "build", "partition_of"]
