"""What one entry looks like as a Kafka record, by the CloudEvents Kafka binding 1.0.2. Pure: no client, no network."""

from __future__ import annotations

import re
from functools import lru_cache
from string import Formatter
from typing import Literal, NamedTuple

from bridge.delivery.envelope import DATA_TYPE, STRUCTURED_TYPE, cloudevent_attributes, structured
from bridge.journal.store import Entry

Mode = Literal["binary", "structured"]
Header = tuple[str, bytes]

TOPIC_FIELDS = ("source", "type", "kind")
_TOPIC_ILLEGAL = re.compile(r"[^a-zA-Z0-9._-]")
_TOPIC_MAX = 249

_RECORD_OVERHEAD = 61 + 21 + 5 * 3  # batch header, record header, and the lengths of key, value and header list
_HEADER_OVERHEAD = 5 * 2

_STRUCTURED_HEADERS = [("content-type", STRUCTURED_TYPE.encode())]
_DATA_HEADER = ("content-type", DATA_TYPE.encode())


class Record(NamedTuple):
    """One record, short of its topic and partition."""

    key: bytes
    value: bytes
    headers: list[Header]
    timestamp_ms: int

    @property
    def bytes_max(self) -> int:
        """An upper bound of its size on the wire, alone in a batch and not compressed."""
        headers = sum([len(name) + len(value) for name, value in self.headers]) + _HEADER_OVERHEAD * len(self.headers)
        return _RECORD_OVERHEAD + len(self.key) + len(self.value) + headers


def record(entry: Entry, mode: Mode) -> Record:
    """The entry in binary mode (attributes as `ce_` headers, section 3.2) or structured mode (one JSON value, 3.3)."""
    key = entry.job_key.encode()
    if mode == "structured":
        return Record(key, structured(entry), _STRUCTURED_HEADERS, entry.recorded_ms)
    # `datacontenttype` is the record's content-type header and nothing else (section 3.2.1).
    headers = [("ce_" + name, value.encode()) for name, value in cloudevent_attributes(entry) if name != _CONTENT_TYPE]
    headers.append(_DATA_HEADER)
    return Record(key, entry.data, headers, entry.recorded_ms)


_CONTENT_TYPE = "datacontenttype"


@lru_cache(maxsize=4096)
def topic_name(template: str, source: str, type_: str) -> str:
    """The template filled in. What a topic name cannot hold becomes `_`; the length is cut to what Kafka allows."""
    name = template.format(source=source, type=type_, kind=type_.partition(".")[0])
    return _TOPIC_ILLEGAL.sub("_", name)[:_TOPIC_MAX]


def check_topic_template(template: str) -> str:
    """The template itself. Raises ValueError when it names unknown fields, or letters that no topic can hold."""
    for text, field, spec, conversion in Formatter().parse(template):
        if field is not None and (field not in TOPIC_FIELDS or spec or conversion):
            raise ValueError(f"unknown field {{{field}}}; there are: {', '.join(TOPIC_FIELDS)}")
        if illegal := _TOPIC_ILLEGAL.search(text):
            raise ValueError(f"a topic name cannot hold {illegal[0]!r}; it takes letters, digits, '.', '_' and '-'")
    if template.strip(".") == "":
        raise ValueError("the topic needs a name")
    return template
