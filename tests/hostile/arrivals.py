"""What good receivers got, held against what the jobs said: the only place that knows what lost and late mean. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Arrival(NamedTuple):
    """One delivery that a receiver verified and accepted."""

    endpoint: str
    webhook_id: str
    job: str
    event_id: str
    sequence: int
    at_ms: float
    """When it was accepted, in Unix milliseconds."""
    recorded_ms: float
    """When it was journalled."""

    @property
    def late_ms(self) -> float:
        return self.at_ms - self.recorded_ms


class Repeat(NamedTuple):
    """A delivery that was accepted although it had been before."""

    endpoint: str
    first_ms: float
    again_ms: float


def flaws(arrivals: Iterable[Arrival], wanted: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What is lost or out of order. `wanted`: by endpoint, the number of the last event of each of its jobs.

    First arrivals count. Sequences have no holes, the watcher's own events included, and the numbers that the job
    said are all among them.
    """
    lanes: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
    for arrival in firsts(arrivals):
        lanes[arrival.endpoint, arrival.job].append(arrival)
    found = []
    for endpoint, lengths in wanted.items():
        for job, length in lengths.items():
            lane = lanes.pop((endpoint, job), [])
            sequences = [arrival.sequence for arrival in lane]
            if sequences != sorted(sequences):
                found.append(f"{endpoint} got {job} out of order: {sequences}")
            if sorted(sequences) != list(range(1, len(sequences) + 1)):
                found.append(f"{endpoint} lacks events of {job}: {sequences}")
            ids = {arrival.event_id.rpartition(":")[2] for arrival in lane}
            if missing := {f"{number}-0" for number in range(1, length + 1)} - ids:
                found.append(f"{endpoint} lacks {len(missing)} of the {length} numbers of {job}")
    return found + [f"{endpoint} got {job}, which it did not ask for" for endpoint, job in lanes]


def complete(arrivals: Iterable[Arrival], wanted: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether every endpoint has the last number of each of its jobs."""
    there = {(arrival.endpoint, arrival.job, arrival.event_id.rpartition(":")[2]) for arrival in arrivals}
    return all(
        (endpoint, job, f"{length}-0") in there
        for endpoint, lengths in wanted.items()
        for job, length in lengths.items()
    )


def firsts(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Without those that came again, in order of arrival."""
    seen: dict[tuple[str, str], Arrival] = {}
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_ms):
        seen.setdefault((arrival.endpoint, arrival.webhook_id), arrival)
    return list(seen.values())


def repeats(arrivals: Iterable[Arrival]) -> list[Repeat]:
    """Those that came again, each with the time before."""
    before: dict[tuple[str, str], float] = {}
    found = []
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_ms):
        key = arrival.endpoint, arrival.webhook_id
        if key in before:
            found.append(Repeat(arrival.endpoint, before[key], arrival.at_ms))
        before[key] = arrival.at_ms
    return found


def counts(arrivals: Iterable[Arrival]) -> Counter[str]:
    """How many deliveries each endpoint accepted."""
    return Counter(arrival.endpoint for arrival in arrivals)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
