"""What no provider should answer and some day one will: a clear reason, no loop faster than the backoff, no bug."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bridge.demo.simulators.faults import CALM, FaultRates
from bridge.journal.store import SubscriptionState
from bridge.supervision.supervisor import SessionState
from contract.following import (
    BACKOFF_BASE_S,
    CASES,
    STILL,
    WITHIN_S,
    Case,
    Watched,
    assert_told,
    assert_whole,
    every_provider,
    following,
)

DICE = 0.9
NONSENSE: dict[str, Callable[[], web.Response]] = {
    "html": lambda: web.Response(text="<html><h1>Sign in</h1></html>", content_type="text/html"),
    "empty": lambda: web.Response(body=b"", content_type="application/json"),
    "ends": lambda: web.Response(body=b"", content_type="text/event-stream"),
}
REFUSALS = {401: "unauthorized", 402: "denied", 403: "denied", 404: "not_found", 418: "refused"}
WORD = "hibernating"


@pytest.fixture(autouse=True)
def _loaded_dice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits near their ceiling, so that too many attempts in a time can be told from luck."""
    monkeypatch.setattr("bridge.app._DICE", lambda: DICE)


def some_job(case: Case) -> str:
    """An id as the API could have given it."""
    return "owner/model/1" if case.cast.source == "fal" else "thread/1"


@every_provider
@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_what_is_no_answer_is_named_and_not_asked_for_in_haste(case: Case, nonsense: str, tmp_path: Path) -> None:
    """A page instead of a stream needs a person; an answer that cannot be read may be better the next time."""
    watched = Watched(case.simulator(), lambda _: NONSENSE[nonsense]())
    job = some_job(case)
    async with watched.served() as url, following(case, url, tmp_path, discover=None, jobs=None) as followed:
        started_s = time.monotonic()
        await followed.hand_in(job)
        if case.streams and nonsense != "ends":
            await followed.until(job, state=SubscriptionState.PARKED)
            assert ((await followed.record(job)).reason or "").startswith("no_stream: ")
        else:
            await followed.until_count("session_ends", 5)
            assert time.monotonic() - started_s > DICE * BACKOFF_BASE_S * (1 + 2 + 4 + 8)
            assert followed.session(job).reason == "not_json"
        assert len(watched.asked) <= 4 * followed.count("session_ends")
        assert_told(followed, await followed.entries())


@every_provider
@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal_ends_the_watching_with_its_reason(case: Case, status: int, tmp_path: Path) -> None:
    watched = Watched(case.simulator(), lambda _: web.json_response({"error": "no"}, status=status))
    job = some_job(case)
    async with watched.served() as url, following(case, url, tmp_path, discover=None, jobs=None) as followed:
        await followed.hand_in(job)
        last = await followed.told(lambda entry: entry.type in {"watch.lost", "watch.denied"})
        assert orjson.loads(last.data)["detail"]["reason"] == REFUSALS[status]
        assert len(watched.asked) <= 4
        assert_told(followed, await followed.entries())
        parked = followed.bridge.intake.group_parked(case.cast.source)
        assert (parked is not None) == (status == 401)


@every_provider
async def test_a_status_word_that_nobody_knows_is_told_and_the_job_followed_on(case: Case, tmp_path: Path) -> None:
    simulator = case.simulator(pace=STILL)

    def tamper(_: web.Request) -> None:
        for job in simulator.population.jobs.values():
            job.state = job.shown = {**job.state, "status": WORD}

    watched = Watched(simulator, tamper)
    async with watched.served() as url, following(case, url, tmp_path, discover=None, jobs=None) as followed:
        [job] = simulator.population.jobs
        await followed.hand_in(job)
        await followed.told(lambda entry: orjson.loads(entry.data)["job"].get("provider_status") == WORD)
        asked = len(watched.asked)
        await asyncio.sleep(0.4)
        looks = 0.4 / case.settings["status_interval_s"] + 1
        assert len(watched.asked) - asked <= 3 * looks
        assert followed.session(job).state is SessionState.RUNNING
        assert_told(followed, await followed.entries())


CURSORS = {"last-event-id", "after", "starting_after", "after_cursor"}
"""Where the APIs take a place from which to go on."""


def resumes(request: web.Request) -> bool:
    """Whether the request names a place. LangGraph's first one stands for the beginning."""
    names = {name.lower() for name in (*request.headers, *request.query)}
    return not CURSORS.isdisjoint(names) and request.headers.get("Last-Event-ID") != "-1"


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.resumes], ids=lambda case: case.cast.source)
@pytest.mark.parametrize("status", [400, 410])
async def test_without_a_place_that_is_refused_the_job_is_read_anew(case: Case, status: int, tmp_path: Path) -> None:
    simulator = case.simulator(3, FaultRates(eof=1.0))
    refused = 0

    def refuse(request: web.Request) -> web.Response | None:
        nonlocal refused
        if not resumes(request):
            return None
        refused += 1
        simulator.population.faults.rates = CALM
        return web.json_response({"error": "no such place"}, status=status)

    watched = Watched(simulator, refuse)
    async with watched.served() as url, following(case, url, tmp_path, discover=None, jobs=None) as followed:
        jobs = [*simulator.population.jobs]
        await followed.hand_in(*jobs)
        await followed.until(*jobs)
        entries = await followed.entries()
        assert refused > 0
        assert_whole(followed, entries, simulator)


PAGES_MAX = 4
LISTS: dict[str, tuple[str, Callable[[list[int], str], Any]]] = {
    "auvy": ("/v1/jobs", lambda ids, url: {"jobs": [{"job_id": f"job_{n}"} for n in ids], "total": 1 << 30}),
    "archastro": (
        "/api/v1/agent_routine_runs",
        lambda ids, url: {"data": [{"id": f"arr_{n}"} for n in ids], "after_cursor": f"behind-{ids}"},
    ),
    "replicate": (
        "/v1/predictions",
        lambda ids, url: {"results": [{"id": f"pred{n}"} for n in ids], "next": f"{url}/v1/predictions?before={ids}"},
    ),
}
"""Where jobs are listed, and a page with these of them that names a next one."""


@pytest.mark.parametrize("source", LISTS)
@pytest.mark.parametrize("grows", [True, False], ids=["grows", "repeats"])
async def test_a_list_that_never_ends_is_left(source: str, grows: bool, tmp_path: Path) -> None:
    (path, page), pages, enough = LISTS[source], 0, asyncio.Event()

    def endless(request: web.Request) -> web.Response:
        nonlocal pages
        if request.path != path:
            return web.json_response({"data": []})
        pages += 1
        if pages == (PAGES_MAX if grows else 1):
            enough.set()
        first = pages * 1000 if grows else 0
        ids = [*range(first, first + int(request.query.get("limit", 5)))]
        return web.json_response(page(ids, watched.simulator.url))

    watched = Watched(CASES[source].simulator(), endless)
    discover = {"every_s": 3600, "pages_max": PAGES_MAX}
    async with (
        watched.served() as url,
        following(CASES[source], url, tmp_path, discover=discover, jobs=None) as followed,
    ):
        await asyncio.wait_for(enough.wait(), WITHIN_S)
        await asyncio.sleep(0.3)  # in which a list that is not left would be asked for on and on
        assert pages == PAGES_MAX if grows else 1 <= pages <= 2, pages
        discovery = followed.bridge.intake.state(f"discovery:{source}")
        assert discovery is not None
        assert discovery.state is SessionState.RUNNING
        assert_told(followed, await followed.entries())
