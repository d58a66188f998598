"""A dead letter's whole way: refused by a real receiver, found through the API, redriven, and delivered after all."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from bridge.app import assemble
from bridge.delivery import sinks
from bridge.event import EventType, JobEvent, JobKey
from bridge.intake import providers
from bridge.journal.store import Journal
from bridge.settings import load

TOKEN = "open-sesame-7d1c"
CONFIG = """\
sources:
  idle: {provider: auvy, base_url: "http://127.0.0.1:9", token: "${KEY}"}
sinks:
  hook:
    kind: webhook
    url: URL
    secret: ${SECRET}
    types: [job.output, job.completed]
    reject_4xx: true
    allow_http: true
    allow_private_networks: true
journal: {url: "sqlite:///JOURNAL"}
control: {port: 0, token: "${TOKEN}"}
"""
ENVIRON = {
    "KEY": "ak_live_12345678",
    "SECRET": "whsec_" + base64.b64encode(b"new-secret-of-32-bytes-in-length").decode(),
    "TOKEN": TOKEN,
}


@dataclass
class Receiver:
    """A real server that answers with a status and remembers the ids that it was given."""

    status: int = 400
    ids: list[str] = field(default_factory=list)
    replays: list[str | None] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def hook(self, request: web.Request) -> web.Response:
        await request.read()
        self.ids.append(request.headers["webhook-id"])
        self.replays.append(request.headers.get("webhook-replay"))
        self.arrived.set()
        return web.Response(status=self.status, text="go away" if self.status == 400 else "")

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.ids) < count:
                self.arrived.clear()
                await self.arrived.wait()


@dataclass
class Running:
    """A bridge at work, its receiver, and somebody with the token."""

    journal: Journal
    receiver: Receiver
    call: Callable[..., Any]

    async def counts(self) -> dict[str, int]:
        told = await self.call("GET", "deliveries/counts")
        return {state: count for state, count in told["counts"].items() if count}

    async def until(self, **counts: int) -> None:
        """The receiver's answer is noted a moment after it was given."""
        async with asyncio.timeout(20):
            while await self.counts() != counts:  # noqa: ASYNC110 - the journal tells nobody that it settled
                await asyncio.sleep(0.01)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with _listening() as (receiver, url):
        path = tmp_path / "jobbridge.yaml"
        path.write_text(CONFIG.replace("URL", url).replace("JOURNAL", str(tmp_path / "journal.db")))
        plugs = providers.catalogue(), sinks.catalogue()
        settings = load(path, {**os.environ, **ENVIRON}, *plugs)
        async with assemble(settings, *plugs, structlog.get_logger()) as bridge, aiohttp.ClientSession() as http:
            stopping = asyncio.Event()
            at_work = asyncio.create_task(bridge.run(stopping))

            async def call(method: str, path: str, **body: Any) -> Any:
                address = f"http://127.0.0.1:{bridge.port}/v1/endpoints/hook/{path}"
                headers = {"Authorization": f"Bearer {TOKEN}"}
                async with http.request(method, address, headers=headers, json=body or None) as answer:
                    assert answer.status == 200, await answer.text()
                    return await answer.json()

            yield Running(bridge.journal, receiver, call)
            stopping.set()
            await at_work


@asynccontextmanager
async def _listening() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    app = web.Application()
    app.add_routes([web.post("/hook", receiver.hook)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


async def journalled(journal: Journal, *types: EventType) -> None:
    [(job, _)] = await journal.follow([JobKey("elsewhere", "a")], "config")
    events = [JobEvent(f"a-{nth}", *job.key, type_, b"{}") for nth, type_ in enumerate(types, start=1)]
    await journal.append(job, events, None)


async def test_a_dead_letter_is_found_redriven_and_delivered_under_its_id(running: Running) -> None:
    receiver = running.receiver
    await journalled(running.journal, EventType.OUTPUT, EventType.STEP, EventType.COMPLETED)
    await running.until(dead=2, filtered=1)
    dead = (await running.call("GET", "deliveries?state=dead"))["deliveries"]
    assert [one["event_id"] for one in dead] == ["a-1", "a-3"]

    receiver.status = 204
    assert (await running.call("POST", "redrive", all=True, dry_run=True))["count"] == 2
    assert (await running.call("POST", "redrive", delivery=dead[0]["id"]))["count"] == 1
    await running.until(dead=1, filtered=1, delivered=1)
    assert (await running.call("POST", "redrive", all=True))["count"] == 1
    await running.until(filtered=1, delivered=2)
    assert receiver.ids == [*receiver.ids[:2], *receiver.ids[:2]]
    assert len(set(receiver.ids)) == 2

    told = await running.call("GET", f"deliveries/{dead[0]['id']}")
    assert (told["state"], told["redriven"], told["attempts"]) == ("delivered", 1, 1)
    assert [(one["number"], one["status"], one["reason"] is None) for one in told["history"]] == [
        (1, 400, False),
        (1, 204, True),
    ]
    assert told["history"][0]["answer"] == "go away"
    assert told["history"][0]["address"].startswith("127.0.0.1")


async def test_what_was_dropped_or_filtered_by_mistake_is_replayed(running: Running) -> None:
    receiver = running.receiver
    await journalled(running.journal, EventType.STEP, EventType.OUTPUT)
    await running.until(dead=1, filtered=1)
    assert (await running.call("POST", "drop", all=True))["count"] == 1
    receiver.status = 204
    assert (await running.call("POST", "replay", states=["dropped", "filtered"]))["count"] == 2
    await running.until(delivered=2)
    assert len(receiver.ids) == 3
    assert receiver.ids[0] == receiver.ids[2]


async def test_what_was_redriven_is_marked_with_how_often(running: Running) -> None:
    receiver = running.receiver
    await journalled(running.journal, EventType.OUTPUT)
    await running.until(dead=1)
    for _ in range(2):
        assert (await running.call("POST", "redrive", all=True, per_second=1000))["count"] == 1
        await running.until(dead=1)
    receiver.status = 204
    assert (await running.call("POST", "replay", all=True))["count"] == 1
    await running.until(delivered=1)
    assert receiver.replays == [None, "1", "2", "3"]
    assert len(set(receiver.ids)) == 1
