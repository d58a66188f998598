"""A control room on a real port, over a real crew and a real journal that can be made to hang or to break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from structlog.testing import CapturingLogger
from yarl import URL

from bridge.control.server import application, serve
from bridge.control.view import Endpoints, View
from bridge.delivery.dialling import DiallingRules
from bridge.delivery.pulling import Pulls
from bridge.delivery.sinks.webhook.made import MadeWebhooks
from bridge.errors import BridgeError
from bridge.event import JobEvent, JobKey, Json
from bridge.intake.provider import Action, Answer
from bridge.journal.endpoints import EndpointJournal
from bridge.journal.health import HealthJournal
from bridge.journal.outcomes import OutcomeJournal
from bridge.journal.store import Checkpoint, ControlJournal, Entry, JournalHealth, SubscriptionRecord, SubscriptionState
from bridge.journal.stores.sqlite import SqliteJournal, open_journal
from bridge.sealing import Seal
from bridge.supervision.backoff import Backoff
from bridge.supervision.crew import Crew, Crews
from bridge.supervision.supervisor import Surroundings
from bridge.telemetry.metrics import Metrics

TOKEN = "open-sesame-7d1c"
NOW_S = 1_700_000_000.0
HEALTHY = JournalHealth(
    writable=True,
    detail="",
    live_bytes=4096,
    high_water_bytes=1 << 20,
    entries=7,
    depth={"kafka": 3, "hooks": 0},
    oldest_unsettled_ms={"kafka": 1_699_999_990_500},
    subscriptions={"auvy-prod": {"active": 4}},
    outstanding={"hooks": {"retrying": 2, "dead": 1}},
)


NOTHING = Checkpoint(cursor=None, memory=b"")


class Weather:
    """A real journal in changeable weather: `hang` makes every call wait for ever, `trouble` makes it raise."""

    def __init__(self, journal: ControlJournal) -> None:
        self._journal = journal
        self.told: JournalHealth | None = HEALTHY
        """What it says of its health; None lets the journal speak for itself."""
        self.hang = False
        self.trouble: Exception | None = None
        self.asked = asyncio.Event()

    async def health(self) -> JournalHealth:
        journal = await self._open()
        return self.told or await journal.health()

    @property
    def outcomes(self) -> OutcomeJournal:
        return self._journal.outcomes

    @property
    def endpoints(self) -> EndpointJournal:
        return self._journal.endpoints

    @property
    def endpoint_health(self) -> HealthJournal:
        return self._journal.endpoint_health

    async def follow(self, keys: Sequence[JobKey], origin: str) -> Sequence[tuple[SubscriptionRecord, bool]]:
        return await (await self._open()).follow(keys, origin)

    async def subscription(self, key: JobKey) -> SubscriptionRecord | None:
        return await (await self._open()).subscription(key)

    async def subscriptions(self, **options: Any) -> Sequence[SubscriptionRecord]:
        return await (await self._open()).subscriptions(**options)

    async def changed(self, after_revision: int, limit: int = 1000) -> Sequence[SubscriptionRecord]:
        return await (await self._open()).changed(after_revision, limit)

    async def steer(
        self, key: JobKey, state: SubscriptionState, reason: str | None = None
    ) -> SubscriptionRecord | None:
        return await (await self._open()).steer(key, state, reason)

    async def entry(self, partition: int, position: int) -> Entry | None:
        return await (await self._open()).entry(partition, position)

    async def _open(self) -> ControlJournal:
        self.asked.set()
        if self.hang:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble
        return self._journal


@dataclass(slots=True)
class Scripted:
    """A session that raises its error when run, or runs for ever when it has none."""

    name: str
    group: str
    error: BridgeError | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, useful: Callable[[], None]) -> None:
        self.begun.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    async def park(self, error: BridgeError) -> None:
        """Leaves no note."""


@dataclass(slots=True)
class Room:
    """One running control room and what is behind it."""

    view: View
    journal: Weather
    store: SqliteJournal
    crew: Crew
    port: int
    log: CapturingLogger
    http: aiohttp.ClientSession

    async def board(self, *sessions: Scripted) -> None:
        """Take sessions aboard and wait until each has begun to run or, if so scripted, has failed."""
        for session in sessions:
            self.crew.start(session)
        for session in sessions:
            await session.begun.wait()

    async def put(
        self,
        source: str,
        job_id: str,
        state: SubscriptionState = SubscriptionState.ACTIVE,
        *,
        checkpoint: Checkpoint = NOTHING,
        events: Sequence[JobEvent] = (),
    ) -> None:
        """Have a job followed, with a past: events, what they left behind, and the state it came to."""
        [(record, _)] = await self.store.follow([JobKey(source, job_id)], "config")
        ended = state is SubscriptionState.ENDED
        await self.store.append(record, events, checkpoint._replace(ended=ended))
        if not ended:
            await self.store.steer(record.key, state)

    async def states(self) -> dict[JobKey, SubscriptionState]:
        """The state of every subscription in the journal."""
        return {record.key: record.state for record in await self.store.subscriptions()}

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and decoded JSON (None without a body) of a request with the token; `path` is sent as it is."""
        options.setdefault("headers", {"Authorization": f"Bearer {TOKEN}"})
        async with self.http.request(method, self.url(path), **options) as reply:
            return reply.status, (await reply.json(content_type=None) if await reply.read() else None)

    def url(self, path: str) -> URL:
        return URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)

    async def raw(self, request: bytes, *, leave: bool = False) -> bytes:
        """What comes back for these very bytes until the server closes; `leave` ends our side right after them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            if leave:
                writer.write_eof()
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    def alarms(self) -> list[str]:
        """What was logged above the level of information."""
        return [str(call.args) for call in self.log.calls if call.method_name not in {"debug", "info"}]

    def logged(self) -> str:
        """Everything logged so far."""
        return "\n".join(str(call.args) for call in self.log.calls)


async def _nobody_acts(record: SubscriptionRecord, action: Action, body: Json) -> Answer:
    raise AssertionError("no test asked for this")


async def _nothing_to_pull(_name: str) -> object:
    return None


@asynccontextmanager
async def open_room(path: str | Path = ":memory:", **changes: Any) -> AsyncIterator[Room]:
    """A room with two sources and two sinks over the journal at `path`; `changes` are fields of its view."""
    capturing = CapturingLogger()
    log: Any = structlog.wrap_logger(
        capturing,
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    metrics = Metrics()
    crew = Crew(
        Surroundings(
            metrics=metrics,
            log=structlog.wrap_logger(CapturingLogger(), wrapper_class=structlog.make_filtering_bound_logger(0)),
            new_backoff=lambda: Backoff(dice=lambda: 0.5, base_s=20.0),
            clock=lambda: NOW_S,
        )
    )
    async with open_journal(path, clock_ms=lambda: int(NOW_S * 1000)) as store:
        journal = Weather(store)
        view = View(
            journal=journal,
            crew=Crews(crew),
            sources={"auvy": "auvy", "auvy-eu": "auvy"},
            commands={"commands:jobs": "kafka"},
            sinks={"kafka": "kafka", "hooks": "webhook"},
            metrics=metrics,
            draining=lambda: False,
            log=log,
            act=_nobody_acts,
            endpoints=Endpoints({}, {}, MadeWebhooks(DiallingRules(), Seal([])), {"auvy", "auvy-eu", "kafka", "hooks"}),
            pulls=Pulls(store, _nothing_to_pull),
            token=TOKEN,
        )
        view = replace(view, **changes)
        aboard = asyncio.create_task(crew.run())
        try:
            async with serve(application(view), "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:
                yield Room(view, journal, store, crew, port, capturing, http)
        finally:
            crew.shut_down()
            await aboard
