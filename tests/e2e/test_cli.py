"""The command line and the API as an operator meets them: bad input gets one clear line and never a traceback."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from rig import SECRET, TOKEN, Ran, River, WatchedSimulator, jobbridge, quiet_river, until

from bridge import __version__
from bridge.demo.cast import AUVY
from bridge.journal.stores.sqlite import open_journal

GOOD = """\
sources:
  auvy:
    provider: auvy
    base_url: http://127.0.0.1:9
    token: ${AUVY_API_KEY}
sinks:
  hook:
    kind: webhook
    url: https://hooks.invalid/hook
    secret: ${WEBHOOK_SECRET}
journal:
  url: sqlite:///JOURNAL
control:
  port: 0
"""
SOURCE = AUVY.source
ENVIRON = {"AUVY_API_KEY": "ak_live_12345678", "WEBHOOK_SECRET": SECRET}

BAD = """\
sources:
  auvy:
    provider: auvi
  Prod_1:
    provider: auvy
  other:
    provider: auvy
    token: ${NO_SUCH_KEY}
    idle_timeout: 3
sinks:
  kafka:
    kind: kafka
    bootstrap_serverz: broker:9092
  hook:
    kind: webhook
    url: https://example.org/hook
    secret: whsec_written_down
control:
  port: eighty
supervision:
  backoff_base_s: 100
nonsense: 1
"""
MISTAKES = {
    3: ("sources.auvy.provider", "did you mean auvy?"),
    4: ("sources.Prod_1", "lower-case"),
    8: ("sources.other.token", "NO_SUCH_KEY is not set"),
    9: ("sources.other.idle_timeout", "did you mean idle_timeout_s?"),
    11: ("sinks.kafka.bootstrap_servers", "is required"),
    13: ("sinks.kafka.bootstrap_serverz", "did you mean bootstrap_servers?"),
    17: ("sinks.hook.secret", "never written here"),
    19: ("control.port", "whole number"),
    20: ("supervision", "backoff_base_s"),
    22: ("nonsense", "is no setting here"),
}
BROKEN = {
    "sources: [": (1, "is not valid YAML"),
    "sources:\n\tauvy: {}": (2, "a tab cannot indent YAML"),
    "- a\n- b": (1, "must be a mapping of sections"),
    "sources: {}\nsinks: {}\nsources: {}": (3, "is here twice"),
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file without a mistake."""
    return written(tmp_path / "jobbridge.yaml", GOOD.replace("JOURNAL", str(tmp_path / "journal.db")))


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refused(ran: Ran, code: int, *words: str) -> None:
    """It ended with the code and one line that holds the words; nothing else was said."""
    assert ran.code == code, ran
    assert ran.out == ""
    [line] = ran.err.splitlines()
    assert all(word in line for word in words), line


# -- check


async def test_check_tells_every_mistake_with_its_line_and_path(tmp_path: Path) -> None:
    path = written(tmp_path / "bad.yaml", BAD)
    ran = await jobbridge("check", "-c", str(path))
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert len(lines) == len(MISTAKES), ran.err
    for line, (number, (where, words)) in zip(lines, MISTAKES.items(), strict=True):
        assert line.startswith(f"{path}:{number}: {where}: "), line
        assert words in line
    assert "whsec_written_down" not in ran.err


async def test_check_tells_where_a_file_is_no_yaml(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"broken-{number}.yaml", text) for number, text in enumerate(BROKEN)]
    ran = await asyncio.gather(*(jobbridge("check", "-c", str(path)) for path in paths))
    for path, one, (line, words) in zip(paths, ran, BROKEN.values(), strict=True):
        assert (one.code, one.out) == (2, "")
        assert any(said.startswith(f"{path}:{line}: ") and words in said for said in one.err.splitlines()), one.err
        assert "Traceback" not in one.err


async def test_check_says_so_when_all_is_well(config: Path) -> None:
    ran = await jobbridge("check", "-c", str(config), environ=ENVIRON)
    assert ran == (0, f"{config}: good; 1 source(s), 1 sink(s)\n", "")


# -- run


async def test_run_refuses_a_configuration_with_a_mistake(config: Path, tmp_path: Path) -> None:
    good, absent = GOOD.replace("JOURNAL", str(tmp_path / "journal.db")), tmp_path / "absent"
    unset = written(tmp_path / "unset.yaml", good.replace("${AUVY_API_KEY}", "${NO_SUCH_KEY}"))
    folder = written(tmp_path / "folder.yaml", good.replace("${AUVY_API_KEY}", f"{{file: {tmp_path}}}"))
    provider, secret = "JOBBRIDGE__SOURCES__AUVY__PROVIDER", "JOBBRIDGE__SINKS__HOOK__SECRET"
    cases: list[tuple[Path, dict[str, str], tuple[str, ...]]] = [
        (config, {provider: "nope"}, (f"environment: {provider}: ", "'nope'", "there are: ")),
        (config, {secret: f"{{file: {absent}}}"}, (f"environment: {secret}: {absent} cannot be read",)),
        (unset, {}, (f"{unset}:5: sources.auvy.token: ", "NO_SUCH_KEY is not set")),
        (folder, {}, (f"{folder}:5: sources.auvy.token: {tmp_path} is not a regular file",)),
        (absent, {}, (f"{absent}: cannot be read: No such file",)),
    ]
    runs = [jobbridge("run", "-c", str(path), environ={**ENVIRON, **more}) for path, more, _ in cases]
    for ran, (_, _, words) in zip(await asyncio.gather(*runs), cases, strict=True):
        refused(ran, 2, *words)


async def test_run_names_the_port_that_is_in_use(config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = await jobbridge("run", "-c", str(config), environ={**ENVIRON, "JOBBRIDGE__CONTROL__PORT": port})
    refused(ran, 1, f"cannot listen on 127.0.0.1:{port}: address already in use", "control.port")


async def test_run_refuses_a_journal_from_a_newer_release(config: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    async with open_journal(journal):
        pass
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA user_version = 99")
    refused(await jobbridge("run", "-c", str(config), environ=ENVIRON), 1, f"journal {journal}", "version 99", "newer")


async def test_run_names_a_journal_that_cannot_be_opened(config: Path, tmp_path: Path) -> None:
    reasons = {
        tmp_path / "absent" / "journal.db": "No such file or directory",
        config / "journal.db": "Not a directory",
        config: "not a database",
        tmp_path: "unable to open",
    }
    urls = [{"JOBBRIDGE__JOURNAL__URL": f"sqlite:///{journal}"} for journal in reasons]
    runs = [jobbridge("run", "-c", str(config), environ={**ENVIRON, **url}) for url in urls]
    for ran, (journal, why) in zip(await asyncio.gather(*runs), reasons.items(), strict=True):
        refused(ran, 1, f"journal {journal} cannot be opened: ", why)


async def test_run_refuses_the_journal_of_another_running_bridge(tmp_path: Path) -> None:
    async with quiet_river(tmp_path) as (place, _), place.ready_bridge():
        ran = await jobbridge("run", "-c", str(place.config), environ=place.environ)
        refused(ran, 1, f"journal {place.journal} is in use by another process")


# -- the verbs that only tell


async def test_schema_and_version_print_what_they_are_asked_for() -> None:
    config, settings, metrics, version = await asyncio.gather(
        jobbridge("schema", "config"), jobbridge("schema", "settings"), jobbridge("schema", "metrics"),
        jobbridge("--version"),
    )  # fmt: skip
    assert {ran.code for ran in (config, settings, metrics, version)} == {0}
    assert json.loads(config.out)["properties"].keys() >= {"sources", "sinks", "journal"}
    assert "`journal.url`" in settings.out
    assert "| `jobbridge_deliveries_total` | counter |" in metrics.out
    assert version.out == f"jobbridge, version {__version__}\n"


async def test_status_of_nothing_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer here
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        refused(await jobbridge("status", "--url", url), 1, f"no bridge answers at {url}")
    refused(await jobbridge("status", "--url", "nonsense"), 1, "no bridge answers at nonsense")


async def test_status_of_something_that_is_no_bridge_says_so() -> None:
    async def other(_request: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", other)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        refused(await jobbridge("status", "--url", url), 1, "is no bridge")
    finally:
        await runner.cleanup()


async def test_status_shows_a_running_bridge_to_people_and_machines(tmp_path: Path) -> None:
    async with quiet_river(tmp_path, jobs=["job_1"]) as (place, simulator), place.ready_bridge():
        await until(lambda: _open(simulator, 1), "the job is listened to")
        asked = ("status", "--url", place.control)
        token = {"JOBBRIDGE_TOKEN": TOKEN}
        text, shown, anonymous, intruder = await asyncio.gather(
            jobbridge(*asked, environ=token), jobbridge(*asked, "--json", environ=token), jobbridge(*asked),
            jobbridge(*asked, environ={"JOBBRIDGE_TOKEN": "wrong"}),
        )  # fmt: skip
    assert (text.code, text.err) == (0, "")
    assert text.out.startswith("ready\n")
    assert f"source   {SOURCE}" in text.out
    assert f"{SOURCE}/job_1" in text.out
    about = json.loads(shown.out)
    assert about["ready"]["sinks"]["receiver"]["state"] == "running"
    assert [item["job_id"] for item in about["subscriptions"]] == ["job_1"]
    assert "set JOBBRIDGE_TOKEN" in anonymous.out
    refused(intruder, 1, "this token is not the one")


# -- the control API, by what the provider gets to feel of it


async def test_a_job_is_followed_paused_and_resumed_over_the_api(tmp_path: Path) -> None:
    async with quiet_river(tmp_path) as (place, simulator), place.ready_bridge():
        job = f"/v1/subscriptions/{SOURCE}/job_1"
        wanted = {"source": SOURCE, "job_id": "job_1"}
        first, again = [await place.ask("/v1/subscriptions", "POST", wanted) for _ in range(2)]
        assert (first[0], again[0]) == (201, 200)
        await until(lambda: _open(simulator, 1), "the job is listened to")
        await until(lambda: _sequence_above(place, job, 5), "events are journalled")

        status, paused = await place.ask(f"{job}/pause", "POST")
        assert (status, paused["state"]) == (200, "paused")
        await until(lambda: _open(simulator, 0), "nobody listens")
        _, about = await place.ask(job)
        await _left_alone(simulator)

        status, resumed = await place.ask(f"{job}/resume", "POST")
        assert (status, resumed["state"]) == (200, "active")
        await until(lambda: _open(simulator, 1), "the job is listened to again")
        assert [heard.after for heard in simulator.heard] == [None, about["cursor"]]
    place.assert_no_bug()


async def test_a_refused_key_parks_the_source_until_it_is_resumed(tmp_path: Path) -> None:
    async with quiet_river(tmp_path, jobs=["job_1", "job_2"]) as (place, simulator):
        right, simulator.world = simulator.world, replace(simulator.world, api_key="ak_live_renewed")
        async with place.ready_bridge():
            await until(lambda: _is_parked(place), "the source is parked")
            _, about = await place.ask("/v1/sources")
            assert about["sources"][0]["reason"].startswith("unauthorized: HTTP 401")
            assert about["sources"][0]["sessions"]["parked"] == 2
            status, ready = await place.ask("/readyz?verbose=1")
            assert (status, ready["ready"], ready["sources"][SOURCE]) == (200, True, {"state": "parked"})
            await _left_alone(simulator)

            simulator.world = right
            status, source = await place.ask(f"/v1/sources/{SOURCE}/resume", "POST")
            assert (status, source["state"], source["reason"]) == (200, "running", None)
            await until(lambda: _open(simulator, 2), "both jobs are listened to")
    assert right.api_key not in place.said()
    place.assert_no_bug()


async def _open(simulator: WatchedSimulator, streams: int) -> bool:
    return simulator.open_streams == streams


async def _left_alone(simulator: WatchedSimulator) -> None:
    """Look for longer than the interval of status looks whether anybody asks anything."""
    await asyncio.sleep(0.2)  # what was on its way may still arrive
    requests = simulator.population.requests
    await asyncio.sleep(0.8)
    assert simulator.population.requests == requests


async def _is_parked(place: River) -> bool:
    _, about = await place.ask("/v1/sources")
    [source] = about["sources"]
    return source["state"] == "parked" and source["reason"] is not None


async def _sequence_above(place: River, job: str, sequence: int) -> bool:
    _, about = await place.ask(job)
    return int(about["sequence"]) > sequence
