"""What a schema registry is told about our records: subjects, and the JSON Schema under each. Pure: no network.

What a schema says comes from the vocabulary. It is put as draft 07 without references, because every registry and
every deserialiser reads that, and with sorted keys, because a registry knows a schema again by its text.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

import orjson

from bridge.delivery.sinks.kafka.records import Mode
from bridge.event import EventType
from bridge.vocabulary import ATTRIBUTES, data_schema, embedded

Naming = Literal["topic", "record", "topic_record"]
"""Confluent's three strategies: TopicNameStrategy, RecordNameStrategy, TopicRecordNameStrategy."""

_DIALECT = "http://json-schema.org/draft-07/schema#"

_UNSPECIFIC = EventType.STATE
"""A type that asks nothing of its data beyond what every type asks."""


class Schema(NamedTuple):
    """A JSON Schema and its title, which Confluent takes for the record's name."""

    name: str
    text: str


def subject(naming: Naming, mode: Mode, topic: str, type_: str) -> tuple[str, str]:
    """The subject for such records, and the text of the schema that belongs under it.

    By topic one subject serves all types, so its schema is one that the values of all types fulfil.
    """
    name, text = schema(mode, None if naming == "topic" else EventType(type_))
    return {"topic": f"{topic}-value", "record": name, "topic_record": f"{topic}-{name}"}[naming], text


@cache
def schema(mode: Mode, type_: EventType | None) -> Schema:
    """The schema of a record's value: of one type, or, with None, of any.

    The latter says what all types have in common and does not list them, so it stays the same when one is added.
    Both are closed, because only a closed object can be given another member without breaking `BACKWARD`.
    """
    suffix = "" if type_ is None else f".{type_}"
    name = f"jobbridge.data{suffix}"
    said = embedded(data_schema(type_ or _UNSPECIFIC), name) | {"title": name}
    if type_ is None:
        said["description"] = "The data of any event."
    if mode == "structured":
        name = f"jobbridge.event{suffix}"
        said = _cloudevent(type_, said) | {"title": name}
    return Schema(name, orjson.dumps(said | {"$schema": _DIALECT}, option=orjson.OPT_SORT_KEYS).decode())


def _cloudevent(type_: EventType | None, data: dict[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        name: {"type": "string", "description": text} for name, (_, text) in ATTRIBUTES.items()
    }
    if type_ is not None:
        attributes["type"]["const"] = type_.value
    return {
        "type": "object",
        "description": "A CloudEvent in its JSON format.",
        "properties": attributes | {"data": data},
        "required": [*(name for name, (always, _) in ATTRIBUTES.items() if always), "data"],
        "additionalProperties": False,
    }
