"""When an endpoint counts as failing, is disabled and has recovered: in virtual time, and over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
import structlog
import virtual_time
from structlog.testing import capture_logs

from bridge.delivery.health import EndpointHealth
from bridge.delivery.sink import Patience
from bridge.errors import Fatal, Rejected, Temporary
from bridge.journal.health import Health, HealthState, HealthTurn
from bridge.telemetry.metrics import Metrics

HOUR_S, DAY_S = 3_600.0, 86_400.0
PATIENCE = Patience((5.0,), 600.0, concurrency=8, failing_after_s=60.0, disable_after_s=5 * DAY_S)
WELL, FAILING, DISABLED = HealthState


class Remembered:
    """A journal that outlives restarts, without the threads that virtual time does not know."""

    def __init__(self) -> None:
        self.health = Health()
        self.notes: list[Health] = []
        self.away = False

    async def of(self, _consumer: str) -> Health:
        return self.health

    async def note(self, _consumer: str, changes: Sequence[Health]) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Temporary("the disk is full", reason="journal")
        self.notes += changes
        if self.health.state is not DISABLED:
            self.health = changes[-1]

    async def enable(self, _consumer: str) -> bool:
        raise NotImplementedError

    async def turns(self, after_revision: int, limit: int = 100) -> Sequence[HealthTurn]:
        raise NotImplementedError

    async def told(self, operator: str) -> int:
        raise NotImplementedError

    async def tell(self, operator: str, revision: int) -> None:
        raise NotImplementedError


class Bridge:
    """One endpoint's health, in a process that can be away for a while."""

    def __init__(self) -> None:
        self.journal = Remembered()
        self.metrics = Metrics()
        self.patience = PATIENCE
        self._away_ms = 0
        self._start()

    def _start(self) -> None:
        self.health = EndpointHealth(
            "partner", self.journal, metrics=Metrics(), log=structlog.get_logger(), clock_ms=self.now_ms
        )

    def now_ms(self) -> int:
        return 1_000_000 + self._away_ms + int(asyncio.get_running_loop().time() * 1000)

    async def restart(self, away_s: float = 0.0) -> None:
        await self.health.write()
        self._away_ms += int(away_s * 1000)
        self._start()
        await self.health.begin()

    async def fail(self, every_s: float, for_s: float) -> None:
        """One failed attempt every so often, the first one now."""
        end_s = asyncio.get_running_loop().time() + for_s
        while asyncio.get_running_loop().time() < end_s:
            self.health.failed(Temporary("HTTP 500", reason="server_error", status=500), self.patience)
            await asyncio.sleep(every_s)

    @property
    def states(self) -> list[HealthState]:
        return [note.state for note in self.journal.notes]


def in_virtual_time(test: Callable[[Bridge], Awaitable[None]]) -> None:
    async def main() -> None:
        bridge = Bridge()
        await bridge.health.begin()
        await test(bridge)

    virtual_time.run(main())


def test_while_all_is_well_nothing_is_written() -> None:
    async def test(bridge: Bridge) -> None:
        for _ in range(1_000):
            bridge.health.succeeded()
            await asyncio.sleep(1.0)
        assert bridge.journal.notes == []

    in_virtual_time(test)


def test_an_endpoint_that_refuses_one_event_of_many_costs_no_write() -> None:
    async def test(bridge: Bridge) -> None:
        for _ in range(100):
            await bridge.fail(every_s=0.5, for_s=0.5)
            bridge.health.succeeded()
            await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)
        assert bridge.journal.notes == []

    in_virtual_time(test)


def test_the_beginning_is_journalled_and_failing_is_told_later() -> None:
    async def test(bridge: Bridge) -> None:
        since_ms = bridge.now_ms()
        await bridge.fail(every_s=10.0, for_s=60.0)
        assert bridge.journal.notes == [Health(WELL, since_ms, reason="server_error")]
        await bridge.fail(every_s=10.0, for_s=600.0)
        assert bridge.states == [WELL, FAILING]
        assert bridge.journal.health.failing_since_ms == since_ms

    in_virtual_time(test)


def test_a_success_ends_it_and_the_time_begins_anew() -> None:
    async def test(bridge: Bridge) -> None:
        await bridge.fail(every_s=HOUR_S, for_s=4.9 * DAY_S)
        bridge.health.succeeded()
        await asyncio.sleep(1.0)
        assert bridge.journal.health.state is WELL
        assert bridge.journal.health.failing_since_ms == 0
        await bridge.fail(every_s=HOUR_S, for_s=4.9 * DAY_S)
        assert bridge.states == [WELL, FAILING, WELL, WELL, FAILING]

    in_virtual_time(test)


def test_after_five_days_of_nothing_but_failure_it_is_disabled() -> None:
    async def test(bridge: Bridge) -> None:
        begun_ms = bridge.now_ms()
        with pytest.raises(Fatal, match=r"nothing but failure since .* HTTP 500") as caught:
            await bridge.fail(every_s=HOUR_S, for_s=6 * DAY_S)
        assert (caught.value.reason, caught.value.status) == ("disabled", 500)
        assert bridge.now_ms() - begun_ms == 5 * DAY_S * 1000
        await bridge.health.disable(caught.value)
        assert bridge.journal.health == Health(DISABLED, begun_ms, 0, "failed_too_long")
        with pytest.raises(Fatal, match="is disabled"):
            await bridge.restart()

    in_virtual_time(test)


def test_a_restart_does_not_reset_the_time() -> None:
    async def test(bridge: Bridge) -> None:
        begun_ms = bridge.now_ms()
        for _day in range(5):
            await bridge.fail(every_s=HOUR_S, for_s=DAY_S)
            await bridge.restart()
        with pytest.raises(Fatal):
            await bridge.fail(every_s=HOUR_S, for_s=DAY_S)
        assert 5 * DAY_S <= (bridge.now_ms() - begun_ms) / 1000 <= 5 * DAY_S + 4 * HOUR_S

    in_virtual_time(test)


def test_days_of_being_down_alone_disable_nobody() -> None:
    async def test(bridge: Bridge) -> None:
        await bridge.fail(every_s=60.0, for_s=HOUR_S)
        await bridge.restart(away_s=10 * DAY_S)
        await bridge.fail(every_s=1.0, for_s=0.99 * HOUR_S)
        bridge.health.succeeded()
        assert DISABLED not in bridge.states

    in_virtual_time(test)


def test_after_being_down_an_hour_of_failing_is_enough() -> None:
    async def test(bridge: Bridge) -> None:
        await bridge.fail(every_s=60.0, for_s=HOUR_S)
        await bridge.restart(away_s=10 * DAY_S)
        begun_ms = bridge.now_ms()
        with pytest.raises(Fatal):
            await bridge.fail(every_s=60.0, for_s=DAY_S)
        assert bridge.now_ms() - begun_ms == HOUR_S * 1000

    in_virtual_time(test)


def test_it_takes_more_than_a_few_failures() -> None:
    async def test(bridge: Bridge) -> None:
        await bridge.fail(every_s=2 * DAY_S, for_s=8 * DAY_S)  # four of them
        with pytest.raises(Fatal):
            await bridge.fail(every_s=1.0, for_s=1.0)

    in_virtual_time(test)


def test_without_disable_after_s_it_is_tried_for_ever() -> None:
    async def test(bridge: Bridge) -> None:
        bridge.patience = Patience((5.0,), 600.0, concurrency=8)
        await bridge.fail(every_s=HOUR_S, for_s=100 * DAY_S)
        assert bridge.states == [WELL, FAILING]

    in_virtual_time(test)


def test_a_receiver_that_wants_no_more_is_remembered_and_an_error_of_ours_is_not() -> None:
    async def test(bridge: Bridge) -> None:
        await bridge.health.disable(Fatal("every webhook secret has ended", reason="keys_ended"))
        await bridge.health.disable(Rejected("KeyError: 'x'", reason="bug"))
        assert bridge.journal.notes == []
        await bridge.health.disable(Fatal("HTTP 410", reason="gone", status=410))
        await bridge.health.disable(Fatal("HTTP 410", reason="gone", status=410))  # the other partitions' sessions
        assert bridge.journal.notes == [Health(DISABLED, bridge.now_ms(), 0, "gone")]

    in_virtual_time(test)


def test_what_the_journal_cannot_take_is_written_with_what_follows() -> None:
    async def test(bridge: Bridge) -> None:
        bridge.journal.away = True
        await bridge.fail(every_s=10.0, for_s=100.0)
        error = Fatal("HTTP 410", reason="gone", status=410)
        for _ in range(2):
            with pytest.raises(Temporary, match="disk"):
                await bridge.health.disable(error)
        bridge.journal.away = False
        await bridge.health.disable(error)
        assert bridge.states == [WELL, FAILING, DISABLED]

    in_virtual_time(test)


def test_each_turn_is_logged_and_counted_once() -> None:
    async def test(bridge: Bridge) -> None:
        metrics = Metrics()
        bridge.health = EndpointHealth(
            "partner", bridge.journal, metrics=metrics, log=structlog.get_logger(), clock_ms=bridge.now_ms
        )
        await bridge.fail(every_s=10.0, for_s=100.0)
        bridge.health.succeeded()
        bridge.health.succeeded()
        await bridge.health.disable(Fatal("HTTP 410", reason="gone", status=410))
        for turn in ("failing", "recovered", "disabled"):
            labels = {"sink": "partner", "turn": turn}
            assert metrics.registry.get_sample_value("jobbridge_endpoint_turns_total", labels) == 1

    with capture_logs() as lines:
        in_virtual_time(test)
    assert [line["event"] for line in lines] == ["endpoint.failing", "endpoint.recovered", "endpoint.disabled"]
    assert {line["endpoint"] for line in lines} == {"partner"}
