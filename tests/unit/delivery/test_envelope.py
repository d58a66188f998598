"""The bodies on the wire: what each form holds, and that data passes through untouched."""

from __future__ import annotations

import orjson
import pytest

from bridge.delivery.envelope import cloudevent_attributes, http_headers, rfc3339, standard, structured, thinned
from bridge.journal.store import Entry

ENTRY = Entry(
    partition=0,
    position=9,
    subscription=3,
    sequence=12,
    recorded_ms=1_764_000_000_120,
    id="auvy-prod/job-7/1764000000120-0",
    source="auvy-prod",
    subject="job-7",
    type="job.output",
    time="2025-11-24T16:00:00.1+02:00",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    data=b'{"job":{"id":"job-7"},  "n":1.50}',
)


def test_attributes_are_those_of_cloudevents_with_our_extensions() -> None:
    assert dict(cloudevent_attributes(ENTRY)) == {
        "specversion": "1.0",
        "id": "auvy-prod/job-7/1764000000120-0",
        "source": "auvy-prod",
        "subject": "job-7",
        "type": "job.output",
        "datacontenttype": "application/json",
        "time": "2025-11-24T16:00:00.1+02:00",
        "partitionkey": "auvy-prod/job-7",
        "recordedtime": "2025-11-24T16:00:00.120Z",
        "sequence": "000000000012",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }


def test_attributes_without_a_value_are_left_out() -> None:
    names = [name for name, _ in cloudevent_attributes(ENTRY._replace(time=None, traceparent=None))]
    assert "time" not in names
    assert "traceparent" not in names


def test_sequence_sorts_as_text_the_way_it_counts() -> None:
    texts = [dict(cloudevent_attributes(ENTRY._replace(sequence=n)))["sequence"] for n in (2, 10, 99, 100)]
    assert sorted(texts) == texts


@pytest.mark.parametrize("sign", ["\r\nce-type: x", "\0", "\x7f", "\x85", "\ud800", "\ufffe"])
def test_no_attribute_can_break_a_header(sign: str) -> None:
    hostile = ENTRY._replace(id=f"a{sign}", subject=f"b{sign}", time=f"c{sign}", traceparent=f"d{sign}")
    for _, value in cloudevent_attributes(hostile):
        assert all(ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0 for c in value)
        assert value.encode()
    assert orjson.loads(structured(hostile))["subject"].startswith("b%")
    assert standard(hostile)


def test_other_scripts_stay_as_they_are() -> None:
    assert dict(cloudevent_attributes(ENTRY._replace(subject="задача 7")))["subject"] == "задача 7"


def test_structured_form_is_the_attributes_and_the_data() -> None:
    decoded = orjson.loads(structured(ENTRY))
    assert decoded.pop("data") == {"job": {"id": "job-7"}, "n": 1.5}
    assert decoded == dict(cloudevent_attributes(ENTRY))


def test_standard_form_splices_the_data_behind_what_places_the_event() -> None:
    head, _, data = standard(ENTRY).partition(b',"data":')
    assert data == b'{"job":{"id":"job-7"},  "n":1.50}}'
    assert orjson.loads(head + b"}") == {
        "type": "job.output",
        "timestamp": "2025-11-24T16:00:00.1+02:00",
        "id": ENTRY.id,
        "source": ENTRY.source,
        "subject": ENTRY.subject,
        "sequence": ENTRY.sequence,
    }


def test_standard_form_falls_back_to_the_time_of_journalling() -> None:
    assert orjson.loads(standard(ENTRY._replace(time=None)))["timestamp"] == "2025-11-24T16:00:00.120Z"


def test_http_headers_are_the_attributes_with_a_prefix() -> None:
    headers = http_headers(ENTRY)
    assert headers.pop("content-type") == "application/json"
    attributes = dict(cloudevent_attributes(ENTRY))
    del attributes["datacontenttype"]
    assert headers == {f"ce-{name}": value for name, value in attributes.items()}


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("a b", "a%20b"),
        ('"', "%22"),
        ("100%", "100%25"),
        ("€😀", "%E2%82%AC%F0%9F%98%80"),
        ("\t", "%2509"),
        ("!#$&'()*+,-./:;<=>?@[\\]^_`{|}~", "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    ],
)
def test_http_headers_encode_what_the_binding_names(text: str, encoded: str) -> None:
    assert http_headers(ENTRY._replace(subject=text))["ce-subject"] == encoded


def test_a_thin_event_keeps_the_jobs_id_and_status() -> None:
    fat = ENTRY._replace(data=b'{"job":{"id":"job-7","kind":"x","status":"failed"},"error":{"code":1}}')
    assert thinned(fat) == fat._replace(data=b'{"job":{"id":"job-7","status":"failed"}}')


def test_a_thin_event_without_a_status_has_none() -> None:
    assert thinned(ENTRY).data == b'{"job":{"id":"job-7"}}'


def test_a_truncated_event_names_what_it_lost_now_and_earlier() -> None:
    fat = ENTRY._replace(data=b'{"job":{"id":"job-7"},"detail":{},"result":"cut","truncated":["payload","result"]}')
    assert orjson.loads(thinned(fat, truncated=True).data) == {
        "job": {"id": "job-7"},
        "truncated": ["job", "detail", "result", "payload"],
    }


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_764_000_000_999, "2025-11-24T16:00:00.999Z"),
        (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_utc_with_milliseconds(unix_ms: int, text: str) -> None:
    assert rfc3339(unix_ms) == text
