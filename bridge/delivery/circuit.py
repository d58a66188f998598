"""Whether an endpoint is worth calling at all: the only place that knows how an outage begins and ends. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

JITTER = 0.1
"""The share of a wait that the dice may add to it. Nothing is taken away: a wait is never shorter than promised."""


class CircuitState(StrEnum):
    """Whether events go out."""

    CLOSED = "closed"
    OPEN = "open"
    """Nothing is sent."""
    HALF_OPEN = "half_open"
    """One event may be tried."""
    PROBING = "probing"
    """That one is on its way; its end decides."""


class Circuit:
    """Opens when so many jobs in a row were refused: one job that fails again and again proves nothing."""

    def __init__(self, jobs: int, wait_s: float, wait_max_s: float, dice: Callable[[], float]) -> None:
        self.state = CircuitState.CLOSED
        self._jobs = jobs
        self._wait_s = wait_s
        self._wait_max_s = wait_max_s
        self._dice = dice
        self._refused: set[int] = set()
        self._probes = 0

    @property
    def admits(self) -> bool:
        """Whether an event may go out now."""
        return self.state in {CircuitState.CLOSED, CircuitState.HALF_OPEN}

    def begin(self) -> None:
        """One that was admitted goes out."""
        if self.state is CircuitState.HALF_OPEN:
            self.state = CircuitState.PROBING

    def accepted(self) -> None:
        """The endpoint took an event, or judged it: it is alive."""
        self.state = CircuitState.CLOSED
        self._refused.clear()
        self._probes = 0

    def refused(self, job: int, after_s: float) -> float | None:
        """The endpoint could not take one of this job's now, and may be asked again after so many seconds.

        Where that opens the circuit, returns the seconds until `half_open`. Late ends of what went out before it
        opened change nothing.
        """
        if self.state is CircuitState.OPEN:
            return None
        self._refused.add(job)
        if self.state is CircuitState.CLOSED and len(self._refused) < self._jobs:
            return None
        wait_s = min(self._wait_s * 2.0 ** min(self._probes, 32), self._wait_max_s) * (1 + JITTER * self._dice())
        self._probes += 1
        self._refused.clear()
        self.state = CircuitState.OPEN
        return max(wait_s, after_s)

    def half_open(self) -> None:
        """The wait is over."""
        if self.state is CircuitState.OPEN:
            self.state = CircuitState.HALF_OPEN
