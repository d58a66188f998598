"""The simulated AUVY API over real sockets: the documented wire, the ledger, and misbehaviour on demand."""

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

from bridge.demo.simulators.auvy import AuvySimulator, auvy_simulator
from bridge.demo.simulators.auvy_job import StreamId
from bridge.demo.simulators.auvy_world import World
from bridge.demo.simulators.faults import CALM, FaultRates
from bridge.demo.simulators.world import Pace

EPOCH_MS = 1_764_000_000_000
FAST = Pace(job_s=0.1, events_per_s=400, hold_s=0.05, status_lag_s=0.0)
HELD = Pace(job_s=0.05, events_per_s=400, hold_s=60, status_lag_s=0.0)


def world(jobs: int = 1, faults: FaultRates = CALM, pace: Pace = FAST, **options: Any) -> World:
    return World(jobs=jobs, at_once=jobs, epoch_ms=EPOCH_MS, faults=faults, pace=pace, **options)


class Api:
    """A client of the simulated API, as plain as can be."""

    def __init__(self, simulator: AuvySimulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, path, **options) as response:
            return response.status, await response.json()

    async def read(self, path: str, idle_s: float = 5.0) -> bytes:
        """What the stream gives until it ends, breaks, or is silent for too long."""
        heard = b""
        timeout = aiohttp.ClientTimeout(sock_read=idle_s)
        try:
            async with self.session.get(path, timeout=timeout) as response:
                async for chunk in response.content.iter_any():
                    heard += chunk
        except (aiohttp.ClientError, TimeoutError):
            pass
        return heard

    async def until(self, job: str, status: str) -> dict[str, Any]:
        """The status body once it tells that word; the last retreat is the test's own time-out."""
        while True:
            _, body = await self.call("GET", f"/v1/jobs/{job}/status")
            if body["status"] == status:
                return dict(body)
            await asyncio.sleep(0.01)

    async def until_finished(self) -> dict[str, Any]:
        while True:
            _, progress = await self.call("GET", "/_sim/progress")
            if progress["finished"]:
                return dict(progress)
            await asyncio.sleep(0.01)

    async def ledger(self, job: str) -> list[str]:
        _, emitted = await self.call("GET", "/_sim/emitted")
        return [entry[0] for entry in emitted["jobs"][job]["entries"]]


@asynccontextmanager
async def api(simulated: World) -> AsyncIterator[Api]:
    async with auvy_simulator(simulated) as simulator:
        headers = {"Authorization": f"Bearer {simulated.api_key}"}
        async with aiohttp.ClientSession(simulator.url, headers=headers) as session:
            yield Api(simulator, session)


def ids(heard: bytes) -> list[str]:
    """The ids of whole frames only."""
    frames = heard.decode("utf-8", "replace").split("\n\n")[:-1]
    return [frame.splitlines()[0].removeprefix("id: ") for frame in frames if frame.startswith("id: ")]


async def test_a_stream_gives_every_emitted_entry_in_order_with_its_id() -> None:
    async with api(world(2)) as client:
        heard = await client.read("/v1/jobs/job_2/stream")
        assert ids(heard) == await client.ledger("job_2")
    parsed = [StreamId.parse(text) for text in ids(heard)]
    assert len(parsed) > 20
    assert parsed == sorted(set(parsed))
    assert any(before.ms == after.ms for before, after in pairwise(parsed))
    assert b'data: {"type":"complete"' in heard.split(b"\n\n")[-2]


async def test_the_same_seed_and_epoch_emit_the_same_ledger() -> None:
    ledgers = []
    for _ in range(2):
        async with api(world(5)) as client:
            for number in range(1, 6):
                await client.until(f"job_{number}", "failed" if number == 3 else "completed")
            ledgers.append((await client.call("GET", "/_sim/emitted"))[1]["jobs"])
    assert ledgers[0] == ledgers[1]
    assert all(job["over"] for job in ledgers[0].values())


async def test_after_gives_only_what_is_behind_that_id() -> None:
    async with api(world(2)) as client:
        whole = ids(await client.read("/v1/jobs/job_2/stream"))
        rest = ids(await client.read(f"/v1/jobs/job_2/stream?after={whole[9]}"))
    assert rest == whole[10:]


async def test_silence_is_filled_with_comments() -> None:
    async with api(world(2, pace=HELD, keepalive_s=0.02)) as client:
        await client.until("job_2", "waiting")
        async with client.session.get("/v1/jobs/job_2/stream") as response:
            heard = b""
            while b": ping\n\n: ping\n\n" not in heard:
                heard += await response.content.readany()
    assert b"waiting" not in heard


async def test_a_job_without_streaming_says_nothing_but_completes() -> None:
    async with api(world(0)) as client:
        status, started = await client.call("POST", "/v1/jobs", json={"pathway_id": "pw_1"})
        assert (status, started["status"]) == (202, "pending")
        done = await client.until(started["job_id"], "completed")
        assert await client.ledger(started["job_id"]) == []
    assert done["progress"] == 100
    assert done["result"]
    assert done["finished_at"] > done["created_at"]


async def test_waiting_shows_in_the_status_and_ends_by_fitting_input() -> None:
    async with api(world(2, pace=HELD)) as client:
        waiting = await client.until("job_2", "waiting")
        asked = waiting["waitingFor"]["interventionId"]
        answer = {"type": "intervention_response", "action": "approve"}
        wrong = {"workspace_id": "w", "input": answer | {"interventionId": "iv_other"}}
        right = {"workspace_id": "w", "input": answer | {"interventionId": asked}}
        assert (await client.call("POST", "/v1/jobs/job_2/input", json=wrong))[0] == 400
        assert (await client.call("POST", "/v1/jobs/job_2/input", json=right))[0] == 200
        done = await client.until("job_2", "completed")
    assert done["waitingFor"] is None


async def test_a_paused_job_resumes_on_request_and_only_then() -> None:
    async with api(world(5, pace=HELD)) as client:
        await client.until("job_5", "paused")
        assert (await client.call("POST", "/v1/jobs/job_5/resume"))[0] == 200
        await client.until("job_5", "completed")
        status, body = await client.call("POST", "/v1/jobs/job_5/resume")
    assert (status, body["code"]) == (400, "VALIDATION_ERROR")


async def test_a_cancelled_job_reads_as_failed_and_cannot_be_cancelled_twice() -> None:
    async with api(world(2, pace=HELD)) as client:
        await client.until("job_2", "waiting")
        assert (await client.call("POST", "/v1/jobs/job_2/cancel"))[0] == 200
        failed = await client.until("job_2", "failed")
        heard = await client.read("/v1/jobs/job_2/stream")
        assert (await client.call("POST", "/v1/jobs/job_2/cancel"))[0] == 400
    assert failed["failedReason"] == "cancelled by request"
    assert b'"type":"error"' in heard.split(b"\n\n")[-2]


async def test_the_status_lags_behind_the_stream() -> None:
    async with api(world(2, pace=Pace(0.05, 400, 0.01, status_lag_s=0.3))) as client:
        assert b'"type":"complete"' in await client.read("/v1/jobs/job_2/stream")
        _, lagging = await client.call("GET", "/v1/jobs/job_2/status")
        assert lagging["status"] != "completed"
        await client.until("job_2", "completed")


async def test_the_list_is_newest_first_so_that_pages_shift() -> None:
    async with api(world(4, pace=HELD)) as client:
        _, first = await client.call("GET", "/v1/jobs?limit=2")
        await client.call("POST", "/v1/jobs", json={"pathway": {}})
        _, second = await client.call("GET", "/v1/jobs?limit=2&offset=2")
        await client.until("job_3", "failed")
        _, failed = await client.call("GET", "/v1/jobs?status=failed")
    assert [job["job_id"] for job in first["jobs"]] == ["job_4", "job_3"]
    assert [job["job_id"] for job in second["jobs"]] == ["job_3", "job_2"]
    assert (first["total"], second["total"]) == (4, 5)
    assert [job["job_id"] for job in failed["jobs"]] == ["job_3"]


async def test_jobs_appear_over_time() -> None:
    async with api(World(jobs=4, at_once=1, spread_s=0.15, pace=FAST)) as client:
        _, early = await client.call("GET", "/_sim/progress")
        assert (len(early["jobs"]), early["finished"]) == (1, False)
        late = await client.until_finished()
    assert len(late["jobs"]) == 4
    assert all(job["over"] for job in late["jobs"].values())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/jobs/job_9/status", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/v1/jobs/job_9/stream", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/v1/nowhere", 404, "NOT_FOUND"),
        ("GET", "/v1/jobs?limit=101", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/jobs?offset=-1", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/jobs/job_1/stream?after=yesterday", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/public/jobs/job_1/stream?t=guess", 403, "FORBIDDEN"),
        ("POST", "/v1/jobs", 400, "VALIDATION_ERROR"),
    ],
)
async def test_errors_come_from_the_documented_table(method: str, path: str, status: int, code: str) -> None:
    async with api(world()) as client:
        answered, body = await client.call(method, path)
    assert (answered, body["code"]) == (status, code)
    assert body["message"]


async def test_a_wrong_key_is_refused_but_health_asks_for_none() -> None:
    async with api(world()) as client, aiohttp.ClientSession(client.simulator.url) as stranger:
        async with stranger.get("/v1/jobs") as refused:
            assert (refused.status, (await refused.json())["code"]) == (401, "AUTH_REQUIRED")
            assert refused.headers["X-RateLimit-Limit"]
        async with stranger.get("/v1/health") as healthy:
            assert healthy.status == 200


async def test_the_public_stream_takes_a_share_token() -> None:
    async with api(world(2)) as client, aiohttp.ClientSession(client.simulator.url) as stranger:
        public = await Api(client.simulator, stranger).read("/v1/public/jobs/job_2/stream?t=st_demo")
        assert ids(public) == await client.ledger("job_2")


async def test_a_rate_limit_says_when_to_come_back() -> None:
    async with (
        api(world(faults=FaultRates(rate_limit=1))) as client,
        client.session.get("/v1/jobs/job_1/stream") as refused,
    ):
        body = await refused.json()
        assert (refused.status, body["code"]) == (429, "RATE_LIMIT")
        assert refused.headers["Retry-After"] == str(body["retryAfter"])


async def test_a_bad_gateway_is_a_page_and_no_json() -> None:
    async with api(world(faults=FaultRates(bad_gateway=1))) as client, client.session.get("/v1/jobs") as page:
        assert (page.status, page.content_type) == (502, "text/html")


async def test_a_cut_leaves_half_a_frame_and_a_broken_connection() -> None:
    async with api(world(2, faults=FaultRates(cut=1))) as client:
        await client.until("job_2", "completed")
        async with client.session.get("/v1/jobs/job_2/stream") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        half = await client.read("/v1/jobs/job_2/stream")
        _, progress = await client.call("GET", "/_sim/progress")
    assert ids(half)
    assert not half.endswith(b"\n\n")
    assert progress["faults"] == {"cut": 2}
    assert progress["connections"]["streams"] == 2


async def test_a_stall_is_silent_until_the_client_goes_away() -> None:
    async with api(world(2, faults=FaultRates(stall=1), keepalive_s=0.02)) as client:
        await client.until("job_2", "completed")
        heard = await client.read("/v1/jobs/job_2/stream", idle_s=0.2)
        assert 0 < len(ids(heard)) < len(await client.ledger("job_2"))
        assert b": ping" not in heard


async def test_resuming_after_every_fault_gives_everything_exactly_once() -> None:
    rough = FaultRates(cut=0.4, stall=0.2, eof=0.3, rate_limit=0.1, server_error=0.1, unavailable=0.1, slow=0.0)
    async with api(world(2, faults=rough, pace=Pace(1.0, 400, 0.05))) as client:
        heard: list[str] = []
        while not (over := client.simulator.population.jobs["job_2"].over) or heard != await client.ledger("job_2"):
            after = f"?after={heard[-1]}" if heard else ""
            heard += ids(await client.read(f"/v1/jobs/job_2/stream{after}", idle_s=0.1))
        _, progress = await client.call("GET", "/_sim/progress")
    assert over
    assert progress["faults"].keys() >= {"cut", "stall", "eof"}


@pytest.mark.parametrize("strict", [False, True])
async def test_an_after_beyond_retention_skips_or_is_refused(strict: bool) -> None:
    async with api(world(2, retained=5, strict_after=strict)) as client:
        await client.until("job_2", "completed")
        emitted = await client.ledger("job_2")
        async with client.session.get(f"/v1/jobs/job_2/stream?after={emitted[0]}") as response:
            heard = await response.read()
    assert response.status == (400 if strict else 200)
    assert ids(heard) == ([] if strict else emitted[-5:])


async def test_a_new_stream_can_be_unknown_for_a_while() -> None:
    async with api(world(2, unready_s=0.2)) as client:
        assert (await client.call("GET", "/v1/jobs/job_2/stream"))[0] == 404
        await asyncio.sleep(0.2)
        assert ids(await client.read("/v1/jobs/job_2/stream"))


async def test_the_process_tells_its_address_and_ends_on_sigterm() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge.demo.simulators.auvy", "--jobs", "1", "--calm"), stdout=asyncio.subprocess.PIPE
    )
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
