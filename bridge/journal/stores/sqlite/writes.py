"""Every change the journal's tables can undergo, many of a kind at a time.

Each is called inside a transaction that the caller opens, and rolls back when one raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count, repeat
from sqlite3 import Connection, IntegrityError
from typing import NamedTuple
from zlib import crc32

from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.store import WISHES, Checkpoint, Entry, SubscriptionRecord, SubscriptionState
from bridge.journal.stores.sqlite import reads
from bridge.journal.stores.sqlite.bulk import look_up, write

# -- append -----------------------------------------------------------------------------------------------------------

_KNOWN = """
SELECT json_group_array(json_array(subscription, id))
  FROM (VALUES :rows) CROSS JOIN entry ON subscription = column1 AND id = column2
"""
_SEQUENCES = "SELECT json_group_array(json_array(id, sequence)) FROM subscription WHERE id IN (VALUES :rows)"
_ENDS = "SELECT json_group_array(json_array(number, last_position)) FROM partition WHERE number IN (VALUES :rows)"
_APPEND = "INSERT INTO entry VALUES :rows"
_MOVE_END = """
UPDATE partition SET entries = entries + column2 - last_position, last_position = column2
  FROM (VALUES :rows) WHERE number = column1
"""
_CHECKPOINT = """
UPDATE subscription SET sequence = column2, cursor = column3, memory = column4, updated_ms = column5
  FROM (VALUES :rows) WHERE id = column1
"""
_ADVANCE = "UPDATE subscription SET sequence = column2, updated_ms = column3 FROM (VALUES :rows) WHERE id = column1"
_ENDED = """
UPDATE subscription SET state = 'ended', reason = NULL, revision = (SELECT max(revision) + 1 FROM subscription)
 WHERE id = ? AND state NOT IN ('ended', 'removed')
"""


_TYPES = {type_: type_.value for type_ in EventType}


class Append(NamedTuple):
    """The events of one subscription, and what moves with them."""

    subscription: SubscriptionRecord
    events: Sequence[JobEvent]
    checkpoint: Checkpoint | None


class Appended(NamedTuple):
    """What came of an append: the events that were new, as entries."""

    entries: Sequence[Entry]


def append(connection: Connection, now_ms: int, appends: Sequence[Append]) -> list[Appended]:
    """The new entries of each. Raises KeyError for a subscription that was never followed.

    Repeats are rare and come in bursts, so the table's own constraint is what looks for them; only where it finds one
    are the known ids asked for.
    """
    sequences: dict[int, int] = dict(look_up(connection, _SEQUENCES, _singles(a.subscription.id for a in appends)))
    ends: dict[int, int] = dict(look_up(connection, _ENDS, _singles(a.subscription.partition for a in appends)))
    connection.execute("SAVEPOINT append")
    try:
        appended = _insert(connection, now_ms, appends, sequences.copy(), ends.copy(), None)
    except IntegrityError:
        connection.execute("ROLLBACK TO append")
        offered = [(subscription.id, event.id) for subscription, events, _ in appends for event in events]
        known = {(subscription, event) for subscription, event in look_up(connection, _KNOWN, offered)}
        appended = _insert(connection, now_ms, appends, sequences, ends, known)
    connection.execute("RELEASE append")
    return appended


def _insert(
    connection: Connection,
    now_ms: int,
    appends: Sequence[Append],
    sequences: dict[int, int],
    ends: dict[int, int],
    known: set[tuple[int, str]] | None,
) -> list[Appended]:
    """Write what is not known yet, or all, and let the table judge, where nobody has asked what is known.

    `sequences` and `ends` tell where subscriptions and partitions stand.
    """
    checkpoints: dict[int, Checkpoint] = {}
    rows: list[Entry] = []
    appended: list[Appended] = []
    for subscription, events, checkpoint in appends:
        number, partition = subscription.id, subscription.partition
        fresh = events if known is None else _fresh(number, events, known)
        entries = _entries((partition, ends[partition]), (number, sequences[number]), now_ms, fresh)
        ends[partition] += len(entries)
        sequences[number] += len(entries)
        if checkpoint is not None:
            checkpoints[number] = checkpoint
        rows += entries
        appended.append(Appended(entries))
    write(connection, _APPEND, rows)
    write(connection, _MOVE_END, list(ends.items()))
    moved = [(number, sequences[number], c.cursor, c.memory, now_ms) for number, c in checkpoints.items()]
    write(connection, _CHECKPOINT, moved)
    advanced = [(number, sequence, now_ms) for number, sequence in sequences.items() if number not in checkpoints]
    write(connection, _ADVANCE, advanced)
    for subscription, _, checkpoint in appends:
        if checkpoint is not None and checkpoint.ended:
            connection.execute(_ENDED, (subscription.id,))
    return appended


def _fresh(number: int, events: Sequence[JobEvent], known: set[tuple[int, str]]) -> list[JobEvent]:
    """The events that are not known, which then are."""
    fresh = []
    for event in events:
        if (mark := (number, event.id)) not in known:
            known.add(mark)
            fresh.append(event)
    return fresh


def _entries(end: tuple[int, int], sequence: tuple[int, int], now_ms: int, events: Sequence[JobEvent]) -> list[Entry]:
    """The events behind that end of a partition, and behind that sequence of a subscription.

    Column by column: while this thread is in Python, the event loop is not.
    """
    if not events:
        return []
    (partition, position), (number, nth) = end, sequence
    ids, sources, subjects, types, data, times, traceparents = zip(*events, strict=True)
    rows = zip(
        repeat(partition), count(position + 1), repeat(number), count(nth + 1), repeat(now_ms),
        ids, sources, subjects, map(_TYPES.__getitem__, types), times, traceparents, data,
    )  # fmt: skip
    return list(map(Entry._make, rows))


# -- subscriptions ----------------------------------------------------------------------------------------------------

_FOLLOW = """
INSERT INTO subscription (source, job_id, partition, state, origin, created_ms, updated_ms, revision) VALUES :rows
"""
_REVIVE = """
UPDATE subscription SET state = 'active', reason = NULL, origin = :origin, updated_ms = :now_ms,
       revision = (SELECT max(revision) + 1 FROM subscription)
 WHERE id = :id
"""
_STEER = """
UPDATE subscription SET state = :state, reason = :reason, updated_ms = :now_ms,
       revision = (SELECT max(revision) + 1 FROM subscription)
 WHERE source = :source AND job_id = :job_id AND (state IS NOT :state OR reason IS NOT :reason)
   AND (state NOT IN ('ended', 'removed') OR state = 'ended' AND :state = 'removed')
"""


class Follow(NamedTuple):
    """The jobs that somebody wants followed."""

    keys: Sequence[JobKey]
    origin: str
    partitions: int


class Steer(NamedTuple):
    """What is meant to become of one subscription."""

    key: JobKey
    state: SubscriptionState
    reason: str | None


def follow(
    connection: Connection, now_ms: int, follows: Sequence[Follow]
) -> list[list[tuple[SubscriptionRecord, bool]]]:
    """The record of each job, and whether it is new."""
    return [_follow(connection, now_ms, *one) for one in follows]


def _follow(
    connection: Connection, now_ms: int, keys: Sequence[JobKey], origin: str, partitions: int
) -> list[tuple[SubscriptionRecord, bool]]:
    known = reads.by_key(connection, keys)
    new = dict.fromkeys(key for key in keys if key not in known)
    revision = reads.tide(connection).revision
    write(
        connection,
        _FOLLOW,
        [
            (*key, crc32(str(key).encode()) % partitions, "active", origin, now_ms, now_ms, revision + nth)
            for nth, key in enumerate(new, start=1)
        ],
    )
    if origin in WISHES:
        for record in known.values():
            if record.state is SubscriptionState.REMOVED:
                connection.execute(_REVIVE, {"id": record.id, "origin": origin, "now_ms": now_ms})
    records = reads.by_key(connection, keys)
    first_named = {key: nth for nth, key in reversed(list(enumerate(keys)))}
    return [(records[key], key in new and first_named[key] == nth) for nth, key in enumerate(keys)]


def steer(connection: Connection, now_ms: int, steers: Sequence[Steer]) -> list[SubscriptionRecord | None]:
    """The records as they are afterwards. `removed` is final here, and `ended` gives way to nothing else."""
    for key, state, reason in steers:
        bounds = {"source": key.source, "job_id": key.job_id, "state": state.value, "reason": reason, "now_ms": now_ms}
        connection.execute(_STEER, bounds)
    records = reads.by_key(connection, [key for key, _, _ in steers])
    return [records.get(key) for key, _, _ in steers]


# -- retention --------------------------------------------------------------------------------------------------------

_PARTITIONS = """
SELECT number, swept, coalesce(
       (SELECT min(settled) FROM consumer WHERE partition = number AND registered), last_position)
  FROM partition ORDER BY number
"""
_KEPT = """
EXISTS (SELECT 1 FROM delivery
         WHERE delivery.partition = entry.partition AND delivery.position = entry.position
           AND state IN ('retrying', 'held', 'dead')
           AND EXISTS (SELECT 1 FROM consumer WHERE name = delivery.consumer AND registered))
"""
_REACH = """
SELECT max(position) FROM (
       SELECT position, sum(young) OVER rising AS young, sum(NOT kept) OVER rising AS prunable FROM (
              SELECT position, recorded_ms >= :before_ms AS young, :kept AS kept FROM entry
               WHERE partition = :partition AND position > :swept AND position <= :settled
               ORDER BY position LIMIT :limit)
       WINDOW rising AS (ORDER BY position))
 WHERE young = 0 AND prunable <= :room
""".replace(":kept", _KEPT)
_PRUNE = """
DELETE FROM entry WHERE partition = :partition AND position > :swept AND position <= :reach AND NOT :kept
""".replace(":kept", _KEPT)
_PRUNE_DELIVERIES = """
DELETE FROM delivery WHERE partition = :partition AND position > :swept AND position <= :reach AND NOT EXISTS (
       SELECT 1 FROM entry WHERE entry.partition = delivery.partition AND entry.position = delivery.position)
"""
_SWEPT = "UPDATE partition SET swept = :reach, entries = entries - :pruned WHERE number = :partition"


class Prune(NamedTuple):
    """What may go: journalled before then, and at most so many."""

    before_ms: int
    limit: int


def prune(connection: Connection, _now_ms: int, prunes: Sequence[Prune]) -> list[int]:
    """How many entries went for each."""
    return [_prune(connection, *one) for one in prunes]


def _prune(connection: Connection, before_ms: int, limit: int) -> int:
    """Looks at `limit` entries at a time. Each is passed over once: `swept` remembers how far the look went."""
    room = limit
    for partition, swept, settled in connection.execute(_PARTITIONS).fetchall():
        bounds = {"partition": partition, "before_ms": before_ms, "swept": swept, "settled": settled, "limit": limit}
        while room:
            (reach,) = connection.execute(_REACH, {**bounds, "room": room}).fetchone()
            if reach is None:
                break
            bounds["reach"] = reach
            pruned = connection.execute(_PRUNE, bounds).rowcount
            connection.execute(_PRUNE_DELIVERIES, bounds)
            connection.execute(_SWEPT, {**bounds, "pruned": pruned})
            bounds["swept"] = reach
            room -= pruned
    return limit - room


# -- whether a write is possible at all -------------------------------------------------------------------------------

_PROBE = "INSERT OR REPLACE INTO probe (id, filler) VALUES (1, zeroblob(1048576))"


def probe(connection: Connection, _now_ms: int, probes: Sequence[None]) -> list[None]:
    """Write what a burst of events would take: a disk that is all but full still has room for a page."""
    connection.execute(_PROBE)
    return [None] * len(probes)


def _singles(values: Iterable[int]) -> list[tuple[int]]:
    return [(value,) for value in set(values)]
