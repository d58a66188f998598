"""The demo's receiver judges by the reference library alone, and remembers what it took."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from standardwebhooks import Webhook

from bridge.demo.receiver import Mood, receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT = {"id": "auvy-demo:job_1:1-0", "subject": "job_1", "type": "job.output", "sequence": "000000000007"}


class Sender:
    """Signs as a faithful sender would, unless it is told to lie."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def send(
        self, webhook_id: str = "msg_1", *, secret: str = SECRET, age_s: float = 0, event: dict[str, Any] = EVENT
    ) -> int:
        moment = datetime.now(UTC) - timedelta(seconds=age_s)
        body = json.dumps(event)
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": Webhook(secret).sign(webhook_id, moment, body),
        }
        async with self.http.post("/hook", data=body, headers=headers) as response:
            return response.status

    async def received(self) -> dict[str, Any]:
        async with self.http.get("/_receiver/received") as response:
            return dict(await response.json())


@asynccontextmanager
async def sender(mood: Mood) -> AsyncIterator[Sender]:
    async with receiver(SECRET, mood) as url, aiohttp.ClientSession(url) as http:
        yield Sender(http)


async def test_what_is_accepted_is_remembered_in_order_of_arrival_with_repeats() -> None:
    async with sender(Mood()) as faithful:
        for webhook_id in ("msg_2", "msg_1", "msg_2"):
            assert await faithful.send(webhook_id) == 204
        ledger = await faithful.received()
    assert [one["webhook_id"] for one in ledger["accepted"]] == ["msg_2", "msg_1", "msg_2"]
    assert ledger["accepted"][0] == {
        "webhook_id": "msg_2",
        "id": "auvy-demo:job_1:1-0",
        "job": "job_1",
        "type": "job.output",
        "sequence": 7,
    }
    assert (ledger["verified"], ledger["refused"]) == (3, 0)


@pytest.mark.parametrize(
    "lie",
    [
        {"secret": "whsec_bm90IHRoZSByaWdodCBrZXkgYXQgYWxsISE="},
        {"age_s": 600},
        {"event": {"type": "job.output", "data": {}}},
    ],
    ids=["another key", "an old timestamp", "a body without its id"],
)
async def test_what_cannot_be_trusted_or_matched_is_refused_and_counted(lie: dict[str, Any]) -> None:
    async with sender(Mood()) as liar:
        assert await liar.send(**lie) == 400
        ledger = await liar.received()
    assert (ledger["accepted"], ledger["verified"], ledger["refused"]) == ([], 0, 1)


async def test_a_delivery_answered_with_an_error_on_purpose_is_owed_again() -> None:
    async with sender(Mood(server_error=0.5, seed=3)) as patient:
        statuses = [await patient.send(f"msg_{n}") for n in range(20)]
        ledger = await patient.received()
    assert set(statuses) == {204, 500}
    assert ledger["accepted_count"] == statuses.count(204)
    assert ledger["verified"] == 20
    assert ledger["answers"] == {"204": statuses.count(204), "500": statuses.count(500)}
