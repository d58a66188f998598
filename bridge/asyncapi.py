"""The AsyncAPI document of all that leaves: records on Kafka, webhooks in every form.

The files in `bridge/schemas` are written from here, and a test keeps them so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bridge import __version__
from bridge.event import EventType, JobStatus
from bridge.vocabulary import ATTRIBUTES, MEANINGS, data_schema, embedded, webhook_body

_Members = Mapping[str, tuple[bool, dict[str, Any]]]
"""Of an object: whether always there, and its schema."""

WEBHOOK_HEADERS: dict[str, tuple[bool, str, str]] = {
    "webhook-id": (True, r"^[A-Za-z0-9_-]{1,64}$", "Names the event at this endpoint: the same on every attempt."),
    "webhook-timestamp": (True, r"^[0-9]+$", "Unix seconds of this attempt."),
    "webhook-signature": (
        True,
        r"^v1a?,[A-Za-z0-9+/]+=*( v1a?,[A-Za-z0-9+/]+=*)*$",
        "Over `webhook-id`, a dot, `webhook-timestamp`, a dot, the body; several while keys are changed.",
    ),
    "webhook-replay": (False, r"^[0-9]+$", "Sent anew because somebody asked for it: how often so far."),
}
"""Headers of a webhook in every form: whether always there, their pattern, and what they say."""

DATA_TYPE, CLOUDEVENT_TYPE = "application/json", "application/cloudevents+json; charset=UTF-8"

FORMS = {
    "webhook_standard": (DATA_TYPE, "webhook_body", "`body: standard`."),
    "webhook_thin": (DATA_TYPE, "webhook_thin_body", "`body: thin`: the job's id and status as its only data."),
    "webhook_cloudevents": (CLOUDEVENT_TYPE, "cloudevent", "`body: cloudevents`: the structured mode."),
    "webhook_cloudevents_binary": (
        DATA_TYPE,
        "data",
        "`body: cloudevents_binary`: attributes are headers, which no signature covers.",
    ),
}
"""The forms of a webhook: content type, schema of the body, and a summary."""


def document() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of what jobbridge sends: records on Kafka, requests to webhook receivers."""
    names = {type_: type_.value.replace(".", "_") for type_ in EventType}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "jobbridge",
            "version": __version__,
            "description": "Events about jobs on hosted job APIs, one vocabulary for all of them.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "topic": {
                "address": "{topic}",
                "description": "A Kafka topic; key `source/job id`, one transaction a batch. In structured mode each "
                "record is a `cloudevent`.",
                "parameters": {"topic": {"description": "As configured under `sinks.<name>.topic`."}},
                "messages": _references([*names.values(), "cloudevent"]),
            },
            "webhook": {
                "address": "{url}",
                "description": "POST to a receiver, signed by Standard Webhooks.",
                "parameters": {"url": {"description": "As configured under `sinks.<name>.url`."}},
                "messages": _references(FORMS),
            },
        },
        "operations": {
            name: {"action": "send", "channel": {"$ref": f"#/channels/{name}"}} for name in ("topic", "webhook")
        },
        "components": {
            "messages": {name: _message(type_, name) for type_, name in names.items()} | _messages_of_any_type(),
            "messageTraits": {"cloudevent": {"headers": _headers()}},
            "schemas": {name: embedded(data_schema(type_), name) for type_, name in names.items()}
            | _schemas_of_any_type(names),
        },
    }


def documents() -> dict[str, Any]:
    """Every generated file by its name in `bridge/schemas`."""
    return {f"{type_}.json": data_schema(type_) for type_ in EventType} | {"asyncapi.json": document()}


def _message(type_: EventType, name: str) -> dict[str, Any]:
    return {
        "name": type_.value,
        "summary": MEANINGS[type_].text,
        "contentType": DATA_TYPE,
        "traits": [{"$ref": "#/components/messageTraits/cloudevent"}],
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }


def _messages_of_any_type() -> dict[str, Any]:
    """A record in structured mode, and a webhook in each form. The type stands in the body, or in a header."""
    webhook = {
        name: (always, {"type": "string", "pattern": pattern, "description": text})
        for name, (always, pattern, text) in WEBHOOK_HEADERS.items()
    }
    attributes = {f"ce-{name}": each for name, each in _attributes().items() if name != "datacontenttype"}
    traced = {"traceparent": (False, {"type": "string", "description": ATTRIBUTES["traceparent"][1]})}
    messages = {
        "cloudevent": _message_of_any_type(CLOUDEVENT_TYPE, "cloudevent", "A record in structured mode.", traced)
    }
    for name, (content_type, schema, text) in FORMS.items():
        headers = {**webhook, **attributes} if schema == "data" else webhook
        messages[name] = _message_of_any_type(content_type, schema, text, headers)
    return {name: {"name": name, **message} for name, message in messages.items()}


def _message_of_any_type(content_type: str, schema: str, text: str, headers: _Members) -> dict[str, Any]:
    return {
        "summary": text,
        "contentType": content_type,
        "headers": _object({"content-type": (True, {"const": content_type}), **headers}),
        "payload": _schema(schema),
    }


def _schemas_of_any_type(names: Mapping[EventType, str]) -> dict[str, Any]:
    """What stands around `data`, and the data that takes its place."""
    status = {"enum": [status.value for status in JobStatus]}
    job = _closed(_object({"id": (True, {"type": "string"}), "status": (False, status)}))
    text = "Members of the event's own data: with them the body would have been too large."
    truncated = {"type": "array", "items": {"type": "string"}, "description": text}
    fits = [
        {"properties": {"type": {"const": type_.value}, "data": {"anyOf": [_schema(name), _schema("thin_data")]}}}
        for type_, name in names.items()
    ]
    thin, body = _schema("thin_data"), webhook_body()
    return {
        "thin_data": _closed(_object({"job": (True, job), "truncated": (False, truncated)})),
        "data": {"anyOf": [*map(_schema, names.values()), thin]},
        "webhook_body": body | {"oneOf": fits},
        "webhook_thin_body": body | {"properties": body["properties"] | {"data": thin}},
        "cloudevent": _object({**_attributes(), "data": (True, {"type": "object"})}) | {"oneOf": fits},
    }


def _attributes() -> _Members:
    """Those of an event on its way to one receiver, of which it is known what it got before."""
    known = ATTRIBUTES | {"previoussequence": (False, "As `previous` in the other forms, zero-padded. Not on Kafka.")}
    return {name: (always, {"type": "string", "description": text}) for name, (always, text) in known.items()}


def _references(messages: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in messages}


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(members: _Members) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: schema for name, (_, schema) in members.items()},
        "required": [name for name, (always, _) in members.items() if always],
    }


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"additionalProperties": False}


def _headers() -> dict[str, Any]:
    attributes = {f"ce_{name}": each for name, each in ATTRIBUTES.items() if name != "datacontenttype"}
    headers = attributes | {
        "content-type": (True, ATTRIBUTES["datacontenttype"][1]),
        "traceparent": (False, ATTRIBUTES["traceparent"][1]),
    }
    return {
        "type": "object",
        "description": "On Kafka in binary mode each CloudEvents attribute is a header `ce_<name>`.",
        "properties": {name: {"type": "string", "description": text} for name, (_, text) in headers.items()},
        "required": [name for name, (always, _) in headers.items() if always],
    }
