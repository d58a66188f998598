"""Signatures: published vectors, reference libraries, and keys that receivers would read differently."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from math import inf

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from bridge.delivery.signing import (
    Key,
    KeyRing,
    PrivateKey,
    PublicKey,
    SharedKey,
    new_private_key,
    new_secret,
    parse_key,
    parse_public_key,
    sign,
    webhook_id,
)
from bridge.errors import Fatal

VECTOR_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
VECTOR_PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
VECTORS = [
    (VECTOR_SECRET, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    (
        VECTOR_PRIVATE,
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    ),
]

NEW, OLD, OLDEST = SharedKey(b"n" * 32), SharedKey(b"o" * 32), SharedKey(b"e" * 32)
NEW_V1A, OLD_V1A = PrivateKey.from_seed(b"n" * 32), PrivateKey.from_seed(b"o" * 32)


def shown(prefix: str, raw: bytes) -> str:
    return prefix + base64.b64encode(raw).decode()


def private_key(text: str) -> PrivateKey:
    key = parse_key(text)
    assert isinstance(key, PrivateKey)
    return key


# -- what is signed


@pytest.mark.parametrize(("secret", "signature"), VECTORS)
def test_signs_the_published_vector(secret: str, signature: str) -> None:
    assert sign([parse_key(secret)], VECTOR_ID, 1614265330, VECTOR_BODY) == signature


def test_signs_what_the_standard_for_ed25519_publishes() -> None:
    key = PrivateKey.from_seed(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.raw.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert base64.b64decode(key.token(b"r").removeprefix("v1a,")).hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@given(raw=st.binary(min_size=24, max_size=64), body=st.dictionaries(st.text(), st.text()).map(orjson.dumps))
def test_reference_library_verifies_whatever_is_signed(raw: bytes, body: bytes) -> None:
    now_s = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now_s),
        "webhook-signature": sign([SharedKey(raw)], "msg_1", now_s, body),
    }
    Webhook(shown("whsec_", raw)).verify(body, headers)


@given(seed=st.binary(min_size=32, max_size=32), body=st.binary(), timestamp_s=st.integers(0, 1 << 33))
def test_an_ed25519_implementation_verifies_whatever_is_signed(seed: bytes, body: bytes, timestamp_s: int) -> None:
    key = PrivateKey.from_seed(seed)
    name, _, signature = sign([key], "msg_1", timestamp_s, body).partition(",")
    judge = Ed25519PublicKey.from_public_bytes(key.public.raw)
    judge.verify(base64.b64decode(signature, validate=True), f"msg_1.{timestamp_s}.".encode() + body)
    assert name == "v1a"
    with pytest.raises(InvalidSignature):
        judge.verify(base64.b64decode(signature), f"msg_1.{timestamp_s + 1}.".encode() + body)


def test_several_keys_sign_new_first_with_one_space_between() -> None:
    both = sign([NEW, OLD_V1A], "msg_1", 7, b"{}")
    assert both == f"{sign([NEW], 'msg_1', 7, b'{}')} {sign([OLD_V1A], 'msg_1', 7, b'{}')}"
    assert re.fullmatch(r"v1,[A-Za-z0-9+/]{43}= v1a,[A-Za-z0-9+/]{86}==", both)


# -- keys as text


@pytest.mark.parametrize("size", [24, 25, 32, 64])
def test_takes_secrets_of_24_to_64_bytes(size: int) -> None:
    raw = bytes(range(size))
    assert parse_key(shown("whsec_", raw)) == SharedKey(raw)


def test_a_private_key_may_come_with_its_public_key_or_without() -> None:
    whole = private_key(VECTOR_PRIVATE)
    seed = base64.b64decode(VECTOR_PRIVATE.removeprefix("whsk_"))[:32]
    assert private_key(shown("whsk_", seed)) == whole
    assert str(whole.public) == VECTOR_PUBLIC
    assert parse_public_key(VECTOR_PUBLIC) == whole.public


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "starts with 'whsec_' (scheme v1) or 'whsk_' (scheme v1a)"),
        (base64.b64encode(b"k" * 32).decode(), "starts with 'whsec_'"),
        ("WHSEC_" + base64.b64encode(b"k" * 32).decode(), "starts with 'whsec_'"),
        (" " + shown("whsec_", b"k" * 32), "starts with 'whsec_'"),
        ("whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(), "url-safe"),
        (shown("whsec_", b"k" * 32).rstrip("="), "padding"),
        (shown("whsec_", b"k" * 32) + "=", "padding"),
        (shown("whsec_", b"k" * 32) + "\n", "padding"),
        (shown("whsec_", b"k" * 32).replace("a", "ä", 1), "padding"),
        (shown("whsec_", b"k" * 32)[:-2] + "x=", "stray bits"),
        (shown("whsec_", b"k" * 23), "23 bytes"),
        (shown("whsec_", b"k" * 65), "65 bytes"),
        ("whsec_", "0 bytes"),
        (VECTOR_PUBLIC, "public key, which receivers hold"),
        ("whsk_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(), "url-safe"),
        (shown("whsk_", b"k" * 32).rstrip("="), "padding"),
        (shown("whsk_", b"k" * 32)[:-2] + "x=", "stray bits"),
        (shown("whsk_", b"k" * 31), "31 bytes"),
        (shown("whsk_", b"k" * 33), "33 bytes"),
        (shown("whsk_", b"k" * 65), "65 bytes"),
        (shown("whsk_", b"k" * 64), "does not match the public key"),
        (shown("whsk_", NEW_V1A.public.raw + b"n" * 32), "does not match the public key"),
        ("whsk_", "0 bytes"),
    ],
)
def test_refuses_keys_that_libraries_would_read_differently(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        parse_key(text)
    encoded = text.strip().partition("_")[2] or text
    assert len(encoded) < 8 or encoded[:8] not in str(caught.value)
    assert caught.value.__cause__ is None  # a cause would carry the secret into a traceback


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (VECTOR_SECRET, "starts with 'whpk_'"),
        (VECTOR_PUBLIC.rstrip("="), "padding"),
        (VECTOR_PUBLIC[:-2] + "5=", "stray bits"),
        (shown("whpk_", b"k" * 31), "31 bytes"),
        (shown("whpk_", b"k" * 64), "64 bytes"),
    ],
)
def test_refuses_what_is_no_public_key(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_public_key(text)


def test_a_fresh_secret_is_taken_and_never_the_same() -> None:
    assert parse_key(new_secret()) != parse_key(new_secret())
    secret, public = new_private_key()
    assert private_key(secret).public == public != new_private_key()[1]


@pytest.mark.parametrize("key", [SharedKey(b"k" * 32), PrivateKey.from_seed(b"k" * 32), KeyRing([(OLD, inf)])])
def test_nothing_shows_a_secret(key: object) -> None:
    assert not re.search("k{8}|o{8}|a2tr|6b6b", f"{key} {key!r}")


# -- rotation


def test_the_old_key_signs_up_to_its_end_and_the_new_one_comes_first() -> None:
    ring = KeyRing([(NEW, inf), (OLD, 1000.5), (OLDEST, 900.0)])
    assert ring.current(0) == [NEW, OLD, OLDEST]
    assert ring.current(899.9) == [NEW, OLD, OLDEST]
    assert ring.current(900) == [NEW, OLD]
    assert ring.current(1000) == [NEW, OLD]
    assert ring.current(1000.5) == [NEW]
    assert ring.current(1 << 40) == [NEW]


def test_each_attempt_is_signed_by_the_keys_of_its_own_time() -> None:
    ring = KeyRing([(NEW, inf), (OLD, 1000)])
    assert ring.sign("msg_1", 999, b"{}") == sign([NEW, OLD], "msg_1", 999, b"{}")
    assert ring.sign("msg_1", 1000, b"{}") == sign([NEW], "msg_1", 1000, b"{}")


def test_with_every_key_ended_nothing_is_signed_and_a_person_is_told() -> None:
    ring = KeyRing([(NEW, 1_800_000_000), (OLD, 1_700_000_000)])
    ring.sign("msg_1", 1_799_999_999, b"{}")
    with pytest.raises(Fatal) as caught:
        ring.sign("msg_1", 1_800_000_000, b"{}")
    assert caught.value.reason == "keys_ended"
    assert str(caught.value) == (
        "secret: every webhook secret has ended, the last one at 2027-01-15T08:00:00Z: list a new one first"
    )


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], "one to 3 keys, not with 0"),
        ([(SharedKey(bytes([n]) * 32), inf) for n in range(4)], "one to 3 keys, not with 4"),
        ([(NEW, inf), (OLD, 5), (NEW, 5)], "listed twice"),
        ([(NEW_V1A, inf), (PrivateKey.from_seed(b"n" * 32), 5)], "listed twice"),
        ([(NEW, inf), (OLD_V1A, inf)], "mixed"),
        ([(OLD, 5), (NEW, inf)], "list the new one first"),
        ([(NEW, inf), (OLDEST, 4), (OLD, 5)], "list the new one first"),
    ],
)
def test_a_ring_that_receivers_would_stumble_over_is_refused(keys: list[tuple[Key, float]], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        KeyRing(keys)


def test_schemes_are_mixed_only_where_that_is_allowed() -> None:
    ring = KeyRing([(NEW_V1A, inf), (OLD, 1000)], allow_mixed_schemes=True)
    assert [token.partition(",")[0] for token in ring.sign("msg_1", 7, b"{}").split(" ")] == ["v1a", "v1"]


def test_public_keys_are_those_of_v1a_that_have_not_ended() -> None:
    ring = KeyRing([(NEW_V1A, inf), (OLD_V1A, 1000), (OLDEST, 1000)], allow_mixed_schemes=True)
    assert ring.public_keys(999) == [NEW_V1A.public, OLD_V1A.public]
    assert ring.public_keys(1000) == [NEW_V1A.public]
    assert KeyRing([(NEW, inf)]).public_keys(0) == []
    assert all(type(key) is PublicKey for key in ring.public_keys(0))


# -- webhook ids


@given(event_id=st.text(), endpoint=st.text())
def test_webhook_id_is_stable_and_safe(event_id: str, endpoint: str) -> None:
    derived = webhook_id(event_id, endpoint)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", derived)
    assert derived == webhook_id(event_id, endpoint)


def test_webhook_id_is_the_same_in_every_version() -> None:
    assert webhook_id("auvy-prod/job-1/5-0", "partner") == "msg_u4hG_9TIBfS35I0YQ2QXYR86Gzonwsh67YofTYRgoTw"


def test_webhook_id_differs_between_events_and_between_endpoints() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("1:a", "b"), ("1", ":ab")]
    assert len({webhook_id(*pair) for pair in pairs}) == len(pairs)
