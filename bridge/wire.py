"""The few facts of HTTP that both halves need: who we are, media types, `Retry-After`, bodies shown to people."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from bridge import __version__

USER_AGENT = f"jobbridge/{__version__}"

READ_BYTES = 64 << 10
"""What is taken off a socket and not asked for yet, about twice over, before its sender has to wait. Thousands of
streams may stand still at once while the journal does."""


def media_type(content_type: str) -> str:
    """The bare media type of a Content-Type value, lower case: `Text/Event-Stream; charset=x` is an event stream."""
    return content_type.partition(";")[0].strip().lower()


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Seconds asked for by a `Retry-After` value (RFC 9110 section 10.2.3: seconds or an HTTP date), else None.

    A date in the past is zero. Anything else that does not parse is as good as absent.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a zone or year of twenty digits overflows
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.fromtimestamp(now_s, UTC)).total_seconds())


def excerpt(body: bytes, limit: int = 200) -> str:
    """The start of a foreign body as one printable line, for error texts."""
    text = body[: limit * 4].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text)[:limit].strip()
