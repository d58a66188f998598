"""The walk back from one entry to the one before it that was meant for an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection

from bridge.journal.store import Entry
from bridge.journal.stores.sqlite import reads

# The index is by job and id, and holds each row's rowid, which rises with the position: sorting those needs no entry.
_BACKWARDS = """
SELECT sequence, position,
       EXISTS (SELECT 1 FROM delivery WHERE delivery.partition = :partition AND delivery.position = entry.position
                                        AND consumer = :consumer)
  FROM (SELECT rowid AS place FROM entry WHERE subscription = :subscription ORDER BY rowid DESC LIMIT -1)
 CROSS JOIN entry ON entry.rowid = place
 WHERE position < :position
"""
_STILL_THERE = "SELECT count(*) FROM entry WHERE partition = ? AND position > ? AND position < ?"


def previous(connection: Connection, consumer: str, entry: Entry, wants: Callable[[Entry], bool]) -> int | None:
    """As `DeliveryJournal.previous`. Ends at the first that fits; steps over the others take microseconds each."""
    begun, settled = reads.place(connection, consumer, entry.partition)
    expected, reached = entry.sequence - 1, entry.position
    if expected == 0:
        return 0
    bounds = {
        "consumer": consumer,
        "partition": entry.partition,
        "subscription": entry.subscription,
        "position": entry.position,
    }
    for sequence, position, noted in connection.execute(_BACKWARDS, bounds):
        if position <= begun:
            break
        if sequence != expected:  # what stood between was pruned
            return None
        if noted or (position > settled and _wanted(connection, entry.partition, position, wants)):
            return expected
        expected, reached = expected - 1, position
    # The job has earlier ones, or had: were those all from before the endpoint began?
    (still_there,) = connection.execute(_STILL_THERE, (entry.partition, begun, reached)).fetchone()
    return 0 if still_there == reached - begun - 1 else None


def _wanted(connection: Connection, partition: int, position: int, wants: Callable[[Entry], bool]) -> bool:
    unsettled = reads.entry(connection, partition, position)
    return unsettled is not None and wants(unsettled)
