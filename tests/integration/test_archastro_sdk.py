"""Our reading of ArchAstro against the vendor's own client: both ask the same simulator, and must ask it alike.

The vendor's package is a witness for tests only. Where it is not installed, these tests are skipped.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, get_args, get_type_hints

import aiohttp
import orjson
import pytest
from aiohttp import web
from pydantic import SecretStr, TypeAdapter

from bridge.demo.simulators.archastro import KEY_HEADER, ArchAstroSimulator
from bridge.demo.simulators.archastro_world import World
from bridge.demo.simulators.world import Pace
from bridge.errors import Rejected
from bridge.event import EventType
from bridge.intake.budget import Budget
from bridge.intake.http import SourceHttp, open_session
from bridge.intake.provider import Action, Answer, Frame, Reading
from bridge.intake.providers.archastro import ArchAstro, ArchAstroSettings
from bridge.intake.providers.archastro.readings import Place
from bridge.intake.sse import EventStreams, open_client

platform = pytest.importorskip("archastro.platform", reason="the vendor's SDK is not installed")
resources = pytest.importorskip("archastro.platform.v1.resources")
types = pytest.importorskip("archastro.platform.types")
runtime = pytest.importorskip("archastro.platform.runtime.http_client")

FAST = Pace(job_s=0.1, events_per_s=400, hold_s=0.05, status_lag_s=0.0)


class Asked(NamedTuple):
    """What tells one request from another."""

    method: str
    path: str
    query: list[tuple[str, str]]
    key: str | None
    bearer: str | None


class Listening(ArchAstroSimulator):
    """The simulator, which remembers what it was asked."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.heard: list[Asked] = []

    def authorise(self, request: web.Request) -> None:
        credentials = request.headers.get(KEY_HEADER), request.headers.get("Authorization")
        self.heard.append(Asked(request.method, request.path, sorted(request.query.items()), *credentials))
        super().authorise(request)


class Both(NamedTuple):
    """One simulator, the vendor's client and our plug with real sockets on both."""

    simulator: Listening
    sdk: Any
    plug: ArchAstro
    session: aiohttp.ClientSession

    async def alike(self, theirs: Awaitable[Any], ours: Awaitable[Any]) -> tuple[Any, Any]:
        """The answers to both, which must have been asked in the same words."""
        self.simulator.heard.clear()
        answers = await theirs, await ours
        half = len(self.simulator.heard) // 2
        assert half
        assert self.simulator.heard[:half] == self.simulator.heard[half:]
        return answers

    async def frames(self, job_id: str) -> list[Frame]:
        """Our stream of a job that is over, to its end."""
        async with open_session() as session, open_client(session) as client:
            streams = EventStreams(client, Budget(1e6))
            async with streams.open(self.plug.stream(job_id, None), self.plug.refusal) as stream:
                return [frame async for frames in stream for frame in frames]


@asynccontextmanager
async def both(jobs: int = 8, **options: Any) -> AsyncIterator[Both]:
    simulator = Listening(World(jobs=jobs, at_once=jobs, pace=FAST, **options))
    async with simulator.served() as url, open_session() as session:
        settings = ArchAstroSettings.model_validate(
            {"provider": "archastro", "base_url": url, "api_key": SecretStr("sk_demo")}
        )
        async with platform.AsyncPlatformClient.with_secret_key("sk_demo", base_url=url) as sdk:
            yield Both(simulator, sdk, ArchAstro(settings, SourceHttp(session, Budget(1e6))), session)


async def over(pair: Both) -> None:
    """Wait until every job has ended."""
    for job in pair.simulator.population.jobs.values():
        while not job.over:
            await job.news(1.0)


async def collected(pages: AsyncIterator[Any]) -> list[Any]:
    return [item async for page in pages for item in page]


async def listed(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


Ask = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("job_id", "get", "stream", "model"),
    [
        (
            "session:ase_1",
            lambda sdk: sdk.agent_sessions.get("ase_1"),
            lambda sdk: sdk.agent_sessions.stream("ase_1"),
            "AgentSession",
        ),
        (
            "routine_run:arr_2",
            lambda sdk: sdk.agent_routines.agent_routine_runs.get("arr_2"),
            lambda sdk: sdk.agent_routine_runs.stream("arr_2"),
            "AgentRoutineRun",
        ),
        (
            "automation_run:atr_4",
            lambda sdk: sdk.automation_runs.get("atr_4"),
            lambda sdk: sdk.automation_runs.stream("atr_4"),
            "AutomationRun",
        ),
    ],
)
async def test_state_and_stream_are_asked_for_as_the_sdk_does(job_id: str, get: Ask, stream: Ask, model: str) -> None:
    async with both() as pair:
        await over(pair)
        theirs, ours = await pair.alike(get(pair.sdk), pair.plug.status(job_id))
        events, frames = await pair.alike(listed(stream(pair.sdk)), pair.frames(job_id))
    assert theirs.status == ours.provider_status == "completed"
    assert theirs.result == ours.result
    assert [(frame.event, orjson.loads(frame.data)) for frame in frames] == [
        (event["event"], event["data"]) for event in events
    ]
    (read,) = pair.plug.read(frames[-1], None)
    assert read._replace(payload=None) == ours._replace(payload=None)
    common = types.automations if model == "AutomationRun" else types.common
    TypeAdapter(getattr(common, model)).validate_python(events[-1]["data"])


async def test_the_events_list_is_paged_as_the_sdk_does() -> None:
    async with both(1) as pair:
        await over(pair)
        job = "session:ase_1"
        theirs, ours = await pair.alike(
            pair.sdk.agent_sessions.events("ase_1", limit=200), collected(pair.plug.backfill(job, None))
        )
        third = ours[2]
        assert [event.id for event in theirs] == [reading.key for reading in ours]
        rest, our_rest = await pair.alike(
            pair.sdk.agent_sessions.events("ase_1", limit=200, after=theirs[2].id),
            collected(pair.plug.backfill(job, third.cursor)),
        )
    assert [event.id for event in rest] == [reading.key for reading in our_rest]
    assert len(rest) == len(theirs) - 3


@pytest.mark.parametrize(
    ("job_id", "ask"),
    [
        ("routine_run:arr_2", lambda sdk: sdk.agent_routines.agent_routine_runs.journal),
        ("automation_run:atr_4", lambda sdk: sdk.automation_runs.journal),
    ],
)
async def test_a_journal_is_paged_as_the_sdk_does(job_id: str, ask: Ask) -> None:
    async with both() as pair:
        await over(pair)
        own_id, journal = job_id.partition(":")[2], ask(pair.sdk)
        page, ours = await pair.alike(journal(own_id, limit=100), collected(pair.plug.backfill(job_id, None)))
        assert [f"journal.{entry.sequence}" for entry in page.data] == [reading.key for reading in ours]
        token = (await journal(own_id, limit=5)).after_cursor
        rest, our_rest = await pair.alike(
            journal(own_id, limit=100, after_cursor=token),
            collected(pair.plug.backfill(job_id, Place(token, 5).cursor())),
        )
    assert [f"journal.{entry.sequence}" for entry in rest.data] == [reading.key for reading in our_rest]


async def test_lists_are_filtered_as_the_sdk_does() -> None:
    async with both() as pair:
        await over(pair)
        settings: dict[str, Any] = {
            "provider": "archastro",
            "base_url": pair.simulator.url,
            "discover_agents": ["agi_1"],
        }
        settings |= {"api_key": SecretStr("sk_demo"), "discover_statuses": ["completed"]}

        def finding(kind: str) -> ArchAstro:
            chosen = ArchAstroSettings.model_validate(settings | {"discover_objects": [kind]})
            return ArchAstro(chosen, SourceHttp(pair.session, Budget(1e6)))

        sessions, ours = await pair.alike(
            pair.sdk.agent_sessions.list(status=["completed"], agent=["agi_1"], limit=100),
            collected(finding("session").jobs()),
        )
        assert [f"session:{session.id}" for session in sessions.data] == ours
        assert ours
        settings["discover_agents"] = ["agi_2"]
        runs, ours = await pair.alike(
            pair.sdk.agent_routine_runs.list(status="completed", agent=["agi_2"], limit=100),
            collected(finding("routine_run").jobs()),
        )
        assert [f"routine_run:{run.id}" for run in runs.data] == ours == ["routine_run:arr_2"]


async def test_a_message_and_a_cancel_are_sent_as_the_sdk_does() -> None:
    async with both(0) as pair:
        wanted = {"agent": "agi_1", "instructions": "wait", "start_idle": True}
        session = (await pair.sdk.agent_sessions.create(wanted)).id
        theirs, ours = await pair.alike(
            pair.sdk.agent_sessions.message(session, {"content": "go"}),
            pair.plug.act(session, Action.INPUT, {"content": "go"}),
        )
        assert [entry["content"] for entry in theirs.inbox] == ["go"]
        assert [entry["content"] for entry in orjson.loads(ours.body)["inbox"]] == ["go", "go"]
        theirs, ours = await pair.alike(
            pair.sdk.agent_sessions.cancel(session), pair.plug.act(session, Action.CANCEL, {})
        )
        assert (theirs.status, orjson.loads(ours.body)["status"]) == ("cancelled", "cancelled")


async def test_key_and_token_travel_and_are_renewed_as_the_sdk_does() -> None:
    async with both(1) as pair:
        url = pair.simulator.url
        settings = {"provider": "archastro", "base_url": url, "api_key": SecretStr("pk_demo")}
        tokens = {"token": SecretStr("tok_demo"), "refresh_token": SecretStr("rt_demo_1")}
        plug = ArchAstro(ArchAstroSettings.model_validate(settings | tokens), SourceHttp(pair.session, Budget(1e6)))
        async with (
            platform.AsyncPlatformClient.with_token("pk_demo", "tok_demo", base_url=url) as user,
            platform.AsyncPlatformClient(default_headers={KEY_HEADER: "pk_demo"}, base_url=url) as renewing,
        ):
            await pair.alike(user.agent_sessions.get("ase_1"), plug.status("ase_1"))
            theirs, ours = await pair.alike(renewing.auth.refresh("rt_demo"), plug.renew())
        assert (theirs.access_token, theirs.refresh_token, ours) == ("tok_demo_1", "rt_demo_1", True)
        assert plug.stream("s", None).headers["Authorization"] == "Bearer tok_demo_2"


async def test_a_plan_without_the_feature_is_told_with_the_sdks_code_and_text() -> None:
    async with both(1, entitled=False) as pair:
        with pytest.raises(runtime.ApiError) as theirs:
            await listed(pair.sdk.agent_sessions.stream("ase_1"))
        with pytest.raises(Rejected) as ours:
            await pair.frames("ase_1")
    assert ours.value.reason == "denied"
    assert str(ours.value) == f"HTTP 402: {theirs.value.error_code}: {theirs.value}"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "a", "message": "b"}},
        {"error": {"type": "a", "message": "b"}},
        {"error": "a", "message": "b"},
    ],
)
async def test_error_bodies_are_read_as_the_sdk_does(body: dict[str, Any]) -> None:
    async with both(0) as pair:
        code, text = runtime._parse_error(body, 400)
        raised = pair.plug.refusal(Answer(400, {}, orjson.dumps(body), 0.0))
    assert str(raised) == f"HTTP 400: {code}: {text}"


async def test_every_word_that_the_sdk_declares_is_known() -> None:
    """The names of stream events stand in its types, statuses and harness events in its descriptions."""

    def declared(module: Any, name: str) -> set[str]:
        return set(get_args(get_type_hints(getattr(module, name))["event"]))

    def described(model: Any, field: str, quote: str) -> set[str]:
        return set(re.findall(rf"{quote}(\w+){quote}", model.model_fields[field].description))

    sessions, common = resources.agent_sessions, types.common
    assert declared(sessions, "AgentSessionStreamEventSessionUpdate") == {"session_update"}
    assert declared(sessions, "AgentSessionStreamEventSessionEvent") == {"session_event"}
    assert declared(resources.agent_routine_runs, "AgentRoutineRunStreamEventRunUpdate") == {"run_update"}
    assert declared(resources.automation_runs, "AutomationRunStreamEventRunUpdate") == {"run_update"}

    async with both(0) as pair:

        def read(event: str, data: dict[str, Any]) -> Reading:
            (reading,) = pair.plug.read(Frame(event, orjson.dumps(data), ""), None)
            return reading

        words = {"session_update": common.AgentSession, "run_update": common.AgentRoutineRun}
        for event, model in words.items():
            statuses = described(model, "status", '"')
            assert len(statuses) == 6
            assert all(read(event, {"status": word}).status == word for word in statuses)
        assert all(
            read("run_update", {"status": word}).status == word
            for word in described(types.automations.AutomationRun, "status", '"')
        )
        harness = described(common.AgentSessionEvent, "event", "`")
        assert len(harness) == 10
        assert all(
            read("session_event", {"id": "cse_1", "event": word}).type is not EventType.UNMAPPED for word in harness
        )
