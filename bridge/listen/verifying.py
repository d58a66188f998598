"""Whether a delivery is genuine and, where not, which rule it breaks: the only place that judges signatures. Pure.

The rules are those of Standard Webhooks 1.0.0, as strict as the strictest of its libraries.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bridge.delivery.signing import PublicKey, SharedKey

TOLERANCE_S = 300
"""How far the sender's clock may be off, either way: the same in every reference library."""
REMEMBERED_MAX = 10_000

Rule = Literal["size", "id", "timestamp", "signature", "scheme", "secret", "body"]
VerifyingKey = SharedKey | PublicKey

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,20}")
_SIGNATURE_BYTES = {"v1": 32, "v1a": 64}


class Headers(Protocol):
    """A request's headers, by names in which case does not matter."""

    def getall(self, key: str, default: list[str]) -> list[str]: ...


class Flaw(Exception):
    """The one rule that a delivery breaks, and in a sentence how."""

    def __init__(self, rule: Rule, text: str) -> None:
        super().__init__(text)
        self.rule = rule


class Proof(NamedTuple):
    """What makes a delivery genuine."""

    scheme: str
    key: int
    """Which of the keys given fits, from 1."""


class Signed(NamedTuple):
    """What a signature is about, and the signatures."""

    webhook_id: str
    timestamp: str
    tokens: tuple[tuple[str, bytes], ...]
    """Scheme and signature, those of unknown schemes left out."""

    def content(self, body: bytes) -> bytes:
        return f"{self.webhook_id}.{self.timestamp}.".encode() + body


class Verifier:
    """Judges deliveries by the keys it holds, and remembers those that were genuine, to tell more about others."""

    def __init__(self, keys: Sequence[VerifyingKey]) -> None:
        self.keys = tuple(keys)
        self._genuine: OrderedDict[str, Signed] = OrderedDict()
        self._proven: set[VerifyingKey] = set()

    def verify(self, headers: Headers, body: bytes, now_s: float) -> Proof:
        """Raises `Flaw` with the first rule that is broken; `now_s` is Unix time."""
        signed = read_headers(headers, now_s)
        found = self._fitting(signed, body)
        if found is None:
            raise self._flaw(signed, body)
        self._proven.add(self.keys[found.key - 1])
        self._genuine[signed.webhook_id] = signed
        if len(self._genuine) > REMEMBERED_MAX:
            self._genuine.popitem(last=False)
        return found

    def _fitting(self, signed: Signed, body: bytes) -> Proof | None:
        content = signed.content(body)
        for scheme, signature in signed.tokens:
            for number, key in enumerate(self.keys, start=1):
                if _scheme(key) == scheme and _fits(key, signature, content):
                    return Proof(scheme, number)
        return None

    def _flaw(self, signed: Signed, body: bytes) -> Flaw:
        """Why nothing fits, as far as that can be known."""
        used, held = {scheme for scheme, _ in signed.tokens}, {_scheme(key) for key in self.keys}
        if not used & held:
            return Flaw("scheme", f"signed by scheme {_list(used)}, but only a key of {_list(held)} was given")
        for what, other in _other_bodies(body):
            if self._fitting(signed, other):
                return Flaw("body", f"the body was changed after it was signed: {what}")
        if any(
            _fits(key, signature, signed.content(body)) for _, signature in signed.tokens for key in self._undecoded()
        ):
            return Flaw("secret", "signed with the secret's text: the key is what its base64 after whsec_ decodes to")
        earlier = self._genuine.get(signed.webhook_id)
        if earlier is not None and self._fitting(signed._replace(timestamp=earlier.timestamp), body):
            return Flaw("timestamp", f"signed for {earlier.timestamp}, an earlier attempt: sign every one afresh")
        if earlier == signed:
            return Flaw("body", "the body is not the one that came with the same id, timestamp and signature before")
        if any(_scheme(key) in used for key in self._proven):
            return Flaw("body", "the body, or its id or timestamp, was changed after it was signed: the key is right")
        return Flaw("secret", "no key fits: the sender signs with another one, or the body was changed on its way")

    def _undecoded(self) -> Iterator[SharedKey]:
        """The keys of senders who took the secret as it is written."""
        for key in self.keys:
            if isinstance(key, SharedKey):
                text = base64.b64encode(key.secret)
                yield SharedKey(text)
                yield SharedKey(b"whsec_" + text)


def read_headers(headers: Headers, now_s: float) -> Signed:
    """The three headers of a delivery. Raises `Flaw` when one is missing, malformed or out of time."""
    webhook_id = _only(headers, "webhook-id", "id")
    if not _ID.fullmatch(webhook_id):
        raise Flaw("id", "webhook-id is malformed: it takes 1 to 64 letters, digits, - and _")
    timestamp = _only(headers, "webhook-timestamp", "timestamp")
    if not _SECONDS.fullmatch(timestamp):
        raise Flaw("timestamp", "webhook-timestamp is malformed: it takes whole Unix seconds in digits")
    if abs(age_s := now_s - int(timestamp)) > TOLERANCE_S:
        raise Flaw("timestamp", f"webhook-timestamp is outside tolerance: {_off(age_s, now_s)}")
    return Signed(webhook_id, timestamp, tuple(_tokens(_only(headers, "webhook-signature", "signature"))))


def _only(headers: Headers, name: str, rule: Rule) -> str:
    values = headers.getall(name, [])
    if len(values) != 1:
        raise Flaw(rule, f"{name} is missing" if not values else f"{name} is there {len(values)} times")
    return values[0]


def _off(age_s: float, now_s: float) -> str:
    if -age_s > now_s * 100:
        return "it looks like milliseconds; it takes seconds"
    return f"{abs(age_s):.0f} s {'old' if age_s > 0 else 'ahead of this clock'}, and {TOLERANCE_S} s are allowed"


def _tokens(header: str) -> Iterator[tuple[str, bytes]]:
    known = False
    for token in header.split(" "):
        if not token:
            raise Flaw("signature", "webhook-signature is malformed: one space between signatures, none at either end")
        scheme, comma, encoded = token.partition(",")
        if not comma:
            raise Flaw("signature", "webhook-signature is malformed: a signature begins with its scheme and a comma")
        if scheme not in _SIGNATURE_BYTES:
            continue
        known = True
        yield scheme, _signature(scheme, encoded)
    if not known:
        raise Flaw("signature", "webhook-signature holds no signature of scheme v1 or v1a")


def _signature(scheme: str, encoded: str) -> bytes:
    try:
        signature = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Flaw("signature", f"webhook-signature is malformed: its {scheme} is not padded standard base64") from None
    if len(signature) != _SIGNATURE_BYTES[scheme]:
        wanted = _SIGNATURE_BYTES[scheme]
        raise Flaw(
            "signature", f"webhook-signature is malformed: its {scheme} has {len(signature)} bytes, not {wanted}"
        )
    return signature


def _scheme(key: VerifyingKey) -> str:
    return "v1" if isinstance(key, SharedKey) else "v1a"


def _fits(key: VerifyingKey, signature: bytes, content: bytes) -> bool:
    if isinstance(key, SharedKey):
        return hmac.compare_digest(hmac.digest(key.secret, content, "sha256"), signature)
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _other_bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    """What the body may have been before something on its way, or the receiver's own framework, touched it."""
    yield "a line end was added", body.rstrip(b"\r\n")
    yield "its last line end was cut off", body + b"\n"
    yield "its line ends were rewritten", body.replace(b"\r\n", b"\n")
    try:
        yield "its JSON was read and written anew", orjson.dumps(orjson.loads(body))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return


def _list(schemes: set[str]) -> str:
    return " and ".join(sorted(schemes))
