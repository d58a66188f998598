"""The attempts' table: added to with every settle, asked for by delivery, forgotten by age."""

from __future__ import annotations

import json
from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

from bridge.journal.outcomes import Attempt, Place
from bridge.journal.stores.sqlite.bulk import write

_VALUES = "position, subscription, number, at_ms, duration_ms, status, reason, address, answer, detail"
_RECORD = "INSERT INTO attempt (consumer, partition, :values) VALUES :rows".replace(":values", _VALUES)
_OF = """
SELECT json_group_array(json_array(:values)) FROM (
       SELECT * FROM attempt WHERE consumer = ? AND partition = ? AND position = ? ORDER BY id)
""".replace(":values", _VALUES)
_PRUNE = """
DELETE FROM attempt WHERE id IN (
       SELECT id FROM (SELECT id, at_ms FROM attempt ORDER BY id LIMIT :limit) WHERE at_ms < :before_ms)
"""


class Prune(NamedTuple):
    """What may go: begun before then, and at most so many."""

    before_ms: int
    limit: int


def record(connection: Connection, consumer: str, partition: int, attempts: Sequence[Attempt]) -> None:
    write(connection, _RECORD, [(consumer, partition, *attempt) for attempt in attempts])


def of(connection: Connection, consumer: str, place: Place) -> list[Attempt]:
    (rows,) = connection.execute(_OF, (consumer, *place)).fetchone()
    return [Attempt._make(row) for row in json.loads(rows)]


def prune(connection: Connection, _now_ms: int, prunes: Sequence[Prune]) -> list[int]:
    """How many went for each. Looks only at the oldest: one that began early and was recorded late waits for those
    before it."""
    return [connection.execute(_PRUNE, one._asdict()).rowcount for one in prunes]
