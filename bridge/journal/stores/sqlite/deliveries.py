"""Deliveries as people ask for them and change them: selected by what they are, looked through a window at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any, NamedTuple

from bridge.errors import Rejected
from bridge.journal.outcomes import Delivery, DeliveryState, Place, Selection
from bridge.journal.stores.sqlite.bulk import write
from bridge.journal.stores.sqlite.consumers import sweep_again

LOOK = 1000
"""Entries in a window: a few milliseconds each for the thread that asks, and for whoever waits for it."""

_IN_JOURNAL = "SELECT position FROM entry WHERE partition = :partition AND position > :after AND position <= :end"
_OF_JOB = """
SELECT position FROM entry
 WHERE subscription = (SELECT id FROM subscription WHERE source = :source AND job_id = :job_id)
   AND +partition = :partition AND position > :after AND position <= :end
"""
_NOTED = """
SELECT position FROM delivery INDEXED BY delivery_noted
 WHERE consumer = :consumer AND partition = :partition AND position > :after AND position <= :end
   AND state NOT IN ('delivered', 'filtered') AND state IN (SELECT value FROM json_each(:states))
"""
_WINDOW = "SELECT max(position) FROM (:looked ORDER BY position LIMIT :look)"

_DELIVERY = """
       SELECT entry.partition, entry.position, entry.subscription, sequence, recorded_ms, id, source, subject, type,
              name,
              coalesce(state, CASE WHEN entry.position > settled THEN 'pending' WHEN entry.position <= begun THEN NULL
                                   WHEN endpoint THEN 'filtered' ELSE 'delivered' END) AS state,
              coalesce(since_ms, 0) AS since_ms, coalesce(attempts, 0) AS attempts, coalesce(first_ms, 0) AS first_ms,
              coalesce(due_ms, 0) AS due_ms, status, detail, coalesce(redriven, 0) AS redriven
"""
_SELECTED = """
  FROM (:delivery
          FROM (:looked) AS looked
         CROSS JOIN entry ON entry.partition = :partition AND entry.position = looked.position
         CROSS JOIN consumer ON name = :consumer AND consumer.partition = :partition
          LEFT JOIN delivery ON delivery.partition = :partition AND delivery.position = looked.position
                            AND delivery.consumer = :consumer
         WHERE recorded_ms >= :since_ms AND (:source IS NULL OR source = :source)
           AND (:job_id IS NULL OR subject = :job_id) AND (:type IS NULL OR type GLOB :type)
         ORDER BY looked.position)
 WHERE state IN (SELECT value FROM json_each(:states))
""".replace(":delivery", _DELIVERY)
_ARRAY = """
SELECT json_group_array(json_array(partition, position, subscription, sequence, recorded_ms, id, source, subject, type,
       name, state, since_ms, attempts, first_ms, due_ms, status, detail, redriven)) FROM (:rows)
"""
_LISTED = _ARRAY.replace(":rows", "SELECT * :selected LIMIT :limit").replace(":selected", _SELECTED)
_COUNTED = "SELECT state, count(*) :selected GROUP BY state".replace(":selected", _SELECTED)
_TRAIL = _ARRAY.replace(
    ":rows",
    """:delivery
          FROM (SELECT partition, position FROM entry WHERE subscription = :subscription AND sequence > :after
                 ORDER BY sequence LIMIT :limit) AS looked
         CROSS JOIN entry USING (partition, position)
          LEFT JOIN consumer ON consumer.partition = entry.partition AND registered
          LEFT JOIN delivery ON delivery.partition = entry.partition AND delivery.position = entry.position
                            AND delivery.consumer = name
         ORDER BY sequence, name""",
).replace(":delivery", _DELIVERY)

_IMPLIED = frozenset({DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.FILTERED})
"""States that an entry can be in without being among the noted."""


class Spread(NamedTuple):
    """When what a window holds is due, if it is redriven: the first one after a wait, each next one an interval later.
    Without an interval all of it is due at once."""

    wait_ms: float = 0.0
    interval_ms: float = 0.0

    def due_ms(self, now_ms: int, nth: int) -> int:
        return now_ms + math.ceil(self.wait_ms + nth * self.interval_ms) if self.interval_ms else 0


class Window(NamedTuple):
    """What a selection may be looked for in next: behind a position, up to another one."""

    selection: Selection
    partition: int
    after: int
    end: int
    spread: Spread = Spread()


class Found(NamedTuple):
    """What a window held, and how far it reached; None when there is nothing behind it."""

    deliveries: list[Delivery]
    reach: int | None


def listed(connection: Connection, window: Window, limit: int) -> Found:
    """The first so many that are selected. Where there may be more, the reach is the last one's position."""
    sql, bounds, reach = _bound(connection, _LISTED, window)
    if reach is None:
        return Found([], None)
    deliveries = _deliveries(connection, sql, {**bounds, "limit": limit})
    return Found(deliveries, deliveries[-1].place.position if len(deliveries) == limit else reach)


def counted(connection: Connection, window: Window) -> tuple[dict[DeliveryState, int], int | None]:
    """How many are selected, by state; and the reach."""
    sql, bounds, reach = _bound(connection, _COUNTED, window)
    if reach is None:
        return {}, None
    return {DeliveryState(state): count for state, count in connection.execute(sql, bounds)}, reach


def trail(connection: Connection, subscription: int, after_sequence: int, limit: int) -> list[Delivery]:
    return _deliveries(connection, _TRAIL, {"subscription": subscription, "after": after_sequence, "limit": limit})


def _bound(connection: Connection, sql: str, window: Window) -> tuple[str, dict[str, Any], int | None]:
    """The statement that answers for the window, its values, and how far the window reaches."""
    selection, partition, after, end, _ = window
    looked = _IN_JOURNAL
    if selection.source is not None and selection.job_id is not None:
        looked = _OF_JOB
    elif not selection.states & _IMPLIED:
        looked = _NOTED
    bounds = {
        "consumer": selection.consumer,
        "partition": partition,
        "after": after,
        "end": end,
        "look": LOOK,
        "states": json.dumps(sorted(selection.states)),
        "since_ms": selection.since_ms,
        "source": selection.source,
        "job_id": selection.job_id,
        "type": selection.type,
    }
    (reach,) = connection.execute(_WINDOW.replace(":looked", looked), bounds).fetchone()
    return sql.replace(":looked", looked), {**bounds, "end": reach}, reach


def _deliveries(connection: Connection, sql: str, bounds: dict[str, Any]) -> list[Delivery]:
    (rows,) = connection.execute(sql, bounds).fetchone()
    return [_delivery(row) for row in json.loads(rows)]


def _delivery(row: list[Any]) -> Delivery:
    partition, position, *event, consumer, state = row[:11]
    return Delivery._make(
        [Place(partition, position), *event, consumer or "", state and DeliveryState(state), *row[11:]]
    )


# -- changes ----------------------------------------------------------------------------------------------------------

_IS_ENDPOINT = "SELECT max(endpoint) FROM consumer WHERE name = ?"
_REDRIVE = """
INSERT INTO delivery
       (partition, position, consumer, subscription, state, attempts, first_ms, due_ms, redriven, since_ms)
VALUES :rows ON CONFLICT DO UPDATE SET
       state = excluded.state, attempts = 0, spared = 0, first_ms = 0, due_ms = excluded.due_ms,
       redriven = redriven + 1, since_ms = excluded.since_ms
"""
_DROP = """
UPDATE delivery SET state = 'dropped', since_ms = column4 FROM (VALUES :rows)
 WHERE consumer = column1 AND partition = column2 AND position = column3
"""


def refuse_log(connection: Connection, consumer: str) -> None:
    """Raises `Rejected` for one."""
    if not connection.execute(_IS_ENDPOINT, (consumer,)).fetchone()[0]:
        raise Rejected(f"{consumer} is a log, which only goes forward: nothing can be sent there again")


def redrive(connection: Connection, now_ms: int, windows: Sequence[Window]) -> list[Found]:
    """What was redriven in each window."""
    return [_redrive(connection, now_ms, window) for window in windows]


def _redrive(connection: Connection, now_ms: int, window: Window) -> Found:
    found = listed(connection, window, LOOK)
    consumer, held = window.selection.consumer, DeliveryState.HELD.value
    due_ms = window.spread.due_ms
    rows = [
        (*one.place, consumer, one.subscription, held, 0, 0, due_ms(now_ms, nth), 1, now_ms)
        for nth, one in enumerate(found.deliveries)
    ]
    write(connection, _REDRIVE, rows)
    return found


def drop(connection: Connection, now_ms: int, windows: Sequence[Window]) -> list[Found]:
    """What was dropped in each window. Their entries are looked at again by the next prune."""
    return [_drop(connection, now_ms, window) for window in windows]


def _drop(connection: Connection, now_ms: int, window: Window) -> Found:
    found = listed(connection, window, LOOK)
    write(connection, _DROP, [(window.selection.consumer, *one.place, now_ms) for one in found.deliveries])
    if found.deliveries:
        sweep_again(connection, window.partition, found.deliveries[0].place.position)
    return found


Change = Callable[[Connection, int, Sequence[Window]], list[Found]]
