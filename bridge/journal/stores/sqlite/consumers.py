"""Who consumes, and how far each has come: the changes that delivery makes to the journal's tables.

Each is called inside a transaction that the caller opens, and rolls back when one raises.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection
from typing import NamedTuple

from bridge.errors import Fatal
from bridge.journal.store import Attempt, Outcome
from bridge.journal.stores.sqlite import attempts as attempts_table
from bridge.journal.stores.sqlite.bulk import write

_REGISTER = """
INSERT INTO consumer (name, partition, begun, settled, endpoint)
SELECT column1, number, last_position, last_position, column2 FROM (VALUES :rows) CROSS JOIN partition WHERE true
ON CONFLICT (name, partition) DO UPDATE SET registered = 1, endpoint = excluded.endpoint
"""
_UNREGISTER = """
UPDATE consumer SET registered = 0 WHERE name NOT IN (SELECT name FROM endpoint WHERE state <> 'removed')
"""
_END = """
SELECT last_position FROM consumer JOIN partition ON number = partition
 WHERE name = ? AND number = ? AND registered
"""
_REMOVED = "SELECT 1 FROM endpoint WHERE name = ? AND state = 'removed'"
_SETTLE = "UPDATE consumer SET settled = max(settled, ?) WHERE name = ? AND partition = ?"
_OUTCOME = """
INSERT INTO delivery VALUES :rows ON CONFLICT DO UPDATE SET
       since_ms = CASE WHEN state = excluded.state THEN since_ms ELSE excluded.since_ms END,
       state = excluded.state, attempts = excluded.attempts, first_ms = excluded.first_ms, due_ms = excluded.due_ms,
       status = excluded.status, detail = excluded.detail, spared = excluded.spared,
       previous = coalesce(previous, excluded.previous)
"""
_SWEEP_AGAIN = "UPDATE partition SET swept = :below WHERE number = :partition AND swept > :below"


class Register(NamedTuple):
    """Who consumes, and which of them are endpoints."""

    consumers: Sequence[str]
    endpoints: Collection[str]


class Settle(NamedTuple):
    """A consumer's move, and the evidence."""

    consumer: str
    partition: int
    upto: int
    outcomes: Sequence[Outcome]
    attempts: Sequence[Attempt]


def register(connection: Connection, _now_ms: int, registrations: Sequence[Register]) -> list[None]:
    """The last of them stands. What a consumer that left held back is looked at again by the next prune."""
    for consumers, endpoints in registrations:
        connection.execute(_UNREGISTER)
        write(connection, _REGISTER, [(name, name in endpoints) for name in dict.fromkeys(consumers)])
        connection.execute("UPDATE partition SET swept = 0")
    return [None] * len(registrations)


def settle(connection: Connection, now_ms: int, settles: Sequence[Settle]) -> list[None]:
    """Raises KeyError for a consumer that is not registered, `Fatal` for one that is ahead of the journal."""
    for one in settles:
        _settle(connection, now_ms, *one)
    return [None] * len(settles)


def sweep_again(connection: Connection, partition: int, position: int) -> None:
    """Have the next prune look at the entries from that position on once more: some may not be needed any longer."""
    connection.execute(_SWEEP_AGAIN, {"below": position - 1, "partition": partition})


def _settle(
    connection: Connection,
    now_ms: int,
    consumer: str,
    partition: int,
    upto: int,
    outcomes: Sequence[Outcome],
    attempts: Sequence[Attempt],
) -> None:
    row = connection.execute(_END, (consumer, partition)).fetchone()
    if row is None and connection.execute(_REMOVED, (consumer,)).fetchone():
        return  # it was removed a moment ago, and nobody asks any more
    if row is None:
        raise KeyError(consumer)
    if upto > (end := row[0]):
        raise Fatal(
            f"{consumer} has settled position {upto} of partition {partition}, and the journal ends at {end}:"
            " this is not the journal it consumed",
            reason="journal",
        )
    connection.execute(_SETTLE, (upto, consumer, partition))
    if outcomes:
        write(
            connection,
            _OUTCOME,
            [
                (partition, position, consumer, subscription, state.value, *rest, now_ms, previous)
                for position, subscription, state, *rest, previous in outcomes
            ],
        )
        sweep_again(connection, partition, min(outcome.position for outcome in outcomes))
    attempts_table.record(connection, consumer, partition, attempts)
