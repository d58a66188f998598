"""One configured source at run time: its provider, its door to the network, and how its looks are spaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bridge.intake.provider import Provider, SourceSettings, Streams


@dataclass(slots=True)
class Source:
    """What all subscriptions of one source share."""

    name: str
    kind: str
    provider: Provider
    streams: Streams
    settings: SourceSettings
    lookers: int = 0
    """Subscriptions that look at the status endpoint at intervals now."""

    @contextmanager
    def looker(self) -> Iterator[None]:
        """Count as one more subscription whose looks share the budget."""
        self.lookers += 1
        try:
            yield
        finally:
            self.lookers -= 1

    def look_interval_s(self) -> float:
        """Seconds between two looks at one job: stretched so that all looks take at most half of the budget."""
        requests_per_s = self.settings.requests_per_minute / 60.0
        return max(self.settings.status_interval_s, self.lookers / (requests_per_s / 2))
