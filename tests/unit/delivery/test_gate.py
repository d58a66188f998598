"""The gate in virtual time: nothing goes out while the circuit is open, one probe, a slow start, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import structlog
import virtual_time
from structlog.testing import capture_logs

from bridge.delivery.gate import Gate
from bridge.delivery.sink import Patience
from bridge.errors import BridgeError, Temporary
from bridge.telemetry.metrics import Metrics

PATIENCE = Patience((5.0,), 600.0, concurrency=8, circuit_jobs=3, probe_wait_s=10.0)


class Traffic:
    """Eight jobs that send without end, to an endpoint that takes 100 ms for each event and is away at times."""

    def __init__(self, away: Callable[[float], bool]) -> None:
        self.metrics = Metrics()
        self.gate = Gate(PATIENCE, "partner", 0, metrics=self.metrics, log=structlog.get_logger(), dice=lambda: 0.0)
        self.begun_s: list[float] = []
        self.under_way: list[int] = []
        self._away = away

    async def send(self, job: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.gate.opened()
            begun = self.gate.begin()
            self.begun_s.append(loop.time())
            await asyncio.sleep(0.1)
            error: BridgeError | None = Temporary("HTTP 500", status=500) if self._away(loop.time()) else None
            self.gate.end(begun, job, error)

    async def run(self, until_s: float) -> None:
        jobs = [asyncio.create_task(self.send(job)) for job in range(8)]
        await asyncio.sleep(until_s)
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        self.gate.close()

    def between(self, start_s: float, end_s: float) -> int:
        return sum(start_s <= at_s < end_s for at_s in self.begun_s)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"jobbridge_{name}", {"sink": "partner", **labels})


def traffic(away: Callable[[float], bool], until_s: float) -> Traffic:
    async def main() -> Traffic:
        made = Traffic(away)
        await made.run(until_s)
        return made

    return virtual_time.run(main())


def test_an_outage_costs_one_probe_at_a_time_with_growing_waits() -> None:
    seen = traffic(lambda at_s: 1.0 < at_s < 35.0, until_s=80.0)
    assert seen.between(1.2, 11.0) == 0
    assert seen.between(11.0, 12.0) == 1
    assert seen.between(12.0, 31.0) == 0
    assert seen.between(31.0, 32.0) == 1
    assert seen.between(32.0, 71.0) == 0
    assert seen.between(71.0, 80.0) > 500


def test_after_an_outage_it_starts_slowly() -> None:
    seen = traffic(lambda at_s: 1.0 < at_s < 5.0, until_s=13.0)
    (first, *_) = [at_s for at_s in seen.begun_s if at_s > 2.0]
    steps = [seen.between(first + 0.1 * n - 0.05, first + 0.1 * n + 0.05) for n in range(5)]
    assert steps == [1, 1, 2, 4, 8]


def test_that_the_circuit_opened_and_closed_is_told_once_each() -> None:
    with capture_logs() as lines:
        traffic(lambda at_s: 1.0 < at_s < 35.0, until_s=80.0)
    assert [line["event"] for line in lines] == ["circuit.opened", "circuit.closed"]
    assert (lines[0]["endpoint"], lines[0]["status"]) == ("partner", 500)
    assert lines[1]["failed_s"] >= 60.0


def test_metrics_show_the_circuit_and_how_much_may_be_under_way() -> None:
    async def main() -> Iterator[Any]:
        away = Traffic(lambda _at_s: True)
        seen = [away.sample("endpoint_concurrency", partition="0")]
        for job in range(3):
            away.gate.end(away.gate.begin(), job, Temporary("slow down", status=429))
        seen.append(away.sample("endpoint_circuit_open", partition="0"))
        seen.append(away.sample("endpoint_concurrency", partition="0"))
        away.gate.close()
        seen.append(away.sample("endpoint_circuit_open", partition="0"))
        return iter(seen)

    assert list(virtual_time.run(main())) == [8, 1, 1, 0]


def test_retry_after_keeps_the_circuit_open() -> None:
    async def main() -> float:
        away = Traffic(lambda _at_s: True)
        for job in range(3):
            away.gate.end(away.gate.begin(), job, Temporary("slow down", status=429, after_s=120.0))
        await away.gate.opened()
        return asyncio.get_running_loop().time()

    assert 120.0 <= virtual_time.run(main()) < 121.0


def test_whoever_waits_longest_goes_first_even_when_the_last_one_wants_to_go_on() -> None:
    async def main() -> list[int]:
        gate = Gate(
            Patience((5.0,), 600.0, concurrency=1),
            "partner",
            0,
            metrics=Metrics(),
            log=structlog.get_logger(),
            dice=float,
        )
        order: list[int] = []

        async def send(job: int) -> None:
            for _ in range(3):
                await gate.opened()
                begun = gate.begin()
                await asyncio.sleep(0.1)
                order.append(job)
                gate.end(begun, job, None)

        await asyncio.gather(*map(send, range(3)))
        return order

    assert virtual_time.run(main()) == [0, 1, 2] * 3


def test_a_turn_that_is_passed_on_is_not_lost() -> None:
    async def main() -> None:
        gate = Gate(
            Patience((5.0,), 600.0, concurrency=1),
            "partner",
            0,
            metrics=Metrics(),
            log=structlog.get_logger(),
            dice=float,
        )
        begun = gate.begin()

        async def pass_on() -> None:
            await gate.opened()
            gate.pass_on()

        waiting = [asyncio.create_task(pass_on()), asyncio.create_task(gate.opened())]
        await asyncio.sleep(0)
        gate.end(begun, 1, None)
        await asyncio.gather(*waiting)

    virtual_time.run(main())


def test_who_waits_in_a_run_that_is_being_cancelled_gets_no_turn() -> None:
    async def main() -> None:
        gate = Gate(PATIENCE, "partner", 0, metrics=Metrics(), log=structlog.get_logger(), dice=float)
        begun = [gate.begin() for _ in range(PATIENCE.concurrency)]
        waiting = asyncio.create_task(gate.opened())
        await asyncio.sleep(0)
        waiting.cancel()
        gate.end(begun[0], 1, None)
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    virtual_time.run(main())
