"""All that one write puts into Kafka: events, rows of the table, dead letters and the mark, short of being sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from bridge.delivery.sinks.kafka import positions
from bridge.delivery.sinks.kafka.batches import CODECS, Batches, Refusal, partition_of
from bridge.delivery.sinks.kafka.dead_letters import dead_letter
from bridge.delivery.sinks.kafka.latest import rows
from bridge.delivery.sinks.kafka.records import Record, record
from bridge.delivery.sinks.kafka.settings import KafkaSettings
from bridge.errors import Fatal
from bridge.journal.store import Entry, Outcome

Frame = Callable[[str, str, bytes], bytes]
"""The value of a record for this topic and event type, behind what a schema registry wants in front of it."""

# No event's key and headers come near; should one's, the brokers judge it.
_HEADERS_BYTES = 16 << 10


class Target(NamedTuple):
    """A topic, as one write sees it."""

    partitions: int
    batch_bytes: int
    """A batch of more than one record never gets larger."""
    record_bytes: int
    """A record of that size is taken. A larger one may be: after compression, or since the limit was raised."""


class Load:
    """The records of one write, and which entries are dead by now."""

    def __init__(self, settings: KafkaSettings, targets: Mapping[str, Target]) -> None:
        self.entries: list[Entry] = []
        """All that were added, dead ones included."""
        self._settings = settings
        self._targets = dict(targets)
        self._dead: dict[int, Outcome] = {}
        self._batches = self._none()

    @property
    def outcomes(self) -> list[Outcome]:
        """Of the dead entries, by rising position."""
        return [self._dead[position] for position in sorted(self._dead)]

    def take(self) -> Batches:
        """What is to be sent now; what is added later makes another lot."""
        batches, self._batches = self._batches, self._none()
        return batches

    def see(self, targets: Mapping[str, Target]) -> None:
        """What is known of the topics by now."""
        self._targets.update(targets)

    def events(self, entries: Sequence[Entry], topics: Sequence[str], frame: Frame | None) -> None:
        """Add the entries themselves, each for its topic. Those over `record_bytes_max` are dead."""
        settings, targets, add, refused = self._settings, self._targets, self._batches.add, []
        self.entries += entries
        mode, timestamp, bytes_max = settings.mode, settings.timestamp, settings.record_bytes_max
        for entry, topic in zip(entries, topics, strict=True):
            item, target = record(entry, mode, timestamp), targets[topic]
            if frame is not None and item.value is not None:
                item = item._replace(value=frame(topic, entry.type, item.value))
            if len(entry.data) > bytes_max - _HEADERS_BYTES and (size := item.wire_bytes) > bytes_max:
                detail = f"record of {size} bytes is over record_bytes_max, {bytes_max}"
                refused.append(Refusal(topic, item, "record_too_large", detail))
            else:
                add((topic, partition_of(item.key, target.partitions)), target.batch_bytes, item)
        self.bury(refused)

    def states(self) -> None:
        """Add the rows that the entries change in the table of latest states, where there is one."""
        if latest := self._settings.latest:
            bytes_max = self._targets[latest.topic].record_bytes
            for row in rows(self.entries, latest.tombstone_on, bytes_max, self._settings.timestamp):
                self._put(latest.topic, row)

    def bury(self, refusals: Iterable[Refusal]) -> None:
        """The refused are dead, and go to the dead-letter topic where there is one.

        Raises `Fatal` where the mark is refused: nothing could be delivered without it.
        """
        graves = self._settings.dead_letters
        for refusal in refusals:
            if refusal.topic == self._settings.positions_topic:
                raise Fatal(f"the position itself is refused: {refusal.detail}", reason="position_refused")
            entry = refusal.record.entry
            outcome = positions.dead(entry.position, entry.subscription, refusal.detail)
            known = self._dead.setdefault(entry.position, outcome)
            if graves and refusal.topic != graves.topic:
                self._put(graves.topic, dead_letter(refusal, self._targets[graves.topic].record_bytes))
            elif graves:
                detail = f"{known.detail}; nor could it be a dead letter: {refusal.detail}"
                self._dead[entry.position] = known._replace(detail=detail)

    def mark(self, key: bytes) -> bytes:
        """Add the mark of the last entry; returns its value. One that is added later counts in its stead."""
        settings, last = self._settings, self.entries[-1]
        value = positions.encode(last, self.outcomes)
        place = (settings.positions_topic, positions.PARTITION)
        self._batches.add(place, settings.batch_bytes, Record(key, value, [], last.recorded_ms, last))
        return value

    def _put(self, topic: str, item: Record) -> None:
        target = self._targets[topic]
        self._batches.add((topic, partition_of(item.key, target.partitions)), target.batch_bytes, item)

    def _none(self) -> Batches:
        return Batches(CODECS[self._settings.compression], transactional=self._settings.exactly_once)
