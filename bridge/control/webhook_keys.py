"""The public keys behind `v1a` signatures, as a JWK set (RFC 7517, RFC 8037): for everybody, without a token."""

from __future__ import annotations

import base64
import hashlib

import orjson
from aiohttp import web

from bridge.control.answers import Shape
from bridge.control.view import VIEW
from bridge.delivery.signing import PublicKey

MAX_AGE_S = 300
"""How long others may keep the set: a new key needs an overlap with the old one that is longer than this."""


async def webhook_keys(request: web.Request) -> web.Response:
    """Every key that signs now, once, whichever endpoints it signs for."""
    keys = dict.fromkeys(request.config_dict[VIEW].public_keys())
    return web.Response(
        body=orjson.dumps({"keys": [jwk(key) for key in keys]}),
        content_type="application/jwk-set+json",
        headers={"Cache-Control": f"public, max-age={MAX_AGE_S}"},
    )


ROUTES = (web.get("/.well-known/webhook-keys", webhook_keys),)


def jwk(key: PublicKey) -> Shape:
    """The key as a JWK. Its `kid` is its RFC 7638 thumbprint: the same after any restart."""
    required = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.raw)}  # in the order that the thumbprint asks for
    return {**required, "kid": _base64url(hashlib.sha256(orjson.dumps(required)).digest()), "use": "sig"}


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
