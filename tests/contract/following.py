"""Every provider with its simulator inside the test, a real bridge on a real journal file, and what must hold."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator

from bridge.app import Bridge, assemble
from bridge.delivery.envelope import STRUCTURED_TYPE, structured
from bridge.delivery.sink import Check, Mark, SinkSettings
from bridge.demo.cast import EVERYBODY, KEY, KEY_VARIABLE, Cast
from bridge.demo.scene import source
from bridge.demo.simulators import archastro_world, auvy_world, described, flowrelay, tenfive_run
from bridge.demo.simulators.api import Handler, Simulator
from bridge.demo.simulators.archastro import ArchAstroSimulator
from bridge.demo.simulators.auvy import AuvySimulator
from bridge.demo.simulators.faults import CALM, FaultRates
from bridge.demo.simulators.flowrelay import FlowRelaySimulator
from bridge.demo.simulators.tenfive import TenFiveSimulator
from bridge.demo.simulators.world import Pace
from bridge.event import EventType, JobKey
from bridge.intake import providers
from bridge.journal.store import Entry, Outcome, SubscriptionRecord, SubscriptionState
from bridge.plug import Plug
from bridge.serving import serve
from bridge.settings import load
from bridge.supervision.supervisor import SessionStatus
from bridge.telemetry.logs import configure
from bridge.vocabulary import data_schema

WITHIN_S = 15.0
BRISK = Pace(job_s=0.4, events_per_s=50, hold_s=0.15, status_lag_s=0.02)
STILL = Pace(job_s=600, events_per_s=0.01, status_lag_s=0.0)
"""Jobs that have begun and say nothing more while a test lasts."""
EAGER = {"idle_timeout_s": 0.5, "end_quiet_s": 0.1, "confirm_timeout_s": 5.0, "not_found_grace_s": 0.0}
BACKOFF_BASE_S, BACKOFF_CAP_S = 0.05, 0.4
OBSERVED = ("status.", "watch.")
TERMINAL = {"job.completed", "job.failed", "job.cancelled", "job.skipped"}
VALIDATORS = {type_: Draft202012Validator(data_schema(type_)) for type_ in EventType}

AnySimulator = Simulator[Any, Any]
Spoil = Callable[[web.Request], web.StreamResponse | None]


@dataclass(frozen=True, slots=True)
class Case:
    """One provider."""

    cast: Cast
    build: Callable[[dict[str, Any]], AnySimulator]
    settings: Mapping[str, Any] = field(default_factory=lambda: {"status_interval_s": 0.1})
    pace: Pace = BRISK

    @property
    def streams(self) -> bool:
        """Whether the API has streams at all."""
        return self.cast.source != "flowrelay"

    @property
    def resumes(self) -> bool:
        """Whether it takes a place from which to go on, in its stream or its log."""
        return self.streams and self.cast.source != "fal"

    def simulator(self, jobs: int = 1, faults: FaultRates = CALM, pace: Pace | None = None) -> AnySimulator:
        """One whose jobs are all there from the start."""
        sizes = {"jobs": jobs, "at_once": jobs, "pace": pace or self.pace, "faults": faults}
        return self.build({**sizes, "seed": 3, "keepalive_s": 0.1, "api_key": KEY})


def _described(api: str) -> Callable[[dict[str, Any]], AnySimulator]:
    return lambda options: described.simulator(described.World(api=api, **options))


_CASTS = {cast.source: cast for cast in EVERYBODY}
CASES = {
    "auvy": Case(_CASTS["auvy"], lambda options: AuvySimulator(auvy_world.World(**options))),
    "tenfive": Case(_CASTS["tenfive"], lambda options: TenFiveSimulator(tenfive_run.World(**options))),
    "flowrelay": Case(
        _CASTS["flowrelay"],
        lambda options: FlowRelaySimulator(flowrelay.World(minute_s=1.0, **options)),
        {"requests_per_minute": 1800, "status_interval_s": 1.0},
        Pace(job_s=2.0, hold_s=0.5),
    ),
    "archastro": Case(
        _CASTS["archastro"], lambda options: ArchAstroSimulator(archastro_world.World(stream_max_s=0.3, **options))
    ),
    **{api: Case(_CASTS[api], _described(api)) for api in described.SIMULATORS},
}
every_provider = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@dataclass(slots=True)
class Watched:
    """A simulator in front of which a test may answer in the API's place, and what it was asked."""

    simulator: AnySimulator
    spoil: Spoil
    asked: list[str] = field(default_factory=list)
    """`METHOD path`, percent-encoded as it came, of each request."""

    @web.middleware
    async def front(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.rel_url.raw_path}")
        return self.spoil(request) or await handler(request)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve until the context ends, with the jobs living; yields the URL."""
        app = self.simulator.application()
        app.middlewares.insert(0, self.front)
        async with serve(app, "127.0.0.1", 0) as self.simulator.url:
            self.simulator.population.begin()
            try:
                yield self.simulator.url
            finally:
                await self.simulator.population.stop()


class Sieve:
    """A log that takes everything and keeps nothing: the journal itself is what is looked at."""

    batch_entries = 1000

    @asynccontextmanager
    async def writer(self, partition: int, check: Check | None = None) -> AsyncIterator[Sieve]:
        yield self

    async def recover(self) -> Mark | None:
        return None

    async def add(self, entries: Sequence[Entry]) -> None:
        pass

    async def flush(self) -> Sequence[Outcome]:
        return ()


SINKS = {"sieve": Plug("sieve", SinkSettings, lambda _name, _options: Sieve())}


@dataclass(frozen=True, slots=True)
class Following:
    """A bridge that runs, seen by its journal and its sessions."""

    case: Case
    bridge: Bridge

    async def hand_in(self, *jobs: str) -> None:
        await self.bridge.journal.follow([JobKey(self.case.cast.source, job) for job in jobs], "api")

    async def record(self, job: str) -> SubscriptionRecord:
        found = await self.bridge.journal.subscription(JobKey(self.case.cast.source, job))
        assert found is not None
        return found

    def session(self, job: str) -> SessionStatus:
        """How the following of a job is at the moment."""
        found = self.bridge.intake.state(f"{self.case.cast.source}/{job}")
        assert found is not None
        return found

    async def until(self, *jobs: str, state: SubscriptionState = SubscriptionState.ENDED) -> None:
        """Wait until the subscriptions to all these jobs are in that state."""
        missing, revision = set(jobs), 0
        try:
            async with asyncio.timeout(WITHIN_S):
                while missing:
                    for record in await self.bridge.journal.changed(revision):
                        revision = record.revision
                        if record.state is state:
                            missing.discard(record.key.job_id)
                        elif record.state is SubscriptionState.PARKED and record.key.job_id in missing:
                            raise AssertionError(f"{record.key} is parked: {record.reason}")
        except TimeoutError:
            raise AssertionError(f"not {state}: {sorted(missing)}; {self.bridge.intake.states()}") from None

    async def grown_to(self, count: int) -> None:
        """Wait until the journal holds so many events."""
        async with asyncio.timeout(WITHIN_S):
            await self.bridge.journal.pending(0, count - 1, limit=1)

    async def told(self, what: Callable[[Entry], bool]) -> Entry:
        """Wait until such an event is journalled."""
        seen = 0
        async with asyncio.timeout(WITHIN_S):
            while True:
                for entry in await self.bridge.journal.pending(0, seen, limit=1000):
                    if what(entry):
                        return entry
                    seen = entry.position

    async def entries(self) -> list[Entry]:
        """Everything journalled."""
        if not (await self.bridge.journal.health()).entries:
            return []
        return [*await self.bridge.journal.pending(0, 0, limit=1_000_000, bytes_max=1 << 30)]

    def count(self, metric: str) -> float:
        """The sum over all labels of one of the bridge's metrics."""
        families = getattr(self.bridge.metrics, metric).collect()
        samples = [sample for family in families for sample in family.samples]
        return float(sum(sample.value for sample in samples if not sample.name.endswith("_created")))

    async def until_count(self, metric: str, count: float) -> None:
        """Wait until a metric has come that far. Nothing tells of it, so it is looked at now and then."""
        async with asyncio.timeout(WITHIN_S):
            while self.count(metric) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def following(case: Case, url: str, directory: Path, **changes: Any) -> AsyncIterator[Following]:
    """A bridge with the one source, on the journal of that directory. A change to None takes a setting
    away."""
    options = {**source(case.cast, url), **EAGER, **case.settings, **changes}
    config = {
        "sources": {case.cast.source: {name: value for name, value in options.items() if value is not None}},
        "sinks": {"sieve": {"kind": "sieve"}},
        "journal": {"url": f"sqlite:///{directory / 'journal.db'}", "synchronous": "normal"},
        "control": {"port": 0},
        "supervision": {
            "backoff_base_s": BACKOFF_BASE_S,
            "backoff_cap_s": BACKOFF_CAP_S,
            "floor_max_s": BACKOFF_CAP_S,
        },
    }
    file = directory / "jobbridge.yaml"
    file.write_text(yaml.safe_dump(config))
    plugs = providers.catalogue()
    settings = load(file, {KEY_VARIABLE: KEY}, plugs, SINKS)
    stopping = asyncio.Event()
    async with assemble(settings, plugs, SINKS, configure("error", "json")) as bridge:
        running = asyncio.create_task(bridge.run(stopping))
        try:
            yield Following(case, bridge)
        finally:
            stopping.set()
            await running


def assert_told(followed: Following, entries: Collection[Entry]) -> None:
    """What holds for whatever was journalled: no bug, every event valid and in sequence, one end a job at most."""
    assert followed.count("bugs") == 0
    by_job: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_job[entry.subject].append(entry)
        VALIDATORS[EventType(entry.type)].validate(orjson.loads(entry.data))
        _assert_cloudevent(entry)
    for of_job in by_job.values():
        assert [entry.sequence for entry in of_job] == [*range(1, len(of_job) + 1)]
        assert len({entry.id for entry in of_job}) == len(of_job)
        assert sum(entry.type in TERMINAL for entry in of_job) <= 1


def assert_whole(followed: Following, entries: Collection[Entry], simulator: AnySimulator) -> None:
    """Every job of the simulator's ledger was told to its end: each entry once and in order, and the right end."""
    assert_told(followed, entries)
    for job, ledger in simulator.population.emitted()["jobs"].items():
        of_job = [entry for entry in entries if entry.subject == job]
        keys = [entry.id.removeprefix(f"{followed.case.cast.source}:{job}:") for entry in of_job]
        assert [key for key in keys if not key.startswith(OBSERVED)] == [key for key, _ in ledger["entries"]]
        assert [entry.type for entry in of_job if entry.type in TERMINAL] == [f"job.{ledger['terminal']}"]


def _assert_cloudevent(entry: Entry) -> None:
    read = from_structured_event(HTTPMessage({"content-type": STRUCTURED_TYPE}, structured(entry)))
    assert isinstance(read, CloudEvent)
    assert (read.get_id(), read.get_source(), read.get_type()) == (entry.id, entry.source, entry.type)
    assert read.get_subject() == entry.subject
    assert read.get_data() == orjson.loads(entry.data)
