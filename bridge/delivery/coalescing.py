"""Which events a newer one of the same job makes superfluous: the only place that leaves any out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bridge.journal.store import DeliveryState, Outcome, Outstanding


def split(queue: Sequence[Outstanding], types: Collection[str]) -> tuple[list[Outstanding], list[Outcome]]:
    """What of a job's queue is still to be sent: of each of these types the last event alone, besides whatever a
    person had redriven. And what became of the others."""
    kept: list[Outstanding] = []
    replaced: list[Outcome] = []
    seen: set[str] = set()
    for work in reversed(queue):
        kind = work.entry.type
        if kind in seen and not work.outcome.redriven:
            detail = f"a newer {kind} of its job took its place"
            replaced.append(work.outcome._replace(state=DeliveryState.FILTERED, due_ms=0, detail=detail))
        else:
            kept.append(work)
            if kind in types:
                seen.add(kind)
    return kept[::-1], replaced[::-1]
