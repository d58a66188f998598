"""When an event is tried again, and when no more: the only place that knows an endpoint's patience by heart. Pure."""

from __future__ import annotations

from bridge.delivery.circuit import JITTER
from bridge.delivery.sink import Patience
from bridge.errors import BridgeError, Temporary
from bridge.journal.store import Entry, Outcome

_SPARED = frozenset({429, 503})
"""They say when, not whether: the schedule does not count them, and the event's age bounds them."""
_DOUBLINGS_MAX = 32


def is_spared(error: BridgeError) -> bool:
    """Whether an attempt that ended so does not count against the schedule."""
    return error.status in _SPARED


def next_wait_s(patience: Patience, tried: Outcome, error: Temporary, now_ms: int, dice: float) -> float | None:
    """Seconds until the next attempt; None when that was the last one. `tried` has counted the attempt already.

    Scheduled waits are jittered upward only, and never below the receiver's own wish up to its limit. Spared attempts
    stay where they are in the schedule; without a wish from the receiver their waits double up to the same limit.
    """
    schedule_s, counted = patience.schedule_s, tried.attempts - tried.spared
    after_s = min(error.after_s or 0.0, patience.retry_after_max_s)
    if not is_spared(error):
        return None if counted > len(schedule_s) else max(schedule_s[counted - 1] * (1 + JITTER * dice), after_s)
    if not schedule_s or now_ms - tried.first_ms > patience.age_max_s * 1000:
        return None
    step_s = schedule_s[min(max(counted, 1), len(schedule_s)) - 1]
    if not after_s:
        doubled_s = step_s * 2.0 ** min(tried.spared - 1, _DOUBLINGS_MAX)
        step_s = max(step_s, min(doubled_s, patience.retry_after_max_s))
    return max(step_s * (1 + JITTER * dice), after_s)


def expires_ms(patience: Patience, entry: Entry, outcome: Outcome) -> float:
    """Unix milliseconds from which the event is not worth sending. What a person had redriven always is."""
    ttl_s = None if outcome.redriven else patience.ttl_s(entry.type)
    return float("inf") if ttl_s is None else entry.recorded_ms + ttl_s * 1000
