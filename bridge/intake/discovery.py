"""Which jobs to follow, as far as a source's own listing can tell. Everything found is handed to the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from bridge.errors import BridgeError
from bridge.event import JobKey, addressable
from bridge.intake.provider import Discover
from bridge.intake.source import Source
from bridge.journal.store import SubscriptionJournal


class Discovery:
    """The session that lists one source's jobs at an interval."""

    def __init__(
        self,
        source: Source,
        discover: Discover,
        journal: SubscriptionJournal,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = f"discovery:{source.name}"
        self.group = source.name
        self._source = source
        self._discover = discover
        self._journal = journal
        self._sleep = sleep

    async def run(self, useful: Callable[[], None]) -> None:
        """List for ever. Raises what the listing raises."""
        while True:
            async with self._source.authorized():
                await self._list()
            useful()
            await self._sleep(self._discover.every_s)

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: jobs already found are followed by their own subscriptions."""

    async def _list(self) -> None:
        pages = 0
        async with aclosing(self._source.provider.jobs()) as listing:
            async for job_ids in listing:
                keys = [JobKey(self._source.name, job_id) for job_id in job_ids if _usable(job_id)]
                await self._journal.follow(keys, "discovery")
                pages += 1
                if pages >= self._discover.pages_max:
                    return


def _usable(job_id: str) -> bool:
    """Whether a listed id can be followed at all: an odd one must not stop the listing of the others."""
    try:
        addressable(job_id)
    except ValueError:
        return False
    return True
