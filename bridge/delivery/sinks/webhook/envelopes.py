"""What one receiver is given, whichever way it gets it: the only place that signs."""

from __future__ import annotations

from collections.abc import Callable

from bridge.delivery.signing import webhook_id
from bridge.delivery.sink import Signed
from bridge.delivery.sinks.webhook.filters import Filters
from bridge.delivery.sinks.webhook.forms import Form
from bridge.delivery.sinks.webhook.settings import WebhookSettings
from bridge.journal.store import Entry


class Envelopes:
    """The events of one receiver in its form. Each is signed afresh with its own time; the webhook id never changes."""

    def __init__(self, name: str, settings: WebhookSettings, clock: Callable[[], float]) -> None:
        filters = Filters(settings.types, settings.sources, settings.jobs, settings.when)
        self.judge, self.wants = filters.judge, filters.want
        self._name = name
        self._clock = clock
        self._ring = settings.ring
        self._form = Form(settings.body, settings.body_bytes_max)

    def signed(self, entry: Entry, previous: int | None) -> Signed:
        """The event as it goes out now. `previous` is as in `Form.body`."""
        body = self._form.body(entry, previous)
        identity, timestamp_s = webhook_id(entry.id, self._name), int(self._clock())
        return Signed({**body.headers, **self._ring.headers(identity, timestamp_s, body.content)}, body.content)
