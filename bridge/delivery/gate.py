"""When the next event may go out to an endpoint: the only place where attempts wait, and where a run sees trouble."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from bridge.delivery.circuit import Circuit, CircuitState
from bridge.delivery.concurrency import Concurrency
from bridge.delivery.sink import Patience
from bridge.errors import BridgeError, Fatal, Temporary
from bridge.telemetry.metrics import Metrics

_OVERLOADED = frozenset({429, 502, 503, 504})


class Gate:
    """Adaptive concurrency and circuit of one endpoint, for the attempts of one run. Nothing of it outlives the run:
    what has to is in the journal."""

    def __init__(
        self,
        patience: Patience,
        endpoint: str,
        partition: int,
        *,
        metrics: Metrics,
        log: FilteringBoundLogger,
        dice: Callable[[], float],
    ) -> None:
        self._concurrency = Concurrency(patience.concurrency)
        self._circuit = Circuit(patience.circuit_jobs, patience.probe_wait_s, patience.probe_wait_max_s, dice)
        self._after_max_s = patience.retry_after_max_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._granted = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._failing_since_s: float | None = None
        self._log = log.bind(endpoint=endpoint, partition=partition)
        self._limit_gauge = metrics.endpoint_concurrency.labels(endpoint, partition)
        self._open_gauge = metrics.endpoint_circuit_open.labels(endpoint, partition)
        self._shown: tuple[int, bool] | None = None
        self._show()

    async def opened(self) -> None:
        """Returns when one more attempt may begin, first come, first served.

        The caller begins it before it waits for anything else, or lets others have its turn with `pass_on`.
        """
        if not self._waiting and self._room > 0:
            return
        while True:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter
            self._granted -= 1
            if self._circuit.admits:
                return

    @property
    def _room(self) -> int:
        room = self._concurrency.limit - self._concurrency.under_way - self._granted
        if self._circuit.state is CircuitState.HALF_OPEN:
            return min(room, 1 - self._granted)
        return room if self._circuit.admits else 0

    def pass_on(self) -> None:
        """Let as many go ahead as there is room for."""
        while self._waiting and self._room > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():  # its run is being cancelled
                self._granted += 1
                waiter.set_result(None)

    def begin(self) -> int:
        """One attempt begins; returns what `end` wants to know of it."""
        self._circuit.begin()
        return self._concurrency.begin()

    def end(self, begun: int, job: int, error: BridgeError | None) -> None:
        """An attempt for that job ended so."""
        if isinstance(error, Temporary):
            self._refused(begun, job, error)
        else:
            self._accepted(begun, error)
        self._show()
        self.pass_on()

    def start_slowly(self) -> None:
        """Much is coming at once: begin with one, and go on with more as that goes well."""
        self._concurrency.start_slowly()
        self._show()

    def close(self) -> None:
        """The run is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._open_gauge.set(0)

    def _accepted(self, begun: int, error: BridgeError | None) -> None:
        if error is None:
            self._concurrency.accepted(begun, full=bool(self._waiting) or self._room <= 0)
        else:
            self._concurrency.ended()
        self._circuit.accepted()
        if self._failing_since_s is not None and not isinstance(error, Fatal):
            failed_s = self._loop.time() - self._failing_since_s
            self._failing_since_s = None
            self._concurrency.start_slowly()
            self._log.info("circuit.closed", failed_s=round(failed_s, 3))

    def _refused(self, begun: int, job: int, error: Temporary) -> None:
        if error.status in _OVERLOADED or error.reason == "timeout":
            self._concurrency.overloaded(begun)
        else:
            self._concurrency.ended()
        wait_s = self._circuit.refused(job, min(error.after_s or 0.0, self._after_max_s))
        if wait_s is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(wait_s, self._half_open)
        if self._failing_since_s is None:
            self._failing_since_s = self._loop.time()
            self._log.info("circuit.opened", reason=error.reason, status=error.status, detail=str(error))

    def _half_open(self) -> None:
        self._circuit.half_open()
        self.pass_on()

    def _show(self) -> None:
        state = self._concurrency.limit, self._circuit.state is not CircuitState.CLOSED
        if state != self._shown:
            self._shown = state
            self._limit_gauge.set(state[0])
            self._open_gauge.set(state[1])
