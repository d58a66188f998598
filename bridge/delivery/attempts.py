"""One attempt at an endpoint: the only place that decides what its end means and when the next one is due."""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from bridge.delivery.sink import Endpoint, Patience
from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.journal.store import DeliveryState, Entry, Outcome, Outstanding
from bridge.telemetry.metrics import Metrics

JITTER = 0.1
"""The share of a scheduled wait that the dice may add to it."""


class Attempts:
    """Single attempts at the endpoint, and what their ends mean."""

    def __init__(
        self,
        endpoint: Endpoint,
        consumer: str,
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock_ms: Callable[[], int],
        dice: Callable[[], float],
        useful: Callable[[], None],
    ) -> None:
        self.clock_ms = clock_ms
        self.wants = endpoint.wants
        self.concurrency = endpoint.patience.concurrency
        self._endpoint = endpoint
        self._consumer = consumer
        self._deliveries = metrics.deliveries
        self._seconds = metrics.delivery_seconds.labels(consumer)
        self._log = log
        self._dice = dice
        self._useful = useful

    async def attempt(self, work: Outstanding) -> Outcome:
        """Try once: delivered, retrying or dead. Raises `Fatal`."""
        entry, attempts = work.entry, work.outcome.attempts + 1
        tried = Outcome(
            entry.position,
            entry.subscription,
            DeliveryState.DELIVERED,
            attempts=attempts,
            first_ms=work.outcome.first_ms or self.clock_ms(),
        )
        try:
            with self._seconds.time():
                receipt = await self._endpoint.deliver(entry, attempts)
        except Fatal as error:
            self._report(entry, tried, error)
            raise
        except (Temporary, Rejected) as error:
            outcome = self._failed(tried._replace(status=error.status, detail=str(error)), error)
            self._report(entry, outcome, error)
        else:
            outcome = tried._replace(status=receipt.status)
            self._useful()
        self.count(outcome.state)
        return outcome

    def count(self, state: DeliveryState) -> None:
        """Count one more event that ended so."""
        self._deliveries.labels(self._consumer, state.value).inc()

    def _failed(self, tried: Outcome, error: Temporary | Rejected) -> Outcome:
        if isinstance(error, Rejected):
            return tried._replace(state=DeliveryState.DEAD)
        wait_s = next_wait_s(self._endpoint.patience, tried.attempts, error.after_s, self._dice())
        if wait_s is None:
            return tried._replace(state=DeliveryState.DEAD)
        return tried._replace(state=DeliveryState.RETRYING, due_ms=self.clock_ms() + round(wait_s * 1000))

    def _report(self, entry: Entry, outcome: Outcome, error: BridgeError) -> None:
        self._log.warning(
            "delivery.failed",
            endpoint=self._consumer,
            event_id=entry.id,
            type=entry.type,
            job=entry.job_key,
            attempt=outcome.attempts,
            status=error.status,
            reason=error.reason,
            detail=str(error),
            dead=outcome.state is DeliveryState.DEAD,
            next_due_ms=outcome.due_ms or None,
        )


def next_wait_s(patience: Patience, attempts: int, after_s: float | None, dice: float) -> float | None:
    """Seconds until the next attempt after so many: scheduled, jittered upward only, not below the receiver's own
    wish up to its limit. None when the schedule is at its end."""
    if attempts > len(patience.schedule_s):
        return None
    return max(patience.schedule_s[attempts - 1] * (1 + JITTER * dice), min(after_s or 0.0, patience.retry_after_max_s))
