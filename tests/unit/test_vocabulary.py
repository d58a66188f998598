"""The documents that describe our events, held against events as they really leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import orjson
import pytest
from jsonschema import Draft202012Validator

from bridge.asyncapi import FORMS, document, documents
from bridge.delivery.envelope import standard
from bridge.delivery.signing import new_private_key, new_secret
from bridge.delivery.sinks.kafka.records import record
from bridge.delivery.sinks.webhook.envelopes import Envelopes
from bridge.delivery.sinks.webhook.forms import FormName
from bridge.delivery.sinks.webhook.settings import WebhookSettings
from bridge.event import EventType, JobEvent, JobKey, JobStatus
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Reading
from bridge.journal.store import Entry
from bridge.secret import Referenced
from bridge.vocabulary import MEANINGS, data_schema

KEY = JobKey("auvy-prod", "job_1")
ASYNCAPI = document()


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
    described = resolved(message["traits"][0]["$ref"])["headers"]
    Draft202012Validator(described).validate(headers)
    assert headers.keys() <= described["properties"].keys()


def judged(message: dict[str, Any], headers: Mapping[str, str], body: bytes) -> None:
    """Headers and body against what the document says of such a message."""
    whole = {"components": ASYNCAPI["components"]}  # where its references lead
    Draft202012Validator(whole | message["headers"]).validate({name.lower(): each for name, each in headers.items()})
    assert headers["content-type"] == message["contentType"]
    Draft202012Validator(whole | message["payload"]).validate(orjson.loads(body))


def undescribed(message: dict[str, Any], headers: Mapping[str, str], body: bytes) -> set[str]:
    """Headers, and members of the body, of which the document says nothing."""
    payload = resolved(message["payload"]["$ref"])
    names = set(headers) - set(message["headers"]["properties"])
    return names | (set(orjson.loads(body)) - set(payload["properties"]) if "properties" in payload else set())


def entry_of(event: JobEvent) -> Entry:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return Entry(0, 1, 1, 1, 1_764_000_000_000, event.id, *KEY, event.type, event.time, trace, event.data)


@pytest.mark.parametrize("event", EVENTS, ids=[f"{event.type}-{event.id}" for event in EVENTS])
@pytest.mark.parametrize("form", get_args(FormName))
@pytest.mark.parametrize("previous", [None, 0, 7])
def test_a_webhook_is_as_the_asyncapi_document_says(event: JobEvent, form: FormName, previous: int | None) -> None:
    message = resolved(ASYNCAPI["channels"]["webhook"]["messages"][f"webhook_{form}"]["$ref"])
    secrets = [Referenced(new_secret()), Referenced(new_private_key()[0])]
    given = {
        "kind": "webhook",
        "url": "https://a.example",
        "body": form,
        "secret": secrets,
        "allow_mixed_schemes": True,
    }
    for bytes_max in (1 << 20, 4 << 10):
        chosen = WebhookSettings.model_validate(given | {"body_bytes_max": bytes_max})
        large = orjson.loads(event.data) | {"payload": "x" * (5 << 10)}
        entry = entry_of(event)._replace(data=orjson.dumps(large))
        sent = Envelopes("partner", chosen, lambda: 1_764_000_000.0).signed(entry, previous)
        judged(message, sent.headers, sent.body)
        assert undescribed(message, sent.headers, sent.body) == set()
        told = orjson.loads(sent.body)
        data = told if form == "cloudevents_binary" else told["data"]
        assert ("truncated" in data) is (bytes_max == 4 << 10 and form != "thin")


@pytest.mark.parametrize("event", EVENTS, ids=[f"{event.type}-{event.id}" for event in EVENTS])
def test_a_record_in_structured_mode_is_as_the_asyncapi_document_says(event: JobEvent) -> None:
    message = resolved(ASYNCAPI["channels"]["topic"]["messages"]["cloudevent"]["$ref"])
    written = record(entry_of(event), "structured")
    headers = {name: value.decode() for name, value in written.headers}
    assert written.value is not None
    judged(message, headers, written.value)
    assert undescribed(message, headers, written.value) == set()


@pytest.mark.parametrize("change", [{"type": "job.paused"}, {"data": {"surprise": 1}}, {"sequence": "1"}, {"id": None}])
def test_a_body_that_contradicts_its_type_is_none(change: dict[str, Any]) -> None:
    event = next(event for event in EVENTS if event.type is EventType.STARTED)
    body = orjson.loads(standard(entry_of(event)))
    whole = {"components": ASYNCAPI["components"]} | resolved("#/components/schemas/webhook_body")
    assert Draft202012Validator(whole).is_valid(body)
    assert not Draft202012Validator(whole).is_valid(body | change)


def test_the_document_names_every_form_of_a_webhook() -> None:
    assert set(FORMS) == {f"webhook_{form}" for form in get_args(FormName)}


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
    for name, each in documents().items():
        if name != "asyncapi.json":
            Draft202012Validator.check_schema(each)
    references = [part.partition('"')[0] for part in orjson.dumps(ASYNCAPI).decode().split('"$ref":"')[1:]]
    assert references
    for reference in references:
        assert resolved(reference), reference
