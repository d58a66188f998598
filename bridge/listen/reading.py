"""What a delivery tells, whichever payload form it has: the only place that reads bodies back. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from bridge.delivery.envelope import STRUCTURED_TYPE
from bridge.wire import media_type

_SEQUENCE = re.compile(r"[0-9]{1,18}")


class Event(NamedTuple):
    """The event in a delivery. What the body does not tell is empty."""

    form: str
    """A value of the sink's setting `body`; `unknown` where it is none of ours."""
    id: str = ""
    type: str = ""
    source: str = ""
    subject: str = ""
    sequence: int | None = None
    data: Any = None

    @property
    def job(self) -> tuple[str, str]:
        """What `sequence` counts in."""
        return self.source, self.subject


def read(headers: Mapping[str, str], body: bytes) -> Event:
    """The event; names of headers are in lower case. Never raises: a body that is none of ours has the form `unknown`.

    Whatever is in the event can be written as JSON again, which reads deeper nesting than it writes.
    """
    try:
        decoded = orjson.loads(body)
        orjson.dumps(decoded)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return Event("unknown")
    if "ce-specversion" in headers:
        attributes = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
        return _event("cloudevents_binary", attributes, decoded)
    if not isinstance(decoded, dict) or "data" not in decoded:
        return Event("unknown", data=decoded)
    data = decoded["data"]
    if media_type(headers.get("content-type", "")) == media_type(STRUCTURED_TYPE):
        return _event("cloudevents", decoded, data)
    return _event("thin" if _is_thin(data) else "standard", decoded, data)


def _event(form: str, attributes: Mapping[str, Any], data: Any) -> Event:
    texts = {name: str(attributes.get(name, "")) for name in ("id", "type", "source", "subject")}
    sequence = str(attributes.get("sequence", ""))
    return Event(form, **texts, sequence=int(sequence) if _SEQUENCE.fullmatch(sequence) else None, data=data)


def _is_thin(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and set(data) == {"job"}
        and isinstance(data["job"], dict)
        and set(data["job"]) <= {"id", "status"}
    )
