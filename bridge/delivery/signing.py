"""Standard Webhooks 1.0.0: secrets, webhook ids and the signature header. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

KEYS_MAX = 3
"""Signatures in one header at most: enough to rotate, few enough for every receiver's library."""

_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)


class Key(Protocol):
    """One key of one signature scheme."""

    def token(self, content: bytes) -> str:
        """The scheme's name, a comma, and the signature of `content` in padded standard base64."""


@dataclass(frozen=True, slots=True)
class SharedKey:
    """Scheme `v1`: HMAC-SHA256 with a secret that the receiver holds too."""

    secret: bytes = field(repr=False)

    def token(self, content: bytes) -> str:
        digest = hmac.digest(self.secret, content, "sha256")
        return "v1," + base64.b64encode(digest).decode()


def parse_secret(text: str) -> SharedKey:
    """The key behind `whsec_` and padded standard base64 of 24 to 64 bytes.

    Raises `ValueError` with a sentence that says what is wrong and never repeats the secret. Stricter than many
    receivers' libraries, which quietly read a url-safe or cut secret as another key.
    """
    if not text.startswith(_PREFIX):
        raise ValueError(f"a webhook secret starts with {_PREFIX!r}")
    encoded = text.removeprefix(_PREFIX)
    if "-" in encoded or "_" in encoded:
        raise ValueError("the webhook secret is in url-safe base64; write it in standard base64 ('+' and '/')")
    try:
        secret = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the webhook secret is not standard base64 with its '=' padding") from None
    if base64.b64encode(secret).decode() != encoded:
        raise ValueError("the webhook secret is not canonical base64: its last character carries stray bits")
    if len(secret) not in _SECRET_BYTES:
        raise ValueError(f"the webhook secret has {len(secret)} bytes; it takes 24 to 64 random bytes")
    return SharedKey(secret)


def sign(keys: Sequence[Key], webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`: one token a key, new key first, joined by single spaces.

    `body` is exactly what goes out, `timestamp_s` whole Unix seconds of this attempt.
    """
    content = b"%b.%d.%b" % (webhook_id.encode("ascii"), timestamp_s, body)
    return " ".join(key.token(content) for key in keys)


def webhook_id(event_id: str, endpoint: str) -> str:
    """The value of `webhook-id`: the same for an event at an endpoint for ever, `[A-Za-z0-9_-]{1,64}`."""
    # The length goes in first, so that no two pairs can read as the same text.
    digest = hashlib.sha256(f"{len(event_id)}:{event_id}{endpoint}".encode("utf-8", "surrogatepass")).digest()
    return "msg_" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
