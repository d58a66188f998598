"""The simulated TenFive API over real sockets: the documented wire, what it leaves open, and misbehaviour on demand."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from bridge.demo.simulators.faults import CALM, FaultRates
from bridge.demo.simulators.tenfive import TenFiveSimulator, tenfive_simulator
from bridge.demo.simulators.tenfive_run import PLOTS, World
from bridge.demo.simulators.world import Pace

EPOCH_MS = 1_764_000_000_000
FAST = Pace(job_s=0.1, events_per_s=400, hold_s=0.05, status_lag_s=0.0)
HELD = Pace(job_s=0.05, events_per_s=400, hold_s=60, status_lag_s=0.0)
ENDS = ["completed", "completed", "failed", "completed", "completed", "failed", "cancelled"]


def world(jobs: int = 1, faults: FaultRates = CALM, pace: Pace = FAST, **options: Any) -> World:
    return World(jobs=jobs, at_once=jobs, epoch_ms=EPOCH_MS, faults=faults, pace=pace, **{"unstreamed": 0.0, **options})


class Api:
    """A client of the simulated API, as plain as can be."""

    def __init__(self, simulator: TenFiveSimulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, path, **options) as response:
            return response.status, await response.json()

    async def read(self, run: str, last_id: str | None = None, idle_s: float = 5.0) -> bytes:
        """What the stream gives until it ends, breaks, or is silent for too long."""
        heard = b""
        timeout = aiohttp.ClientTimeout(sock_read=idle_s)
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        try:
            async with self.session.get(f"/v1/runs/{run}/events/stream", timeout=timeout, headers=headers) as response:
                async for chunk in response.content.iter_any():
                    heard += chunk
        except (aiohttp.ClientError, TimeoutError):
            pass
        return heard

    async def listed(self, run: str, after: int = 0) -> list[dict[str, Any]]:
        """All pages of the list."""
        events: list[dict[str, Any]] = []
        cursor: int | None = after
        while cursor is not None:
            _, page = await self.call("GET", f"/v1/runs/{run}/events", params={"after": cursor})
            events += page["events"]
            cursor = page["next_cursor"]
        return events

    async def until(self, run: str, status: str) -> dict[str, Any]:
        """The record once it tells that word; the last retreat is the test's own time-out."""
        while True:
            _, record = await self.call("GET", f"/v1/runs/{run}")
            if record["status"] == status:
                return dict(record)
            await asyncio.sleep(0.01)

    async def until_finished(self) -> dict[str, Any]:
        """The whole ledger once every run is over."""
        _, emitted = await self.call("GET", "/_sim/emitted")
        while not emitted["finished"]:
            await asyncio.sleep(0.01)
            _, emitted = await self.call("GET", "/_sim/emitted")
        return dict(emitted)


@asynccontextmanager
async def api(simulated: World) -> AsyncIterator[Api]:
    async with tenfive_simulator(simulated) as simulator:
        headers = {"Authorization": f"Bearer {simulated.api_key}"}
        async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
            yield Api(simulator, session)


def frames(heard: bytes) -> list[dict[str, str]]:
    """The fields of whole frames only, comments left out."""
    blocks = heard.decode("utf-8", "replace").split("\n\n")[:-1]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks if not block.startswith(":")]


def told(heard: bytes) -> list[dict[str, Any]]:
    """The envelopes in them."""
    return [json.loads(frame["data"]) for frame in frames(heard)]


def seqs(events: list[dict[str, Any]]) -> list[int]:
    return [event["seq"] for event in events]


async def test_stream_list_and_ledger_tell_the_same_events_and_seq_jumps() -> None:
    async with api(world(2, page_max=7)) as client:
        heard = await client.read("run_2")
        ledger = (await client.until_finished())["jobs"]["run_2"]
        assert told(heard) == await client.listed("run_2")
    assert [[str(event["seq"]), event["type"]] for event in told(heard)] == ledger["entries"]
    assert {frame["event"] for frame in frames(heard)} == {"run_event"}
    assert not any("id" in frame for frame in frames(heard))
    steps = [after - before for before, after in pairwise(seqs(told(heard)))]
    assert min(steps) == 1
    assert max(steps) > 1
    assert told(heard)[0]["payload"] == {"redacted": True, "value": {"request_id": "req-2", "streaming": True}}


async def test_every_plot_ends_as_told_and_the_same_seed_tells_it_again() -> None:
    ledgers = []
    for _ in range(2):
        async with api(world(len(PLOTS))) as client:
            ledgers.append((await client.until_finished())["jobs"])
    assert ledgers[0] == ledgers[1]
    assert [run["terminal"] for run in ledgers[0].values()] == ENDS
    kinds = {kind for run in ledgers[0].values() for _, kind in run["entries"]}
    assert kinds >= {
        *("run.created", "run.worker.started", "step.progress", "step.done", "run.awaiting_input"),
        *("run.worker.succeeded", "run.worker.failed", "run.cancelled", "run.limit_exceeded"),
    }


@pytest.mark.parametrize("ids", ["seq", "opaque"])
@pytest.mark.parametrize("replay", [True, False])
async def test_ids_where_they_come_take_the_stream_up_again_behind_them(ids: str, replay: bool) -> None:
    async with api(world(2, ids=ids, replay=replay)) as client:
        await client.until_finished()
        listed = await client.listed("run_2")
        first = seqs(listed)[9]
        known = str(first) if ids == "seq" else client.simulator.population.jobs["run_2"].id_of(first)
        rest = frames(await client.read("run_2", known))
        unknown = told(await client.read("run_2", "nonsense"))
    assert [json.loads(frame["data"]) for frame in rest] == listed[10:]
    assert len({frame["id"] for frame in rest}) == len(rest)
    assert unknown == (listed if replay else [])


async def test_without_ids_a_last_event_id_means_nothing() -> None:
    async with api(world(2)) as client:
        whole = await client.read("run_2")
        assert await client.read("run_2", str(seqs(told(whole))[3])) == whole


async def test_a_stream_that_replays_nothing_tells_only_what_is_still_to_come() -> None:
    async with api(world(2, pace=HELD, replay=False)) as client:
        await client.until("run_2", "awaiting_input")
        before = await client.listed("run_2")
        async with client.session.get("/v1/runs/run_2/events/stream") as response:
            await client.call("POST", "/v1/runs/run_2/signal", json={"action": "approve"})
            heard = told(await response.read())
        assert before + heard == await client.listed("run_2")
    assert heard[0]["payload"]["value"]["to_status"] == "running"


async def test_events_that_no_stream_shows_are_in_the_list_and_in_the_ledger() -> None:
    async with api(world(2, unstreamed=0.3)) as client:
        heard = told(await client.read("run_2"))
        ledger = (await client.until_finished())["jobs"]["run_2"]["entries"]
        listed = await client.listed("run_2")
    assert 0 < len(heard) < len(listed) == len(ledger)
    assert [event for event in listed if event in heard] == heard


@pytest.mark.parametrize(
    ("action", "ends"), [("approve", "succeeded"), ("submit_input", "succeeded"), ("reject", "failed")]
)
async def test_a_run_that_asks_goes_on_by_a_signal(action: str, ends: str) -> None:
    async with api(world(2, pace=HELD)) as client:
        await client.until("run_2", "awaiting_input")
        status, refused = await client.call("POST", "/v1/runs/run_2/signal", json={"action": "maybe"})
        assert (status, refused["reason_code"]) == (400, "SIGNAL_ACTION_INVALID")
        assert (await client.call("POST", "/v1/runs/run_2/resume"))[0] == 409
        assert (await client.call("POST", "/v1/runs/run_2/signal", json={"action": action}))[0] == 200
        record = await client.until("run_2", ends)
        assert (await client.call("POST", "/v1/runs/run_2/signal", json={"action": action}))[0] == 409
    assert record["completed_at"] > record["created_at"]
    assert record["reason_code"] == ("rejected" if action == "reject" else "signalled")


async def test_a_stalled_run_resumes_on_request_or_recovers_by_itself() -> None:
    async with api(world(5, pace=HELD)) as client:
        await client.until("run_5", "stalled")
        assert (await client.call("POST", "/v1/runs/run_5/signal", json={"action": "approve"}))[0] == 409
        assert (await client.call("POST", "/v1/runs/run_5/resume"))[0] == 200
        assert (await client.until("run_5", "succeeded"))["output"]
    async with api(world(5)) as client:
        moves = [event["payload"]["value"] for event in told(await client.read("run_5", idle_s=0.4))]
    assert [move["to_status"] for move in moves if "to_status" in move] == [
        "running",
        "stalled",
        "running",
        "succeeded",
    ]


async def test_a_cancelled_run_says_so_and_cannot_be_cancelled_twice() -> None:
    async with api(world(2, pace=HELD)) as client:
        await client.until("run_2", "awaiting_input")
        assert (await client.call("POST", "/v1/runs/run_2/cancel"))[0] == 200
        await client.until("run_2", "cancelled")
        assert (await client.call("POST", "/v1/runs/run_2/cancel"))[0] == 409
        assert told(await client.read("run_2"))[-1]["type"] == "run.cancelled"


async def test_starting_twice_with_one_key_names_the_run_that_there_is() -> None:
    async with api(world(0)) as client:
        start = {"headers": {"idempotency-key": "k1"}, "json": {"input": "x"}}
        first = await client.call("POST", "/v1/runs", **start)
        again = await client.call("POST", "/v1/runs", **start)
        other = await client.call("POST", "/v1/runs", **start | {"json": {"input": "y"}})
        bare = await client.call("POST", "/v1/runs", json={"input": "x"})
        assert len(client.simulator.population.jobs) == 1
    assert (first[0], first[1]["status"]) == (201, "queued")
    assert (again[0], again[1]["id"], again[1]["replayed"]) == (409, first[1]["id"], True)
    assert (other[0], other[1]["reason_code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert (bare[0], bare[1]["reason_code"]) == (400, "IDEMPOTENCY_KEY_REQUIRED")


async def test_the_description_names_the_cursor_of_the_list_where_there_is_one() -> None:
    async with (
        api(world(2, cursor_param="since_seq")) as client,
        aiohttp.ClientSession(client.simulator.url) as stranger,
    ):
        async with stranger.get("/openapi.json") as answer:
            parameters = (await answer.json())["paths"]["/v1/runs/{id}/events"]["get"]["parameters"]
        assert {"in": "query", "name": "since_seq"} in parameters
        await client.until_finished()
        _, whole = await client.call("GET", "/v1/runs/run_2/events")
        _, rest = await client.call("GET", "/v1/runs/run_2/events?since_seq=2")
        assert whole["events"][2:] == rest["events"][: len(whole["events"]) - 2]
    async with api(world(openapi=False)) as client:
        assert (await client.call("GET", "/openapi.json"))[0] == 404


@pytest.mark.parametrize(("key", "code"), [(None, "AUTH_MISSING_HEADER"), ("Bearer a:b", "AUTH_KEY_INVALID")])
async def test_a_missing_or_wrong_key_is_refused_in_the_documented_envelope(key: str | None, code: str) -> None:
    headers = {} if key is None else {"Authorization": key}
    async with (
        tenfive_simulator(world()) as simulator,
        aiohttp.ClientSession(simulator.url, headers=headers) as session,
    ):
        async with session.get("/v1/runs/run_1") as answer:
            body = await answer.json()
        assert (answer.status, body["reason_code"]) == (401, code)
        assert body.keys() == {"error", "reason_code", "request_id"}
        async with session.get("/health/live") as answer:
            assert answer.status == 200


@pytest.mark.parametrize(("ids", "replay"), [("none", True), ("none", False), ("opaque", False), ("seq", True)])
async def test_list_and_stream_together_tell_everything_whatever_breaks(ids: str, replay: bool) -> None:
    rough = FaultRates(cut=0.5, stall=0.1, eof=0.4, rate_limit=0.1, server_error=0.1, unavailable=0.1)
    simulated = world(2, rough, Pace(0.6, 400, 0.05), ids=ids, replay=replay, unstreamed=0.1)
    async with api(simulated) as client:
        known: dict[int, str] = {}
        last_id, reached = None, 0
        run = client.simulator.population.jobs["run_2"]
        while not run.over or len(known) < len(run.entries):
            heard = frames(await client.read("run_2", last_id, idle_s=0.1))
            last_id = heard[-1].get("id", last_id) if heard else last_id
            async with client.session.get(f"/v1/runs/run_2/events?after={reached}") as page:
                listed = (await page.json())["events"] if page.status == 200 else []
            reached = listed[-1]["seq"] if listed else reached
            for event in [json.loads(frame["data"]) for frame in heard] + listed:
                assert known.setdefault(event["seq"], event["type"]) == event["type"]
        emitted = await client.until_finished()
    assert [[str(seq), known[seq]] for seq in sorted(known)] == emitted["jobs"]["run_2"]["entries"]
    assert emitted["faults"].keys() & {"cut", "stall", "eof"}


async def test_the_process_tells_its_address_and_takes_the_worlds_switches() -> None:
    options = ("--jobs=1", "--calm", "--no-replay", "--no-openapi", "--ids=opaque", "--epoch-ms=1764000000000")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge.demo.simulators.tenfive", *options), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        async with aiohttp.ClientSession(url) as session:
            async with session.get("/_sim/progress") as progress:
                assert list((await progress.json())["jobs"]) == ["run_1"]
            async with session.get("/openapi.json") as described:
                assert described.status == 404
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
