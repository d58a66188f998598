"""Signatures: the published vector, the reference library, and secrets that receivers would read differently."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from bridge.delivery.signing import SharedKey, parse_secret, sign, webhook_id

VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def secret_of(raw: bytes) -> str:
    return "whsec_" + base64.b64encode(raw).decode()


def test_signs_the_published_vector() -> None:
    key = parse_secret(VECTOR_SECRET)
    assert sign([key], VECTOR_ID, 1614265330, b'{"test": 2432232314}') == VECTOR_SIGNATURE


@given(
    raw=st.binary(min_size=24, max_size=64),
    body=st.dictionaries(st.text(), st.text()).map(orjson.dumps),
)
def test_reference_library_verifies_whatever_is_signed(raw: bytes, body: bytes) -> None:
    now_s = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now_s),
        "webhook-signature": sign([SharedKey(raw)], "msg_1", now_s, body),
    }
    Webhook(secret_of(raw)).verify(body, headers)


def test_several_keys_sign_new_first_with_one_space_between() -> None:
    new, old = SharedKey(b"n" * 32), SharedKey(b"o" * 32)
    both = sign([new, old], "msg_1", 7, b"{}")
    assert both == f"{sign([new], 'msg_1', 7, b'{}')} {sign([old], 'msg_1', 7, b'{}')}"


@pytest.mark.parametrize("size", [24, 25, 32, 64])
def test_takes_secrets_of_24_to_64_bytes(size: int) -> None:
    raw = bytes(range(size))
    assert parse_secret(secret_of(raw)) == SharedKey(raw)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (base64.b64encode(b"k" * 32).decode(), "starts with 'whsec_'"),
        ("whsk_" + base64.b64encode(b"k" * 32).decode(), "starts with 'whsec_'"),
        ("whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(), "url-safe"),
        (secret_of(b"k" * 32).rstrip("="), "padding"),
        (secret_of(b"k" * 32) + "\n", "padding"),
        (secret_of(b"k" * 32).replace("a", "ä", 1), "padding"),
        (secret_of(b"k" * 32)[:-2] + "x=", "stray bits"),
        (secret_of(b"k" * 23), "23 bytes"),
        (secret_of(b"k" * 65), "65 bytes"),
        ("whsec_", "0 bytes"),
    ],
)
def test_refuses_secrets_that_libraries_would_read_differently(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        parse_secret(text)
    assert text.removeprefix("whsec_")[:8] not in str(caught.value) or text == "whsec_"
    assert caught.value.__cause__ is None  # a cause would carry the secret into a traceback


def test_a_key_does_not_show_its_secret() -> None:
    assert "k" * 8 not in repr(SharedKey(b"k" * 32))


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
