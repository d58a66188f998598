"""One attempt at a receiver: a signed POST, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    StreamReader,
)

from bridge.delivery.sink import Receipt, Trial
from bridge.delivery.sinks.webhook.answers import refusal
from bridge.delivery.sinks.webhook.connections import Connections, trial_now, trouble
from bridge.delivery.sinks.webhook.envelopes import Envelopes
from bridge.delivery.sinks.webhook.rate import Rate
from bridge.delivery.sinks.webhook.settings import WebhookSettings
from bridge.errors import Temporary
from bridge.journal.store import Entry
from bridge.tls import Certificates, Tls
from bridge.wire import USER_AGENT, excerpt


class WebhookEndpoint:
    """An open receiver.

    Making one raises `Temporary` while certificate files cannot be used: they may be on their way.
    """

    def __init__(
        self, name: str, settings: WebhookSettings, session: ClientSession, rate: Rate, clock: Callable[[], float]
    ) -> None:
        self.patience = settings.patience
        self._envelopes = Envelopes(name, settings, clock)
        self.wants = self._envelopes.judge
        self._name = name
        self._settings = settings
        self._session = session
        self._rate = rate
        self._clock = clock
        self._headers = {each: value.get_secret_value() for each, value in settings.headers.items()}
        self._certificates = _certificates(name, settings.tls)

    async def deliver(self, entry: Entry, trial: Trial) -> Receipt:
        """One POST, when the rate allows it. Nothing in time, or an answer other than 2xx, is mostly `Temporary`.

        No error text holds the event, a secret or the URL's path.
        """
        await self._rate.turn()
        trial_now.set(trial)
        started_s, start = time.monotonic(), bytearray()
        try:
            async with self._post(entry, trial) as answer:
                trial.status = answer.status
                await _read(answer.content, start, self._settings.answer_bytes_max)
        except ConnectionTimeoutError as error:
            raise self._late("connection", self._settings.connect_timeout_s) from error
        except TimeoutError as error:
            raise self._late("whole answer", self._settings.timeout_s) from error
        except (ClientError, OSError) as error:
            raise Temporary(f"{self._name}: {trouble(error)}", reason="network") from error
        finally:
            trial.answer = excerpt(bytes(start[:1_000]))
        what = f"{self._name}: HTTP {answer.status}: {trial.answer}"
        refused = refusal(answer.status, answer.headers, what, self._clock(), reject_4xx=self._settings.reject_4xx)
        if refused is not None:
            raise refused
        return Receipt(answer.status, time.monotonic() - started_s)

    def _post(self, entry: Entry, trial: Trial) -> AbstractAsyncContextManager[ClientResponse]:
        ours, body = self._envelopes.signed(entry, trial.previous)
        replay = {"webhook-replay": str(trial.redriven)} if trial.redriven else {}
        return self._session.post(
            self._settings.url,
            data=body,
            headers={**self._headers, **ours, **replay},
            ssl=self._certificates.latest() if self._certificates else True,  # a new one makes new connections
            allow_redirects=False,
        )

    def _late(self, what: str, limit_s: float) -> Temporary:
        return Temporary(f"{self._name}: no {what} within {limit_s:g} s", reason="timeout")


def open_session(settings: WebhookSettings) -> ClientSession:
    """A client with a pool of its own. No proxy, cookies or decompression."""
    return ClientSession(
        connector=Connections(settings, settings.concurrency),
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        timeout=ClientTimeout(
            total=settings.timeout_s, connect=settings.connect_timeout_s, ceil_threshold=float("inf")
        ),
    )


def _certificates(name: str, tls: Tls | None) -> Certificates | None:
    try:
        return Certificates(tls) if tls else None
    except ValueError as error:  # they could when the settings were read
        raise Temporary(f"{name}: {error}", reason="tls_files") from error


async def _read(stream: StreamReader, start: bytearray, limit: int) -> None:
    """The answer into `start`, up to `limit` bytes. What is left unread costs the connection, which is then closed."""
    while len(start) < limit and (chunk := await stream.read(limit - len(start))):
        start += chunk
