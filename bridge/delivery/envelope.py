"""The bodies that sinks put on their wires. `data` arrives encoded and is spliced in; only `thinned` decodes it.

CloudEvents 1.0.2 for everybody who asks for it; the Standard Webhooks body (`type`, `timestamp`, `data`) for
receivers who expect that. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from bridge.journal.store import Entry

DATA_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents+json; charset=UTF-8"

_SEQUENCE = "%012d"

# What the CloudEvents String type leaves out (section 3.1), and with it all that could break a header line.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

_NOT_IN_HEADERS = re.compile("[^!#$&-~]")


def cloudevent_attributes(entry: Entry, previous: int | None = None) -> list[tuple[str, str]]:
    """Every attribute by its bare name, in a fixed order; those without a value are left out.

    `previous` becomes `previoussequence`: the `sequence` of the event before it at the same receiver, 0 for none.

    Values hold no control characters: where a provider's id does, they are percent-encoded. `sequence` is padded
    with zeros, since its specification has it compared as text. In binary mode `datacontenttype` is the content
    type of the record and not an attribute header.
    """
    return [
        *job_attributes(entry.source, entry.subject),
        *batch_attributes(entry.type, entry.recorded_ms),
        *own_attributes(entry),
        *([] if previous is None else [("previoussequence", _SEQUENCE % previous)]),
    ]


def job_attributes(source: str, subject: str) -> list[tuple[str, str]]:
    """The attributes that all events of a job share, so that who writes many can keep them."""
    return [
        ("specversion", "1.0"),
        ("source", _clean(source)),
        ("subject", _clean(subject)),
        ("datacontenttype", DATA_TYPE),
        ("partitionkey", _clean(f"{source}/{subject}")),
    ]


def batch_attributes(type_: str, recorded_ms: int) -> list[tuple[str, str]]:
    """The attributes that all events of a type share which were journalled together."""
    return [("type", type_), ("recordedtime", rfc3339(recorded_ms))]


def own_attributes(entry: Entry) -> list[tuple[str, str]]:
    """The attributes of this event alone."""
    attributes = [("id", _clean(entry.id)), ("sequence", _SEQUENCE % entry.sequence)]
    if entry.time is not None:
        attributes.append(("time", _clean(entry.time)))
    if entry.traceparent is not None:
        attributes.append(("traceparent", _clean(entry.traceparent)))
    return attributes


def structured(entry: Entry, previous: int | None = None) -> bytes:
    """The event as one compact JSON object (CloudEvents JSON format 1.0.2), of type `STRUCTURED_TYPE`."""
    return _spliced(dict(cloudevent_attributes(entry, previous)), entry.data)


def http_headers(entry: Entry, previous: int | None = None) -> dict[str, str]:
    """The headers of binary mode (CloudEvents HTTP binding 1.0.2, section 3.1); the body is then `entry.data`.

    Whatever is no visible ASCII character, and `"` and `%`, is percent-encoded as UTF-8 (section 3.1.3.2).
    """
    attributes = cloudevent_attributes(entry, previous)
    headers = {f"ce-{name}": _NOT_IN_HEADERS.sub(_percent, value) for name, value in attributes}
    headers["content-type"] = headers.pop("ce-datacontenttype")
    return headers


def standard(entry: Entry, previous: int | None = None) -> bytes:
    """The body of Standard Webhooks 1.0.0, compact: `type`, `timestamp` and `data`, and what places the event.

    `timestamp` is the provider's time, or the time of journalling where it gave none. `id`, `source`, `subject` and
    `sequence` are the event's own: a receiver joins Kafka and webhooks by `id`. `previous` is the `sequence` of the
    event before it at the same receiver, 0 for none: by it gaps are seen. It is left out where it is not known.
    """
    head: dict[str, str | int] = {
        "type": entry.type,
        "timestamp": _clean(entry.time or rfc3339(entry.recorded_ms)),
        "id": _clean(entry.id),
        "source": _clean(entry.source),
        "subject": _clean(entry.subject),
        "sequence": entry.sequence,
    }
    if previous is not None:
        head["previous"] = previous
    return _spliced(head, entry.data)


def thinned(entry: Entry, *, truncated: bool = False) -> Entry:
    """The event with nothing in its data but the job's id and status, as if that had been all.

    With `truncated`, data names the members that were cut or left out, as it does in events that were cut before.
    """
    data = orjson.loads(entry.data)
    job = {"id": entry.subject}
    if (status := data["job"].get("status")) is not None:
        job["status"] = status
    thin: dict[str, Any] = {"job": job}
    if truncated:
        earlier = data.pop("truncated", [])
        thin["truncated"] = [*data, *(name for name in earlier if name not in data)]
    return entry._replace(data=orjson.dumps(thin))


@lru_cache(maxsize=1024)
def rfc3339(unix_ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC: `2026-01-31T12:00:00.000Z`."""
    return f"{datetime.fromtimestamp(unix_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03d}Z"


def _spliced(head: Mapping[str, str | int], data: bytes) -> bytes:
    return orjson.dumps({**head, "data": orjson.Fragment(data)})


def _clean(value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    return _FORBIDDEN.sub(_percent, value)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
