"""Which topic an event goes to, and which settings of topics are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from relaying import entry

from bridge.delivery.sinks.kafka import KafkaSettings
from bridge.delivery.sinks.kafka.routes import Routes, check_template
from bridge.delivery.sinks.kafka.topics import TopicSpec
from bridge.journal.store import Entry


def settings(**options: Any) -> KafkaSettings:
    return KafkaSettings.model_validate({"kind": "kafka", "bootstrap_servers": "k:9092"} | options)


def topic(event: Entry, **options: Any) -> str:
    return Routes(settings(**options).all_routes).topic(event)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("jobs.events", "jobs.events"),
        ("jobs.{source}", "jobs.auvy_prod_1"),
        ("{kind}-{type}", "watch-watch.gap"),
        ("by.{provider}", "by.auvy"),
        ("x" * 300, "x" * 249),
    ],
)
def test_topic_names_follow_the_template_and_hold_what_kafka_allows(template: str, name: str) -> None:
    event = entry(1, type_="watch.gap", data=b'{"job":{"provider":"auvy"}}')._replace(source="auvy prod/1")
    assert topic(event, topic=template) == name


def test_the_first_route_that_fits_takes_the_event_and_the_sinks_own_topic_the_rest() -> None:
    routes = [
        {"types": ["job.output", "job.tool"], "sources": ["loud"], "topic": "loud.output"},
        {"types": ["job.output"], "topic": "output"},
        {"sources": ["loud"], "topic": "loud.{kind}"},
        {"types": ["watch.*"], "topic": "watching"},
    ]
    expected = {
        ("loud", "job.output"): "loud.output",
        ("loud", "job.tool"): "loud.output",
        ("quiet", "job.output"): "output",
        ("loud", "watch.gap"): "loud.watch",
        ("quiet", "watch.gap"): "watching",
        ("quiet", "job.tool"): "rest",
        ("quiet", "job.outputs"): "rest",
    }
    chosen = Routes(settings(topic="rest", routes=routes).all_routes)
    for _ in range(2):  # worked out, then remembered
        assert {
            (source, type_): chosen.topic(entry(1, type_=type_)._replace(source=source)) for source, type_ in expected
        } == expected


def test_what_is_wanted_of_a_topic_comes_from_its_route() -> None:
    output = {"types": ["job.output"], "topic": "out.{source}", "partitions": 12, "config": {"retention.ms": 3600_000}}
    chosen = Routes(settings(routes=[output], topic_config={"compression.type": "zstd"}).all_routes)
    assert chosen.specs == {"jobs.events": TopicSpec("jobs.events", None, (("compression.type", "zstd"),))}
    chosen.topic(entry(1, type_="job.output"))
    assert chosen.specs["out.auvy-prod"] == TopicSpec("out.auvy-prod", 12, (("retention.ms", "3600000"),))


def test_configs_are_handed_on_as_brokers_write_them() -> None:
    config = settings(
        topic_config={"preallocate": True, "min.cleanable.dirty.ratio": 0.5, "segment.ms": 10}
    ).topic_config
    assert config == {"preallocate": "true", "min.cleanable.dirty.ratio": "0.5", "segment.ms": "10"}


@pytest.mark.parametrize("template", ["", ".", "a b", "jobs/{source}", "{job}", "{source!r}", "{source.x}", "{", "{}"])
def test_a_topic_that_can_never_be_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_template(template)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"topic": "{job}"}, "unknown field"),
        ({"routes": [{"topic": "a b"}]}, "letters"),
        ({"routes": [{"topic": "a", "types": []}]}, "types"),
        ({"latest": {"topic": "latest.{source}"}}, "no {fields}"),
        ({"latest": {"topic": "jobs.latest", "tombstone_on": ["job.done"]}}, "tombstone_on"),
        ({"dead_letters": {"topic": ""}}, "needs a name"),
        ({"latest": {"topic": "jobs.events"}}, "topic jobs.events has two uses"),
        ({"dead_letters": {"topic": "jobbridge.positions"}}, "topic jobbridge.positions has two uses"),
        ({"dead_letters": {"topic": "one"}, "latest": {"topic": "one"}}, "topic one has two uses"),
        ({"routes": [{"topic": "jobs.events", "partitions": 3}], "partitions": 6}, "different `partitions`"),
        ({"delivery_timeout_s": 60, "transaction_timeout_s": 60}, "transaction_timeout_s"),
        ({"guarantee": "perhaps"}, "guarantee"),
        ({"record_bytes_max": 0}, "record_bytes_max"),
        ({"memory_bytes_max": 0}, "memory_bytes_max"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        settings(**options)
