"""What came before a delivery: the only place that knows repeats, gaps and the counts at the end. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any, NamedTuple, TypeVar

from bridge.listen.reading import Event

REMEMBERED_MAX = 100_000
"""Webhook ids and jobs; the oldest is forgotten."""

K = TypeVar("K")
V = TypeVar("V")


class Earlier(NamedTuple):
    """What is remembered of a webhook id."""

    attempts: int
    at_s: float
    status: int
    """What the last attempt was answered with."""


class Remarks(NamedTuple):
    """What is worth telling beside the delivery itself."""

    repeats: Earlier | None = None
    gap: tuple[int, int] | None = None
    """The first and the last sequence number that was left out just before this one."""
    late_after: int | None = None
    """The highest sequence number of this job that came before, where it is higher than this one."""


NOTHING = Remarks()


class History:
    """Everything that came so far, as far as it is remembered."""

    def __init__(self) -> None:
        self._earlier: OrderedDict[str, Earlier] = OrderedDict()
        self._sequences: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._answers: Counter[int] = Counter()
        self._flaws: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def refused(self, rule: str, status: int) -> None:
        """A delivery that breaks this rule was answered so."""
        self._answers[status] += 1
        self._flaws[rule] += 1

    def hung_up(self) -> None:
        """A sender did not wait for its answer."""
        self._counts["hung_up"] += 1

    def verified(self, webhook_id: str, event: Event, status: int, now_s: float) -> Remarks:
        """Remember a genuine delivery and what it is answered with."""
        self._answers[status] += 1
        self._counts["verified"] += 1
        earlier = self._earlier.get(webhook_id)
        _keep(self._earlier, webhook_id, Earlier(earlier.attempts + 1 if earlier else 1, now_s, status))
        if earlier is not None:
            self._counts["repeats"] += 1
            return Remarks(repeats=earlier)
        return self._placed(event)

    def _placed(self, event: Event) -> Remarks:
        if event.sequence is None:
            return NOTHING
        last = self._sequences.get(event.job)
        _keep(self._sequences, event.job, max(event.sequence, last or 0))
        if last is None or event.sequence == last + 1:
            return NOTHING
        if event.sequence <= last:
            self._counts["late"] += 1
            return Remarks(late_after=last)
        self._counts["gaps"] += 1
        return Remarks(gap=(last + 1, event.sequence - 1))

    def summary(self) -> dict[str, Any]:
        """The counts, for people and machines."""
        counts = ("verified", "repeats", "gaps", "late", "hung_up")
        return {
            "deliveries": self._answers.total(),
            **{name: self._counts[name] for name in counts},
            "jobs": len(self._sequences),
            "refused": dict(sorted(self._flaws.items())),
            "answers": {str(status): count for status, count in sorted(self._answers.items())},
        }


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > REMEMBERED_MAX:
        kept.popitem(last=False)
