"""What events look like from outside: the JSON Schema of every type's data, and the AsyncAPI document around them.

Everything here is generated from the types that the code itself uses; the files in `bridge/schemas` are its output
and a test keeps them so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from bridge import __version__
from bridge.event import EventType, Job, JobStatus

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class EventData(TypedDict, total=False):
    """The `data` of every event. Members without a value are left out."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    job: Job
    detail: dict[str, Any]
    """The piece this event is about."""
    result: Any
    """What the job brought forth; only with the event that told it."""
    error: dict[str, Any]
    """What went wrong; only with the event that told it."""
    payload: Any
    """The provider's own JSON, as it came."""
    truncated: list[str]
    """Members that were cut or left out because the event was too large."""


class Meaning(NamedTuple):
    """What a type says, and what its data must hold because of it."""

    text: str
    status: JobStatus | None = None
    """The status the job has after it."""
    detail: tuple[str, ...] = ()
    """Members that `detail` always has."""


MEANINGS: dict[EventType, Meaning] = {
    EventType.QUEUED: Meaning("Accepted by the provider, not started.", JobStatus.PENDING),
    EventType.STARTED: Meaning("The job runs.", JobStatus.RUNNING),
    EventType.WAITING: Meaning("A person or a message is needed; `job.waiting_for` says what for.", JobStatus.WAITING),
    EventType.PAUSED: Meaning("Suspended until somebody resumes it.", JobStatus.PAUSED),
    EventType.RESUMED: Meaning("It runs again after waiting or a pause.", JobStatus.RUNNING),
    EventType.PROGRESS: Meaning("How far it has come."),
    EventType.STEP: Meaning("A step began or ended."),
    EventType.TOOL: Meaning("A tool was called."),
    EventType.STATE: Meaning("Something else about the job changed."),
    EventType.OUTPUT: Meaning("A piece of output."),
    EventType.COMPLETED: Meaning("It ended well; nothing but `job.unmapped` follows.", JobStatus.COMPLETED),
    EventType.FAILED: Meaning("It ended with an error, a limit or a time-out.", JobStatus.FAILED),
    EventType.CANCELLED: Meaning("It was stopped on request.", JobStatus.CANCELLED),
    EventType.SKIPPED: Meaning("The provider decided not to run it.", JobStatus.SKIPPED),
    EventType.UNMAPPED: Meaning("A frame we could not read or do not know, kept as it came.", detail=("reason",)),
    EventType.WATCH_STARTED: Meaning("We follow the job from here."),
    EventType.WATCH_GAP: Meaning("Events may be missing in front of this one.", detail=("reason",)),
    EventType.WATCH_STALLED: Meaning("Nothing about the job has changed for long.", detail=("reason",)),
    EventType.WATCH_LOST: Meaning("The provider no longer knows the job; we stopped following it.", detail=("reason",)),
    EventType.WATCH_DENIED: Meaning("The provider refuses us; we stopped following the job.", detail=("reason",)),
}


def data_schema(type_: EventType) -> dict[str, Any]:
    """The JSON Schema of one type's `data`."""
    schema = TypeAdapter(EventData).json_schema()
    meaning = MEANINGS[type_]
    job, detail = schema["$defs"]["Job"], schema["properties"]["detail"]
    schema["required"] = ["job"]
    job["required"] = ["id", "source", "provider"]
    job["additionalProperties"] = False
    for member in job["properties"].values():
        member.pop("default", None)  # a member without a value is left out, never null
    del schema["$defs"]["JobStatus"]  # spelt out in place, so that the schema can stand inside another document
    if meaning.status is None:
        job["properties"]["status"] = {"enum": [status.value for status in JobStatus]}
    else:
        job["properties"]["status"] = {"const": meaning.status.value}
        job["required"].append("status")
    if meaning.detail:
        detail["required"] = list(meaning.detail)
        schema["required"].append("detail")
    names = {"$schema": DIALECT, "$id": f"urn:jobbridge:data:{type_}", "title": type_.value}
    return names | schema | names | {"description": meaning.text}


ATTRIBUTES: dict[str, tuple[bool, str]] = {
    "specversion": (True, "`1.0`."),
    "id": (True, "The same for the same event, however often it is read; unique within `source`."),
    "source": (True, "The configured source."),
    "type": (True, "One of the event types."),
    "subject": (True, "The job's id at the provider."),
    "time": (False, "The provider's time, where it gave one."),
    "datacontenttype": (False, "`application/json`."),
    "partitionkey": (True, "`source/job id`: the key of order."),
    "recordedtime": (True, "When jobbridge journalled the event."),
    "sequence": (True, "Rises by one per job, zero-padded: a gap is an event you have not got."),
    "traceparent": (False, "W3C trace context, where there is one."),
}
"""CloudEvents attributes: whether always there, and what they say."""


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of what jobbridge sends: records on Kafka, requests to webhook receivers."""
    names = {type_: type_.value.replace(".", "_") for type_ in EventType}
    refs = {name: {"$ref": f"#/components/messages/{name}"} for name in names.values()}
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
                "description": "A Kafka topic; key `source/job id`, one transaction a batch.",
                "parameters": {"topic": {"description": "As configured under `sinks.<name>.topic`."}},
                "messages": refs,
            },
            "webhook": {
                "address": "{url}",
                "description": "POST to a receiver, signed by Standard Webhooks.",
                "parameters": {"url": {"description": "As configured under `sinks.<name>.url`."}},
                "messages": refs,
            },
        },
        "operations": {
            name: {"action": "send", "channel": {"$ref": f"#/channels/{name}"}} for name in ("topic", "webhook")
        },
        "components": {
            "messages": {name: _message(type_, name) for type_, name in names.items()},
            "messageTraits": {"cloudevent": {"headers": _headers()}},
            "schemas": {name: embedded(data_schema(type_), name) for type_, name in names.items()},
        },
    }


def documents() -> dict[str, Any]:
    """Every generated file by its name in `bridge/schemas`."""
    return {f"{type_}.json": data_schema(type_) for type_ in EventType} | {"asyncapi.json": asyncapi()}


def _message(type_: EventType, name: str) -> dict[str, Any]:
    return {
        "name": type_.value,
        "summary": MEANINGS[type_].text,
        "traits": [{"$ref": "#/components/messageTraits/cloudevent"}],
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }


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


def embedded(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema with its own definitions folded in: inside a larger document its references would point elsewhere."""
    job = schema.pop("$defs")["Job"]
    del schema["$schema"], schema["$id"]
    schema["properties"]["job"] = job | {"title": f"{name}_job"}
    return schema
