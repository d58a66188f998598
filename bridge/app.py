"""The composition root: settings in, a running bridge out. The only file that names concrete classes."""

from __future__ import annotations

import asyncio
import random
import time
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from structlog.typing import FilteringBoundLogger

from bridge.control.server import application, serve
from bridge.control.view import Endpoints, View
from bridge.delivery.dispatcher import LogDispatcher
from bridge.delivery.lane_dispatcher import endpoint_sessions
from bridge.delivery.made import Maker
from bridge.delivery.operators import Operator
from bridge.delivery.pulling import Pulls
from bridge.delivery.roster import EndpointRoster
from bridge.delivery.signing_settings import Signing
from bridge.delivery.sink import LogSink, SearchableLog
from bridge.delivery.sinks.webhook.made import MadeWebhooks
from bridge.errors import Fatal, Temporary
from bridge.event import JobKey, Json
from bridge.intake.budget import Budget
from bridge.intake.commands import Commands
from bridge.intake.discovery import Discovery
from bridge.intake.errand import pass_on
from bridge.intake.http import SourceHttp, open_session
from bridge.intake.provider import Action, Answer, SourceSettings
from bridge.intake.roster import Roster
from bridge.intake.source import Source
from bridge.intake.sse import Client, EventStreams, open_client
from bridge.intake.subscription import Subscription
from bridge.intake.subscription import Surroundings as IntakeSurroundings
from bridge.intake.turns import Turns
from bridge.journal.retention import Retention
from bridge.journal.store import Journal, SubscriptionRecord
from bridge.journal.stores import open_store
from bridge.plug import Plug
from bridge.sealing import Seal
from bridge.settings import Settings
from bridge.supervision.backoff import Backoff
from bridge.supervision.crew import Crew, Crews
from bridge.supervision.session import Session
from bridge.supervision.supervisor import SessionState, Surroundings
from bridge.telemetry.metrics import Metrics

Catalogue = Mapping[str, Plug[Any]]
_DICE = random.random
_TOLD = {"description", "types", "sources", "jobs", "body"}
"""What the API tells of a declared endpoint: its URL may hold a secret that came by reference."""


@dataclass(slots=True)
class Bridge:
    """A bridge put together, with its sessions aboard and its control server listening."""

    settings: Settings
    journal: Journal
    metrics: Metrics
    log: FilteringBoundLogger
    intake: Crew
    delivery: Crew
    port: int = 0
    """The port control really listens on."""
    draining: bool = field(default=False, init=False)

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until `stopping` is set; then stop listening, let delivery finish what is journalled, and return."""
        async with asyncio.TaskGroup() as halves:
            intake = halves.create_task(self.intake.run())
            halves.create_task(self.delivery.run())
            await stopping.wait()
            self.draining = True
            self.log.info("bridge.draining", drain_timeout_s=self.settings.supervision.drain_timeout_s)
            self.intake.shut_down()
            await intake
            await self._drain()
            self.delivery.shut_down()

    async def _drain(self) -> None:
        """Wait until the sinks have settled what is journalled, or the deadline passes: the journal keeps the rest.

        A parked sink will not: nobody waits for it.
        """
        awake = {status.group for status in self.delivery.states() if status.state is not SessionState.PARKED}
        try:
            async with asyncio.timeout(self.settings.supervision.drain_timeout_s):
                await self.journal.settled(awake)
        except (TimeoutError, Temporary):
            health = await self.journal.health()
            self.log.warning("bridge.drain_deadline", unsettled_entries=health.depth, journal=health.detail)


@asynccontextmanager
async def assemble(
    settings: Settings, providers: Catalogue, sinks: Catalogue, log: FilteringBoundLogger
) -> AsyncIterator[Bridge]:
    """Open everything in order; on the way out, and when opening fails half-way, close it in reverse.

    Raises `Fatal` with a sentence for the operator when the journal or the port cannot be had.
    """
    metrics = Metrics()
    around = Surroundings(metrics=metrics, log=log, new_backoff=_backoffs(settings), clock=time.time)
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(_open_journal(settings))
        destinations = {name: sinks[options.kind].build(name, options) for name, options in settings.sinks.items()}
        endpoints = [name for name, sink in destinations.items() if not isinstance(sink, LogSink)]
        await _refuse_shared_names(settings, journal)
        await journal.register(list(destinations), endpoints)
        session = await stack.enter_async_context(open_session())
        client = await stack.enter_async_context(open_client(session))
        bridge = Bridge(settings, journal, metrics, log, Crew(around), Crew(around))
        turns = Turns()
        sources = {
            name: _source(name, options, providers[options.provider], session, client, turns, metrics)
            for name, options in settings.sources.items()
        }
        for member in _intake(sources, journal, bridge):
            bridge.intake.start(member)
        for member in _delivery(settings, destinations, journal, bridge):
            bridge.delivery.start(member)
        maker = MadeWebhooks(settings.endpoints, Seal([key.get_secret_value() for key in settings.endpoints.keys]))
        roster = EndpointRoster(journal, maker, bridge.delivery, metrics=metrics, log=log)
        bridge.delivery.start(roster)
        await _follow_configured(settings, journal)
        app = application(_view(bridge, sources, destinations, maker, roster.kinds))
        bridge.port = await stack.enter_async_context(serve(app, settings.control.host, settings.control.port))
        log.info("bridge.started", control_port=bridge.port, sources=list(sources), sinks=list(settings.sinks))
        yield bridge
        log.info("bridge.stopped")


def _open_journal(settings: Settings) -> Any:
    options = settings.journal
    return open_store(
        options.url,
        partitions=options.partitions,
        high_water_bytes=options.high_water_bytes,
        synchronous=options.synchronous,
    )


def _backoffs(settings: Settings) -> Callable[[], Backoff]:
    options = settings.supervision
    return lambda: Backoff(
        dice=_DICE, base_s=options.backoff_base_s, cap_s=options.backoff_cap_s, floor_max_s=options.floor_max_s
    )


def _source(
    name: str,
    options: SourceSettings,
    plug: Plug[Any],
    session: aiohttp.ClientSession,
    client: Client,
    turns: Turns,
    metrics: Metrics,
) -> Source:
    budget = Budget(options.requests_per_minute)
    open_streams, last_byte = metrics.open_streams.labels(name), metrics.last_byte.labels(name)
    metrics.open_streams_limit.labels(name).set(options.open_streams)
    metrics.budget_waiting.labels(name).set_function(lambda: budget.waiting)
    metrics.budget_tokens.labels(name).set_function(lambda: budget.tokens)

    def on_request(outcome: str) -> None:
        metrics.requests.labels(name, outcome).inc()

    http = SourceHttp(session, budget, timeout_s=options.request_timeout_s, on_request=on_request)
    streams = EventStreams(
        client,
        budget,
        turns=turns,
        open_streams=options.open_streams,
        idle_timeout_s=options.idle_timeout_s,
        frame_bytes_max=options.frame_bytes_max,
        request_timeout_s=options.request_timeout_s,
        on_open=open_streams.inc,
        on_bytes=last_byte.set_to_current_time,
        on_request=on_request,
    )
    return Source(name, plug.kind, plug.build(options, http), streams, options)


def _intake(sources: Mapping[str, Source], journal: Journal, bridge: Bridge) -> list[Session]:
    around = IntakeSurroundings(journal, bridge.metrics)

    def follow(key: JobKey) -> None:
        source = sources.get(key.source)
        if source is not None:  # a source that left the configuration: its jobs stay in the journal
            bridge.intake.start(Subscription(key, source, around))

    members: list[Session] = [
        Discovery(source, source.settings.discover, journal)
        for source in sources.values()
        if source.settings.discover is not None
    ]
    members.append(Roster(journal, follow, bridge.intake.stop))
    if (options := bridge.settings.commands) is not None:
        members.append(Commands(options, sources.keys(), journal=journal, metrics=bridge.metrics, log=bridge.log))
    return members


def _delivery(settings: Settings, sinks: Mapping[str, Any], journal: Journal, bridge: Bridge) -> list[Session]:
    retention = Retention(
        journal,
        retention_s=settings.journal.retention_s,
        attempts_retention_s=settings.journal.attempts_retention_s,
        interval_s=settings.journal.prune_interval_s,
        clock=time.time,
    )
    members: list[Session] = [retention]
    members += [Operator(name, options, journal.endpoint_health) for name, options in settings.operators.items()]
    for name, sink in sinks.items():
        if isinstance(sink, LogSink):
            members += [
                LogDispatcher(name, partition, sink, journal=journal, metrics=bridge.metrics, log=bridge.log)
                for partition in range(journal.partitions)
            ]
        else:
            members += endpoint_sessions(name, sink, journal=journal, metrics=bridge.metrics, log=bridge.log)
    return members


async def _refuse_shared_names(settings: Settings, journal: Journal) -> None:
    for section, names in (("sources", settings.sources), ("sinks", settings.sinks), ("operators", settings.operators)):
        for name in names:
            if await journal.endpoints.record(name) is not None:
                raise Fatal(f"an endpoint made over the API is called {name}: give {section}.{name} another name")


async def _follow_configured(settings: Settings, journal: Journal) -> None:
    keys = [JobKey(name, job_id) for name, options in settings.sources.items() for job_id in options.jobs]
    if keys:
        await journal.follow(keys, "config")


def _view(
    bridge: Bridge, sources: Mapping[str, Source], sinks: Mapping[str, Any], maker: Maker, made: dict[str, str]
) -> View:
    settings = bridge.settings
    signing = (*settings.sinks.values(), *settings.operators.values())
    rings = [options.ring for options in signing if isinstance(options, Signing)]

    async def act(record: SubscriptionRecord, action: Action, body: Json) -> Answer:
        return await pass_on(sources[record.key.source], record, action, body, bridge.journal)

    async def find(name: str) -> object:
        record = None if name in sinks else await bridge.journal.endpoints.record(name)
        return sinks.get(name) if record is None else maker.pullable(record)

    token = settings.control.token
    return View(
        journal=bridge.journal,
        crew=Crews(bridge.intake, bridge.delivery),
        sources={name: options.provider for name, options in settings.sources.items()},
        commands={settings.commands.session: "kafka"} if settings.commands else {},
        sinks=ChainMap({name: options.kind for name, options in settings.sinks.items()}, made),
        metrics=bridge.metrics,
        draining=lambda: bridge.draining,
        log=bridge.log,
        act=act,
        token=token.get_secret_value() if token else None,
        pulls=Pulls(bridge.journal, find),
        logs={name: sink for name, sink in sinks.items() if isinstance(sink, SearchableLog)},
        public_keys=lambda: (
            [key for ring in rings for key in ring.public_keys(time.time())] + [*maker.public_keys(time.time())]
        ),
        endpoints=Endpoints(
            declared={name: sink for name, sink in sinks.items() if not isinstance(sink, LogSink)},
            about={name: options.model_dump(mode="json", include=_TOLD) for name, options in settings.sinks.items()},
            maker=maker,
            taken=settings.sources.keys() | settings.sinks.keys() | settings.operators.keys(),
        ),
        ready_needs_sinks=settings.control.ready_needs_sinks,
    )
