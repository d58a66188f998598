"""The simulated Flow Relay API over real sockets: the documented wire, the limits of a key, and misbehaviour."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from bridge.demo.simulators.faults import FaultRates
from bridge.demo.simulators.flowrelay import PLOTS, FlowRelaySimulator, World, flowrelay_simulator
from bridge.demo.simulators.world import Pace
from bridge.errors import Temporary
from bridge.intake.budget import Budget
from bridge.intake.http import SourceHttp, open_session
from bridge.intake.providers.flowrelay import FlowRelay, FlowRelaySettings

EPOCH_MS = 1_764_000_000_000
FAST = Pace(job_s=0.1, hold_s=0.05)
SLOW = Pace(job_s=600)
MEMBERS = {
    *("id", "project_id", "kind", "status", "result_kind", "result_id"),
    *("error", "error_code", "error_meta", "created_at", "updated_at"),
}


def world(jobs: int = 1, pace: Pace = FAST, requests_per_minute: int = 100_000, **options: Any) -> World:
    limits = {"requests_per_minute": requests_per_minute, "generations_per_minute": 1000}
    return World(**{"jobs": jobs, "at_once": jobs, "epoch_ms": EPOCH_MS, "pace": pace, **limits, **options})


class Api:
    """A client of the simulated API, as plain as can be."""

    def __init__(self, simulator: FlowRelaySimulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, path, **options) as response:
            return response.status, await response.json()

    async def job(self, number: int) -> dict[str, Any]:
        status, body = await self.call("GET", f"/api/v1/jobs/job_{number}")
        assert status == 200
        return dict(body)

    async def seen(self, number: int) -> list[dict[str, Any]]:
        """Every different answer about a job until it is over; the last retreat is the test's own time-out."""
        answers = [await self.job(number)]
        while answers[-1]["job"]["status"] not in {"completed", "failed"}:
            await asyncio.sleep(0.002)
            if (answer := await self.job(number)) != answers[-1]:
                answers.append(answer)
        return answers

    async def all_seen(self) -> list[list[dict[str, Any]]]:
        """The same for every job that there is, at once."""
        return await asyncio.gather(*(self.seen(n + 1) for n in range(len(self.simulator.population.jobs))))


@asynccontextmanager
async def api(simulated: World) -> AsyncIterator[Api]:
    async with flowrelay_simulator(simulated) as simulator:
        headers = {"Authorization": f"Bearer {simulated.api_key}"}
        async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
            yield Api(simulator, session)


async def test_every_plot_plays_out_with_the_documented_members() -> None:
    async with api(world(len(PLOTS))) as client:
        for plot, answers in zip(PLOTS, await client.all_seen(), strict=True):
            assert all(answer["job"].keys() == MEMBERS for answer in answers)
            assert [answer["result"] for answer in answers[:-1]] == [None] * (len(answers) - 1)
            end, result = answers[-1]["job"], answers[-1]["result"]
            assert end["kind"] == plot.kind
            assert end["error_code"] == plot.error_code
            assert end["status"] == ("failed" if plot.error_code else "completed")
            assert bool(end["error"]) is bool(plot.error_code)
            assert bool(end["result_id"]) is not bool(plot.error_code)
            assert (result is None) is bool(plot.error_code or plot.pruned)
            words = [answer["job"]["status"] for answer in answers]
            assert ("processing" in words) is not plot.skips


async def test_updated_at_moves_without_the_status_and_the_status_without_updated_at() -> None:
    async with api(world(8)) as client:
        moves = [move for answers in await client.all_seen() for move in pairwise(answers)]
    changed = {
        tuple(before["job"][name] != after["job"][name] for name in ("status", "updated_at")) for before, after in moves
    }
    assert changed >= {(True, True), (True, False), (False, True)}


async def test_a_stuck_job_stays_in_processing() -> None:
    stuck = next(number for number, plot in enumerate(PLOTS, 1) if plot.stuck)
    async with api(world(len(PLOTS), Pace(job_s=0.05, hold_s=60))) as client:
        others = [await client.seen(n) for n in range(1, len(PLOTS) + 1) if n != stuck]
        assert (await client.job(stuck))["job"]["status"] == "processing"
        _, progress = await client.call("GET", "/_sim/progress")
    assert len(others) == len(PLOTS) - 1
    assert progress["finished"] is False


async def test_the_ledger_tells_how_each_job_ended_and_no_entries() -> None:
    async with api(world(2)) as client:
        await client.all_seen()
        _, ledger = await client.call("GET", "/_sim/emitted")
    assert ledger["finished"] is True
    assert ledger["jobs"] == {
        "job_1": {"status": "completed", "terminal": "completed", "over": True, "entries": []},
        "job_2": {"status": "failed", "terminal": "failed", "over": True, "entries": []},
    }


async def test_the_same_seed_and_epoch_tell_the_same() -> None:
    ends = []
    for _ in range(2):
        async with api(world(4)) as client:
            ends.append([answers[-1] for answers in await client.all_seen()])
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/api/v1/handoffs", {"project_id": "prj_7"}, "handoff"),
        ("/api/v1/projects/prj_7/insights/release_notes", None, "release_notes"),
    ],
)
async def test_a_job_can_be_started(path: str, body: Any, kind: str) -> None:
    async with api(world(0)) as client:
        status, started = await client.call("POST", path, json=body)
        assert (status, started) == (202, {"jobId": "job_1", "status": "pending"})
        job = (await client.job(1))["job"]
    assert (job["kind"], job["project_id"], job["created_at"]) == (kind, "prj_7", "2025-11-24T16:00:00.137Z")


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/api/v1/jobs/job_9", "fr_demo", 404),
        ("GET", "/api/v1/nowhere", "fr_demo", 404),
        ("GET", "/api/v1/jobs", "fr_demo", 404),
        ("POST", "/api/v1/handoffs", "fr_demo", 400),
        ("POST", "/api/v1/projects/p/insights/horoscope", "fr_demo", 400),
        ("GET", "/api/v1/jobs/job_1", "fr_other", 401),
    ],
)
async def test_errors_are_a_text_and_nothing_more(method: str, path: str, key: str, status: int) -> None:
    async with api(world()) as client:
        answered, body = await client.call(method, path, headers={"Authorization": f"Bearer {key}"})
    assert answered == status
    assert body.keys() == {"error"}
    assert body["error"]


async def test_the_sixty_first_request_of_a_minute_is_refused_without_saying_for_how_long() -> None:
    async with api(world(pace=SLOW, requests_per_minute=60)) as client:
        assert [(await client.job(1))["job"]["status"] for _ in range(60)] == ["pending"] * 60
        async with client.session.get("/api/v1/jobs/job_1") as refused:
            assert (refused.status, (await refused.json()).keys()) == (429, {"error"})
            assert "Retry-After" not in refused.headers
        _, progress = await client.call("GET", "/_sim/progress")
    assert progress["faults"] == {"rate_limit": 1}


async def test_the_limit_is_one_of_a_sliding_minute() -> None:
    async with api(world(pace=SLOW, requests_per_minute=3, minute_s=0.3)) as client:
        loop = asyncio.get_running_loop()
        admitted: list[tuple[float, float]] = []
        while len(admitted) < 9:
            before_s = loop.time()
            status, _ = await client.call("GET", "/api/v1/jobs/job_1")
            if status == 200:
                admitted.append((before_s, loop.time()))
    for (first_s, _), (_, fourth_s) in zip(admitted, admitted[3:], strict=False):
        assert fourth_s - first_s > 0.3


async def test_starting_jobs_has_a_tighter_limit_of_its_own() -> None:
    async with api(world(0, pace=SLOW, generations_per_minute=2)) as client:
        codes = [(await client.call("POST", "/api/v1/handoffs", json={"project_id": "p"}))[0] for _ in range(3)]
        assert codes == [202, 202, 429]
        assert (await client.call("GET", "/api/v1/jobs/job_1"))[0] == 200


async def test_faults_at_the_door_look_like_a_proxys() -> None:
    async with (
        api(world(faults=FaultRates(bad_gateway=1))) as client,
        client.session.get("/api/v1/jobs/job_1") as page,
    ):
        assert (page.status, page.content_type) == (502, "text/html")


def plug(client: Api, http: SourceHttp) -> FlowRelay:
    given = {"provider": "flowrelay", "token": SecretStr("fr_demo"), "base_url": f"{client.simulator.url}/api/v1"}
    return FlowRelay(FlowRelaySettings.model_validate(given), http)


async def test_a_budget_below_the_limit_is_never_refused_however_many_ask() -> None:
    """Thirty jobs ask as fast as they are let, over four of the vendor's minutes."""
    minute_s, jobs = 0.6, 30
    async with api(world(jobs, SLOW, 60, minute_s=minute_s)) as client, open_session() as session:
        provider = plug(client, SourceHttp(session, Budget(40 * 60 / minute_s, burst=4)))
        looks = [0] * jobs

        async def poll(number: int) -> None:
            while True:
                await provider.status(f"job_{number + 1}")
                looks[number] += 1

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4 * minute_s):
                await asyncio.gather(*(poll(number) for number in range(jobs)))
        _, progress = await client.call("GET", "/_sim/progress")
    assert progress["faults"] == {}
    assert max(looks) <= min(looks) + 2
    assert sum(looks) > 0.5 * 4 * 40


async def test_one_refusal_for_too_many_requests_holds_back_all_jobs_of_the_key() -> None:
    held: list[float] = []

    async def sleep(wait_s: float) -> None:
        held.append(wait_s)
        await asyncio.Event().wait()

    async with api(world(2, SLOW, requests_per_minute=1)) as client, open_session() as session:
        provider = plug(client, SourceHttp(session, Budget(1000, sleep=sleep)))
        await provider.status("job_1")
        with pytest.raises(Temporary) as caught:
            await provider.status("job_1")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(provider.status("job_2"), 0.05)
    assert caught.value.reason == "rate_limited"
    assert len(held) == 1
    assert 2 < held[0] <= 5
    assert client.simulator.population.requests == 2


async def test_the_process_tells_its_address_and_ends_on_sigterm() -> None:
    command = (sys.executable, "-m", "bridge.demo.simulators.flowrelay", "--jobs=1", "--calm", "--port=0")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/_sim/progress") as response:
            assert list((await response.json())["jobs"]) == ["job_1"]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
