"""The few facts of HTTP that both halves need: who we are, media types, `Retry-After`, bodies shown to people."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from bridge import __version__

if TYPE_CHECKING:
    from aiohttp import StreamReader

USER_AGENT = f"jobbridge/{__version__}"

READ_BYTES = 64 << 10
"""What is taken off a socket and not asked for yet, about twice over, before its sender has to wait. Thousands of
streams may stand still at once while the journal does."""


def authority(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def basic(name: str, password: str) -> str:
    """The value of an `Authorization` header by RFC 7617."""
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


async def start_of(content: StreamReader, bytes_max: int) -> bytes:
    """A body as it arrives, up to so many bytes. What is left unread costs the connection."""
    start = bytearray()
    while len(start) < bytes_max and (chunk := await content.readany()):
        start += chunk
    return bytes(start[:bytes_max])


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
