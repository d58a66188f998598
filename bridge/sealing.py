"""Secrets that have to be kept are kept sealed: the only place that encrypts what is stored.

AES-256-GCM with a fresh nonce of 96 random bits (NIST SP 800-38D, section 8.2.2: good for 2^32 seals by one key).
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import AfterValidator, SecretStr

from bridge.secret import Secret

_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class Seal:
    """Keys for sealing: the first one seals, every one opens. So a new key goes in front of the old one."""

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys` as `parse_key` takes them; with none of them nothing can be sealed or opened."""
        self._keys = [AESGCM(parse_key(key)) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def seal(self, plain: bytes, owner: str) -> bytes:
        """`plain`, encrypted. It opens for the same owner only: moved to another one it is as good as damaged."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._keys[0].encrypt(nonce, plain, owner.encode())

    def open(self, sealed: bytes, owner: str) -> bytes:
        """What was sealed for that owner. Raises `ValueError` where no key opens it."""
        version, nonce, content = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        for key in self._keys if version == _VERSION and len(nonce) == _NONCE_BYTES else ():
            try:
                return key.decrypt(nonce, content, owner.encode())
            except InvalidTag:
                continue
        raise ValueError("its secrets were sealed with another key, or are damaged")


def parse_key(text: str) -> bytes:
    """The 32 bytes behind standard base64. Raises `ValueError` with a sentence that never repeats the key."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the key is not standard base64: make one with `openssl rand -base64 32`") from None
    if len(key) != _KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes, not 32: make one with `openssl rand -base64 32`")
    return key


def _seals(key: SecretStr) -> SecretStr:
    parse_key(key.get_secret_value())
    return key


SealingKey = Annotated[Secret, AfterValidator(_seals)]
"""A setting that holds a key."""
