"""A receiver that loses events sees so by what the next one names, and fetches exactly those with its own token."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import structlog
from aiohttp import web
from standardwebhooks import Webhook
from yarl import URL

from bridge.app import assemble
from bridge.delivery import sinks
from bridge.event import EventType, JobEvent, JobKey
from bridge.intake import providers
from bridge.journal.store import Checkpoint, Journal
from bridge.settings import load

OPERATOR, PULL = "open-sesame-7d1c", "the-receivers-own-token"
SECRET = "whsec_" + base64.b64encode(b"new-secret-of-32-bytes-in-length").decode()
CONFIG = """\
sources:
  idle: {provider: auvy, base_url: "http://127.0.0.1:9", token: "${KEY}"}
sinks:
  hook:
    kind: webhook
    url: URL
    secret: ${SECRET}
    types: [job.output, job.completed]
    body: BODY
    pull_token: ${PULL}
    retry_schedule_s: [0.01]
    allow_http: true
    allow_private_networks: true
  closed:
    kind: webhook
    url: URL/elsewhere
    secret: ${SECRET}
    allow_http: true
    allow_private_networks: true
journal: {url: "sqlite:///JOURNAL", partitions: 2}
control: {port: 0, token: "${OPERATOR}"}
endpoints: {keys: ["${SEALING}"], allow_http: true, allow_private_networks: true}
"""
ENVIRON = {
    "KEY": "ak_live_12345678",
    "SECRET": SECRET,
    "PULL": PULL,
    "OPERATOR": OPERATOR,
    "SEALING": base64.b64encode(b"k" * 32).decode(),
}
OUTPUT, UNWANTED = EventType.OUTPUT, EventType.PROGRESS


@dataclass
class Receiver:
    """Verifies what comes and keeps it, but refuses the sequences that it is told to."""

    refuses: set[int] = field(default_factory=set)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def hook(self, request: web.Request) -> web.Response:
        text = (await request.read()).decode()
        self.calls += 1
        self.arrived.set()
        event = Webhook(SECRET).verify(text, dict(request.headers))
        await self.gate.wait()
        if event.get("sequence") in self.refuses:
            return web.Response(status=400, headers={"webhook-delivery": "abort-message"})
        self.kept[request.headers["webhook-id"]] = event
        return web.Response(status=204)

    async def until_called(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.calls < count:
                self.arrived.clear()
                await self.arrived.wait()

    def lacks(self) -> set[tuple[str, int]]:
        """What some kept event names as the one before it, and was never kept."""
        had: defaultdict[str, set[int]] = defaultdict(lambda: {0})
        for event in self.kept.values():
            had[event["subject"]].add(event["sequence"])
        named = {(event["subject"], event["previous"]) for event in self.kept.values()}
        return {(job, sequence) for job, sequence in named if sequence not in had[job]}


@dataclass
class Running:
    """A bridge at work, and whoever knows its address."""

    journal: Journal
    receiver: Receiver
    port: int
    url: str
    http: aiohttp.ClientSession

    async def events(self, job: str, *kinds: EventType) -> None:
        ((record, _),) = await self.journal.follow([JobKey("idle", job)], "api")
        events = [JobEvent(f"{job}-{n}", "idle", job, kind, DATA) for n, kind in enumerate(kinds)]
        await self.journal.append(record, events, Checkpoint(None, b""))

    async def ask(self, query: str = "", *, token: str | None = PULL, name: str = "hook") -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        address = f"http://127.0.0.1:{self.port}/v1/endpoints/{name}/events{query}"
        async with self.http.get(address, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def pulled(self, limit: int = 100) -> dict[str, dict[str, Any]]:
        """Everything, page by page, verified with the secret of the deliveries."""
        found, query = {}, f"?limit={limit}"
        while True:
            status, page = await self.ask(query)
            assert status == 200, page
            for one in page["events"]:
                found[one["headers"]["webhook-id"]] = Webhook(SECRET).verify(one["body"], one["headers"])
            assert len(page["events"]) <= limit
            if f"?limit={limit}&after={page['next']}" == query:
                return found
            query = f"?limit={limit}&after={page['next']}"


DATA = orjson.dumps(
    {"job": {"id": "j", "source": "idle", "provider": "auvy", "status": "running"}, "detail": {"n": "ü"}}
)


async def _accepted(_: web.Request) -> web.Response:
    return web.Response(status=204)


@asynccontextmanager
async def _running(tmp_path: Path, body: str = "standard") -> AsyncIterator[Running]:
    receiver = Receiver()
    receiver.gate.set()
    app = web.Application()
    app.add_routes([web.post("/hook", receiver.hook), web.post("/hook/elsewhere", _accepted)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    path = tmp_path / "jobbridge.yaml"
    path.write_text(CONFIG.replace("URL", url).replace("JOURNAL", str(tmp_path / "j.db")).replace("BODY", body))
    plugs = providers.catalogue(), sinks.catalogue()
    settings = load(path, {**os.environ, **ENVIRON}, *plugs)
    try:
        async with assemble(settings, *plugs, structlog.get_logger()) as bridge, aiohttp.ClientSession() as http:
            stopping = asyncio.Event()
            at_work = asyncio.create_task(bridge.run(stopping))
            yield Running(bridge.journal, receiver, bridge.port, url, http)
            await runner.cleanup()  # what is left is not waited for
            stopping.set()
            at_work.cancel()
            await asyncio.wait([at_work])
    finally:
        await runner.cleanup()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with _running(tmp_path) as running:
        yield running


async def test_a_receiver_sees_what_it_lost_and_fetches_just_that(running: Running) -> None:
    receiver = running.receiver
    receiver.refuses = {3, 4}
    for job in ("a", "b", "c"):
        await running.events(job, OUTPUT, UNWANTED, OUTPUT, OUTPUT, OUTPUT, OUTPUT)
    await receiver.until_called(3 * 5)
    lost = {(job, sequence) for job in "abc" for sequence in (3, 4)}
    assert receiver.lacks() == {(job, 4) for job in "abc"}

    pulled = await running.pulled(limit=4)
    missing = {identity: event for identity, event in pulled.items() if identity not in receiver.kept}
    assert {(event["subject"], event["sequence"]) for event in missing.values()} == lost
    assert {identity: pulled[identity] for identity in receiver.kept} == receiver.kept
    receiver.kept |= missing
    assert receiver.lacks() == set()
    assert {(e["sequence"], e["previous"]) for e in pulled.values()} == {(1, 0), (3, 1), (4, 3), (5, 4), (6, 5)}
    assert await running.pulled(limit=100) == pulled


async def test_what_was_not_delivered_yet_is_given_as_well(running: Running) -> None:
    running.receiver.gate.clear()
    await running.events("a", OUTPUT, OUTPUT, OUTPUT)
    await running.receiver.until_called(1)
    pulled = await running.pulled()
    assert [(event["sequence"], event["previous"]) for event in pulled.values()] == [(1, 0), (2, 1), (3, 2)]
    assert running.receiver.kept == {}
    running.receiver.gate.set()


async def test_a_page_has_no_more_than_was_asked_for_and_the_next_one_goes_on(running: Running) -> None:
    await running.events("a", OUTPUT, OUTPUT, UNWANTED, OUTPUT)
    _, first = await running.ask("?limit=2")
    _, second = await running.ask(f"?limit=2&after={first['next']}")
    _, third = await running.ask(f"?limit=2&after={second['next']}")
    assert [len(page["events"]) for page in (first, second, third)] == [2, 1, 0]
    assert third["next"] == second["next"]
    await running.events("b", OUTPUT)
    _, fourth = await running.ask(f"?after={third['next']}")
    assert [orjson.loads(one["body"])["subject"] for one in fourth["events"]] == ["b"]


async def test_a_receiver_that_wants_little_gets_empty_pages_that_go_on(running: Running) -> None:
    await running.events("a", *[UNWANTED] * 1_500, OUTPUT)
    status, first = await running.ask()
    assert (status, first["events"]) == (200, [])
    _, second = await running.ask(f"?after={first['next']}")
    assert [(b["sequence"], b["previous"]) for one in second["events"] if (b := orjson.loads(one["body"]))] == [
        (1501, 0)
    ]


async def test_binary_mode_is_given_with_its_attributes(tmp_path: Path) -> None:
    async with _running(tmp_path, "cloudevents_binary") as running:
        await running.events("a", OUTPUT, OUTPUT)
        _, page = await running.ask()
        told = [(one["headers"]["ce-previoussequence"], one["body"]) for one in page["events"]]
        assert told == [("000000000000", DATA.decode()), ("000000000001", DATA.decode())]
        for one in page["events"]:
            Webhook(SECRET).verify(one["body"], one["headers"])


@pytest.mark.parametrize("after", ["x", "1", "1.2.3", "-1.0", "1.", "1.٣", "9" * 40 + ".0"])
async def test_a_cursor_from_elsewhere_is_refused(running: Running, after: str) -> None:
    status, problem = await running.ask(f"?after={after}")
    assert (status, problem["errors"][0]["parameter"]) == (400, "after")


@pytest.mark.parametrize("query", ["?limit=0", "?limit=101", "?limit=x", "?whole=yes", "?after=0.0&after=0.0"])
async def test_a_query_that_cannot_be_used_is_refused(running: Running, query: str) -> None:
    assert (await running.ask(query))[0] == 400


# -- who gets in


async def test_a_wrong_token_is_told_the_same_whether_the_endpoint_is_there_open_or_not(running: Running) -> None:
    answers = [
        await running.ask(token="wrong", name=name) for name in ("hook", "closed", "nowhere", "idle", "hook%2F..")
    ]
    answers.append(await running.ask(token=PULL, name="closed"))
    answers.append(await running.ask(token=PULL[:-1]))
    assert {status for status, _ in answers} == {403}
    assert all(answer == answers[0] for answer in answers)
    assert "pull_token" in answers[0][1]["detail"]
    assert PULL not in str(answers)


async def test_an_endpoint_made_over_the_api_has_a_token_of_its_own_as_well(running: Running) -> None:
    address, token = f"http://127.0.0.1:{running.port}/v1/endpoints", "the-made-ones-own-token"
    wanted: dict[str, Any] = {"name": "made", "url": f"{running.url}/elsewhere", "pull_token": token}
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    async with running.http.post(
        address, json=wanted | {"pull_token": {"file": "/etc/hostname"}}, headers=headers
    ) as no:
        assert no.status == 422
    async with running.http.post(address, json=wanted, headers=headers) as answer:
        assert answer.status == 201
        made = await answer.json()
    assert token not in str(made)
    await running.events("a", OUTPUT)
    status, page = await running.ask(token=token, name="made")
    assert (status, len(page["events"])) == (200, 1)
    (one,) = page["events"]
    assert Webhook(made["secret"]).verify(one["body"], one["headers"])["previous"] == 0
    assert (await running.ask(token=PULL, name="made"))[0] == 403
    assert (await running.ask(token=token, name="hook"))[0] == 403


async def test_without_any_token_nobody_gets_in(running: Running) -> None:
    answers = [await running.ask(token=None, name=name) for name in ("hook", "closed", "nowhere")]
    assert {status for status, _ in answers} == {401}
    assert all(answer == answers[0] for answer in answers)


async def test_the_operator_gets_in_everywhere_and_is_told_what_is_not_there(running: Running) -> None:
    names = ("hook", "closed", "nowhere", "idle")
    assert [(await running.ask(token=OPERATOR, name=name))[0] for name in names] == [200, 200, 404, 404]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "endpoints/hook/events"),
        ("PUT", "endpoints/hook/events"),
        ("DELETE", "endpoints/hook/events"),
        ("HEAD", "endpoints/hook/events"),
        ("GET", "endpoints/hook/events/"),
        ("GET", "endpoints/hook/events/x"),
        ("GET", "endpoints//events"),
        ("GET", "endpoints/hook/deliveries"),
        ("GET", "endpoints/hook"),
        ("POST", "endpoints/hook/events/../replay"),
        ("POST", "endpoints/hook/replay"),
        ("GET", "subscriptions"),
        ("GET", "endpoints"),
        ("GET", ""),
    ],
)
async def test_the_receivers_token_opens_nothing_else(running: Running, method: str, path: str) -> None:
    address = URL(f"http://127.0.0.1:{running.port}/v1/{path}", encoded=True)
    async with running.http.request(method, address, headers={"Authorization": f"Bearer {PULL}"}) as answer:
        assert answer.status == 401
