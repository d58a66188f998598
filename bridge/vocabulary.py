"""What events look like from outside: the JSON Schema of every type's data, and what stands around it.

Everything here is generated from the types that the code itself uses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

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


BODY: dict[str, tuple[bool, dict[str, Any], str]] = {
    "type": (True, {"enum": [type_.value for type_ in EventType]}, "One of the event types."),
    "timestamp": (True, {"type": "string"}, "The provider's time, or the time of journalling where it gave none."),
    "id": (True, {"type": "string"}, "The event's own, as on Kafka; unique within `source`."),
    "source": (True, {"type": "string"}, "The configured source."),
    "subject": (True, {"type": "string"}, "The job's id at the provider."),
    "sequence": (True, {"type": "integer", "minimum": 1}, "Rises by one per job."),
    "previous": (
        False,
        {"type": "integer", "minimum": 0},
        "`sequence` of the job's event before it that was meant for this receiver, 0 for none; absent where unknown.",
    ),
    "data": (True, {"type": "object"}, "As the type's own schema has it, or as `thin_data` has it."),
}
"""A webhook's body in the `standard` and `thin` forms: whether always there, its schema, and what it says."""


def webhook_body() -> dict[str, Any]:
    """The JSON Schema of `BODY`. Members may be added to it."""
    properties = {name: schema | {"description": text} for name, (_, schema, text) in BODY.items()}
    return {
        "type": "object",
        "description": "A webhook's body in the forms `standard` and `thin`.",
        "properties": properties,
        "required": [name for name, (always, _, _) in BODY.items() if always],
    }


def embedded(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema with its own definitions folded in: inside a larger document its references would point elsewhere."""
    job = schema.pop("$defs")["Job"]
    del schema["$schema"], schema["$id"]
    schema["properties"]["job"] = job | {"title": f"{name}_job"}
    return schema
