"""What a receiver is sent in each payload form, as the reference libraries read it off real requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from jsonschema import validate
from receiving import ENTRY, SECRET, Delivered, Receiver, listening, opened

from bridge.delivery.sink import Trial
from bridge.journal.store import Entry
from bridge.secret import Referenced
from bridge.vocabulary import BODY, webhook_body

AWKWARD = ENTRY._replace(
    id='auvy/job "7" 100%/5-0',
    subject='Auftrag "7" 100%\r\nce-type: x',
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
LARGE = ENTRY._replace(
    data=orjson.dumps(
        {
            "job": {"id": "job-1", "source": "auvy", "status": "running", "step": "s" * 50},
            "detail": {"piece": "ü" * 5_000},
            "truncated": ["payload"],
        }
    )
)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening() as receiver:
        yield receiver


async def sent(receiver: Receiver, entry: Entry, **options: Any) -> Delivered:
    async with opened(receiver.url, **options) as endpoint:
        await endpoint.deliver(entry, Trial(1))
    (got,) = receiver.got
    return got


def cloudevent(got: Delivered) -> BaseCloudEvent:
    return from_http_event(HTTPMessage(got.headers, got.body))


@pytest.mark.parametrize("body", ["cloudevents", "cloudevents_binary"])
@pytest.mark.parametrize("entry", [ENTRY, AWKWARD], ids=["plain", "awkward"])
async def test_both_libraries_read_both_cloudevents_modes(receiver: Receiver, body: str, entry: Entry) -> None:
    got = await sent(receiver, entry, body=body)
    got.verified()
    event = cloudevent(got)
    assert event.get_data() == orjson.loads(entry.data)
    attributes = event.get_attributes()
    assert attributes["id"] == entry.id
    assert attributes["subject"] == entry.subject.replace("\r\n", "%0D%0A")
    assert attributes["time"] == datetime(2025, 11, 24, 16, tzinfo=UTC)
    assert attributes["sequence"] == "000000000007"
    assert attributes["type"] == "job.output"
    assert attributes.get("traceparent") == entry.traceparent


async def test_a_structured_body_says_what_it_is(receiver: Receiver) -> None:
    got = await sent(receiver, ENTRY, body="cloudevents")
    assert got.headers["Content-Type"] == "application/cloudevents+json; charset=UTF-8"
    assert "ce-id" not in got.headers


async def test_binary_mode_percent_encodes_what_a_header_cannot_hold(receiver: Receiver) -> None:
    got = await sent(receiver, AWKWARD._replace(subject="ключ \x01"), body="cloudevents_binary")
    assert got.body == AWKWARD.data
    assert got.headers["Content-Type"] == "application/json"
    assert "ce-datacontenttype" not in got.headers
    assert got.headers["ce-id"] == "auvy/job%20%227%22%20100%25/5-0"
    assert got.headers["ce-subject"] == "%D0%BA%D0%BB%D1%8E%D1%87%20%2501"
    assert got.headers["ce-specversion"] == "1.0"


async def test_the_thin_form_places_the_event_and_tells_the_status_alone(receiver: Receiver) -> None:
    got = await sent(receiver, ENTRY, body="thin")
    assert got.headers["Content-Type"] == "application/json"
    assert got.verified() == {
        "type": "job.output",
        "timestamp": "2025-11-24T16:00:00Z",
        "id": ENTRY.id,
        "source": "auvy",
        "subject": "job-1",
        "sequence": 7,
        "data": {"job": {"id": "job-1", "status": "running"}},
    }


@pytest.mark.parametrize("body", ["standard", "cloudevents", "cloudevents_binary"])
async def test_a_body_that_is_too_large_is_sent_thin_and_says_so(receiver: Receiver, body: str) -> None:
    got = await sent(receiver, LARGE, body=body, body_bytes_max=4_096)
    assert len(got.body) < 500
    decoded = got.verified()
    data = decoded if body == "cloudevents_binary" else decoded["data"]
    assert data == {
        "job": {"id": "job-1", "status": "running"},
        "truncated": ["job", "detail", "payload"],
    }
    if body != "standard":
        assert cloudevent(got).get_attributes()["id"] == ENTRY.id


@pytest.mark.parametrize(("spare", "whole"), [(0, True), (-1, False)])
async def test_the_limit_is_the_bodys_own_size(receiver: Receiver, spare: int, whole: bool) -> None:
    full = await sent(receiver, LARGE)
    receiver.got.clear()
    got = await sent(receiver, LARGE, body_bytes_max=len(full.body) + spare)
    assert (got.body == full.body) is whole


async def test_custom_headers_go_along_and_ours_stay_ours(receiver: Receiver) -> None:
    headers = {"Authorization": Referenced("Bearer t0p-secret"), "X-Tenant": Referenced("acme, inc")}
    got = await sent(receiver, ENTRY, headers=headers, body="cloudevents_binary")
    assert got.headers["Authorization"] == "Bearer t0p-secret"
    assert got.headers["X-Tenant"] == "acme, inc"
    assert got.verified(SECRET)


@pytest.mark.parametrize("previous", [0, 6])
async def test_every_form_says_what_came_before(receiver: Receiver, previous: int) -> None:
    async with opened(receiver.url, body="standard") as plain, opened(receiver.url, body="thin") as thin:
        for endpoint in (plain, thin):
            await endpoint.deliver(LARGE, Trial(1, previous=previous))
    async with opened(receiver.url, body="standard", body_bytes_max=4_096) as cut:
        await cut.deliver(LARGE, Trial(1, previous=previous))
    for got in receiver.got:
        body = got.verified()
        assert body["previous"] == previous
        assert body.keys() == BODY.keys()
        validate(body, webhook_body())
    receiver.got.clear()
    for form in ("cloudevents", "cloudevents_binary"):
        async with opened(receiver.url, body=form) as endpoint:
            await endpoint.deliver(ENTRY, Trial(1, previous=previous))
    assert [cloudevent(got).get_attributes()["previoussequence"] for got in receiver.got] == [f"{previous:012}"] * 2


async def test_what_is_not_known_is_left_out(receiver: Receiver) -> None:
    body = (await sent(receiver, ENTRY)).verified()
    assert "previous" not in body
    validate(body, webhook_body())
