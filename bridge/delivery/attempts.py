"""One attempt at an endpoint: the only place that decides what its end means and when the next one is due."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from bridge.delivery.gate import Gate
from bridge.delivery.schedule import expires_ms, is_spared, next_wait_s
from bridge.delivery.sink import ANSWER_CHARS_MAX, Endpoint, Trial, Unjudged
from bridge.errors import BridgeError, Fatal, Temporary
from bridge.journal.store import Attempt, DeliveryState, Entry, Outcome, Outstanding
from bridge.telemetry.metrics import Metrics


class Turn(NamedTuple):
    """What an event's turn came to."""

    outcome: Outcome
    attempt: Attempt | None = None
    """None where it was not tried."""
    fatal: Fatal | None = None
    """Why the endpoint must not be called again."""


class Attempts:
    """Single attempts at the endpoint, and what their ends mean."""

    def __init__(
        self,
        endpoint: Endpoint,
        gate: Gate,
        consumer: str,
        *,
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock_ms: Callable[[], int],
        dice: Callable[[], float],
        useful: Callable[[], None],
    ) -> None:
        self.clock_ms = clock_ms
        self.patience = endpoint.patience
        self.start_slowly = gate.start_slowly
        self._endpoint = endpoint
        self._gate = gate
        self._consumer = consumer
        self._deliveries = metrics.deliveries
        self._unjudged = metrics.unjudged.labels(consumer)
        self._told_unjudged = False
        self._seconds = metrics.delivery_seconds.labels(consumer)
        self._log = log
        self._dice = dice
        self._useful = useful

    def wants(self, entry: Entry) -> bool:
        """Whether to send the event. One that cannot be judged is sent: an event too many can be seen at the receiver,
        one too few cannot, and nobody would ever look for it."""
        try:
            return self._endpoint.wants(entry)
        except Unjudged as error:
            self._unjudged.inc()
            if not self._told_unjudged:  # once a session: it may be true of every event
                self._told_unjudged = True
                self._log.warning("delivery.unjudged", endpoint=self._consumer, event_id=entry.id, detail=str(error))
            return True

    async def attempt(self, work: Outstanding) -> Turn:
        """Wait for the endpoint to be open, and try once, unless the event has outlived its time by then."""
        expired = self._expired(work)
        if expired is None:
            await self._gate.opened()
            expired = self._expired(work)
            if expired is None:
                return await self._try(work)
            self._gate.pass_on()
        self.count(DeliveryState.EXPIRED)
        return Turn(expired)

    async def _try(self, work: Outstanding) -> Turn:
        before, entry = work
        trial = Trial(before.attempts + 1, redriven=before.redriven, previous=before.previous)
        begun = self._gate.begin()
        at_ms, at_s = self.clock_ms(), time.perf_counter()
        tried = Outcome(
            entry.position,
            entry.subscription,
            DeliveryState.DELIVERED,
            attempts=trial.number,
            first_ms=before.first_ms or at_ms,
            spared=before.spared,
            previous=before.previous,
        )
        error: BridgeError | None = None
        try:
            receipt = await self._endpoint.deliver(entry, trial)
        except BridgeError as raised:
            error = raised
            outcome = self._failed(work, tried._replace(status=error.status, detail=str(error)), error)
        else:
            outcome = tried._replace(status=receipt.status)
            self._useful()
        duration_s = time.perf_counter() - at_s
        self._seconds.observe(duration_s)
        self._gate.end(begun, entry.subscription, error)
        self.count(outcome.state)
        if error is not None:
            self._report(entry, outcome, error)
        fatal = error if isinstance(error, Fatal) else None
        return Turn(outcome, _record(outcome, trial, at_ms, duration_s, error), fatal)

    def count(self, state: DeliveryState) -> None:
        """Count one more event that ended so."""
        self._deliveries.labels(self._consumer, state.value).inc()

    def _expired(self, work: Outstanding) -> Outcome | None:
        if self.clock_ms() <= expires_ms(self.patience, work.entry, work.outcome):
            return None
        return work.outcome._replace(
            state=DeliveryState.EXPIRED, due_ms=0, detail=f"older than {work.entry.type} is good for"
        )

    def _failed(self, work: Outstanding, tried: Outcome, error: BridgeError) -> Outcome:
        now_ms = self.clock_ms()
        if isinstance(error, Fatal):  # the same event comes first once the endpoint is resumed
            return tried._replace(state=DeliveryState.RETRYING, due_ms=now_ms, spared=tried.spared + 1)
        if not isinstance(error, Temporary):
            return tried._replace(state=DeliveryState.DEAD)
        tried = tried._replace(spared=tried.spared + is_spared(error))
        wait_s = next_wait_s(self.patience, tried, error, now_ms, self._dice())
        if wait_s is None:
            return tried._replace(state=DeliveryState.DEAD)
        # An event that expires while it waits gives way to those behind it at that moment.
        expired_ms = max(expires_ms(self.patience, work.entry, work.outcome) + 1, now_ms)
        due_ms = min(now_ms + wait_s * 1000, expired_ms)
        return tried._replace(state=DeliveryState.RETRYING, due_ms=math.ceil(due_ms))

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


def _record(outcome: Outcome, trial: Trial, at_ms: int, duration_s: float, error: BridgeError | None) -> Attempt:
    return Attempt(
        position=outcome.position,
        subscription=outcome.subscription,
        number=trial.number,
        at_ms=at_ms,
        duration_ms=round(duration_s * 1000),
        status=outcome.status if trial.status is None else trial.status,
        reason=error.reason if error else None,
        address=trial.address,
        answer=trial.answer[:ANSWER_CHARS_MAX],
        detail=outcome.detail,
    )
