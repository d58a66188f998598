"""A provider from another package: installed, found through its entry point, and followed from end to end."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import yaml
from aiohttp import ClientSession, web
from rig import SECRET, jobbridge, until

from bridge.demo.children import child, last_words
from bridge.demo.receiver import SECRET_VARIABLE, Mood, Receiver
from bridge.serving import serve

PACKAGE = Path(__file__).parents[1] / "fixtures" / "acme-jobbridge"
KEY = "acme-key-5a1d"
JOB = "print/42 ✓"
STATES = [
    {"state": "waiting"},
    {"state": "working", "done": 1},
    {"state": "working", "done": 2},
    {"state": "done", "done": 2, "result": {"pages": 42}},
]


async def install(target: Path) -> None:
    """Install the package into a directory of its own, without a network."""
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    pip = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(PACKAGE)),
        stdout=PIPE,
        stderr=STDOUT,
    )
    told, _ = await pip.communicate()
    assert pip.returncode == 0, told.decode()


def acme() -> web.Application:
    """Its API, which tells one state more at every look."""
    left = list(STATES)

    async def job(request: web.Request) -> web.Response:
        if request.headers.get("X-Acme-Key") != KEY or request.match_info["id"] != JOB:
            return web.json_response({"error": "no"}, status=403)
        return web.json_response(left.pop(0) if len(left) > 1 else left[0])

    app = web.Application()
    app.add_routes([web.get("/jobs/{id}", job)])
    return app


async def test_an_installed_provider_is_found_and_its_jobs_are_followed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    await install(site)
    environ = {"PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)}
    receiver = Receiver(SECRET, Mood())
    async with (
        serve(acme(), "127.0.0.1", 0) as api,
        serve(receiver.application(), "127.0.0.1", 0) as hooks,
        ClientSession() as http,
    ):
        config = tmp_path / "jobbridge.yaml"
        config.write_text(yaml.safe_dump(configuration(api, hooks, tmp_path)))
        environ |= {"ACME_KEY": KEY, SECRET_VARIABLE: SECRET}

        checked = await jobbridge("check", "-c", str(config), environ=environ)
        assert checked.code == 0, checked.err
        without = await jobbridge("check", "-c", str(config), environ={**environ, "PYTHONPATH": ""})
        assert (without.code, "no provider is called 'acme'" in without.err) == (2, True)

        async def ended() -> bool:
            async with http.get(f"{hooks}/_receiver/received") as answer:
                return "job.completed" in [event["type"] for event in (await answer.json())["accepted"]]

        log = tmp_path / "bridge.log"
        async with child(log, "bridge", "run", "-c", str(config), environ=environ):
            await until(ended, f"the end arrived: {last_words(log)}")
        async with http.get(f"{hooks}/_receiver/received") as answer:
            heard = (await answer.json())["accepted"]
    assert [event["type"] for event in heard] == [
        "watch.started",
        "job.queued",
        "job.started",
        "job.progress",
        "job.completed",
    ]
    assert {event["job"] for event in heard} == {JOB}
    assert "Traceback" not in log.read_text()


def configuration(api: str, hooks: str, directory: Path) -> dict[str, object]:
    """One Acme job, told to one webhook receiver."""
    return {
        "sources": {
            "printer": {
                "provider": "acme",
                "base_url": api,
                "token": "${ACME_KEY}",
                "jobs": [JOB],
                "status_interval_s": 0.05,
                "requests_per_minute": 6000,
            }
        },
        "sinks": {
            "hooks": {
                "kind": "webhook",
                "url": f"{hooks}/hook",
                "secret": f"${{{SECRET_VARIABLE}}}",
                "allow_http": True,
                "allow_private_networks": True,
            }
        },
        "journal": {"url": f"sqlite:///{directory / 'journal.db'}"},
        "control": {"port": 0},
    }
