"""An endpoint's whole life over the API: made, signed for, changed, rotated, tried, kept over a restart, removed."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from receiving import Receiver, answering, listening

from bridge.app import assemble
from bridge.delivery import sinks
from bridge.delivery.signing import PublicKey, new_private_key, parse_public_key
from bridge.errors import Fatal
from bridge.event import EventType, JobEvent, JobKey
from bridge.intake import providers
from bridge.journal.store import Journal
from bridge.settings import ConfigError, load

TOKEN = "open-sesame-7d1c"
OTHERS = "http://127.0.0.1:9/"
CONFIG = """\
sources:
  idle: {provider: auvy, base_url: "http://127.0.0.1:9", token: "${TOKEN}"}
sinks:
  own: {kind: webhook, url: OWN, secret: "${SECRET}", allow_http: true, allow_private_networks: true}
journal: {url: "sqlite:///JOURNAL"}
control: {port: 0, token: "${TOKEN}"}
supervision: {drain_timeout_s: 0}
"""
RULES = 'endpoints: {keys: ["${SEALING}"], allow_http: true, allow_private_networks: true}\n'
ENVIRON = {
    "TOKEN": TOKEN,
    "SECRET": "whsec_" + base64.b64encode(b"own-secret-of-32-bytes-in-length").decode(),
    "SEALING": base64.b64encode(b"k" * 32).decode(),
}
HEADER = "tenant-key-5b1f93"
_numbers = count(1)


@dataclass
class Running:
    """A bridge at work, and somebody with the token."""

    journal: Journal
    ask: Callable[..., Awaitable[tuple[int, Any]]]

    async def call(self, method: str, path: str, status: int = 200, **body: Any) -> Any:
        got, told = await self.ask(method, path, json=body or None)
        assert got == status, told
        return told

    async def public_keys(self) -> list[str]:
        _, told = await self.ask("GET", "/.well-known/webhook-keys")
        return [key["x"] for key in told["keys"]]

    async def event(self) -> str:
        """One more event, of a job of its own."""
        id_ = f"e-{next(_numbers)}"
        [(job, _)] = await self.journal.follow([JobKey("elsewhere", id_)], "config")
        await self.journal.append(job, [JobEvent(id_, *job.key, EventType.COMPLETED, b'{"job":{"id":"a"}}')], None)
        return id_

    async def until_running(self, name: str, state: str = "running") -> Any:
        async with asyncio.timeout(20):
            while (told := await self.call("GET", f"/{name}"))["state"] != state:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        return told


@asynccontextmanager
async def running(directory: Path, own: str = OTHERS, rules: str = RULES, **environ: str) -> AsyncIterator[Running]:
    path = directory / "jobbridge.yaml"
    path.write_text(CONFIG.replace("OWN", own).replace("JOURNAL", str(directory / "journal.db")) + rules)
    plugs = providers.catalogue(), sinks.catalogue()
    settings = load(path, {**os.environ, **ENVIRON, **environ}, *plugs)
    async with assemble(settings, *plugs, structlog.get_logger()) as bridge, aiohttp.ClientSession() as http:
        stopping = asyncio.Event()
        at_work = asyncio.create_task(bridge.run(stopping))

        async def ask(method: str, path: str, **options: Any) -> tuple[int, Any]:
            address = f"http://127.0.0.1:{bridge.port}{'' if path.startswith('/.') else '/v1/endpoints'}{path}"
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with http.request(method, address, headers=headers, **options) as answer:
                return answer.status, (await answer.json(content_type=None) if await answer.read() else None)

        try:
            yield Running(bridge.journal, ask)
        finally:
            stopping.set()
            await at_work


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening() as receiver:
        yield receiver


def ids(receiver: Receiver, secret: str) -> list[str]:
    """The events that came, each proven by the reference library."""
    return [got.verified(secret)["id"] for got in receiver.got]


async def test_an_endpoint_lives_from_its_making_over_a_restart_to_its_removal(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with running(tmp_path) as bridge:
        await bridge.event()  # before the endpoint: none of its business
        made = await bridge.call(
            "POST", "", 201, name="partner", url=receiver.url, headers={"X-Tenant": HEADER}, types=["job.*"]
        )
        assert made["settings"] == {"url": receiver.url, "types": ["job.*"]}
        secret = made["secret"]
        first = await bridge.event()
        await receiver.until(lambda: len(receiver.got) == 1)
        assert ids(receiver, secret) == [first]
        assert receiver.got[0].headers["X-Tenant"] == HEADER
        shown = str(await bridge.ask("GET", "")) + str(await bridge.ask("GET", "/partner"))
        assert secret not in shown
        assert HEADER not in shown
        assert [(one["name"], one["declared"]) for one in (await bridge.call("GET", ""))["endpoints"]] == [
            ("own", True),
            ("partner", False),
        ]
        deliveries = (await bridge.call("GET", "/partner/deliveries"))["deliveries"]
        assert [one["event_id"] for one in deliveries] == [first]

    async with running(tmp_path) as bridge:
        second = await bridge.event()
        await receiver.until(lambda: len(receiver.got) == 2)
        assert ids(receiver, secret) == [first, second]
        assert await bridge.call("DELETE", "/partner", 204) is None
        assert (await bridge.ask("GET", "/partner"))[0] == 404
        assert (await bridge.ask("DELETE", "/partner"))[0] == 404
        assert (await bridge.ask("POST", "", json={"name": "partner", "url": receiver.url}))[0] == 409
        other = await bridge.call("POST", "", 201, name="witness", url=receiver.url)
        third = await bridge.event()
        await receiver.until(lambda: len(receiver.got) == 3)
        assert receiver.got[2].verified(other["secret"])["id"] == third  # and nothing for the removed one
        await receiver_stays_at(bridge, receiver, 3)

    stored = await asyncio.to_thread(everything_stored, tmp_path)
    assert b"witness" in stored
    for told in (secret, other["secret"]):
        assert told.encode() not in stored
        assert base64.b64decode(told.removeprefix("whsec_")) not in stored
    assert HEADER.encode() not in stored


def everything_stored(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.glob("journal.db*"))


async def receiver_stays_at(bridge: Running, receiver: Receiver, deliveries: int) -> None:
    """Everything that is journalled has been offered by now: the endpoint that is left has settled it."""
    async with asyncio.timeout(20):
        await bridge.journal.settled(["witness"])
    assert len(receiver.got) == deliveries


async def test_a_rotated_secret_signs_first_and_the_old_one_beside_it(tmp_path: Path, receiver: Receiver) -> None:
    async with running(tmp_path) as bridge:
        old = (await bridge.call("POST", "", 201, name="partner", url=receiver.url))["secret"]
        new = (await bridge.call("POST", "/partner/rotate-secret", overlap_s=3600))["secret"]
        await bridge.event()
        await receiver.until(lambda: len(receiver.got) == 1)
        assert receiver.got[0].verified(old) == receiver.got[0].verified(new)
        assert len(receiver.got[0].headers["webhook-signature"].split(" ")) == 2

        newest = (await bridge.call("POST", "/partner/rotate-secret", overlap_s=0))["secret"]
        assert len({old, new, newest}) == 3
        await bridge.event()
        await receiver.until(lambda: len(receiver.got) == 2)
        receiver.got[1].verified(newest)
        for ended in (old, new):
            with pytest.raises(Exception, match="No matching signature"):
                receiver.got[1].verified(ended)


async def test_more_secrets_than_a_header_takes_are_refused(tmp_path: Path, receiver: Receiver) -> None:
    async with running(tmp_path) as bridge:
        await bridge.call("POST", "", 201, name="partner", url=receiver.url)
        await bridge.call("POST", "/partner/rotate-secret")
        await bridge.call("POST", "/partner/rotate-secret")
        assert "wait until one has ended" in (await bridge.call("POST", "/partner/rotate-secret", 409))["detail"]
        await bridge.call("POST", "/partner/rotate-secret", overlap_s=0)


async def test_changed_settings_take_effect_and_the_secret_stays(tmp_path: Path, receiver: Receiver) -> None:
    async with listening() as moved, running(tmp_path) as bridge:
        made = await bridge.call("POST", "", 201, name="partner", url=receiver.url, description="first", jobs=["*"])
        told = await bridge.call("PATCH", "/partner", url=moved.url, description=None, headers={"X-Tenant": HEADER})
        assert told["settings"] == {"url": moved.url, "jobs": ["*"]}
        event = await bridge.event()
        await moved.until(lambda: len(moved.got) == 1)
        assert ids(moved, made["secret"]) == [event]
        assert moved.got[0].headers["X-Tenant"] == HEADER
        assert receiver.got == []
        assert (await bridge.call("PATCH", "/partner", 422, secret="whsec_x"))["errors"][0]["pointer"] == "#/secret"


async def test_a_disabled_endpoint_gets_what_it_missed_once_it_is_enabled(tmp_path: Path, receiver: Receiver) -> None:
    async with running(tmp_path) as bridge:
        made = await bridge.call("POST", "", 201, name="partner", url=receiver.url)
        assert (await bridge.call("POST", "/partner/disable"))["state"] == "disabled"
        missed = await bridge.event()
    async with running(tmp_path) as bridge:
        told = await bridge.call("GET", "/partner")
        assert (told["state"], told["reason"]) == ("disabled", "disabled over the API")
        assert receiver.got == []
        assert (await bridge.call("GET", "/partner/deliveries/counts"))["counts"]["pending"] == 1
        await bridge.call("POST", "/partner/enable")
        await receiver.until(lambda: len(receiver.got) == 1)
        assert ids(receiver, made["secret"]) == [missed]


@pytest.mark.parametrize("name", ["own", "partner"])
async def test_an_endpoint_that_wanted_no_more_is_enabled_again(tmp_path: Path, receiver: Receiver, name: str) -> None:
    async with running(tmp_path, own=receiver.url if name == "own" else OTHERS) as bridge:
        if name == "partner":
            await bridge.call("POST", "", 201, name="partner", url=receiver.url)
        receiver.answer = answering(410)
        await bridge.event()
        await bridge.until_running(name, "parked")
        receiver.answer = None
        await bridge.call("POST", f"/{name}/enable")
        await receiver.until(lambda: len(receiver.got) == 2)
        assert receiver.got[0].headers["webhook-id"] == receiver.got[1].headers["webhook-id"]


@pytest.mark.parametrize("name", ["own", "partner"])
async def test_a_test_tells_at_once_what_the_receiver_said(tmp_path: Path, receiver: Receiver, name: str) -> None:
    async with running(tmp_path, own=receiver.url) as bridge:
        secret = ENVIRON["SECRET"]
        if name == "partner":
            secret = (await bridge.call("POST", "", 201, name="partner", url=receiver.url))["secret"]
        receiver.answer = answering(410, "not here")
        told = await bridge.call("POST", f"/{name}/test")
        port = receiver.url.split(":")[2].split("/")[0]
        assert (told["delivered"], told["status"], told["answer"], told["reason"]) == (False, 410, "not here", "gone")
        assert told["address"] == f"127.0.0.1:{port}"
        receiver.answer = None
        again = await bridge.call("POST", f"/{name}/test")
        assert (again["delivered"], again["status"], again["reason"]) == (True, 204, None)
        body = receiver.got[1].verified(secret)
        assert (body["type"], body["id"]) == ("endpoint.test", again["event_id"])
        assert (await bridge.call("GET", f"/{name}"))["state"] == "running"  # nothing follows from a test's answer


@pytest.mark.parametrize(
    ("given", "pointer", "why"),
    [
        ({"url": "https://example.com", "tls": {"ca_file": "/etc/passwd"}}, "#/tls", "files of the server"),
        ({"url": "https://example.com", "secret": {"file": "/etc/passwd"}}, "#/secret", "the value itself"),
        ({"url": "https://example.com", "secret": "${TOKEN}"}, "#/secret", "the value itself"),
        ({"url": "https://example.com", "secret": "whsec_c2hvcnQ="}, "#/secret", "24 to 64"),
        ({"url": "https://example.com", "headers": {"X-A": "Bearer ${TOKEN}"}}, "#/headers/X-A", "the value itself"),
        ({"url": "https://example.com", "headers": {"X-A": "a\r\nb: c"}}, "#/headers/X-A", "visible ASCII"),
        ({"url": "https://example.com", "headers": ["X-A"]}, "#/headers", "an object"),
        ({"url": "https://example.com", "allow_networks": ["10.0.0.0/8"]}, "#/allow_networks", "operator's"),
        ({"url": "https://example.com", "allow_private_networks": True}, "#/allow_private_networks", "operator's"),
        ({"url": "https://example.com", "proxy": "http://a:1"}, "#/proxy", "operator's"),
        ({"url": "https://169.254.169.254/"}, "#", "not a public address"),
        ({"url": "http://example.com"}, "#", "url is http"),
        ({"url": "https://example.com:22"}, "#", "port 22"),
        ({"url": "https://example.com", "types": ["jobs.*"]}, "#/types/0", "fits no event type"),
        ({"url": "https://example.com", "when": "a["}, "#/when", "JMESPath"),
        ({"url": "https://example.com", "retry_schedule_s": []}, "#/retry_schedule_s", "at least 1"),
        ({"url": "https://example.com", "colour": "red"}, "#/colour", "not permitted"),
        ({}, "#/url", "required"),
    ],
)
async def test_bad_input_is_refused_with_place_and_reason(
    tmp_path: Path, given: dict[str, Any], pointer: str, why: str
) -> None:
    async with running(tmp_path, rules='endpoints: {keys: ["${SEALING}"]}\n') as bridge:
        status, told = await bridge.ask("POST", "", json={"name": "partner", **given})
        assert (status, told["errors"][0]["pointer"]) == (422, pointer)
        assert why in told["errors"][0]["detail"]
        assert "c2hvcnQ" not in str(told)
        assert await bridge.journal.endpoints.page() == []


@pytest.mark.parametrize("name", ["", "Partner", "a/b", "-a", "a" * 64, "roster:endpoints", 7])
async def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: Any) -> None:
    async with running(tmp_path) as bridge:
        status, told = await bridge.ask("POST", "", json={"name": name, "url": OTHERS})
        assert (status, told["errors"][0]["pointer"]) == (422, "#/name")


async def test_declared_endpoints_cannot_be_changed_and_their_names_are_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as bridge:
        for name in ("own", "idle"):
            await bridge.call("POST", "", 409, name=name, url=OTHERS + "x")
        for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/disable")):
            told = await bridge.call(method, f"/own{path}", 409, **({"url": OTHERS} if method == "PATCH" else {}))
            assert "declared in the configuration" in told["detail"]
        assert "secret" not in (await bridge.call("GET", "/own"))["settings"]


async def test_without_a_key_nothing_is_made_and_the_setting_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, rules="") as bridge:
        assert "endpoints.keys" in (await bridge.call("POST", "", 403, name="partner", url=OTHERS))["detail"]
        assert (await bridge.call("GET", ""))["endpoints"][0]["name"] == "own"


async def test_a_key_that_is_none_is_refused_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"endpoints\.keys\.0: the key has 5 bytes, not 32"):
        async with running(tmp_path, SEALING="c2hvcnQ="):
            pass


async def test_secrets_that_no_key_opens_park_their_endpoint_alone(tmp_path: Path, receiver: Receiver) -> None:
    async with running(tmp_path) as bridge:
        made = await bridge.call("POST", "", 201, name="partner", url=receiver.url)
    other = base64.b64encode(b"o" * 32).decode()
    async with running(tmp_path, SEALING=other) as bridge:
        told = await bridge.until_running("partner", "parked")
        assert "endpoints.keys must hold the key" in told["reason"]
        missed = await bridge.event()
        assert "endpoints.keys" in (await bridge.call("POST", "/partner/rotate-secret", 409))["detail"]
        assert (await bridge.call("POST", "/partner/test"))["reason"] == "sealed"
        await bridge.call("POST", "", 201, name="fresh", url=receiver.url)
        await bridge.event()
        await receiver.until(lambda: len(receiver.got) == 1)
        await bridge.call("DELETE", "/fresh", 204)
    both = RULES.replace('"${SEALING}"', '"${OTHER}", "${SEALING}"')
    receiver.got.clear()
    async with running(tmp_path, rules=both, OTHER=other):
        await receiver.until(lambda: len(receiver.got) == 2)
        assert ids(receiver, made["secret"])[0] == missed


async def test_what_the_operator_no_longer_allows_parks_the_endpoint_until_it_is_changed(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with running(tmp_path) as bridge:
        await bridge.call("POST", "", 201, name="partner", url=receiver.url)
    async with running(tmp_path, rules='endpoints: {keys: ["${SEALING}"]}\n') as bridge:
        told = await bridge.until_running("partner", "parked")
        assert "no longer allowed: Value error, url is http" in told["reason"]
        await bridge.call("PATCH", "/partner", url="https://example.com")  # nothing happens, so nothing is sent there
        assert (await bridge.until_running("partner"))["reason"] is None


async def test_a_declared_sink_cannot_take_the_name_of_a_made_endpoint(tmp_path: Path, receiver: Receiver) -> None:
    async with running(tmp_path) as bridge:
        await bridge.call("POST", "", 201, name="partner", url=receiver.url)
    renamed = '  partner: {kind: webhook, url: "https://example.com", secret: "${SECRET}"}\njournal:'
    with pytest.raises(Fatal, match=r"give sinks\.partner another name"):
        await _start(tmp_path, CONFIG.replace("journal:", renamed, 1))


async def _start(directory: Path, config: str) -> None:
    path = directory / "jobbridge.yaml"
    path.write_text(config.replace("OWN", OTHERS).replace("JOURNAL", str(directory / "journal.db")) + RULES)
    plugs = providers.catalogue(), sinks.catalogue()
    async with assemble(load(path, {**os.environ, **ENVIRON}, *plugs), *plugs, structlog.get_logger()):
        pass


async def test_a_made_endpoints_public_key_is_published(tmp_path: Path, receiver: Receiver) -> None:
    private, public = new_private_key()
    async with running(tmp_path) as bridge:
        made = await bridge.call("POST", "", 201, name="partner", url=receiver.url, secret=private)
        assert "secret" not in made
        await bridge.event()
        await receiver.until(lambda: len(receiver.got) == 1)
        assert await bridge.public_keys() == [_x(public)]
        told = await bridge.call("POST", "/partner/rotate-secret", overlap_s=60)
        assert told["public_key"].startswith("whpk_")
        assert "secret" not in told
        await bridge.event()
        await receiver.until(lambda: len(receiver.got) == 2)
        assert await bridge.public_keys() == [_x(parse_public_key(told["public_key"])), _x(public)]


def _x(key: PublicKey) -> str:
    return base64.urlsafe_b64encode(key.raw).rstrip(b"=").decode()


async def test_pages_of_a_list_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    async with running(tmp_path) as bridge:
        for name in ("b", "a", "c"):
            await bridge.call("POST", "", 201, name=name, url="http://127.0.0.1:9/")
        first = await bridge.call("GET", "?limit=2")
        assert [one["name"] for one in first["endpoints"]] == ["own", "a", "b"]
        rest = await bridge.call("GET", f"?limit=2&after={first['next']}")
        assert ([one["name"] for one in rest["endpoints"]], rest["next"]) == (["c"], None)
