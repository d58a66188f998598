"""What a record that Kafka finally refused looks like in the dead-letter topic. Pure."""

from __future__ import annotations

import orjson
from pydantic import Field

from bridge.delivery.sinks.kafka.batches import Refusal
from bridge.delivery.sinks.kafka.records import Record, attribute_headers
from bridge.delivery.sinks.kafka.routes import TopicName, TopicSettings
from bridge.delivery.sinks.kafka.topics import TopicSpec

# By the brokers' clock, since a dead letter may be one for the sake of its own time.
_CONFIG = {"message.timestamp.type": "LogAppendTime"}


class DeadLetterSettings(TopicSettings):
    """A topic for events whose records Kafka refuses."""

    topic: TopicName = Field(description="Topic of dead letters: the events' data, with the reason in headers.")

    def required(self) -> TopicSpec:
        """What is wanted of the topic."""
        return self.model_copy(update={"config": _CONFIG | self.config}).spec(self.topic)


def dead_letter(refusal: Refusal, bytes_max: int) -> Record:
    """The event in binary mode, and in headers why it is here, in words, and where it should have gone.

    Data over `bytes_max` gives way to a stand-in that says how many bytes it had.
    """
    entry = refusal.record.entry
    headers = [
        *attribute_headers(entry),
        ("dead_letter_reason", refusal.reason.encode()),
        ("dead_letter_detail", refusal.detail.encode()),
        ("dead_letter_topic", refusal.topic.encode()),
    ]
    letter = Record(refusal.record.key, entry.data, headers, entry.recorded_ms, entry)
    if letter.wire_bytes <= bytes_max:
        return letter
    stand_in = orjson.dumps({"truncated": True, "data_bytes": len(entry.data)})
    return letter._replace(value=stand_in, headers=[*headers, ("dead_letter_truncated", b"true")])
