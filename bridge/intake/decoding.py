"""The only place that decodes a provider's JSON: whatever comes out can be compared, shown and encoded again."""

from __future__ import annotations

from typing import Any

import orjson

from bridge.event import Json
from bridge.intake.provider import Frame
from bridge.wire import excerpt

_LEVELS_MAX = 200
"""orjson reads 1,024 levels and writes 254; Python compares fewer than a thousand, and so do many receivers."""


def decoded(data: bytes) -> tuple[Any, bytes]:
    """The value, and the JSON that tells it: `data` itself, unless it is nested beyond all reason.

    What lies deeper than 200 levels is then null in both. Raises ValueError for what is no JSON.
    """
    value = orjson.loads(data)
    if data.count(b"[") + data.count(b"{") > _LEVELS_MAX:
        try:
            orjson.dumps([[[[[[[[value]]]]]]]])  # as deep as we nest it ourselves, and then some
        except TypeError:
            value = _cut(value, _LEVELS_MAX)
            return value, orjson.dumps(value)
    return value, data


def oversized(frame: Frame) -> Json:
    """What to tell of a frame that was kept in part only."""
    size = len(frame.data) + frame.dropped_bytes
    return {"reason": "oversized", "bytes": size, "start": excerpt(frame.data), "truncated": True}


def not_json(data: bytes) -> Json:
    """What to tell of data that is no JSON: all of it."""
    return {"reason": "not_json", "text": data.decode("utf-8", "replace")}


def _cut(value: Any, levels: int) -> Any:
    if isinstance(value, dict):
        return {key: _cut(inner, levels - 1) for key, inner in value.items()} if levels else None
    if isinstance(value, list):
        return [_cut(inner, levels - 1) for inner in value] if levels else None
    return value
