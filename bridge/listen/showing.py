"""How a delivery is shown: lines for people, in which nothing foreign moves the cursor, or a line of JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from bridge.listen.history import Earlier, Remarks
from bridge.listen.reading import Event
from bridge.listen.receiver import Delivery

_INDENT = " " * 14
_DATA_CHARS_MAX = 160


def as_text(delivery: Delivery, *, forms: bool) -> str:
    """Several lines. With `forms` also the payload form, our headers and the whole data."""
    return "\n".join(_printable(line) for line in _lines(delivery, forms=forms))


def as_json(delivery: Delivery) -> str:
    """One line."""
    shown: dict[str, Any] = {
        "delivery": delivery.number,
        "at": _moment(delivery.at_s).isoformat(timespec="milliseconds"),
        "verified": delivery.flaw is None,
        "status": delivery.status,
        "headers": delivery.headers,
        "body_bytes": delivery.body_bytes,
    }
    if delivery.flaw is not None:
        shown["flaw"] = {"rule": delivery.flaw.rule, "text": str(delivery.flaw)}
    if delivery.proof is not None:
        shown |= delivery.proof._asdict()
    if delivery.event is not None:
        shown["event"] = delivery.event._asdict()
    shown |= {name: value for name, value in _remarks(delivery).items() if value is not None}
    return orjson.dumps(shown).decode()


def summary_text(summary: dict[str, Any]) -> str:
    """The counts as people read them."""
    refused = ", ".join(f"{count} for its {rule}" for rule, count in summary["refused"].items()) or "none"
    answers = ", ".join(f"{count} x {status}" for status, count in summary["answers"].items()) or "none"
    return (
        f"{summary['deliveries']} deliveries: {summary['verified']} verified, of {summary['jobs']} jobs; "
        f"refused: {refused}\nrepeats: {summary['repeats']}, gaps: {summary['gaps']}, late: {summary['late']}, "
        f"hung up before the answer: {summary['hung_up']}; answers: {answers}"
    )


def _lines(delivery: Delivery, *, forms: bool) -> Iterator[str]:
    start = f"{_moment(delivery.at_s).astimezone():%H:%M:%S}.{int(delivery.at_s * 1000) % 1000:03d}  #{delivery.number}"
    webhook_id = delivery.headers.get("webhook-id", "(no webhook-id)")
    if delivery.event is None or delivery.proof is None:
        yield f"{start}  NOT VERIFIED  {webhook_id}  -> {delivery.status}"
        yield f"{_INDENT}{delivery.flaw.rule}: {delivery.flaw}" if delivery.flaw else _INDENT
    else:
        event, proof = delivery.event, delivery.proof
        yield f"{start}  {_place(event)}  {webhook_id}  {proof.scheme} by key {proof.key}  -> {delivery.status}"
        yield from (f"{_INDENT}{remark}" for remark in _spoken(delivery.remarks, event, delivery.at_s))
        if not forms:
            yield f"{_INDENT}{_cut(orjson.dumps(event.data).decode())}"
    if forms:
        yield from _details(delivery)


def _details(delivery: Delivery) -> Iterator[str]:
    if delivery.event is not None:
        yield f"{_INDENT}form: {delivery.event.form}, {delivery.body_bytes} bytes"
    for name, value in sorted(delivery.headers.items()):
        yield f"{_INDENT}{name}: {value}"
    if delivery.event is not None:
        for line in orjson.dumps(delivery.event.data, option=orjson.OPT_INDENT_2).decode().splitlines():
            yield f"{_INDENT}{line}"


def _place(event: Event) -> str:
    if event.form == "unknown":
        return "a body of no form that jobbridge sends"
    return f"{event.type}  {event.source}/{event.subject}  sequence {event.sequence}"


def _spoken(remarks: Remarks, event: Event, now_s: float) -> Iterator[str]:
    if (earlier := remarks.repeats) is not None:
        owed = "drop it" if earlier.status < 300 else "a retry"
        yield (
            f"repeat: attempt {earlier.attempts + 1}; {now_s - earlier.at_s:.1f} s ago it was answered "
            f"{earlier.status}: {owed}"
        )
    if remarks.gap is not None:
        first, last = remarks.gap
        what = f"sequence {first} has" if first == last else f"sequences {first} to {last} have"
        yield f"gap: of {event.source}/{event.subject} {what} not come: filtered out, given up, or still to come"
    if remarks.late_after is not None:
        yield f"late: sequence {remarks.late_after} of this job came before"


def _remarks(delivery: Delivery) -> dict[str, Any]:
    earlier = delivery.remarks.repeats
    return {
        "repeat": None if earlier is None else _repeat(earlier, delivery.at_s),
        "gap": delivery.remarks.gap,
        "late_after": delivery.remarks.late_after,
    }


def _repeat(earlier: Earlier, now_s: float) -> dict[str, Any]:
    return {"attempt": earlier.attempts + 1, "after_s": round(now_s - earlier.at_s, 3), "answered": earlier.status}


def _moment(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def _cut(text: str) -> str:
    return text if len(text) <= _DATA_CHARS_MAX else f"{text[:_DATA_CHARS_MAX]}…"


def _printable(line: str) -> str:
    return "".join(each if each.isprintable() else f"\\u{{{ord(each):x}}}" for each in line)
