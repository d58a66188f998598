"""What control is shown of the running bridge: the only things it can look at or lay a hand on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from bridge.delivery.made import Maker
from bridge.delivery.pulling import Pulls
from bridge.delivery.signing import PublicKey
from bridge.delivery.sink import EndpointSink, SearchableLog
from bridge.event import Json
from bridge.intake.provider import Action, Answer
from bridge.journal.store import ControlJournal, SubscriptionRecord
from bridge.supervision.supervisor import SessionStatus
from bridge.telemetry.metrics import Metrics


class Crew(Protocol):
    """All supervised sessions, of both halves. A group is a source, a sink or the command topic."""

    def states(self) -> Sequence[SessionStatus]:
        """How every session is at this moment."""

    def group_parked(self, group: str) -> str | None:
        """Why the whole group is parked; None when it is not."""

    async def resume(self, group: str) -> object:
        """Run the parked sessions of a group again. Harmless when none is parked."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Endpoints of both sorts: the configuration's, and those made here."""

    declared: Mapping[str, EndpointSink]
    about: Mapping[str, Json]
    """What may be told of each declared one."""
    maker: Maker
    taken: Collection[str]
    """Names that the configuration uses."""


@dataclass(frozen=True, slots=True)
class View:
    """The bridge as control sees it, and what control itself was set to."""

    journal: ControlJournal
    crew: Crew
    sources: Mapping[str, str]
    """The provider kind of each configured source."""
    sinks: Mapping[str, str]
    """The kind of each configured sink."""
    commands: Mapping[str, str]
    """The session that reads commands and the kind of what it reads from; empty where none is configured."""
    metrics: Metrics
    draining: Callable[[], bool]
    log: FilteringBoundLogger
    act: Callable[[SubscriptionRecord, Action, Json], Awaitable[Answer]]
    """Passes a person's wish on to a job's provider."""
    endpoints: Endpoints
    pulls: Pulls
    """Where receivers fetch their events."""
    token: str | None = field(repr=False)
    """What `/v1` asks for as a bearer token; None or empty keeps `/v1` closed."""
    logs: Mapping[str, SearchableLog] = field(default_factory=dict)
    """The sinks that can tell where they hold an event."""
    public_keys: Callable[[], Iterable[PublicKey]] = tuple
    """What receivers verify the signatures of this moment with; one key may sign for several endpoints."""
    ready_needs_sinks: bool = False
    deadline_s: float = 10.0
    """How long one request to `/v1` may take, its body included."""
    health_timeout_s: float = 0.8
    """How long the journal may take to tell its health: below the second that a Kubernetes probe waits."""


VIEW = web.AppKey("view", View)
