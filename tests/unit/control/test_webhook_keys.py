"""The public keys of webhooks, as somebody without a token gets them."""

from __future__ import annotations

from bridge.control.webhook_keys import jwk
from bridge.delivery.signing import PrivateKey, PublicKey

from .room import open_room

PATH = "/.well-known/webhook-keys"
ONE, OTHER = (PrivateKey.from_seed(bytes([n]) * 32).public for n in (1, 2))


def test_a_key_has_the_thumbprint_that_its_standard_publishes() -> None:
    key = PublicKey(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
    assert jwk(key) == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "use": "sig",
    }


async def test_everybody_may_read_and_keep_the_keys() -> None:
    async with open_room(token=None, public_keys=lambda: [ONE]) as room, room.http.get(room.url(PATH)) as reply:
        assert (reply.status, reply.content_type) == (200, "application/jwk-set+json")
        assert reply.headers["Cache-Control"] == "public, max-age=300"
        assert await reply.json(content_type=None) == {"keys": [jwk(ONE)]}


async def test_a_key_of_several_endpoints_is_told_once() -> None:
    async with open_room(public_keys=lambda: [ONE, OTHER, ONE]) as room:
        assert await room.call("GET", PATH) == (200, {"keys": [jwk(ONE), jwk(OTHER)]})


async def test_the_keys_are_those_of_the_moment() -> None:
    keys = [ONE, OTHER]
    async with open_room(public_keys=lambda: keys) as room:
        keys.remove(ONE)
        assert await room.call("GET", PATH) == (200, {"keys": [jwk(OTHER)]})


async def test_where_nobody_signs_so_the_set_is_empty() -> None:
    async with open_room() as room:
        assert await room.call("GET", PATH) == (200, {"keys": []})


async def test_keys_can_only_be_read() -> None:
    async with open_room() as room, room.http.post(room.url(PATH)) as reply:
        assert reply.status == 405
