"""The documents that describe our events, held against events as they really leave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from bridge.delivery.sinks.kafka.records import record
from bridge.event import EventType, JobEvent, JobKey, JobStatus
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Reading
from bridge.journal.store import Entry
from bridge.vocabulary import MEANINGS, asyncapi, data_schema, documents

KEY = JobKey("auvy-prod", "job_1")
ASYNCAPI = asyncapi()


def life() -> Iterator[JobEvent]:
    """A job that lives through everything that can happen to one, some of it more than once."""
    job = Lifecycle(KEY, "auvy", b"")
    yield job.watch(EventType.WATCH_STARTED, {"cursor": None})
    yield from job.apply(
        [Reading(status=status, provider_status="x") for status in (JobStatus.PENDING, JobStatus.RUNNING)]
    )
    yield from job.apply([Reading(status=JobStatus.WAITING, waiting_for={"prompt": "ok?"})])
    yield from job.apply([Reading(status=JobStatus.RUNNING), Reading(status=JobStatus.PAUSED)])
    for number, type_ in enumerate((EventType.PROGRESS, EventType.STEP, EventType.TOOL, EventType.STATE)):
        yield from job.apply([Reading(type=type_, key=str(number), progress=number, payload=b'{"n":1}')])
    yield from job.apply([Reading(type=EventType.OUTPUT, key="5", detail={"text": "Hel"})])
    yield from job.apply([Reading(type=EventType.UNMAPPED, key="6", detail={"reason": "not_json", "text": "<"})])
    for type_ in (EventType.WATCH_GAP, EventType.WATCH_STALLED, EventType.WATCH_LOST, EventType.WATCH_DENIED):
        yield job.watch(type_, {"reason": "some"})
    for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.SKIPPED):
        end = Reading(key=status.value, status=status, result={"a": 1}, error={"message": "why"})
        yield from Lifecycle(KEY, "auvy", b"").apply([end])


EVENTS = list(life())


def resolved(reference: str) -> Any:
    found: Any = ASYNCAPI
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_this_file_knows_every_type() -> None:
    assert {event.type for event in EVENTS} == set(EventType) == set(MEANINGS)


@pytest.mark.parametrize("event", EVENTS, ids=[f"{event.type}-{event.id}" for event in EVENTS])
def test_an_event_is_as_its_schema_and_the_asyncapi_document_say(event: JobEvent) -> None:
    data = orjson.loads(event.data)
    Draft202012Validator(data_schema(event.type)).validate(data)
    message = ASYNCAPI["components"]["messages"][event.type.replace(".", "_")]
    Draft202012Validator(resolved(message["payload"]["$ref"])).validate(data)
    entry = Entry(0, 1, 1, 1, 1_764_000_000_000, event.id, *KEY, event.type, event.time, None, event.data)
    headers = {name: value.decode() for name, value in record(entry, "binary").headers}
    Draft202012Validator(resolved(message["traits"][0]["$ref"])["headers"]).validate(headers)


@pytest.mark.parametrize(
    ("type_", "change"),
    [
        (EventType.STARTED, {"job": {"id": "1", "source": "s", "provider": "p", "status": "paused"}}),
        (EventType.UNMAPPED, {"detail": {}}),
        (EventType.OUTPUT, {"job": {"id": "1"}}),
        (EventType.OUTPUT, {"surprise": 1}),
    ],
)
def test_a_schema_refuses_what_its_type_cannot_be(type_: EventType, change: dict[str, Any]) -> None:
    event = next(event for event in EVENTS if event.type is type_)
    assert not Draft202012Validator(data_schema(type_)).is_valid(orjson.loads(event.data) | change)


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    for name, document in documents().items():
        if name != "asyncapi.json":
            Draft202012Validator.check_schema(document)
    references = [part.partition('"')[0] for part in orjson.dumps(ASYNCAPI).decode().split('"$ref":"')[1:]]
    assert references
    for reference in references:
        assert resolved(reference), reference
