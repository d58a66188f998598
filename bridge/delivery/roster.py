"""Keeps the crew of endpoints that were made while the bridge ran as the journal says it should be.

Whoever makes, changes or removes an endpoint says so to the journal and to nobody else; this session sees it there.
So a restart needs no other path than a change does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from bridge.delivery.lane_dispatcher import LaneDispatcher, endpoint_sessions
from bridge.delivery.made import Maker
from bridge.errors import BridgeError
from bridge.journal.endpoints import EndpointRecord, EndpointState
from bridge.journal.store import Journal
from bridge.telemetry.metrics import Metrics


class Crew(Protocol):
    """Those who run sessions."""

    def start(self, session: LaneDispatcher) -> None:
        """Take a session aboard."""

    async def stop(self, name: str) -> None:
        """Returns when no session of that name runs any more."""

    def resume(self, group: str) -> int:
        """Run what is parked of the group, and let others of it begin."""


class EndpointRoster:
    """The session that reconciles what runs with the journalled endpoints."""

    name = "roster:endpoints"  # no endpoint can be called so
    group = "roster:endpoints"

    def __init__(
        self, journal: Journal, maker: Maker, crew: Crew, *, metrics: Metrics, log: FilteringBoundLogger
    ) -> None:
        self.kinds: dict[str, str] = {}
        """The kind of every endpoint that is not removed, be it disabled."""
        self._journal = journal
        self._maker = maker
        self._crew = crew
        self._metrics = metrics
        self._log = log
        self._aboard: dict[str, list[LaneDispatcher]] = {}
        self._revision = 0

    async def run(self, useful: Callable[[], None]) -> None:
        """Watch for ever, from where the run before left off: the crew outlives a failing journal."""
        while True:
            for record in await self._journal.endpoints.changed(self._revision):
                await self._reconcile(record)
                self._revision = record.revision
            useful()

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: the journal still says what is wanted."""

    async def _reconcile(self, record: EndpointRecord) -> None:
        """Whatever has changed, it goes on with that from scratch."""
        name = record.name
        for session in self._aboard.pop(name, ()):
            await self._crew.stop(session.name)
        self.kinds.pop(name, None)
        if record.state is not EndpointState.REMOVED:
            self.kinds[name] = self._maker.kind
        if record.state is EndpointState.ACTIVE:
            self._crew.resume(name)  # what parked it may be over with the change
            self._start(record)

    def _start(self, record: EndpointRecord) -> None:
        sink = self._maker.sink(record)
        sessions = endpoint_sessions(record.name, sink, journal=self._journal, metrics=self._metrics, log=self._log)
        self._aboard[record.name] = sessions
        for session in sessions:
            self._crew.start(session)
