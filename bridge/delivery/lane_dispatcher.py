"""One session: one endpoint, one partition. The only place that puts together what delivers event by event."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from random import random

from structlog.typing import FilteringBoundLogger

from bridge.delivery.attempts import Attempts
from bridge.delivery.gate import Gate
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

    `clock_ms` is Unix time in milliseconds, `dice` a number in [0, 1).
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
        self._clock_ms = clock_ms
        self._dice = dice

    async def run(self, useful: Callable[[], None]) -> None:
        """Deliver until cancelled; what is finished is settled before this leaves, whatever the reason.

        Raises `Fatal` when the receiver asked never to be called again, `Temporary` when the journal fails.
        """
        journal, consumer, partition = self._journal, self.group, self._partition
        # In this order: where a run that was cut off still has a write on its way, nothing falls between two answers.
        position = await journal.position(consumer, partition)
        finished = await journal.finished(consumer, partition, position)
        revision, outstanding = await journal.redriven(consumer, partition, -1)
        progress = Progress(journal, consumer, partition, position, self._metrics)
        async with self._sink.endpoint() as endpoint:
            gate = Gate(endpoint.patience, consumer, partition, metrics=self._metrics, log=self._log, dice=self._dice)
            attempts = Attempts(
                endpoint,
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

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: the journal holds everything that was not delivered."""
