"""OAUTHBEARER: the only place that fetches tokens (client credentials, RFC 6749 section 4.4) and keeps them."""

from __future__ import annotations

import asyncio
import math
import re
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
from aiohttp import (
    ClientConnectorCertificateError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiokafka import errors as kafka
from aiokafka.abc import AbstractTokenProvider

from bridge.errors import BridgeError, Fatal, Temporary
from bridge.kafka.sasl import OAuth
from bridge.wire import USER_AGENT, basic, excerpt, retry_after_s, start_of

ANSWER_BYTES_MAX = 256 << 10
LIFETIME_S = 300.0
"""Of a token whose answer does not tell: short enough for any, long enough not to be a burden."""
RENEW_AT = 0.8
"""The part of a lifetime after which a successor is fetched: the rest is for an endpoint that is away."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1; control characters would end the SASL field
_WAIT_STATUSES = {408, 425, 429}
_ADVICE = {
    "invalid_client": "check `sasl.client_id` and `sasl.client_secret`",
    "unauthorized_client": "the client `sasl.client_id` may not use the client credentials grant",
    "unsupported_grant_type": "`sasl.token_url` does not offer the client credentials grant",
    "invalid_scope": "change `sasl.scope`",
    "invalid_target": "change the audience or resource in `sasl.token_parameters`",
}


class Tokens(AbstractTokenProvider):  # type: ignore[misc] # the library is untyped
    """The token of one client, shared by all its connections and fetched again ahead of its end."""

    def __init__(self, settings: OAuth, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._fetching = asyncio.Lock()
        self._token = ""
        self._ends_s = 0.0
        self.renew_s = 0.0
        """When a successor is due, on the clock."""

    async def fresh(self, refused: str | None = None) -> str:
        """A token that is good for a while, and not the one that the brokers refused. As long as the old one lives, it
        is given where there is no new one; after that raises `Temporary` when the endpoint is away, `Fatal` when it
        refuses."""
        async with self._fetching:
            if self._token == refused:
                self._ends_s = self.renew_s = -math.inf
            if self._clock() >= self.renew_s:
                try:
                    await self._renew()
                except BridgeError:
                    left_s = self._ends_s - self._clock()
                    if left_s <= 0:
                        raise
                    self.renew_s = self._clock() + left_s * RENEW_AT
            return self._token

    async def token(self) -> str:
        """For aiokafka's own reconnects, which survive its own errors only."""
        try:
            return await self.fresh()
        except BridgeError as error:
            raise kafka.KafkaConnectionError(str(error)) from error

    def extensions(self) -> dict[str, str]:
        """For aiokafka."""
        return self._settings.extensions

    async def _renew(self) -> None:
        asked_s = self._clock()
        self._token, lifetime_s = await _fetch(self._settings)
        self._ends_s = asked_s + lifetime_s
        self.renew_s = asked_s + lifetime_s * RENEW_AT


async def _fetch(settings: OAuth) -> tuple[str, float]:
    """A token and its lifetime in seconds."""
    where = f"the token endpoint {settings.token_url}"
    try:
        # In a thread: the system's authorities are many, and reading them all takes long.
        context = await asyncio.to_thread(settings.token_context)
    except ValueError as error:
        # It was good at the start: somebody is replacing the file, and is probably not done yet.
        raise Temporary(f"{where} cannot be asked: {error}", reason="tls_files") from error
    try:
        async with (
            _session(settings, context) as session,
            session.post(settings.token_url, allow_redirects=False, **_form(settings)) as answer,
        ):
            body = await start_of(answer.content, ANSWER_BYTES_MAX + 1)
            if len(body) > ANSWER_BYTES_MAX:
                body = b""  # is refused below as no token
    except ClientConnectorCertificateError as error:
        raise Fatal(
            f"{where} has a certificate that is not trusted: set `sasl.token_ca_file` ({error})", reason="kafka_denied"
        ) from error
    except TimeoutError as error:
        raise Temporary(f"{where} did not answer within {settings.token_timeout_s:g} s", reason="timeout") from error
    except (ClientError, OSError) as error:
        raise Temporary(f"{where} cannot be reached: {error}", reason="network") from error
    if answer.status != 200:
        raise _refusal(where, answer, body, settings)
    return _read(where, body)


def _session(settings: OAuth, context: ssl.SSLContext) -> ClientSession:
    """One for a single request: tokens are fetched so rarely that no connection would live until the next."""
    return ClientSession(
        connector=TCPConnector(ssl=context, force_close=True),
        timeout=ClientTimeout(total=settings.token_timeout_s),
        cookie_jar=DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
    )


def _form(settings: OAuth) -> dict[str, Any]:
    form = {"grant_type": "client_credentials"} | settings.token_parameters
    if settings.scope:
        form["scope"] = settings.scope
    name, secret = settings.client_id, settings.client_secret.get_secret_value()
    if settings.client_auth == "form":
        return {"data": form | {"client_id": name, "client_secret": secret}}
    # RFC 6749 section 2.3.1: both are form-encoded before they become a Basic credential.
    return {"data": form, "headers": {"Authorization": _basic(settings)}}


def _basic(settings: OAuth) -> str:
    name, secret = settings.client_id, settings.client_secret.get_secret_value()
    return basic(quote_plus(name), quote_plus(secret))


def _refusal(where: str, answer: ClientResponse, body: bytes, settings: OAuth) -> BridgeError:
    status = answer.status
    if status >= 500 or status in _WAIT_STATUSES:
        after_s = retry_after_s(answer.headers.get("Retry-After"), time.time())
        return Temporary(f"{where} answered {status}", reason="token_refused", status=status, after_s=after_s)
    code = _code(body)
    advice = _ADVICE.get(code, _ADVICE["invalid_client"] if status == 401 else "check `sasl.token_url`")
    return Fatal(f"{where} answered {status}: {advice} ({_told(body, settings)})", reason="kafka_denied", status=status)


def _told(body: bytes, settings: OAuth) -> str:
    """What it says, without what it repeats of our credentials; hidden before the end is cut off, maybe amid them."""
    secret = settings.client_secret.get_secret_value()
    for form in {
        secret,
        quote_plus(secret),
        quote(secret, safe=""),
        _basic(settings).removeprefix("Basic "),
        orjson.dumps(secret)[1:-1].decode(),
    }:
        body = body.replace(form.encode(), b"***")
    return excerpt(body)


def _code(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"])
    except (ValueError, TypeError, KeyError):
        return ""


def _read(where: str, body: bytes) -> tuple[str, float]:
    try:
        answer = orjson.loads(body)
        token, lifetime = answer["access_token"], answer.get("expires_in")
        lifetime_s = LIFETIME_S if lifetime is None else float(lifetime)
        usable = isinstance(token, str) and bool(_TOKEN.fullmatch(token)) and 0 <= lifetime_s < math.inf
    except (ValueError, TypeError, KeyError, AttributeError):
        usable = False
    if not usable:
        # Never the body, nor the error from reading it: both could hold the token.
        raise Fatal(f"{where} gave no token: check `sasl.token_url`", reason="kafka_settings")
    if lifetime_s == 0:  # one that it keeps, in its last moments
        raise Temporary(f"{where} gave a token that ends at once", reason="token_refused")
    return token, lifetime_s
