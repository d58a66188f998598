"""An endpoint's health by all its attempts, over restarts: the only place that judges it, and that disables it.

An endpoint is disabled when the journal knows of nothing but failure for `disable_after_s`. A restart does not reset
that time; time in which the bridge was down counts, but is not enough: the endpoint has to fail *now*, at least
`FAILURES_MIN` times and for up to an hour since this process (or this run of its session) began to try it. So a bridge
that comes back together with its receivers, after days off, gives them that long to come back as well.

A failure is every attempt that was not accepted, a refusal of the single event included.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from bridge.delivery.envelope import rfc3339
from bridge.delivery.sink import Endpoint, Patience, Receipt, Trial
from bridge.errors import BridgeError, Fatal, Temporary
from bridge.journal.health import Health, HealthJournal, HealthState, Turn
from bridge.journal.store import Entry
from bridge.telemetry.metrics import Metrics

FAILURES_MIN = 5
_TRIED_ANEW_S = 3_600.0
_WORTH_A_NOTE_S = 1.0
"""A shorter time of failing is not journalled: an endpoint that refuses one event of many costs no write."""
_DISABLING = frozenset({"gone", "disabled"})
"""What a receiver says for ever. Other `Fatal` errors are ours, and may be mended by a restart."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class EndpointHealth:
    """One endpoint's health, shared by its sessions: what one partition's attempts show counts for all.

    `clock_ms` is Unix time in milliseconds: the journal's times are compared with it.
    """

    def __init__(
        self,
        consumer: str,
        journal: HealthJournal,
        *,
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock_ms: Callable[[], int] = _now_ms,
    ) -> None:
        self._consumer = consumer
        self._journal = journal
        self._log = log.bind(endpoint=consumer)
        self._clock_ms = clock_ms
        self._turns = {turn: metrics.endpoint_turns.labels(consumer, turn.rpartition(".")[2]) for turn in Turn}
        self._now = Health()
        self._failures = 0
        self._tried_since_s = 0.0
        """Loop time of the first failure of this run, while there are any."""
        self._is_noted = False
        """Whether the journal knows of the present failing, or is about to."""
        self._unwritten: list[Health] = []
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._verdict: str | None = None

    async def begin(self) -> None:
        """A session begins. Raises `Fatal` while the endpoint is disabled, `Temporary` when the journal fails."""
        await self.write()
        self._now = await self._journal.of(self._consumer)
        self._failures, self._verdict, self._is_noted = 0, None, self._now.failing_since_ms > 0
        if self._now.state is HealthState.DISABLED:
            raise Fatal(
                f"{self._consumer} is disabled ({self._now.reason}; it failed since"
                f" {rfc3339(self._now.failing_since_ms)}): resume it once its receiver takes events again",
                reason="disabled",
            )

    def watching(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, with its attempts counted here."""
        return _Watched(endpoint, self)

    def succeeded(self) -> None:
        """An event was accepted."""
        self._failures = 0
        if not self._now.failing_since_ms or self._now.state is HealthState.DISABLED:
            return
        before, now_ms = self._now, self._clock_ms()
        self._now = Health(last_success_ms=now_ms)
        if self._is_noted:
            self._note()
            self._is_noted = False
        if before.state is HealthState.FAILING:
            self._turns[Turn.RECOVERED].inc()
            self._log.info(Turn.RECOVERED.value, failed_s=round((now_ms - before.failing_since_ms) / 1000, 3))

    def failed(self, error: BridgeError, patience: Patience) -> None:
        """An attempt failed. Raises `Fatal`, in place of that error, when it was one too many."""
        if self._now.state is HealthState.DISABLED:
            return
        loop_s, now_ms, before = asyncio.get_running_loop().time(), self._clock_ms(), self._now
        if not self._failures:
            self._tried_since_s = loop_s
        self._failures += 1
        if not before.failing_since_ms:
            asyncio.get_running_loop().call_later(_WORTH_A_NOTE_S, self._note_beginning, now_ms)
        since_ms = before.failing_since_ms or now_ms
        failed_s = (now_ms - since_ms) / 1000
        self._now = before._replace(failing_since_ms=since_ms, reason=error.reason)
        if self._is_enough(failed_s, loop_s - self._tried_since_s, patience.disable_after_s):
            self._verdict = "failed_too_long"
            raise Fatal(
                f"{self._consumer} is disabled: nothing but failure since {rfc3339(since_ms)}, for more than"
                f" disable_after_s ({patience.disable_after_s:g}); resume it once its receiver takes events again."
                f" Last: {error}",
                reason="disabled",
                status=error.status,
            ) from error
        if before.state is HealthState.WELL and failed_s >= patience.failing_after_s:
            self._now = self._now._replace(state=HealthState.FAILING)
            self._note()
            self._turns[Turn.FAILING].inc()
            self._log.warning(Turn.FAILING.value, reason=error.reason, status=error.status, failed_s=round(failed_s, 3))

    def _is_enough(self, failed_s: float, tried_s: float, disable_after_s: float | None) -> bool:
        return (
            disable_after_s is not None
            and failed_s >= disable_after_s
            and tried_s >= min(disable_after_s, _TRIED_ANEW_S)
            and self._failures >= FAILURES_MIN
        )

    async def disable(self, error: BridgeError) -> None:
        """A session was parked: remember it, if it was the endpoint that must not be called again. Once is enough.

        Raises `Temporary` when the journal fails.
        """
        if error.reason not in _DISABLING:
            return
        if self._now.state is not HealthState.DISABLED:
            since_ms = self._now.failing_since_ms or self._clock_ms()
            reason = self._verdict or error.reason
            self._now = self._now._replace(state=HealthState.DISABLED, failing_since_ms=since_ms, reason=reason)
            self._unwritten.append(self._now)
            self._turns[Turn.DISABLED].inc()
            self._log.warning(Turn.DISABLED.value, reason=reason, status=error.status, detail=str(error))
        await self.write()

    def _note_beginning(self, since_ms: int) -> None:
        if self._now.failing_since_ms == since_ms and not self._is_noted:
            self._note()

    def _note(self) -> None:
        """Have it written beside the attempts: none of them waits for it."""
        self._is_noted = True
        self._unwritten.append(self._now)
        self._task = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        with suppress(Temporary):  # the next one writes this one as well
            await self.write()

    async def write(self) -> None:
        """Have everything journalled that was noted before. Raises `Temporary` when the journal fails."""
        async with self._writing:
            if changes := tuple(self._unwritten):
                await self._journal.note(self._consumer, changes)
                del self._unwritten[: len(changes)]


class _Watched:
    """An endpoint that says how it goes."""

    def __init__(self, endpoint: Endpoint, health: EndpointHealth) -> None:
        self.patience = endpoint.patience
        self.wants = endpoint.wants
        self._deliver = endpoint.deliver
        self._health = health

    async def deliver(self, entry: Entry, trial: Trial) -> Receipt:
        """As the endpoint does; `Fatal` besides, once it has failed for too long."""
        try:
            receipt = await self._deliver(entry, trial)
        except Fatal:
            raise
        except BridgeError as error:
            self._health.failed(error, self.patience)
            raise
        self._health.succeeded()
        return receipt
