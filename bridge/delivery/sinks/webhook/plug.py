"""Webhooks to one receiver by Standard Webhooks 1.0.0: one signed POST an event."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from bridge.delivery.sink import Endpoint
from bridge.delivery.sinks.webhook.endpoint import WebhookEndpoint, open_session
from bridge.delivery.sinks.webhook.envelopes import Envelopes
from bridge.delivery.sinks.webhook.rate import Rate
from bridge.delivery.sinks.webhook.settings import WebhookSettings
from bridge.plug import Plug


class WebhookSink:
    """A receiver by name. The name goes into the webhook ids, so it is the receiver's identity over restarts."""

    def __init__(self, name: str, settings: WebhookSettings, clock: Callable[[], float] = time.time) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._rate = Rate(settings.requests_per_second)  # one for all partitions
        envelopes = Envelopes(name, settings, clock)
        self.wants, self.signed = envelopes.wants, envelopes.signed

    @property
    def pull_token(self) -> str | None:
        """What the receiver fetches events with, instead of waiting for them."""
        token = self._settings.pull_token
        return token.get_secret_value() if token else None

    def endpoint(self) -> AbstractAsyncContextManager[Endpoint]:
        """Open the receiver with a connection pool of its own."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Endpoint]:
        async with open_session(self._settings) as session:
            yield WebhookEndpoint(self._name, self._settings, session, self._rate, self._clock)


def build(name: str, settings: WebhookSettings) -> WebhookSink:
    """A webhook sink from its settings."""
    return WebhookSink(name, settings)


PLUG = Plug(kind="webhook", settings=WebhookSettings, build=build)
