"""The simulated described APIs over real sockets: wires, ledgers, and what the descriptions make of them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from bridge.demo.simulators.described import DescribedSimulator, World, described_simulator, simulator
from bridge.demo.simulators.faults import CALM, FaultRates
from bridge.demo.simulators.world import Pace
from bridge.errors import Rejected, Temporary
from bridge.event import Cursor, EventType, JobStatus
from bridge.intake.budget import Budget
from bridge.intake.http import SourceHttp, open_session
from bridge.intake.provider import Action, Reading
from bridge.intake.providers.described import SseSettings, Streamed
from bridge.intake.sse import EventStreams, open_client

APIS = ("openai", "langgraph", "replicate", "fal")
EPOCH_MS = 1_764_000_000_000
FAST = Pace(job_s=0.1, events_per_s=400, hold_s=0.05, status_lag_s=0.0)
SLOW = Pace(job_s=60, events_per_s=50, hold_s=60, status_lag_s=0.0)
ROUGH = FaultRates(cut=0.4, eof=0.3, rate_limit=0.1, server_error=0.1, bad_gateway=0.1)
KEYS = {
    "openai": {"Authorization": "Bearer demo"},
    "langgraph": {"x-api-key": "demo"},
    "replicate": {"Authorization": "Bearer demo"},
    "fal": {"Authorization": "Key demo"},
}
FIRST = {"openai": "resp_1", "langgraph": "thread-1/run-1", "replicate": "pred1", "fal": "fal-ai/toy/req-1"}
STREAM = {
    "openai": "/v1/responses/resp_1?stream=true",
    "langgraph": "/threads/thread-1/runs/run-1/stream",
    "replicate": "/streams/v1/predictions/pred1",
    "fal": "/fal-ai/toy/requests/req-1/status/stream",
}


def world(api: str, jobs: int = 1, faults: FaultRates = CALM, pace: Pace = FAST, **options: Any) -> World:
    return World(api=api, jobs=jobs, at_once=jobs, epoch_ms=EPOCH_MS, faults=faults, pace=pace, **options)


class Api:
    """A client of the simulated API, as plain as can be."""

    def __init__(self, simulated: DescribedSimulator, session: aiohttp.ClientSession) -> None:
        self.simulated = simulated
        self.session = session

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, path, **options) as response:
            return response.status, await response.json()

    async def hear(self, path: str, headers: Mapping[str, str] | None = None) -> list[dict[str, str]]:
        """The whole frames of a stream that the server ends, with their fields as they came."""
        async with self.session.get(path, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            text = (await response.read()).decode()
        blocks = [block for block in text.split("\n\n")[:-1] if not block.startswith(":")]
        return [fields(block) for block in blocks]

    async def until_over(self) -> dict[str, Any]:
        """The ledger once every job is over; the last retreat is the test's own time-out."""
        while True:
            _, emitted = await self.call("GET", "/_sim/emitted")
            if emitted["finished"]:
                return dict(emitted["jobs"])
            await asyncio.sleep(0.01)


def fields(block: str) -> dict[str, str]:
    lines = [line.partition(": ")[::2] for line in block.split("\n")]
    data = "\n".join(value for name, value in lines if name == "data")
    return {name: value for name, value in lines if name != "data"} | {"data": data}


@asynccontextmanager
async def api(simulated: World) -> AsyncIterator[Api]:
    async with (
        described_simulator(simulated) as running,
        aiohttp.ClientSession(running.url, headers=KEYS[simulated.api]) as session,
    ):
        for job in running.population.jobs.values():
            job.closes = True
        yield Api(running, session)


@asynccontextmanager
async def described(simulated: World) -> AsyncIterator[tuple[Streamed, EventStreams, Api]]:
    """The plug with the description of that API, on the real transports."""
    path = Path(__file__).parents[2] / "config" / "providers" / f"{simulated.api}.yaml"
    async with api(simulated) as client, open_session() as session, open_client(session) as streams:
        given = {
            "provider": "sse",
            "api": {"file": str(path)},
            "base_url": client.simulated.url,
            "headers": {name: SecretStr(value) for name, value in KEYS[simulated.api].items()},
        }
        if simulated.api == "replicate":
            given["stream_base_url"] = f"{client.simulated.url}/streams"
        settings = SseSettings.model_validate(given)
        budget = Budget(1_000_000)
        yield Streamed(settings, SourceHttp(session, budget)), EventStreams(streams, budget), client


async def follow(provider: Streamed, streams: EventStreams, job_id: str) -> list[Reading]:
    """Every reading of the job up to the first claim of its end, over as many connections as it takes."""
    readings: list[Reading] = []
    cursor: Cursor | None = None
    while True:
        try:
            request = provider.stream(job_id, cursor)
            async with streams.open(request, provider.refusal) as stream:
                async for frames in stream:
                    for frame in frames:
                        for reading in provider.read(frame, cursor):
                            readings.append(reading)
                            cursor = reading.cursor or cursor
                            if reading.status is not None and reading.status.terminal:
                                return readings
        except Temporary:
            await asyncio.sleep(0.01)


async def final(provider: Streamed, job_id: str) -> Reading:
    """What the status endpoint says once it calls the job over."""
    while True:
        try:
            seen = await provider.status(job_id)
            if seen.status is not None and seen.status.terminal:
                return seen
        except Temporary:
            pass
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("faults", [CALM, ROUGH], ids=["calm", "rough"])
async def test_the_description_reads_every_position_once_and_the_end_as_it_was(name: str, faults: FaultRates) -> None:
    async with described(world(name, jobs=4, faults=faults)) as (provider, streams, client):
        jobs = list(client.simulated.population.jobs)
        heard = await asyncio.gather(*(follow(provider, streams, job_id) for job_id in jobs))
        ends = await asyncio.gather(*(final(provider, job_id) for job_id in jobs))
        ledger = await client.until_over()
        for job_id, readings, end in zip(jobs, heard, ends, strict=True):
            keys = list(dict.fromkeys(reading.key for reading in readings if reading.key is not None))
            assert keys == [key for key, _ in ledger[job_id]["entries"]]
            assert end.status == ledger[job_id]["terminal"]
            assert bool(end.result) == (end.status is JobStatus.COMPLETED)
            assert end.error or end.status is not JobStatus.FAILED or name == "langgraph"
        if faults is ROUGH and name != "fal":  # whose few frames seldom live to see a stream break
            assert (await client.call("GET", "/_sim/progress"))[1]["faults"].keys() >= {"cut", "eof"}


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("openai", {None, EventType.OUTPUT, EventType.TOOL, EventType.STEP, EventType.STATE}),
        ("langgraph", {None, EventType.OUTPUT, EventType.STATE, EventType.UNMAPPED}),
        ("replicate", {None, EventType.OUTPUT, EventType.STATE}),
        ("fal", {None}),
    ],
)
async def test_every_kind_of_frame_has_its_type(name: str, types: set[EventType | None]) -> None:
    pace = Pace(job_s=0.5, events_per_s=400, hold_s=0.0, status_lag_s=0.0)
    async with described(world(name, pace=pace)) as (provider, streams, _):
        readings = await follow(provider, streams, FIRST[name])
    assert {reading.type for reading in readings} == types


async def test_a_latest_value_stream_repeats_its_state_with_the_same_fingerprint() -> None:
    async with described(world("fal")) as (provider, streams, client):
        await client.until_over()
        first, again = [await follow(provider, streams, FIRST["fal"]) for _ in range(2)]
    assert len(first) == len(again) == 1
    assert first[0].fingerprint == again[0].fingerprint


@pytest.mark.parametrize("name", APIS)
async def test_a_job_is_cancelled_through_the_description(name: str) -> None:
    async with described(world(name, pace=SLOW)) as (provider, _, client):
        answer = await provider.act(FIRST[name], Action.CANCEL, {})
        assert answer.status == 200
        end = await final(provider, FIRST[name])
        again = await provider.act(FIRST[name], Action.CANCEL, {})
        assert again.status == 400
        assert (await client.until_over())[FIRST[name]]["terminal"] == end.status
    assert end.status is (JobStatus.FAILED if name == "fal" else JobStatus.CANCELLED)


async def test_an_interrupted_run_waits_and_its_answer_is_another_run() -> None:
    async with described(world("langgraph", jobs=2, pace=Pace(0.05, 400, 60, 0.0))) as (provider, _, client):
        waiting = await provider.status("thread-2/run-2")
        while waiting.status is not JobStatus.WAITING:
            await asyncio.sleep(0.01)
            waiting = await provider.status("thread-2/run-2")
        assert waiting.waiting_for == [{"id": "in_1", "value": "Approve the refund?"}]
        with pytest.raises(Rejected):
            await provider.act("thread-2/run-2", Action.INPUT, {})
        answer = {"assistant_id": "agent", "command": {"resume": "yes"}}
        assert (await provider.act("thread-2/run-2", Action.INPUT, answer)).status == 200
        assert (await final(provider, "thread-2/run-2")).status is JobStatus.CANCELLED
        assert (await final(provider, "thread-2/run-3")).status is JobStatus.COMPLETED
        assert len(await client.until_over()) == 3


async def test_predictions_are_listed_over_pages() -> None:
    async with described(world("replicate", jobs=12)) as (provider, _, _client):
        pages = [page async for page in provider.jobs()]
    assert [len(page) for page in pages] == [5, 5, 2]
    assert [job_id for page in pages for job_id in page] == [f"pred{n}" for n in range(12, 0, -1)]


async def test_openai_resumes_behind_a_sequence_number() -> None:
    async with api(world("openai")) as client:
        await client.until_over()
        whole = await client.hear(STREAM["openai"])
        rest = await client.hear(STREAM["openai"] + "&starting_after=3")
        assert (await client.call("GET", STREAM["openai"] + "&starting_after=x"))[0] == 400
    assert rest == whole[4:]
    assert [json.loads(frame["data"])["sequence_number"] for frame in whole] == list(range(len(whole)))
    assert (whole[0]["event"], whole[-1]["event"]) == ("response.created", "response.completed")


@pytest.mark.parametrize("name", ["langgraph", "replicate"])
async def test_an_sse_id_in_the_header_resumes_behind_it(name: str) -> None:
    async with api(world(name)) as client:
        await client.until_over()
        whole = await client.hear(STREAM[name])
        rest = await client.hear(STREAM[name], {"Last-Event-ID": whole[3]["id"]})
        all_again = await client.hear(STREAM[name], {"Last-Event-ID": "-1"})
    assert rest == whole[4:]
    assert all_again == whole
    assert whole[-1]["event"] == {"langgraph": "end", "replicate": "done"}[name]
    assert ("id" in whole[-1]) is (name == "replicate")


@pytest.mark.parametrize("name", APIS)
async def test_the_same_seed_and_epoch_emit_the_same_ledger(name: str) -> None:
    ledgers = []
    for _ in range(2):
        async with api(world(name, jobs=4)) as client:
            ledgers.append(await client.until_over())
    assert ledgers[0] == ledgers[1]
    assert {job["terminal"] for job in ledgers[0].values()} >= {"completed", "failed"}
    assert any(job["entries"] for job in ledgers[0].values()) is (name != "fal")


@pytest.mark.parametrize("name", APIS)
async def test_a_wrong_key_is_refused_and_an_unknown_job_is_not_found(name: str) -> None:
    async with api(world(name)) as client, aiohttp.ClientSession(client.simulated.url) as stranger:
        async with stranger.get(STREAM[name]) as refused:
            assert refused.status == 401
        assert (await client.call("GET", STREAM[name].replace("1?", "9?").replace("-1", "-9").replace("d1", "d9")))[
            0
        ] == 404


async def test_a_fal_answer_is_there_only_once_the_request_is_over() -> None:
    async with api(world("fal", pace=SLOW)) as client:
        assert (await client.call("GET", "/fal-ai/toy/requests/req-1"))[0] == 400
        assert (await client.call("POST", "/fal-ai/toy", json={"prompt": "x"}))[1]["request_id"] == "req-2"


def test_an_api_that_is_not_played_here_is_refused() -> None:
    with pytest.raises(ValueError, match="no API 'auvy' is played here"):
        simulator(world("auvy"))


async def test_the_process_tells_its_address_and_ends_on_sigterm() -> None:
    command = (sys.executable, "-m", "bridge.demo.simulators.described", "--api", "fal", "--jobs", "1", "--calm")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/_sim/progress") as response:
            assert list((await response.json())["jobs"]) == ["fal-ai/toy/req-1"]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
