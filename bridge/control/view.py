"""What control is shown of the running bridge: the only things it can look at or lay a hand on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from bridge.delivery.signing import PublicKey
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
    token: str | None = field(repr=False)
    """What `/v1` asks for as a bearer token; None or empty keeps `/v1` closed."""
    public_keys: Callable[[], Iterable[PublicKey]] = tuple
    """What receivers verify the signatures of this moment with; one key may sign for several endpoints."""
    ready_needs_sinks: bool = False
    deadline_s: float = 10.0
    """How long one request to `/v1` may take, its body included."""
    health_timeout_s: float = 0.8
    """How long the journal may take to tell its health: below the second that a Kubernetes probe waits."""


VIEW = web.AppKey("view", View)
