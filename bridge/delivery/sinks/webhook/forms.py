"""What a request holds for each payload form: the body and the headers that describe it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from bridge.delivery.envelope import DATA_TYPE, STRUCTURED_TYPE, http_headers, standard, structured, thinned
from bridge.journal.store import Entry

FormName = Literal["standard", "cloudevents", "cloudevents_binary", "thin"]


class Body(NamedTuple):
    """One body, and the headers that say how to read it."""

    content: bytes
    headers: Mapping[str, str]


def _standard(entry: Entry, previous: int | None) -> Body:
    return Body(standard(entry, previous), {"content-type": DATA_TYPE})


def _cloudevents(entry: Entry, previous: int | None) -> Body:
    return Body(structured(entry, previous), {"content-type": STRUCTURED_TYPE})


def _cloudevents_binary(entry: Entry, previous: int | None) -> Body:
    return Body(entry.data, http_headers(entry, previous))


def _thin(entry: Entry, previous: int | None) -> Body:
    return _standard(thinned(entry), previous)


_FORMS: dict[FormName, Callable[[Entry, int | None], Body]] = {
    "standard": _standard,
    "cloudevents": _cloudevents,
    "cloudevents_binary": _cloudevents_binary,
    "thin": _thin,
}


class Form:
    """The payload form of one receiver."""

    def __init__(self, name: FormName, bytes_max: int) -> None:
        self._encode = _FORMS[name]
        self._bytes_max = bytes_max

    def body(self, entry: Entry, previous: int | None) -> Body:
        """The event in this form. Where that is too large, the same form around thin data that says so.

        `previous` is the `sequence` of the job's event before it at this receiver; 0 for none, None where not known.
        """
        body = self._encode(entry, previous)
        if len(body.content) > self._bytes_max:
            return self._encode(thinned(entry, truncated=True), previous)
        return body
