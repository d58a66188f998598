"""The simulated ArchAstro API over real sockets: the documented wire, the ledger, and misbehaviour on demand."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from bridge.demo.simulators.archastro import KEY_HEADER, ArchAstroSimulator, archastro_simulator
from bridge.demo.simulators.archastro_world import PLOTS, World
from bridge.demo.simulators.faults import CALM, FaultRates
from bridge.demo.simulators.world import Pace

EPOCH_MS = 1_764_000_000_000
FAST = Pace(job_s=0.1, events_per_s=400, hold_s=0.05, status_lag_s=0.0)
HELD = Pace(job_s=0.05, events_per_s=400, hold_s=60, status_lag_s=0.0)
API = "/api/v1"
ENDS = {"completed", "failed", "skipped", "cancelled"}
PATHS = {
    "session": (f"{API}/agent_sessions/{{}}", f"{API}/agent_sessions/{{}}/stream"),
    "routine_run": (f"{API}/agent_routines/runs/{{}}", f"{API}/agent_routine_runs/{{}}/stream"),
    "automation_run": (f"{API}/automation_runs/{{}}", f"{API}/automation_runs/{{}}/stream"),
}

Event = tuple[str, Any]


def world(jobs: int = 1, faults: FaultRates = CALM, pace: Pace = FAST, **options: Any) -> World:
    return World(jobs=jobs, at_once=jobs, epoch_ms=EPOCH_MS, faults=faults, pace=pace, **options)


class Api:
    """A client of the simulated API, as plain as can be."""

    def __init__(self, simulator: ArchAstroSimulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, path, **options) as response:
            return response.status, await response.json()

    async def get(self, path: str, params: Mapping[str, str] | list[tuple[str, str]] = {}) -> Any:  # noqa: B006
        status, body = await self.call("GET", path, params=params)
        assert status == 200, body
        return body

    async def read(self, path: str, idle_s: float = 5.0) -> bytes:
        """What the stream gives until it ends, breaks, or is silent for too long."""
        heard = b""
        try:
            async with self.session.get(path, timeout=aiohttp.ClientTimeout(sock_read=idle_s)) as response:
                async for chunk in response.content.iter_any():
                    heard += chunk
        except (aiohttp.ClientError, TimeoutError):
            pass
        return heard

    async def until(self, job_id: str, status: str) -> dict[str, Any]:
        """The status body once it tells that word; the last retreat is the test's own time-out."""
        kind, _, own_id = job_id.partition(":")
        while True:
            body = await self.get(PATHS[kind][0].format(own_id))
            if body["status"] == status:
                return dict(body)
            await asyncio.sleep(0.01)

    async def ledger(self) -> dict[str, Any]:
        return dict((await self.get("/_sim/emitted"))["jobs"])

    async def until_finished(self) -> dict[str, Any]:
        while True:
            if (await self.get("/_sim/progress"))["finished"]:
                return await self.ledger()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def api(simulated: World) -> AsyncIterator[Api]:
    async with (
        archastro_simulator(simulated) as simulator,
        aiohttp.ClientSession(simulator.url, headers={KEY_HEADER: simulated.api_key}) as session,
    ):
        yield Api(simulator, session)


def events(heard: bytes) -> list[Event]:
    """The whole frames that are events."""
    frames = [frame.splitlines() for frame in heard.decode("utf-8", "replace").split("\n\n")[:-1]]
    told = [dict(line.split(": ", 1) for line in lines) for lines in frames if lines and lines[0].startswith("event")]
    return [(one["event"], json.loads(one["data"])) for one in told]


def statuses(heard: bytes) -> list[str]:
    return [data["status"] for name, data in events(heard) if name.endswith("_update")]


async def test_a_stream_replays_the_current_state_on_connect_and_closes_at_the_end() -> None:
    async with api(world(2)) as client:
        await client.until_finished()
        session, run = [
            await client.read(path)
            for path in (
                f"{API}/agent_sessions/ase_1/stream",
                f"{API}/agent_routine_runs/arr_2/stream",
            )
        ]
    assert [name for name, _ in events(session)] == ["session_update"]
    assert [name for name, _ in events(run)] == ["run_update"]
    assert statuses(session) == statuses(run) == ["completed"]
    assert events(session)[0][1]["result"]
    assert events(session)[0][1]["completed_at"]


async def test_a_stream_shows_states_and_harness_events_live_and_the_events_list_the_same_ones() -> None:
    async with api(world(1, pace=Pace(0.2, 100, 0.1, 0.0))) as client:
        heard = await client.read(f"{API}/agent_sessions/ase_1/stream")
        listed = await client.get(f"{API}/agent_sessions/ase_1/events")
        entries = (await client.ledger())["session:ase_1"]["entries"]
    live = [data for name, data in events(heard) if name == "session_event"]
    assert statuses(heard) == ["pending", "running", "waiting", "running", "completed"]
    assert live == listed
    assert entries == [[event["id"], event["event"]] for event in listed]
    assert {"session_started", "needs_input", "finished"} <= {event["event"] for event in listed}


async def test_the_events_list_goes_on_behind_an_id_in_pages() -> None:
    async with api(world(1)) as client:
        await client.until_finished()
        path = f"{API}/agent_sessions/ase_1/events"
        whole = await client.get(path)
        assert await client.get(path, {"after": whole[2]["id"], "limit": "2"}) == whole[3:5]
        assert await client.get(path, {"after": whole[-1]["id"]}) == []
        assert (await client.call("GET", path, params={"after": "cse_none"}))[0] == 400


@pytest.mark.parametrize("path", ["agent_routines/runs/arr_2", "automation_runs/atr_4"])
async def test_a_journal_is_paged_forward_and_its_last_page_names_no_next_one(path: str) -> None:
    async with api(world(4)) as client:
        ledger = await client.until_finished()
        pages = [await client.get(f"{API}/{path}/journal", {"limit": "7"})]
        while cursor := pages[-1]["after_cursor"]:
            pages.append(await client.get(f"{API}/{path}/journal", {"limit": "7", "after_cursor": cursor}))
        wrong = await client.call("GET", f"{API}/{path}/journal", params={"after_cursor": "no"})
    entries = [entry for page in pages for entry in page["data"]]
    kind = "routine_run" if "arr" in path else "automation_run"
    of_job = ledger[f"{kind}:{path.rpartition('/')[2]}"]["entries"]
    assert [page["has_more"] for page in pages] == [True] * (len(pages) - 1) + [False]
    assert [[f"journal.{entry['sequence']}", entry["type"]] for entry in entries] == of_job
    assert {"node_started", "node_completed"} <= {entry["type"] for entry in entries}
    assert wrong[0] == 400


async def test_what_has_no_log_says_so_with_an_empty_one() -> None:
    async with api(world(7)) as client:
        await client.until("routine_run:arr_6", "skipped")
        journal = await client.get(f"{API}/agent_routines/runs/arr_6/journal")
        assert await client.get(f"{API}/agent_sessions/ase_7/events") == []
    assert (journal["journal"], journal["data"], journal["has_more"]) == (None, [], False)


async def test_every_plot_ends_as_it_should_and_the_same_seed_says_the_same() -> None:
    ledgers = []
    for _ in range(2):
        async with api(world(len(PLOTS))) as client:
            ledgers.append(await client.until_finished())
    assert ledgers[0] == ledgers[1]
    assert [(job.partition(":")[0], told["terminal"]) for job, told in ledgers[0].items()] == [
        (plot.kind, plot.end) for plot in PLOTS
    ]
    assert {told["status"] for told in ledgers[0].values()} == ENDS


async def test_a_delivery_or_a_worker_says_nothing_about_the_run() -> None:
    async with api(world(4 * len(PLOTS))) as client:
        await client.until_finished()
        runs = (await client.get(f"{API}/agent_routine_runs", {"limit": "100", "status": "completed"}))["data"]
    assert {run["delivery"]["status"] for run in runs} == {"delivered", "failed"}
    assert {run["worker"]["status"] for run in runs} == {"completed"}


async def test_automations_can_be_left_out_because_no_list_shows_them() -> None:
    async with api(world(6, automations=False)) as client:
        assert not [job for job in await client.ledger() if job.startswith("automation")]


async def test_a_message_wakes_a_waiting_session() -> None:
    async with api(world(1, pace=HELD)) as client:
        await client.until("session:ase_1", "waiting")
        path = f"{API}/agent_sessions/ase_1/message"
        assert (await client.call("POST", path, json={"text": "go"}))[0] == 422
        status, session = await client.call("POST", path, json={"content": "go on"})
        assert (status, session["inbox"][-1]["content"]) == (200, "go on")
        await client.until("session:ase_1", "completed")


async def test_an_idle_session_waits_for_its_first_message() -> None:
    async with api(world(0)) as client:
        wanted = {"agent": "agi_1", "instructions": "wait", "start_idle": True}
        status, session = await client.call("POST", f"{API}/agent_sessions", json=wanted)
        assert status == 201
        await client.until(f"session:{session['id']}", "waiting")
        await client.call("POST", f"{API}/agent_sessions/{session['id']}/message", json={"content": "now"})
        await client.until(f"session:{session['id']}", "completed")


async def test_a_cancel_ends_a_session_and_repeating_it_changes_nothing() -> None:
    async with api(world(1, pace=HELD)) as client:
        await client.until("session:ase_1", "waiting")
        for _ in range(2):
            status, session = await client.call("POST", f"{API}/agent_sessions/ase_1/cancel")
            assert (status, session["status"]) == (200, "cancelled")
        assert statuses(await client.read(f"{API}/agent_sessions/ase_1/stream")) == ["cancelled"]


async def test_invoking_starts_a_run_of_either_kind() -> None:
    async with api(world(0)) as client:
        _, routine_run = await client.call("POST", f"{API}/agent_routines/arn_1/invoke", json={})
        _, automation_run = await client.call("POST", f"{API}/automations/aut_1/invoke", json={})
        await client.until(f"routine_run:{routine_run['id']}", "completed")
        await client.until(f"automation_run:{automation_run['id']}", "completed")


async def test_the_list_of_sessions_stops_without_a_cursor_and_filters_only_by_brackets() -> None:
    async with api(world(0, pace=HELD, list_max=4)) as client:
        for idle in (False, True) * 5:
            wanted = {"agent": "agi_1", "instructions": "x", "start_idle": idle}
            _, started = await client.call("POST", f"{API}/agent_sessions", json=wanted)
            await client.until(f"session:{started['id']}", "waiting" if idle else "completed")
        path = f"{API}/agent_sessions"
        whole = await client.get(path, {"limit": "4"})
        both = await client.get(path, [("status[]", "waiting"), ("status[]", "completed")])
        plain = await client.get(path, [("status", "waiting"), ("status", "completed")])
        agents = await client.get(path, {"agent[]": "agi_none"})
        too_many, odd = [(await client.call("GET", path, params=p))[0] for p in ({"limit": "5"}, {"status[]": "x"})]
    assert list(whole) == ["data"]
    assert [session["id"] for session in whole["data"]] == ["ase_10", "ase_9", "ase_8", "ase_7"]
    assert {session["status"] for session in both["data"]} == {"waiting", "completed"}
    assert {session["status"] for session in plain["data"]} == {"completed"}
    assert agents["data"] == []
    assert (too_many, odd) == (400, 422)


async def test_pages_of_runs_lead_to_the_older_ones_and_back() -> None:
    async with api(world(0, pace=HELD)) as client:
        for _ in range(5):
            await client.call("POST", f"{API}/agent_routines/arn_1/invoke", json={})
        path = f"{API}/agent_routine_runs"
        pages = [await client.get(path, {"limit": "2"})]
        while cursor := pages[-1]["after_cursor"]:
            pages.append(await client.get(path, {"limit": "2", "after_cursor": cursor}))
        back = await client.get(path, {"limit": "2", "before_cursor": pages[2]["before_cursor"]})
        brackets = await client.call("GET", path, params={"status[]": "running"})
    assert [[run["id"] for run in page["data"]] for page in pages] == [
        ["arr_5", "arr_4"],
        ["arr_3", "arr_2"],
        ["arr_1"],
    ]
    assert (pages[0]["before_cursor"], pages[2]["after_cursor"]) == (None, None)
    assert [run["id"] for run in back["data"]] == ["arr_3", "arr_2"]  # whose states move on meanwhile
    assert brackets[0] == 422


async def test_the_status_lags_behind_the_stream() -> None:
    async with api(world(1, pace=Pace(0.05, 400, 0.01, status_lag_s=0.5))) as client:
        heard = await client.read(f"{API}/agent_sessions/ase_1/stream")
        assert statuses(heard)[-1] == "completed"
        assert (await client.get(f"{API}/agent_sessions/ase_1"))["status"] != "completed"
        await client.until("session:ase_1", "completed")


async def test_silence_is_filled_with_comments_and_a_stream_ends_at_its_longest_duration() -> None:
    async with api(world(4, pace=HELD, keepalive_s=0.02, stream_max_s=0.2)) as client:
        await client.until("session:ase_1", "waiting")
        heard = await client.read(f"{API}/agent_sessions/ase_1/stream")
    assert b": keepalive\n\n: keepalive\n\n" in heard
    assert statuses(heard) == ["waiting"]
    assert events(heard)[-1] == (
        "error",
        {"code": "stream_timeout", "message": "maximum stream duration reached"},
    )


async def test_an_automation_run_is_timed_out_without_a_word() -> None:
    async with api(world(4, pace=Pace(3.0, 2, 0.0, 0.0), stream_max_s=0.05)) as client:
        heard = await client.read(f"{API}/automation_runs/atr_4/stream")
    assert statuses(heard)[0] == "pending"
    assert "error" not in dict(events(heard))


async def test_a_cut_leaves_half_a_frame_and_a_stall_leaves_silence() -> None:
    slow = Pace(0.3, 100, 0.01, 0.0)
    async with api(world(1, faults=FaultRates(cut=1), pace=slow)) as client:
        half = await client.read(f"{API}/agent_sessions/ase_1/stream")
        assert not half.endswith(b"\n\n")
        assert (await client.get("/_sim/progress"))["faults"] == {"cut": 1}
    async with api(world(1, faults=FaultRates(stall=1), pace=slow, keepalive_s=0.02, stream_max_s=0.1)) as client:
        heard = await client.read(f"{API}/agent_sessions/ase_1/stream", idle_s=0.4)
        assert "error" not in dict(events(heard))
        assert "completed" not in statuses(heard)


async def test_what_a_stream_missed_is_in_the_log() -> None:
    rough = FaultRates(cut=0.4, stall=0.2, eof=0.3)
    async with api(world(1, faults=rough, pace=Pace(0.4, 100, 0.05, 0.0))) as client:
        frames, heard = b"", list[str]()
        while "completed" not in statuses(frames):
            frames = await client.read(f"{API}/agent_sessions/ase_1/stream", idle_s=0.1)
            heard += [data["id"] for name, data in events(frames) if name == "session_event"]
        listed = [event["id"] for event in await client.get(f"{API}/agent_sessions/ase_1/events")]
        assert listed == [entry[0] for entry in (await client.ledger())["session:ase_1"]["entries"]]
    assert set(heard) < set(listed)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "agent_sessions/ase_9", 404, "not_found"),
        ("GET", "agent_sessions/arr_2", 404, "not_found"),
        ("GET", "agent_routines/runs/ase_1", 404, "not_found"),
        ("GET", "agent_routine_runs/arr_9/stream", 404, "not_found"),
        ("GET", "nowhere", 404, "not_found"),
        ("GET", "agent_sessions?limit=101", 400, "validation_error"),
        ("POST", "agent_sessions", 422, "invalid_request"),
    ],
)
async def test_errors_are_objects_with_a_code(method: str, path: str, status: int, code: str) -> None:
    async with api(world(2)) as client:
        answered, body = await client.call(method, f"{API}/{path}")
    assert (answered, body["error"]["code"]) == (status, code)
    assert body["error"]["message"]


async def test_a_plan_without_the_feature_answers_402_before_any_stream() -> None:
    async with api(world(1, entitled=False)) as client:
        for path in ("agent_sessions/ase_1/stream", "agent_sessions"):
            status, body = await client.call("GET", f"{API}/{path}")
            assert (status, body["error"]["code"]) == (402, "plan_not_entitled")


async def test_a_publishable_key_needs_a_token_which_expires_and_is_renewed_once_per_refresh_token() -> None:
    async with (
        archastro_simulator(world(1, token_life_s=0.5)) as simulator,
        aiohttp.ClientSession(simulator.url, headers={KEY_HEADER: "pk_demo"}) as session,
    ):
        client = Api(simulator, session)

        async def sessions(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return (await client.call("GET", f"{API}/agent_sessions", headers=headers))[0]

        assert (await client.call("GET", f"{API}/agent_sessions"))[0] == 401
        assert await sessions("tok_demo") == 200
        while True:
            if await sessions("tok_demo") == 401:
                break
            await asyncio.sleep(0.02)
        refresh = {"refresh_token": "rt_demo"}
        status, tokens = await client.call("POST", f"{API}/auth/refresh", json=refresh)
        assert (status, await sessions(tokens["token"]), await sessions("tok_demo")) == (200, 200, 401)
        assert (await client.call("POST", f"{API}/auth/refresh", json=refresh))[0] == 401
        assert tokens["refresh_token"] != "rt_demo"


async def test_the_process_tells_its_address_and_ends_on_sigterm() -> None:
    options = ("--jobs", "2", "--calm", "--no-automations", "--stream-max-s", "1.5")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge.demo.simulators.archastro", *options), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/_sim/progress") as response:
            assert list((await response.json())["jobs"]) == ["session:ase_1", "routine_run:arr_2"]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
