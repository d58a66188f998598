"""Webhooks to one receiver by Standard Webhooks 1.0.0: one signed POST an event."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fnmatch import translate
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    StreamReader,
    TCPConnector,
)
from pydantic import AfterValidator, Discriminator, Field, SecretStr, Tag, model_validator

from bridge.delivery.dialling import public_socket
from bridge.delivery.envelope import DATA_TYPE, STRUCTURED_TYPE, standard, structured
from bridge.delivery.signing import KEYS_MAX, parse_secret, sign, webhook_id
from bridge.delivery.sink import Endpoint, Patience, Receipt, SinkSettings
from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.journal.store import Entry
from bridge.plug import Plug
from bridge.secret import Secret
from bridge.wire import USER_AGENT, excerpt, retry_after_s

# Below the 5 s after which common servers close an idle connection: a POST into a closing one counts as a failure.
_KEEPALIVE_S = 4.0


def _signs(secret: SecretStr) -> SecretStr:
    parse_secret(secret.get_secret_value())
    return secret


def _could_exist(url: SplitResult) -> bool:
    """Whether host and port are such that a look-up can at least be tried: the resolver raises what is no OSError."""
    try:
        return bool((url.hostname or "").encode("idna")) and url.port != 0
    except ValueError:
        return False


def _one_or_several(value: object) -> str:
    return "several" if isinstance(value, list) else "one"


_SigningSecret = Annotated[Secret, AfterValidator(_signs)]
_SigningSecrets = Annotated[list[_SigningSecret], Field(min_length=1, max_length=KEYS_MAX)]


class WebhookSettings(SinkSettings):
    """One receiver of webhooks."""

    url: str = Field(description="Where to POST. `https` unless allow_http is on.")
    secret: Annotated[
        Annotated[_SigningSecret, Tag("one")] | Annotated[_SigningSecrets, Tag("several")],
        Discriminator(_one_or_several),
    ] = Field(description="`whsec_...`, or a list of up to three while keys are changed: the new one first.")
    types: list[Annotated[str, Field(min_length=1)]] = Field(
        ["*"], min_length=1, description="Event types to send, as patterns such as `job.*`."
    )
    body: Literal["standard", "cloudevents"] = Field(
        "standard", description="`standard`: type, timestamp, data. `cloudevents`: the structured JSON form."
    )
    retry_schedule_s: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0),
        description="Waits before the second, third ... attempt. After the last one an event is a dead letter.",
    )
    retry_after_max_s: float = Field(3_600.0, ge=0, description="The receiver's `Retry-After` is obeyed up to this.")
    reject_4xx: bool = Field(
        False, description="Make an event a dead letter at once on a 4xx other than 408, 410, 425 and 429."
    )
    concurrency: int = Field(16, ge=1, le=1_000, description="Requests under way at once, each for another job.")
    timeout_s: float = Field(
        15.0, gt=0, description="Deadline of one attempt, from dialling to the answer's last byte."
    )
    answer_bytes_max: int = Field(64 << 10, ge=1, description="Of the receiver's answer, no more than this is read.")
    allow_private_networks: bool = Field(False, description="Let the receiver live on a private or local address.")
    allow_http: bool = Field(False, description="Let the URL be `http`, without encryption.")

    @model_validator(mode="after")
    def _url_can_be_used(self) -> WebhookSettings:
        url = urlsplit(self.url)
        if url.scheme not in {"https", "http"} or not url.hostname:
            raise ValueError("url must begin with https:// and name a host")
        if not _could_exist(url):
            raise ValueError("url names a host or a port that cannot exist")
        if url.username is not None or url.password is not None:
            raise ValueError("url must not hold a user name or a password: signatures prove who sent it")
        if url.scheme == "http" and not self.allow_http:
            raise ValueError("url is http, which sends events in the clear: use https, or set allow_http")
        return self

    @property
    def secrets(self) -> list[str]:
        """The secrets in plain text, new first."""
        secrets = self.secret if isinstance(self.secret, list) else [self.secret]
        return [secret.get_secret_value() for secret in secrets]


class WebhookEndpoint:
    """An open receiver. Every attempt is signed afresh with its own time; the webhook id never changes."""

    def __init__(
        self, name: str, settings: WebhookSettings, session: ClientSession, clock: Callable[[], float]
    ) -> None:
        self.patience = Patience(settings.retry_schedule_s, settings.retry_after_max_s, settings.concurrency)
        self._name = name
        self._settings = settings
        self._session = session
        self._clock = clock
        self._keys = [parse_secret(secret) for secret in settings.secrets]
        self._wanted = re.compile("|".join(map(translate, settings.types)))
        self._encode, self._content_type = _FORMS[settings.body]

    def wants(self, entry: Entry) -> bool:
        """Whether one of the configured patterns fits the event's type."""
        return self._wanted.match(entry.type) is not None

    async def deliver(self, entry: Entry, attempt: int) -> Receipt:  # noqa: ARG002 - receivers are not told the count
        """One POST. 2xx is a receipt, 410 `Fatal`; anything else, or nothing in time, is `Temporary`.

        With `reject_4xx` most of 4xx is `Rejected`. No error text holds the event, the secret or the URL's path.
        """
        body = self._encode(entry)
        started_s = time.monotonic()
        try:
            async with self._session.post(
                self._settings.url, data=body, headers=self._headers(entry, body), allow_redirects=False
            ) as answer:
                start = await _read(answer.content, self._settings.answer_bytes_max)
        except TimeoutError as error:
            text = f"{self._name}: no whole answer within {self._settings.timeout_s:g} s"
            raise Temporary(text, reason="timeout") from error
        except (ClientError, OSError) as error:
            raise Temporary(f"{self._name}: {_trouble(error)}", reason="network") from error
        if 200 <= answer.status < 300:
            return Receipt(answer.status, time.monotonic() - started_s)
        raise self._refusal(answer.status, answer.headers, start)

    def _headers(self, entry: Entry, body: bytes) -> dict[str, str]:
        identity = webhook_id(entry.id, self._name)
        timestamp_s = int(self._clock())
        return {
            "content-type": self._content_type,
            "webhook-id": identity,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign(self._keys, identity, timestamp_s, body),
        }

    def _refusal(self, status: int, headers: Mapping[str, str], start: bytes) -> BridgeError:
        what = f"{self._name}: HTTP {status}: {excerpt(start)}"
        if status == 410:
            return Fatal(what, reason="gone", status=status)
        if self._settings.reject_4xx and 400 <= status < 500 and status not in {408, 425, 429}:
            return Rejected(what, reason="refused", status=status)
        after_s = retry_after_s(headers.get("retry-after"), self._clock())
        return Temporary(what, reason=_reason(status), status=status, after_s=after_s)


class WebhookSink:
    """A receiver by name. The name goes into the webhook ids, so it is the receiver's identity over restarts."""

    def __init__(self, name: str, settings: WebhookSettings, clock: Callable[[], float] = time.time) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock

    def endpoint(self) -> AbstractAsyncContextManager[Endpoint]:
        """Open the receiver with a connection pool of its own. No proxy, cookies, redirects or decompression."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Endpoint]:
        settings = self._settings
        connector = TCPConnector(
            limit=settings.concurrency,
            keepalive_timeout=_KEEPALIVE_S,
            socket_factory=None if settings.allow_private_networks else public_socket,
        )
        async with ClientSession(
            connector=connector,
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(total=settings.timeout_s, ceil_threshold=float("inf")),
        ) as session:
            yield WebhookEndpoint(self._name, settings, session, self._clock)


_FORMS: dict[str, tuple[Callable[[Entry], bytes], str]] = {
    "standard": (standard, DATA_TYPE),
    "cloudevents": (structured, STRUCTURED_TYPE),
}


async def _read(stream: StreamReader, limit: int) -> bytes:
    """The answer, up to `limit` bytes. What is left unread costs the connection, which is then closed."""
    start = bytearray()
    while len(start) < limit and (chunk := await stream.read(limit - len(start))):
        start += chunk
    return bytes(start)


def _reason(status: int) -> str:
    if 300 <= status < 400:
        return "redirect"
    if status == 429:
        return "rate_limited"
    return "server_error" if status >= 500 else "refused"


def _trouble(error: ClientError | OSError) -> str:
    # Only connector errors are quoted: others may show the whole URL, whose path is often a secret.
    if isinstance(error, ClientConnectorError):
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__


def build(name: str, settings: WebhookSettings) -> WebhookSink:
    """A webhook sink from its settings."""
    return WebhookSink(name, settings)


PLUG = Plug(kind="webhook", settings=WebhookSettings, build=build)
