"""One session: one endpoint, one partition. The only place that puts together what delivers event by event."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from random import random

from structlog.typing import FilteringBoundLogger

from bridge.delivery.attempts import Attempts
from bridge.delivery.gate import Gate
from bridge.delivery.health import EndpointHealth
from bridge.delivery.lanes import Lanes
from bridge.delivery.progress import Progress
from bridge.delivery.sink import EndpointSink
from bridge.errors import BridgeError, Temporary
from bridge.journal.store import DeliveryJournal
from bridge.telemetry.metrics import Metrics


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class LaneDispatcher:
    """The session that hands one partition's events to one endpoint.

    `health` is shared by the sessions of all partitions; one of its own where there is none. `clock_ms` is Unix time in
    milliseconds, `dice` a number in [0, 1).
    """

    def __init__(
        self,
        consumer: str,
        partition: int,
        sink: EndpointSink,
        *,
        journal: DeliveryJournal,
        metrics: Metrics,
        log: FilteringBoundLogger,
        health: EndpointHealth | None = None,
        clock_ms: Callable[[], int] = _now_ms,
        dice: Callable[[], float] = random,
    ) -> None:
        self.name = f"{consumer}/{partition}"
        self.group = consumer
        self._partition = partition
        self._sink = sink
        self._journal = journal
        self._metrics = metrics
        self._log = log
        self._health = health or EndpointHealth(
            consumer, journal.endpoint_health, metrics=metrics, log=log, clock_ms=clock_ms
        )
        self._clock_ms = clock_ms
        self._dice = dice

    async def run(self, useful: Callable[[], None]) -> None:
        """Deliver until cancelled; what is finished is settled before this leaves, whatever the reason.

        Raises `Fatal` when the endpoint is not to be called again until a person enables it, `Temporary` when the
        journal fails.
        """
        await self._health.begin()
        journal, consumer, partition = self._journal, self.group, self._partition
        # In this order: where a run that was cut off still has a write on its way, nothing falls between two answers.
        position = await journal.position(consumer, partition)
        finished = await journal.finished(consumer, partition, position)
        revision, outstanding = await journal.redriven(consumer, partition, -1)
        progress = Progress(journal, consumer, partition, position, self._metrics)
        async with self._sink.endpoint() as endpoint:
            gate = Gate(endpoint.patience, consumer, partition, metrics=self._metrics, log=self._log, dice=self._dice)
            attempts = Attempts(
                self._health.watching(endpoint),
                gate,
                consumer,
                metrics=self._metrics,
                log=self._log,
                clock_ms=self._clock_ms,
                dice=self._dice,
                useful=useful,
            )
            try:
                await Lanes(progress, attempts, outstanding, finished).run(revision)
            finally:
                gate.close()
                with suppress(Temporary):  # what ended the run says more
                    await progress.settle()
                    await self._health.write()

    async def park(self, error: BridgeError) -> None:
        """Remember that the endpoint is disabled, if it is: what was not delivered is in the journal already."""
        await self._health.disable(error)


def endpoint_sessions(
    consumer: str, sink: EndpointSink, *, journal: DeliveryJournal, metrics: Metrics, log: FilteringBoundLogger
) -> list[LaneDispatcher]:
    """One session for each partition; together they judge the endpoint's health."""
    health = EndpointHealth(consumer, journal.endpoint_health, metrics=metrics, log=log)
    return [
        LaneDispatcher(consumer, partition, sink, journal=journal, metrics=metrics, log=log, health=health)
        for partition in range(journal.partitions)
    ]
