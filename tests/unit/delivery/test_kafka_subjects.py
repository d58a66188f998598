"""What a schema registry is told: subjects by Confluent's strategies, and schemas that our values keep to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft7Validator, ValidationError
from relaying import entry
from schema_registry import incompatibilities

from bridge.delivery.envelope import structured
from bridge.delivery.sinks.kafka.records import Mode
from bridge.delivery.sinks.kafka.subjects import Naming, schema, subject
from bridge.event import EventType
from bridge.vocabulary import MEANINGS

RELEASED = Path(__file__).parents[2] / "fixtures/registered_schemas.json"
MODES: tuple[Mode, ...] = ("binary", "structured")


def value(type_: EventType, mode: Mode) -> Any:
    """A record's value that holds no more than its type asks for."""
    status, asked = MEANINGS[type_].status, MEANINGS[type_].detail
    job = {"id": "job-1", "source": "auvy-prod", "provider": "auvy"} | ({"status": status} if status else {})
    data = {"job": job} | ({"detail": dict.fromkeys(asked, "some")} if asked else {})
    event = entry(1, type_=type_, data=orjson.dumps(data))
    return data if mode == "binary" else orjson.loads(structured(event))


def validator(text: str) -> Draft7Validator:
    Draft7Validator.check_schema(orjson.loads(text))
    return Draft7Validator(orjson.loads(text))


@pytest.mark.parametrize(
    ("naming", "mode", "expected"),
    [
        ("topic", "binary", "jobs.events-value"),
        ("topic", "structured", "jobs.events-value"),
        ("record", "binary", "jobbridge.data.job.completed"),
        ("record", "structured", "jobbridge.event.job.completed"),
        ("topic_record", "binary", "jobs.events-jobbridge.data.job.completed"),
        ("topic_record", "structured", "jobs.events-jobbridge.event.job.completed"),
    ],
)
def test_a_subject_is_named_as_confluents_strategy_names_it(naming: Naming, mode: Mode, expected: str) -> None:
    name, text = subject(naming, mode, "jobs.events", "job.completed")
    assert name == expected
    if naming != "topic":
        assert name.endswith(orjson.loads(text)["title"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_", EventType)
def test_a_value_keeps_to_the_schema_of_its_type_and_to_that_of_all_types(type_: EventType, mode: Mode) -> None:
    for text in (schema(mode, type_).text, schema(mode, None).text):
        validator(text).validate(value(type_, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_", EventType)
def test_the_schema_of_all_types_takes_what_each_types_schema_takes(type_: EventType, mode: Mode) -> None:
    own, shared = orjson.loads(schema(mode, type_).text), orjson.loads(schema(mode, None).text)
    assert list(incompatibilities(own, shared)) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_schema_refuses_what_is_of_another_type_or_no_event_at_all(mode: Mode) -> None:
    with pytest.raises(ValidationError, match="'failed' was expected"):
        validator(schema(mode, EventType.FAILED).text).validate(value(EventType.COMPLETED, mode))
    with pytest.raises(ValidationError, match="required"):
        validator(schema(mode, None).text).validate({})
    with pytest.raises(ValidationError, match="unexpected"):
        validator(schema(mode, None).text).validate(value(EventType.COMPLETED, mode) | {"more": 1})


def test_attributes_are_text_and_the_type_is_the_one_that_the_subject_is_for() -> None:
    event = value(EventType.OUTPUT, "structured")
    with pytest.raises(ValidationError, match="1 is not of type 'string'"):
        validator(schema("structured", None).text).validate(event | {"sequence": 1})
    with pytest.raises(ValidationError, match=r"'job\.state' was expected"):
        validator(schema("structured", EventType.STATE).text).validate(event)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_", [None, *EventType])
def test_a_schema_stands_alone_in_an_order_of_its_own(type_: EventType | None, mode: Mode) -> None:
    text = schema(mode, type_).text
    assert text == orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    assert not {"$ref", "$id", "$defs", "definitions"} & set(keys(orjson.loads(text)))


@pytest.mark.parametrize("name", ["jobbridge.data", "jobbridge.event"])
def test_the_schema_of_today_reads_what_a_released_one_wrote(name: str) -> None:
    """Change the file only along with a release that breaks readers on purpose: registries will refuse its schemas."""
    released = orjson.loads(RELEASED.read_bytes())[name]
    today = {made.name: made.text for made in (schema(mode, None) for mode in MODES)}[name]
    assert list(incompatibilities(released, orjson.loads(today))) == []


def keys(part: Any) -> list[str]:
    if isinstance(part, dict):
        return [*part, *(key for inner in part.values() for key in keys(inner))]
    return [key for inner in part for key in keys(inner)] if isinstance(part, list) else []
