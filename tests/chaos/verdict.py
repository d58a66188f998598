"""What became of a known history: the committed records held against it, and how long each kill was felt. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from aiokafka import ConsumerRecord

_TERMINAL = frozenset({"job.completed", "job.failed", "job.cancelled", "job.skipped"})
_OBSERVED = ("status.", "watch.")
"""How the keys of events begin that the bridge found by itself: they are no part of the history."""


class Told(NamedTuple):
    """One committed record."""

    id: str
    job: str
    type: str
    sequence: int
    place: tuple[int, int]
    """Kafka's partition and offset."""

    @classmethod
    def of(cls, record: ConsumerRecord) -> Told:
        about = {name: value.decode() for name, value in record.headers}
        place = (record.partition, record.offset)
        return cls(about["ce_id"], about["ce_subject"], about["ce_type"], int(about["ce_sequence"]), place)

    @property
    def key(self) -> str:
        """What the provider itself calls the event."""
        return self.id.rpartition(":")[2]

    @property
    def number(self) -> int | None:
        """The provider's own number; None for what the bridge found by itself."""
        head = self.key.partition("-")[0]
        return int(head) if head.isdigit() else None

    @property
    def terminal(self) -> bool:
        return self.type in _TERMINAL


@dataclass(frozen=True, slots=True)
class Verdict:
    """A line for each thing that is wrong."""

    lost: list[str]
    duplicates: list[str]
    out_of_order: list[str]
    ends: list[str]
    """Jobs that have no terminal event, several, or another one than their last."""
    invented: list[str]

    @property
    def flaws(self) -> list[str]:
        return [*self.lost, *self.duplicates, *self.out_of_order, *self.ends, *self.invented]

    def __str__(self) -> str:
        kinds = ("lost", "duplicates", "out_of_order", "ends", "invented")
        return ", ".join(f"{kind.replace('_', ' ')} = {len(getattr(self, kind))}" for kind in kinds)


def judge(history: Mapping[str, int], records: Sequence[Told]) -> Verdict:
    """Hold the records, in the order of each partition, against the number of every job's last event."""
    counts: Counter[str] = Counter()
    jobs: defaultdict[str, list[Told]] = defaultdict(list)
    for record in records:
        if not counts[record.id]:
            jobs[record.job].append(record)
        counts[record.id] += 1
    return Verdict(
        lost=[line for job, last in history.items() for line in _lost(job, last, jobs[job])],
        duplicates=[f"{id_} is there {count} times" for id_, count in counts.items() if count > 1],
        out_of_order=[line for of_job in jobs.values() for line in _late(of_job)],
        ends=[line for job, last in history.items() for line in _ends(job, last, jobs[job])],
        invented=[
            f"{record.id} was never said"
            for of_job in jobs.values()
            for record in of_job
            if not _was_said(record, history)
        ],
    )


def _lost(job: str, last: int, of_job: Sequence[Told]) -> Iterator[str]:
    numbers, sequences = {record.number for record in of_job}, {record.sequence for record in of_job}
    for number in range(1, last + 1):
        if number not in numbers:
            yield f"{job} lacks its number {number} of {last}"
    for sequence in range(1, max(sequences, default=0)):
        if sequence not in sequences:
            yield f"{job} lacks its event with sequence {sequence}"


def _late(of_job: Sequence[Told]) -> Iterator[str]:
    number = sequence = 0
    for record in of_job:
        if record.sequence <= sequence or (record.number is not None and record.number <= number):
            yield f"{record.id} (sequence {record.sequence}) comes late, at {record.place}"
        sequence, number = max(sequence, record.sequence), max(number, record.number or 0)
    if len(partitions := {record.place[0] for record in of_job}) > 1:
        yield f"{of_job[0].job} is spread over partitions {sorted(partitions)}"


def _ends(job: str, last: int, of_job: Sequence[Told]) -> Iterator[str]:
    found = [record.number for record in of_job if record.terminal]
    if found != [last]:
        yield f"{job} ended with its number {last}, and the topic has its end at {found}"


def _was_said(record: Told, history: Mapping[str, int]) -> bool:
    if record.number is None:
        return record.job in history and record.key.startswith(_OBSERVED)
    return 1 <= record.number <= history.get(record.job, 0)


class Struck(NamedTuple):
    """One blow, when it fell; in seconds since 1970, as the broker stamps its records."""

    kind: str
    at_s: float


class Arrival(NamedTuple):
    """When a committed record became visible to a reader, and when the broker had taken it."""

    seen_s: float
    taken_s: float


def recovery_s(blow: Struck, arrivals: Sequence[Arrival]) -> float:
    """From the blow until a record was visible that was written after it. Arrivals are in order of `seen_s`."""
    first = bisect_left(arrivals, blow.at_s, key=lambda arrival: arrival.seen_s)
    later = (arrivals[at].seen_s for at in range(first, len(arrivals)) if arrivals[at].taken_s > blow.at_s)
    return next(later) - blow.at_s


def recovery_table(blows: Sequence[Struck], arrivals: Sequence[Arrival]) -> str:
    """Seconds from a blow to the next committed record, by kind; also of those blows that fell on an unhurt river."""
    felt = [(blow, recovery_s(blow, arrivals)) for blow in blows]
    by_kind: defaultdict[str, list[float]] = defaultdict(list)
    alone: defaultdict[str, list[float]] = defaultdict(list)
    for blow, time_s in felt:
        by_kind[blow.kind].append(time_s)
        if not any(other is not blow and _together(blow, time_s, other, its_s) for other, its_s in felt):
            alone[blow.kind].append(time_s)
    head = f"{'times':>6}{'median':>8}{'p95':>8}{'max':>8}{'alone':>8}{'median':>8}"
    lines = [f"{'seconds to the next committed record':36}{head}"]
    for kind, times in sorted(by_kind.items()):
        ranked = sorted(times)
        p95 = ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))]
        apart = f"{median(alone[kind]):8.2f}" if alone[kind] else f"{'-':>8}"
        figures = f"{len(times):6}{median(times):8.2f}{p95:8.2f}{ranked[-1]:8.2f}{len(alone[kind]):8}{apart}"
        lines.append(f"{kind:36}{figures}")
    return "\n".join(lines)


def _together(one: Struck, one_s: float, other: Struck, other_s: float) -> bool:
    return one.at_s <= other.at_s + other_s and other.at_s <= one.at_s + one_s
