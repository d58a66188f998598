"""Signatures judged by outsiders: receivers in their own processes, each with a library that is not ours."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import receiving
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.jwk import KeySet, OKPKey
from judging import node, python, running

from bridge.app import assemble
from bridge.delivery import sinks
from bridge.delivery.signing import PrivateKey, new_private_key, new_secret, parse_key
from bridge.delivery.sink import Trial
from bridge.delivery.sinks.webhook import WebhookSettings, WebhookSink
from bridge.errors import Fatal, Temporary
from bridge.intake import providers
from bridge.secret import Referenced
from bridge.settings import load

_STANDARDWEBHOOKS_PYTHON = """\
from standardwebhooks import Webhook

def judge(secret, body, headers):
    Webhook(secret).verify(body, headers)
"""

_CRYPTOGRAPHY = """\
import base64
from contextlib import suppress
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

def judge(public, body, headers):
    headers = {name.lower(): value for name, value in headers.items()}
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_"), validate=True))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for token in headers["webhook-signature"].split(" "):
        scheme, signature = token.split(",")
        if scheme == "v1a":
            with suppress(InvalidSignature):
                return key.verify(base64.b64decode(signature, validate=True), content)
    raise ValueError("no signature fits")
"""

_STANDARDWEBHOOKS_NODE = """\
import { Webhook } from "standardwebhooks";

const judge = (secret, body, headers) => new Webhook(secret).verify(body, headers);
"""

# Its key is the address of the JWK set, and what it verifies with any key found there.
_NODE_CRYPTO = """\
import { createPublicKey, verify } from "node:crypto";

const judge = async (address, body, headers) => {
  const { keys } = await (await fetch(address)).json();
  const content = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
  const signatures = headers["webhook-signature"].split(" ").map((token) => token.split(","));
  const fits = ([scheme, signature]) => scheme === "v1a" && keys.some((key) =>
    verify(null, content, createPublicKey({ key, format: "jwk" }), Buffer.from(signature, "base64")));
  if (!signatures.some(fits)) throw new Error("no signature fits");
};
"""

NEW, OLD, OLDEST, STRANGER = SECRETS = [new_secret() for _ in range(4)]
PRIVATE_KEYS = [new_private_key() for _ in range(3)]
NEW_V1A, OLD_V1A, ENDED_V1A = (secret for secret, _ in PRIVATE_KEYS)
PUBLIC_KEYS = [str(public) for _, public in PRIVATE_KEYS]

DATA = '{"job":{"id":"job-1","status":"running"},"piece":"Grüße 🎈\\u0000"}'.encode()
ENTRY = receiving.ENTRY._replace(sequence=1, data=DATA)


@pytest.fixture(scope="module", params=["pypi", "npm"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A receiver with the reference library of its language, which holds `SECRETS`."""
    folder = tmp_path_factory.mktemp("receiver")
    pypi = request.param == "pypi"
    with running(
        python(_STANDARDWEBHOOKS_PYTHON, SECRETS) if pypi else node(_STANDARDWEBHOOKS_NODE, SECRETS, folder)
    ) as address:
        yield address


@pytest.fixture(scope="module")
def cryptography() -> Iterator[str]:
    """A receiver of `v1a` that holds `PUBLIC_KEYS`."""
    with running(python(_CRYPTOGRAPHY, PUBLIC_KEYS)) as address:
        yield address


def ending(secret: str, until_s: float) -> dict[str, Any]:
    return {"key": Referenced(secret), "until": datetime.fromtimestamp(until_s, UTC)}


def made(scheme: str) -> tuple[str, str]:
    """What `jobbridge webhook-secret` prints: the secret, and the public key if it has one."""
    command = [sys.executable, "-m", "bridge", "webhook-secret", scheme]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip(), done.stderr.strip()


async def refused_by(
    receiver: str, holders: Sequence[int], secrets: Sequence[Any], now_s: float | None = None, **options: Any
) -> list[int]:
    """Which of the receivers that hold the keys of these numbers refuse a delivery."""
    secret = [Referenced(each) if isinstance(each, str) else each for each in secrets]
    refused = []
    for holder in holders:
        given = {"kind": "webhook", "url": f"{receiver}/{holder}", "secret": secret, "allow_mixed_schemes": True}
        settings = WebhookSettings.model_validate(
            {**given, "allow_http": True, "allow_private_networks": True, **options}
        )
        sink = WebhookSink("partner", settings, clock=time.time if now_s is None else lambda: now_s)
        async with sink.endpoint() as endpoint:
            try:
                await endpoint.deliver(ENTRY, Trial(1))
            except Temporary as error:
                refused.append((holder, error.status))
    assert {status for _, status in refused} <= {400}
    return [holder for holder, _ in refused]


# -- v1


@pytest.mark.parametrize("body", ["standard", "cloudevents", "cloudevents_binary", "thin"])
async def test_the_libraries_verify_every_form(library: str, body: str) -> None:
    assert await refused_by(library, [0, 3], [NEW], body=body) == [3]


@pytest.mark.parametrize(
    ("secrets", "holders"),
    [
        ([NEW, OLD], [0, 1]),
        ([OLD, NEW], [0, 1]),
        ([NEW, OLD, OLDEST], [0, 1, 2]),
        ([NEW_V1A, OLD], [1]),
        ([NEW, OLD_V1A], [0]),
        ([NEW_V1A, OLD_V1A, OLDEST], [2]),
    ],
)
async def test_every_holder_of_a_listed_key_verifies_and_nobody_else(
    library: str, secrets: list[str], holders: list[int]
) -> None:
    everybody = range(len(SECRETS))
    assert await refused_by(library, everybody, secrets) == [each for each in everybody if each not in holders]


async def test_from_its_end_on_an_old_key_verifies_nothing_while_the_endpoint_stays_open(library: str) -> None:
    until_s = int(time.time())
    secrets = [NEW, ending(OLD, until_s + 100)]
    assert await refused_by(library, [0, 1], secrets, until_s + 99.9) == []
    assert await refused_by(library, [0, 1], secrets, until_s + 100) == [1]


async def test_with_every_key_ended_a_delivery_fails_and_tells_a_person(library: str) -> None:
    until_s = int(time.time()) + 100
    with pytest.raises(Fatal, match=r"^secret: every webhook secret has ended, the last one at ") as caught:
        await refused_by(library, [0], [ending(NEW, until_s)], until_s)
    assert caught.value.reason == "keys_ended"


@pytest.mark.parametrize(("scheme", "judge"), [("v1", _STANDARDWEBHOOKS_PYTHON), ("v1a", _CRYPTOGRAPHY)])
async def test_the_command_makes_secrets_that_receivers_verify(scheme: str, judge: str) -> None:
    secret, public = made(scheme)
    with running(python(judge, [public or secret])) as receiver:
        assert await refused_by(receiver, [0], [secret]) == []


# -- v1a


@pytest.mark.parametrize(
    ("secrets", "holders"),
    [([NEW_V1A], [0]), ([OLD_V1A, NEW_V1A], [0, 1]), ([NEW, OLD_V1A], [1]), ([NEW_V1A, OLD], [0])],
)
async def test_holders_of_the_public_key_verify_v1a(cryptography: str, secrets: list[str], holders: list[int]) -> None:
    everybody = range(len(PUBLIC_KEYS))
    assert await refused_by(cryptography, everybody, secrets) == [each for each in everybody if each not in holders]


@asynccontextmanager
async def key_set(folder: Path, secrets: str) -> AsyncIterator[str]:
    """The address of the JWK set of a bridge with an endpoint that signs with these, as the configuration has them."""
    file = folder / "jobbridge.yaml"
    file.write_text(
        f"""\
sources:
  auvy: {{provider: auvy, base_url: "http://127.0.0.1:9", token: "${{V1}}"}}
sinks:
  shared: {{kind: webhook, url: "https://shared.example", secret: "${{V1}}"}}
  partner:
    kind: webhook
    url: https://partner.example
    allow_mixed_schemes: true
    secret:
{secrets}
  other: {{kind: webhook, url: "https://other.example", secret: "${{NEW}}"}}
journal: {{url: "sqlite:///{folder}/journal.db"}}
control: {{port: 0}}
"""
    )
    environ = {"V1": NEW, "NEW": NEW_V1A, "OLD": OLD_V1A, "ENDED": ENDED_V1A}
    catalogues = providers.catalogue(), sinks.catalogue()
    settings = load(file, environ, *catalogues)
    async with assemble(settings, *catalogues, structlog.get_logger()) as bridge:
        yield f"http://127.0.0.1:{bridge.port}/.well-known/webhook-keys"


ROTATION = """\
      - ${NEW}
      - {key: "${OLD}", until: "2990-01-01T00:00:00Z"}
      - {key: "${ENDED}", until: "2020-01-01T00:00:00Z"}
"""


async def fetched(address: str) -> bytes:
    async with aiohttp.ClientSession() as http, http.get(address) as reply:
        assert reply.status == 200
        return await reply.read()


async def test_other_libraries_read_the_key_set_as_the_keys_that_sign_now(tmp_path: Path) -> None:
    async with key_set(tmp_path, ROTATION) as address:
        published = orjson.loads(await fetched(address))
    expected = [parse_key(secret) for secret in (NEW_V1A, OLD_V1A)]
    read = KeySet.import_key_set(published)
    for key, ours in zip(read.keys, expected, strict=True):
        assert isinstance(ours, PrivateKey)
        assert isinstance(key, OKPKey)
        assert not key.is_private
        assert isinstance(key.raw_value, Ed25519PublicKey)
        assert key.raw_value.public_bytes_raw() == ours.public.raw
        assert key.kid == key.thumbprint()


async def test_of_v1_the_key_set_tells_nothing(tmp_path: Path) -> None:
    async with key_set(tmp_path, "      - ${NEW}\n      - ${V1}\n") as address:
        text = await fetched(address)
    assert len(orjson.loads(text)["keys"]) == 1
    assert b"oct" not in text
    assert NEW.removeprefix("whsec_")[:16].encode() not in text


async def test_a_receiver_that_knows_only_the_key_set_verifies_v1a(tmp_path: Path) -> None:
    async with key_set(tmp_path, ROTATION) as address:
        with ExitStack() as stack:
            receiver = stack.enter_context(running(node(_NODE_CRYPTO, [address], tmp_path)))
            assert await refused_by(receiver, [0], [NEW_V1A]) == []
            assert await refused_by(receiver, [0], [NEW, OLD_V1A]) == []
            assert await refused_by(receiver, [0], [ENDED_V1A]) == [0]
