"""One configured source at run time: its provider, its door to the network, and how its looks are spaced."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from bridge.errors import Fatal, Temporary
from bridge.event import JobKey
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Provider, SourceSettings, Streams

_POLLED, _BESIDE_STREAMS = 0.9, 0.5
"""Which share of the budget all looks together may take: while looks are all there is, and while streams reconnect."""


class Looker:
    """One subscription that looks at the status endpoint at intervals."""

    def __init__(self, wishes: Counter[float], every_s: float) -> None:
        self._wishes = wishes
        self._every_s = every_s
        self._wishes[every_s] += 1

    @property
    def every_s(self) -> float:
        """How often it would look had it the source to itself."""
        return self._every_s

    @every_s.setter
    def every_s(self, every_s: float) -> None:
        """Longer for a job in which nothing moves: what it then leaves of the budget goes to the others."""
        self.leave()
        self._every_s = every_s
        self._wishes[every_s] += 1

    def leave(self) -> None:
        """No more looks."""
        self._wishes[self._every_s] -= 1


@dataclass(slots=True)
class Source:
    """What all subscriptions of one source share."""

    name: str
    kind: str
    provider: Provider
    streams: Streams
    settings: SourceSettings
    _wishes: Counter[float] = field(default_factory=Counter, init=False)
    """How many lookers want to look so often."""
    _beside: int = field(default=0, init=False)
    _slot_s: float = field(default=-math.inf, init=False)
    _renewing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _renewals: int = field(default=0, init=False)
    _renewed: bool = field(default=False, init=False)

    def life(self, key: JobKey, memory: bytes) -> Lifecycle:
        """A job of this source as remembered, bound to the source's limits."""
        settings = self.settings
        return Lifecycle(key, self.kind, memory, payloads=settings.payloads, event_bytes_max=settings.event_bytes_max)

    @asynccontextmanager
    async def authorized(self) -> AsyncIterator[None]:
        """A 401 met inside becomes `Temporary` (`renewed`) where a fresh credential can be had.

        Jobs that are refused at the same time, or with a credential from before, share one renewal.
        """
        known = self._renewals
        try:
            yield
        except Fatal as error:
            if error.reason == "unauthorized" and await self._renewed_since(known):
                raise Temporary("the credential was renewed", reason="renewed") from error
            raise

    async def _renewed_since(self, known: int) -> bool:
        async with self._renewing:
            if self._renewals == known:
                self._renewed = await self.provider.renew()
                self._renewals += 1
            return self._renewed

    @contextmanager
    def looker(self, *, beside_stream: bool = True) -> Iterator[Looker]:
        """One more subscription whose looks share the budget, with a stream of its own to spend on or without."""
        self._beside += beside_stream
        looker = Looker(self._wishes, self.settings.status_interval_s)
        try:
            yield looker
        finally:
            looker.leave()
            self._beside -= beside_stream

    @property
    def lookers(self) -> int:
        """Subscriptions that look at the status endpoint at intervals now."""
        return self._wishes.total()

    def until_look_s(self, looker: Looker, now_s: float) -> float:
        """Seconds until this looker's next look: one interval, and more where that spreads the looks evenly.

        Each gets the next free slot. `now_s` is any clock's, as long as it is always the same one's.
        """
        interval_s = max(looker.every_s, self.look_interval_s())
        if looker.every_s > self.settings.status_interval_s:
            return interval_s
        slot_s = self._slot_s + interval_s / max(1, self.lookers)
        if not now_s + interval_s <= slot_s < now_s + 2 * interval_s:
            slot_s = now_s + interval_s
        self._slot_s = slot_s
        return slot_s - now_s

    def look_interval_s(self) -> float:
        """Seconds between two looks at one job, stretched so that all looks together stay within their share.

        What is shared is fair: jobs that want to be looked at less often leave the rest of their part to the others.
        """
        share = _BESIDE_STREAMS if self._beside else _POLLED
        requests = 2 if self.provider.tells_beside else 1
        looks_per_s, count = share * self.settings.requests_per_minute / 60.0 / requests, self.lookers
        for every_s in sorted(self._wishes, reverse=True):
            if every_s * looks_per_s <= count:
                break
            looks_per_s -= self._wishes[every_s] / every_s
            count -= self._wishes[every_s]
        return max(self.settings.status_interval_s, count / looks_per_s if count else 0.0)
