"""Keeps the crew of subscriptions as the journal says it should be.

Whoever wants a job followed, paused or dropped says so to the journal and to nobody else; this session sees it there
and starts or stops what runs. So a restart needs no other path than a change does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bridge.errors import BridgeError
from bridge.event import JobKey
from bridge.journal.store import SubscriptionJournal, SubscriptionRecord, SubscriptionState


class Roster:
    """The session that reconciles running subscriptions with the journalled ones."""

    name = "roster"
    group = "roster"

    def __init__(
        self,
        journal: SubscriptionJournal,
        start: Callable[[JobKey], None],
        stop: Callable[[str], Awaitable[None]],
    ) -> None:
        self._journal = journal
        self._start = start
        self._stop = stop
        self._revision = 0

    async def run(self, useful: Callable[[], None]) -> None:
        """Watch for ever, from where the run before left off: the crew outlives a failing journal."""
        while True:
            for record in await self._journal.changed(self._revision):
                await self._reconcile(record)
                self._revision = record.revision
            useful()

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: the journal still says what is wanted."""

    async def _reconcile(self, record: SubscriptionRecord) -> None:
        if record.state is SubscriptionState.ACTIVE:
            self._start(record.key)
        elif record.state is not SubscriptionState.ENDED:
            await self._stop(str(record.key))
