"""Where the keys come from that a receiver verifies with: secrets by reference, public keys, a JWK set."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout

from bridge.delivery.signing import PublicKey, SharedKey, parse_key, parse_public_key
from bridge.errors import Fatal, Temporary
from bridge.secret import read_file
from bridge.wire import USER_AGENT, start_of

_FETCH = ClientTimeout(total=5)
_SET_BYTES_MAX = 64 << 10


def shared_keys(references: Sequence[str], environ: Mapping[str, str]) -> list[SharedKey]:
    """The secrets behind names of environment variables and `file:` paths. Raises `Fatal`, which never repeats them."""
    return [_shared_key(reference, environ) for reference in references]


def public_keys(texts: Sequence[str]) -> list[PublicKey]:
    """The keys that are written like this: `whpk_...`. Raises `Fatal`."""
    try:
        return [parse_public_key(text) for text in texts]
    except ValueError as error:
        raise Fatal(f"--public-key: {error}") from None


async def fetch_set(url: str) -> list[PublicKey]:
    """The ed25519 keys of the JWK set at that address. Raises `Temporary` when it cannot be had now."""
    try:
        async with ClientSession(timeout=_FETCH, headers={"user-agent": USER_AGENT}) as http, http.get(url) as reply:
            content = await start_of(reply.content, _SET_BYTES_MAX)
            if reply.status != 200:
                raise Temporary(f"--jwks: {url} answers {reply.status}", status=reply.status)
    except (ClientError, OSError, ValueError) as error:
        raise Temporary(f"--jwks: {url} cannot be read: {str(error) or type(error).__name__}") from error
    try:
        return read_set(content)
    except ValueError as error:
        raise Temporary(f"--jwks: {url}: {error}") from None


def read_set(content: bytes) -> list[PublicKey]:
    """The ed25519 keys of a JWK set (RFC 7517, RFC 8037); others are passed over. Raises `ValueError` without any."""
    try:
        listed = orjson.loads(content)["keys"]
        keys = [_decoded(key["x"]) for key in listed if (key["kty"], key.get("crv")) == ("OKP", "Ed25519")]
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise ValueError("what is there is no JWK set") from None
    if not keys:
        raise ValueError("the JWK set holds no Ed25519 key: nothing there signs with v1a")
    return keys


def _shared_key(reference: str, environ: Mapping[str, str]) -> SharedKey:
    try:
        key = parse_key(_referenced(reference, environ))
    except ValueError as error:
        raise Fatal(f"--secret: {error}") from None
    if not isinstance(key, SharedKey):
        raise Fatal("--secret: that is the sender's own key of v1a; verify with --public-key or --jwks")
    return key


def _referenced(reference: str, environ: Mapping[str, str]) -> str:
    if reference.startswith(("whsec_", "whsk_")):
        raise ValueError("a secret is never written here: name an environment variable that holds it, or file:PATH")
    if reference.startswith("file:"):
        return read_file(reference.removeprefix("file:"))
    if reference not in environ:  # nor is it repeated: it may be the secret itself
        raise ValueError("there is no environment variable of that name; a file is written file:PATH")
    return environ[reference]


def _decoded(encoded: str) -> PublicKey:
    raw = base64.urlsafe_b64decode(encoded + "==")
    if len(raw) != 32:
        raise ValueError("an ed25519 key has 32 bytes")
    return PublicKey(raw)
