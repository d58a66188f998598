"""Every question the journal's tables are asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import Any, NamedTuple

from bridge.event import Cursor, JobKey
from bridge.journal.store import DeliveryState, Entry, Outcome, Outstanding, SubscriptionRecord, SubscriptionState
from bridge.journal.stores.sqlite.bulk import packed, spread, unpacked

_RECORD = "id, source, job_id, partition, state, reason, cursor, sequence, origin, created_ms, updated_ms, revision"
_ENTRY = "partition, position, subscription, sequence, recorded_ms, id, source, subject, type, time, traceparent"


class Tide(NamedTuple):
    """How far the journal has come."""

    ends: tuple[int, ...]
    """The last position of each partition."""
    revision: int
    live_bytes: int


_TIDE = """
SELECT (SELECT json_group_array(last_position) FROM (SELECT last_position FROM partition ORDER BY number)),
       (SELECT coalesce(max(revision), 0) FROM subscription),
       (page_count - freelist_count) * page_size
  FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""


def tide(connection: Connection) -> Tide:
    """Where the journal stands, uncommitted changes of this connection included."""
    ends, revision, live_bytes = connection.execute(_TIDE).fetchone()
    return Tide(tuple(json.loads(ends)), revision, live_bytes)


# -- subscriptions ----------------------------------------------------------------------------------------------------

_BY_KEY = packed(
    _RECORD,
    "memory",
    "SELECT subscription.* FROM (VALUES :rows) CROSS JOIN subscription ON source = column1 AND job_id = column2",
)
_BY_REVISION = packed(_RECORD, "memory", "SELECT * FROM subscription WHERE revision > ? ORDER BY revision LIMIT ?")
_PAGE = packed(
    _RECORD, "memory", "SELECT * FROM subscription WHERE id > :after_id :conditions ORDER BY id LIMIT :limit"
)


def by_key(connection: Connection, keys: Sequence[JobKey]) -> dict[JobKey, SubscriptionRecord]:
    """The records of those jobs that have one."""
    found = spread(connection, _BY_KEY, keys)
    return {record.key: record for cursor in found for record in _records(unpacked(cursor))}


def changed(connection: Connection, after_revision: int, limit: int) -> list[SubscriptionRecord]:
    return _records(unpacked(connection.execute(_BY_REVISION, (after_revision, limit))))


def page(
    connection: Connection, after_id: int, limit: int, source: str | None, state: SubscriptionState | None
) -> list[SubscriptionRecord]:
    conditions = " AND +source = :source" * (source is not None) + " AND state = :state" * (state is not None)
    sql = _PAGE.replace(":conditions", conditions)
    bounds = {"after_id": after_id, "limit": limit, "source": source, "state": state and state.value}
    return _records(unpacked(connection.execute(sql, bounds)))


def _records(rows: Iterable[list[Any]]) -> list[SubscriptionRecord]:
    return [
        SubscriptionRecord(
            id=row_id,
            key=JobKey(source, job_id),
            partition=partition,
            state=SubscriptionState(state),
            reason=reason,
            cursor=None if cursor is None else Cursor(cursor),
            memory=memory,
            sequence=sequence,
            origin=origin,
            created_ms=created_ms,
            updated_ms=updated_ms,
            revision=revision,
        )
        for (
            row_id, source, job_id, partition, state, reason, cursor, sequence, origin,
            created_ms, updated_ms, revision, memory,
        ) in rows
    ]  # fmt: skip


# -- entries ----------------------------------------------------------------------------------------------------------

_PENDING = packed(
    _ENTRY,
    "data",
    """
    SELECT * FROM entry WHERE partition = :partition AND position > :after AND position <= (
           SELECT max(position) FILTER (WHERE bytes <= :bytes_max OR nth = 1) FROM (
                  SELECT position, sum(size) OVER rising AS bytes, row_number() OVER rising AS nth FROM (
                         SELECT position, length(data) AS size FROM entry
                          WHERE partition = :partition AND position > :after ORDER BY position LIMIT :limit)
                  WINDOW rising AS (ORDER BY position)))
     ORDER BY position LIMIT :limit
    """,
)

_ENTRY_AT = packed(_ENTRY, "data", "SELECT * FROM entry WHERE partition = ? AND position = ?")


def pending(connection: Connection, partition: int, after: int, limit: int, bytes_max: int) -> list[Entry]:
    bounds = {"partition": partition, "after": after, "limit": limit, "bytes_max": bytes_max}
    return [Entry._make(row) for row in unpacked(connection.execute(_PENDING, bounds))]


def entry(connection: Connection, partition: int, position: int) -> Entry | None:
    return next(map(Entry._make, unpacked(connection.execute(_ENTRY_AT, (partition, position)))), None)


# -- deliveries -------------------------------------------------------------------------------------------------------

_PLACE = "SELECT begun, settled FROM consumer WHERE name = ? AND partition = ? AND registered"
_OUTSTANDING = """
    SELECT entry.*, state, attempts, first_ms, due_ms, status, detail, redriven, spared, previous
      FROM delivery :indexed CROSS JOIN entry USING (partition, position)
     WHERE consumer = :consumer AND delivery.partition = :partition
"""
_OUTSTANDING_VALUES = _ENTRY + ", state, attempts, first_ms, due_ms, status, detail, redriven, spared, previous"
_LANE = packed(
    _OUTSTANDING_VALUES,
    "data",
    _OUTSTANDING.replace(":indexed", "INDEXED BY delivery_lane")
    + "AND state IN ('retrying', 'held') AND delivery.subscription = :subscription"
    + " ORDER BY :by LIMIT :limit",
)
_LANE_IN_ORDER = _LANE.replace(":by", "delivery.position")
_LANE_BY_DUE = _LANE.replace(":by", "due_ms, delivery.position")
_BLOCKED = """
SELECT json_group_array(json_array(subscription, due_ms)) FROM (
       SELECT subscription, due_ms, min(position) FROM delivery
        WHERE consumer = ? AND partition = ? AND state IN ('retrying', 'held') GROUP BY subscription)
"""
_FINISHED = "SELECT json_group_array(position) FROM delivery WHERE consumer = ? AND partition = ? AND position > ?"


def place(connection: Connection, consumer: str, partition: int) -> tuple[int, int]:
    """Where the consumer began, and what it has settled. Raises KeyError for one that is not registered."""
    row: tuple[int, int] | None = connection.execute(_PLACE, (consumer, partition)).fetchone()
    if row is None:
        raise KeyError(consumer)
    return row


def lane(
    connection: Connection, consumer: str, partition: int, subscription: int, limit: int, ordered: bool
) -> list[Outstanding]:
    bounds = {"consumer": consumer, "partition": partition, "subscription": subscription, "limit": limit}
    sql = _LANE_IN_ORDER if ordered else _LANE_BY_DUE
    return [_outstanding(row) for row in unpacked(connection.execute(sql, bounds))]


def blocked(connection: Connection, consumer: str, partition: int) -> dict[int, int]:
    """Each job's earliest entry tells when it is due. One that is held is due at once, unless it was redriven at a set
    pace: nothing else would move it."""
    (lanes,) = connection.execute(_BLOCKED, (consumer, partition)).fetchone()
    return dict(json.loads(lanes))


def finished(connection: Connection, consumer: str, partition: int, after: int) -> set[int]:
    (positions,) = connection.execute(_FINISHED, (consumer, partition, after)).fetchone()
    return set(json.loads(positions))


def _outstanding(row: list[Any]) -> Outstanding:
    columns = len(Entry._fields) - 1
    entry = Entry._make([*row[:columns], row[-1]])
    state, *rest = row[columns:-1]
    return Outstanding(Outcome(entry.position, entry.subscription, DeliveryState(state), *rest), entry)


# -- the whole at a glance --------------------------------------------------------------------------------------------

_DEPTH = """
SELECT name, sum(max(last_position - settled, 0)),
       min((SELECT recorded_ms FROM entry WHERE entry.partition = number AND position > settled
             ORDER BY position LIMIT 1))
  FROM consumer JOIN partition ON number = consumer.partition WHERE registered GROUP BY name
"""
_BY_STATE = """
SELECT consumer, state, count(*) FROM delivery
 WHERE state NOT IN ('delivered', 'filtered') AND state IN ('retrying', 'held', 'dead')
   AND consumer IN (SELECT name FROM consumer WHERE registered)
 GROUP BY consumer, state
"""
_BY_SOURCE = "SELECT source, state, count(*) FROM subscription GROUP BY source, state"


class Census(NamedTuple):
    """What is in the journal; the counts are those of `JournalHealth`."""

    entries: int
    depth: dict[str, int]
    oldest_unsettled_ms: dict[str, int]
    subscriptions: dict[str, dict[str, int]]
    outstanding: dict[str, dict[str, int]]


def census(connection: Connection) -> Census:
    (entries,) = connection.execute("SELECT sum(entries) FROM partition").fetchone()
    consumers = connection.execute(_DEPTH).fetchall()
    outstanding: dict[str, dict[str, int]] = {name: {} for name, _, _ in consumers}
    for consumer, state, count in connection.execute(_BY_STATE):
        outstanding[consumer][state] = count
    subscriptions: dict[str, dict[str, int]] = {}
    for source, state, count in connection.execute(_BY_SOURCE):
        subscriptions.setdefault(source, {})[state] = count
    return Census(
        entries,
        {name: depth for name, depth, _ in consumers},
        {name: recorded_ms for name, _, recorded_ms in consumers if recorded_ms is not None},
        subscriptions,
        outstanding,
    )
