"""A bridge with a real journal, a real receiver that fails, and a real operator who is told and checks signatures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientSession
from receiving import OLD_SECRET, Delivered, Receiver, answering, listening, settings

from bridge.app import Bridge, assemble
from bridge.delivery.operators import OperatorSettings
from bridge.delivery.sinks.webhook import PLUG
from bridge.event import EventType, JobEvent, JobKey
from bridge.secret import Referenced
from bridge.settings import Settings
from bridge.supervision.supervisor import SessionState

TOKEN = "a-token-for-control"
SECONDS_OF_FAILING = 1.0
QUICK: dict[str, Any] = {
    "retry_schedule_s": [0.05] * 100,
    "probe_wait_s": 0.05,
    "probe_wait_max_s": 0.05,
    "failing_after_s": 0.2,
    "disable_after_s": SECONDS_OF_FAILING,
}


@pytest.fixture
async def partner() -> AsyncIterator[Receiver]:
    async with listening() as receiver:
        yield receiver


@pytest.fixture
async def operator() -> AsyncIterator[Receiver]:
    async with listening() as receiver:
        yield receiver


class House:
    """Everything that outlives a restart of the bridge."""

    def __init__(self, directory: Path, partner: Receiver, operator: Receiver) -> None:
        told = {"url": operator.url, "secret": Referenced(OLD_SECRET), "allow_http": True}
        self._settings = Settings.model_validate(
            {
                "sources": {},
                "sinks": {"partner": settings(partner.url, **QUICK)},
                "operators": {"ops": OperatorSettings.model_validate(told | {"allow_private_networks": True})},
                "journal": {"url": f"sqlite:///{directory}/journal.db", "partitions": 2},
                "control": {"port": 0, "token": Referenced(TOKEN)},
                "supervision": {"backoff_base_s": 0.01, "backoff_cap_s": 0.05, "drain_timeout_s": 0.0},
            }
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bridge]:
        stopping = asyncio.Event()
        async with (
            assemble(self._settings, {}, {"webhook": PLUG}, structlog.get_logger()) as bridge,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(bridge.run(stopping))
            try:
                yield bridge
            finally:
                stopping.set()


@pytest.fixture
def house(tmp_path: Path, partner: Receiver, operator: Receiver) -> House:
    return House(tmp_path, partner, operator)


async def journal_events(bridge: Bridge, jobs: int = 1) -> None:
    for number in range(jobs):
        [(record, _)] = await bridge.journal.follow([JobKey("auvy", f"job-{number}")], "config")
        event = JobEvent(f"job-{number}/1", *record.key, EventType.OUTPUT, b'{"job":{"status":"running"}}')
        await bridge.journal.append(record, [event], None)


async def parked(bridge: Bridge) -> str:
    """Waits until both sessions of the partner are parked; the reason they show."""
    async with asyncio.timeout(20):
        while True:
            states = [bridge.delivery.state(f"partner/{partition}") for partition in range(2)]
            if all(status is not None and status.state is SessionState.PARKED for status in states):
                return str(bridge.delivery.group_parked("partner"))
            await asyncio.sleep(0.01)


async def resume(bridge: Bridge) -> None:
    url = f"http://127.0.0.1:{bridge.port}/v1/sinks/partner/resume"
    async with ClientSession(headers={"authorization": f"Bearer {TOKEN}"}) as session, session.post(url) as answer:
        assert answer.status == 200, await answer.text()


def told(operator: Receiver) -> list[dict[str, Any]]:
    """The bodies the operator got, each with a good signature."""
    bodies = [one.verified(OLD_SECRET) for one in operator.got]
    assert {body["data"]["endpoint"] for body in bodies} <= {"partner"}
    return bodies


def ids(requests: list[Delivered]) -> list[str]:
    return [one.headers["webhook-id"] for one in requests]


async def test_from_failing_to_disabled_over_a_restart_to_recovered(
    house: House, partner: Receiver, operator: Receiver
) -> None:
    partner.answer = answering(500, "a secret of the partner's")
    async with house.running() as bridge:
        await journal_events(bridge, jobs=2)
        await operator.until(lambda: len(operator.got) == 2)
        assert "nothing but failure since" in await parked(bridge)
        attempts = len(partner.got)
    async with house.running() as bridge:
        assert "is disabled (failed_too_long" in await parked(bridge)
        assert len(partner.got) == attempts
        await resume(bridge)
        partner.answer = None
        await operator.until(lambda: len(operator.got) == 3)
        await bridge.journal.settled(["partner"])
    async with house.running() as bridge:
        await journal_events(bridge, jobs=3)
        await bridge.journal.settled(["partner"])
    failing, disabled, recovered = told(operator)
    assert [failing["type"], disabled["type"], recovered["type"]] == [
        "endpoint.failing",
        "endpoint.disabled",
        "endpoint.recovered",
    ]
    assert failing["data"]["since"] == disabled["data"]["since"]
    assert failing["data"]["since"] < failing["timestamp"] < disabled["timestamp"] < recovered["timestamp"]
    assert failing["data"]["reason"] == "server_error"
    assert failing["data"]["failing_for_s"] < SECONDS_OF_FAILING <= disabled["data"]["failing_for_s"]
    assert (disabled["data"]["reason"], recovered["data"]["reason"]) == ("failed_too_long", None)
    assert len(set(ids(operator.got))) == 3
    assert b"a secret" not in b"".join(one.body for one in operator.got)


async def test_a_receiver_that_answers_410_is_not_called_again_after_a_restart(
    house: House, partner: Receiver, operator: Receiver
) -> None:
    partner.answer = answering(410)
    async with house.running() as bridge:
        await journal_events(bridge)
        await operator.until(lambda: len(operator.got) == 1)
    async with house.running() as bridge:
        assert "is disabled (gone" in await parked(bridge)
    assert len(partner.got) == 1
    [disabled] = told(operator)
    assert (disabled["type"], disabled["data"]["reason"]) == ("endpoint.disabled", "gone")


async def test_an_operator_that_was_away_is_told_of_everything_after_a_restart(
    house: House, partner: Receiver, operator: Receiver
) -> None:
    partner.answer, operator.answer = answering(500), answering(503)
    async with house.running() as bridge:
        await journal_events(bridge)
        await parked(bridge)
        await operator.until(lambda: len(operator.got) >= 3)
    refused = ids(operator.got)
    assert len(set(refused)) == 1
    operator.got.clear()
    operator.answer = None
    async with house.running() as bridge:
        await operator.until(lambda: len(operator.got) >= 2)
        await resume(bridge)
        partner.answer = None
        await operator.until(lambda: len(operator.got) >= 3)
    assert [body["type"] for body in told(operator)] == ["endpoint.failing", "endpoint.disabled", "endpoint.recovered"]
    assert ids(operator.got)[0] == refused[0]


async def test_an_operator_is_left_out_of_what_it_will_never_take(
    house: House, partner: Receiver, operator: Receiver
) -> None:
    partner.answer, operator.answer = answering(500), answering(400, Webhook_Delivery="abort-message")
    async with house.running() as bridge:
        await journal_events(bridge)
        await operator.until(lambda: len(operator.got) == 2)
        await parked(bridge)
    assert [body["type"] for body in told(operator)] == ["endpoint.failing", "endpoint.disabled"]
