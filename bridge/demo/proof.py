"""Whether the bridge kept its promise: what was emitted, against what is in the topic and what the receiver accepted.

Pure. An event is lost where either destination lacks it. The topic must hold it once, the receiver at least once, both
in order within the job, and every job that is over has exactly one terminal event, which says how it ended.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

_TERMINAL = frozenset({"job.completed", "job.failed", "job.cancelled", "job.skipped"})
_OBSERVED = ("status.", "watch.")
"""Keys of events that the bridge found by itself: no source emitted them."""


class Arrival(NamedTuple):
    """One event as a destination holds it, among others in the order in which it holds them."""

    id: str
    job: str
    type: str
    sequence: int
    partition: int = 0
    """A Kafka partition: order means something only inside one."""

    @property
    def source(self) -> str:
        """The configured source, with whose name every event id begins."""
        return self.id.partition(":")[0]


class Emitted(NamedTuple):
    """One job's ledger: the position of everything its source said and whoever asked could still hear, in order."""

    keys: Sequence[str]
    end: str | None
    """How the job ended, in the canonical word; None while it is not over."""


class Sides(NamedTuple):
    """The three ledgers of one source."""

    source: str
    emitted: Mapping[str, Emitted]
    topic: Sequence[Arrival]
    accepted: Sequence[Arrival]

    @property
    def ids(self) -> dict[str, str]:
        """The event id that everything emitted must have got, with its job."""
        return {f"{self.source}:{job}:{key}": job for job, ledger in self.emitted.items() for key in ledger.keys}


@dataclass(frozen=True, slots=True)
class Proof:
    """Every flaw in words; the counts follow from them."""

    jobs: int
    events_emitted: int
    kafka_records: int
    webhook_events: int
    """Different events accepted."""
    webhook_duplicates: int
    """Accepted again, which at-least-once allows."""
    signatures_verified: int
    signatures_refused: int
    reconnects: int
    lost: Sequence[str]
    duplicates: Sequence[str]
    out_of_order: Sequence[str]
    invented: Sequence[str]
    """What a destination holds although nobody emitted it."""

    @property
    def flaws(self) -> list[str]:
        """A line for each thing that is wrong."""
        refused = [f"{self.signatures_refused} signatures were refused"] if self.signatures_refused else []
        return [*self.lost, *self.duplicates, *self.out_of_order, *self.invented, *refused]

    def counts(self) -> dict[str, int]:
        """All counts by name."""
        members = {name: getattr(self, name) for name in self.__slots__}
        return {name: value if isinstance(value, int) else len(value) for name, value in members.items()}

    @classmethod
    def total(cls, proofs: Iterable[Proof], *, refused: int) -> Proof:
        """All sources together. Refused signatures can be blamed on none of them."""
        parts = [*proofs]
        members = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        counts = {name: sum(values) for name, values in members.items() if name not in _FLAWS}
        flaws = {name: [flaw for flaws in members[name] for flaw in flaws] for name in _FLAWS}
        return cls(**{**counts, **flaws, "signatures_refused": refused})


_FLAWS = ("lost", "duplicates", "out_of_order", "invented")


def by_source(
    emitted: Mapping[str, Mapping[str, Emitted]], topic: Sequence[Arrival], accepted: Sequence[Arrival]
) -> list[Sides]:
    """The ledgers of each source, those included that a destination names and nobody ever heard of."""
    arrived = (arrival.source for arrival in (*topic, *accepted))
    return [
        Sides(
            name,
            emitted.get(name, {}),
            [arrival for arrival in topic if arrival.source == name],
            [arrival for arrival in accepted if arrival.source == name],
        )
        for name in dict.fromkeys((*emitted, *arrived))
    ]


def prove(sides: Sides, *, verified: int, reconnects: int) -> Proof:
    """Compare the ledgers."""
    records, received = _firsts(sides.topic), _firsts(sides.accepted)
    return Proof(
        jobs=len(sides.emitted),
        events_emitted=len(sides.ids),
        kafka_records=len(sides.topic),
        webhook_events=len(received),
        webhook_duplicates=len(sides.accepted) - len(received),
        signatures_verified=verified,
        signatures_refused=0,
        reconnects=reconnects,
        lost=_lost(sides, records, received),
        duplicates=[*_repeated(sides.topic), *_surplus_ends(records)],
        out_of_order=[
            *_late("in the topic", sides, records),
            *_late("at the receiver", sides, received),
            *_scattered(records),
        ],
        invented=[*_invented(sides, records, received), *_false_ends(sides, records)],
    )


def _firsts(arrivals: Iterable[Arrival]) -> list[Arrival]:
    firsts: dict[str, Arrival] = {}
    for arrival in arrivals:
        firsts.setdefault(arrival.id, arrival)
    return list(firsts.values())


def _by_job(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    jobs: defaultdict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        jobs[arrival.job].append(arrival)
    return jobs


def _lost(sides: Sides, records: Sequence[Arrival], received: Sequence[Arrival]) -> list[str]:
    """Whatever one side knows must be at both destinations."""
    known = {arrival.id: arrival.job for arrival in (*records, *received)} | sides.ids
    lines, jobs_short = [], set()
    for place, arrivals in (("in the topic", records), ("at the receiver", received)):
        there = {arrival.id for arrival in arrivals}
        missing = [event for event in known if event not in there]
        lines += [f"{event} is not {place}" for event in missing]
        jobs_short |= {known[event] for event in missing}
    return lines + list(_holes(sides, records, jobs_short))


def _holes(sides: Sides, records: Sequence[Arrival], jobs_short: set[str]) -> Iterator[str]:
    """What is missing everywhere and was never in a ledger: told by the sequence, or by a job without an end."""
    jobs = _by_job(records)
    for job, ledger in sides.emitted.items():
        if job in jobs_short:
            continue
        sequences = {record.sequence for record in jobs.get(job, [])}
        for sequence in sorted(set(range(1, max(sequences, default=0))) - sequences):
            yield f"{job} lacks its event with sequence {sequence}"
        if ledger.end and not _ends(jobs.get(job, [])):
            yield f"{job} is over but has no terminal event"


def _ends(records: Iterable[Arrival]) -> list[Arrival]:
    return [record for record in records if record.type in _TERMINAL]


def _repeated(topic: Sequence[Arrival]) -> Iterator[str]:
    for event, count in Counter(record.id for record in topic).items():
        for _ in range(count - 1):
            yield f"{event} is in the topic again"


def _surplus_ends(records: Sequence[Arrival]) -> Iterator[str]:
    for job, of_job in _by_job(records).items():
        for end in _ends(of_job)[1:]:
            yield f"{job} ended before, yet there is {end.id} ({end.type})"


def _false_ends(sides: Sides, records: Sequence[Arrival]) -> Iterator[str]:
    for job, of_job in _by_job(records).items():
        ledger = sides.emitted.get(job)
        for end in _ends(of_job)[:1]:
            if ledger is not None and end.type != f"job.{ledger.end}":
                truth = f"ended as {ledger.end}" if ledger.end else "is not over"
                yield f"{job} {truth}, yet there is {end.id} ({end.type})"


def _invented(sides: Sides, records: Sequence[Arrival], received: Sequence[Arrival]) -> Iterator[str]:
    expected = sides.ids
    for arrival in _firsts((*records, *received)):
        key = _key(arrival)
        if arrival.job not in sides.emitted or (arrival.id not in expected and not key.startswith(_OBSERVED)):
            yield f"{arrival.id} was never emitted"


def _late(place: str, sides: Sides, arrivals: Sequence[Arrival]) -> Iterator[str]:
    """Events of a job behind one that they should come before, by sequence or by the source's ledger."""
    ranks = {event: rank for rank, event in enumerate(sides.ids)}
    for of_job in _by_job(arrivals).values():
        sequence = highest = -1
        for arrival in of_job:
            rank = ranks.get(arrival.id)
            if arrival.sequence <= sequence or (rank is not None and rank <= highest):
                yield f"{arrival.id} (sequence {arrival.sequence}) is late {place}"
            sequence, highest = max(sequence, arrival.sequence), max(highest, -1 if rank is None else rank)


def _scattered(records: Sequence[Arrival]) -> Iterator[str]:
    for job, of_job in _by_job(records).items():
        if len(partitions := {record.partition for record in of_job}) > 1:
            yield f"{job} is spread over partitions {sorted(partitions)}"


def _key(arrival: Arrival) -> str:
    return arrival.id.rpartition(f":{arrival.job}:")[2]
