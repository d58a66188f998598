"""The README's guide for receivers: its snippets as they stand there, sent to by our own sink, and what it claims."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from generated import ROOT
from judging import running
from receiver_programs import LANGUAGES, command, command_v1a
from receiving import ENTRY, OLD_SECRET, SECRET, Delivered, answering, listening, opened, settings

from bridge.control.webhook_keys import jwk
from bridge.delivery.circuit import JITTER
from bridge.delivery.schedule import is_spared
from bridge.delivery.signing import new_private_key
from bridge.delivery.sink import Trial
from bridge.errors import BridgeError, Fatal, Rejected, Temporary

GUIDE = (ROOT / "README.md").read_text().partition("\n## Receiving webhooks\n")[2].partition("\n## ")[0]
NEXT = ENTRY._replace(id="auvy/job-1/6-0", type="job.completed", sequence=8)


async def delivered(**options: Any) -> Delivered:
    """A request of the sink, as it went over the wire."""
    async with listening() as receiver:
        await sent(receiver.url, **options)
    [got] = receiver.got
    return got


async def sent(url: str, *, entry: Any = ENTRY, **options: Any) -> None:
    async with opened(url, **options) as endpoint:
        await endpoint.deliver(entry, Trial(1, previous=6))


async def forwarded(url: str, headers: Mapping[str, str], body: bytes) -> int:
    kept = {name: value for name, value in headers.items() if name.startswith("webhook-")}
    async with aiohttp.ClientSession() as http, http.post(url, headers=kept, data=body) as answer:
        return answer.status


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_snippet_of_the_readme_takes_what_our_sink_sends_and_nothing_else(
    language: str, tmp_path: Path
) -> None:
    genuine = await delivered()
    identity = genuine.headers["webhook-id"]
    arguments = await asyncio.to_thread(command, language, SECRET, tmp_path)
    with running(arguments) as address:
        url = f"{address}/0"
        await sent(url)
        await sent(url)  # a retry
        await sent(url, secrets=[OLD_SECRET, SECRET], entry=NEXT)  # keys are being changed
        assert await forwarded(url, genuine.headers, genuine.body) == 204
        for tampered in (
            (genuine.headers, genuine.body.replace(b"running", b"skipped")),
            (genuine.headers | {"webhook-id": "msg_other"}, genuine.body),
            (genuine.headers | {"webhook-timestamp": str(int(genuine.headers["webhook-timestamp"]) + 1)}, genuine.body),
            (genuine.headers | {"webhook-signature": "v1a," + "A" * 86 + "=="}, genuine.body),
        ):
            assert await forwarded(url, *tampered) == 400
        with pytest.raises(Temporary):
            await sent(url, secrets=[OLD_SECRET])
        with pytest.raises(Temporary):
            await sent(url, clock=lambda: int(genuine.headers["webhook-timestamp"]) - 3_600)
    lines = (tmp_path / "stored").read_text().splitlines()
    assert lines[0] == f"{identity} job.output"
    assert [line.split()[1] for line in lines] == ["job.output", "job.completed"]


@pytest.mark.parametrize("language", ["python", "node"])
async def test_a_v1a_snippet_takes_what_the_published_keys_signed_and_nothing_else(
    language: str, tmp_path: Path
) -> None:
    (secret, public), (old_secret, old_public), (stranger, _) = (new_private_key() for _ in range(3))
    genuine = await delivered(secrets=[secret])
    published = orjson.dumps([jwk(old_public), jwk(public)]).decode()
    arguments = await asyncio.to_thread(command_v1a, language, published, tmp_path)
    with running(arguments) as address:
        url = f"{address}/0"
        await sent(url, secrets=[old_secret])
        await sent(url, secrets=[stranger, secret], entry=NEXT)  # keys are being changed
        assert await forwarded(url, genuine.headers, genuine.body) == 204
        for tampered in (
            (genuine.headers, genuine.body.replace(b"running", b"skipped")),
            (genuine.headers | {"webhook-id": "msg_other"}, genuine.body),
            (genuine.headers | {"webhook-timestamp": str(int(genuine.headers["webhook-timestamp"]) + 1)}, genuine.body),
            (genuine.headers | {"webhook-signature": "v1a," + "A" * 86 + "=="}, genuine.body),
            (genuine.headers | {"webhook-signature": genuine.headers["webhook-signature"][2:]}, genuine.body),
        ):
            assert await forwarded(url, *tampered) == 400
        for options in ({"secrets": [stranger]}, {"secrets": [SECRET]}):
            with pytest.raises(Temporary):
                await sent(url, **options)
        with pytest.raises(Temporary):
            await sent(url, secrets=[secret], clock=lambda: int(genuine.headers["webhook-timestamp"]) - 3_600)
    lines = (tmp_path / "stored").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["job.output", "job.completed"]


async def test_a_delivery_has_the_headers_and_the_members_of_the_readme() -> None:
    got = await delivered()
    rows = dict(re.findall(r"^\| `((?:webhook|content|user)-[a-z-]+)` \| (.+) \|$", GUIDE, re.MULTILINE))
    ours = {name.lower(): value for name, value in got.headers.items()}
    carried = {"host", "accept", "accept-encoding", "content-length"}
    assert set(rows) == set(ours) - carried
    assert rows["content-type"] == f"`{ours['content-type']}`"
    assert ours["user-agent"].startswith("jobbridge/")
    [members] = re.findall(r"The body is a JSON object with (.+?)\.\n", GUIDE, re.DOTALL)
    assert re.findall(r"`(\w+)`", members) == list(orjson.loads(got.body))


async def test_the_defaults_are_those_of_the_readme() -> None:
    default = settings("http://127.0.0.1:9/")
    assert ", ".join(map(_duration, default.retry_schedule_s)) in re.sub(r"\sand\s", ", ", " ".join(GUIDE.split()))
    assert JITTER == 0.1
    assert (default.timeout_s, default.retry_after_max_s, default.retry_age_max_s) == (15, 3_600, 3 * 86_400)
    assert default.ordered


@pytest.mark.parametrize(
    ("status", "header", "expected", "spared"),
    [
        (204, {}, type(None), False),
        (429, {}, Temporary, True),
        (503, {}, Temporary, True),
        (410, {}, Fatal, False),
        (204, {"webhook-delivery": "disable"}, Fatal, False),
        (400, {"webhook-delivery": "abort-message"}, Rejected, False),
        (302, {}, Temporary, False),
        (404, {}, Temporary, False),
        (500, {}, Temporary, False),
    ],
)
async def test_answers_do_what_the_readme_says(
    status: int, header: dict[str, str], expected: type[BridgeError | None], spared: bool
) -> None:
    error: BridgeError | None = None
    async with listening() as receiver:
        receiver.answer = answering(status, **header)
        try:
            await sent(receiver.url)
        except BridgeError as raised:
            error = raised
    assert type(error) is expected
    assert error is None or is_spared(error) is spared


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
