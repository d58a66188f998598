"""The tables of endpoints' health: noted in the writer's thread, told in order to whoever waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from sqlite3 import Connection
from typing import Any, NamedTuple

from bridge.journal.health import Health, HealthState, HealthTurn, Turn
from bridge.journal.stores.sqlite.writer import Writer

_KEPT_TURNS = 10_000

_OF = "SELECT state, failing_since_ms, last_success_ms, reason, revision FROM health WHERE consumer = ?"
_NOTE = """
INSERT INTO health VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
       state = excluded.state, failing_since_ms = excluded.failing_since_ms, reason = excluded.reason,
       last_success_ms = max(last_success_ms, excluded.last_success_ms), revision = excluded.revision
"""
_TURN = "INSERT INTO health_turn (consumer, turn, at_ms, since_ms, reason) VALUES (?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM health_turn WHERE revision <= ?"
_ENABLE = "UPDATE health SET state = 'failing', failing_since_ms = ? WHERE consumer = ? AND state = 'disabled'"
_TURNS = """
SELECT json_group_array(json_array(revision, consumer, turn, at_ms, since_ms, reason)) FROM (
       SELECT * FROM health_turn WHERE revision > ? ORDER BY revision LIMIT ?)
"""
_BEGIN = """
INSERT OR IGNORE INTO operator VALUES (?, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'health_turn'), 0))
"""
_TOLD = "SELECT told FROM operator WHERE name = ?"
_TELL = "UPDATE operator SET told = max(told, ?) WHERE name = ?"


class Note(NamedTuple):
    """What a consumer's health became, oldest first."""

    consumer: str
    changes: Sequence[Health]


class HealthTables:
    """Fits the seam. `read` has a question answered in the reader's thread."""

    def __init__(self, read: Callable[..., Awaitable[Any]], writer: Writer) -> None:
        self._read = read
        self._writer = writer
        self._noted = 0
        self._news = asyncio.Event()

    async def of(self, consumer: str) -> Health:
        health: Health = await self._read(_of, consumer)
        return health

    async def note(self, consumer: str, changes: Sequence[Health]) -> None:
        try:
            await self._writer.submit(_note, Note(consumer, changes))
        finally:  # cut off, it is written all the same
            self._noted += 1
            self._news.set()
            self._news.clear()

    async def enable(self, consumer: str) -> bool:
        return await self._writer.submit(_enable, consumer)

    async def turns(self, after_revision: int, limit: int = 100) -> Sequence[HealthTurn]:
        while True:
            seen = self._noted
            turns: list[HealthTurn] = await self._read(_turns, after_revision, limit)
            if turns:
                return turns
            while self._noted == seen:
                await self._news.wait()

    async def told(self, operator: str) -> int:
        return await self._writer.submit(_told, operator)

    async def tell(self, operator: str, revision: int) -> None:
        await self._writer.submit(_tell, (revision, operator))


def _of(connection: Connection, consumer: str) -> Health:
    row = connection.execute(_OF, (consumer,)).fetchone()
    return Health() if row is None else Health(HealthState(row[0]), *row[1:])


def _turns(connection: Connection, after_revision: int, limit: int) -> list[HealthTurn]:
    (rows,) = connection.execute(_TURNS, (after_revision, limit)).fetchone()
    return [HealthTurn(row[0], row[1], Turn(row[2]), *row[3:]) for row in json.loads(rows)]


def _note(connection: Connection, now_ms: int, notes: Sequence[Note]) -> list[None]:
    for consumer, changes in notes:
        for health in changes:
            _change(connection, now_ms, consumer, health)
    return [None] * len(notes)


def _change(connection: Connection, now_ms: int, consumer: str, health: Health) -> None:
    before = _of(connection, consumer)
    if before.state is HealthState.DISABLED:
        return
    revision = before.revision
    if health.state is not before.state:
        since_ms = health.failing_since_ms or before.failing_since_ms or now_ms
        values = (consumer, _turn_to(health.state), now_ms, since_ms, health.reason)
        revision = connection.execute(_TURN, values).lastrowid or 0
        connection.execute(_FORGET, (revision - _KEPT_TURNS,))
    connection.execute(_NOTE, (consumer, *health[:-1], revision))


def _turn_to(state: HealthState) -> Turn:
    return Turn.RECOVERED if state is HealthState.WELL else Turn(f"endpoint.{state}")


def _enable(connection: Connection, now_ms: int, consumers: Sequence[str]) -> list[bool]:
    return [connection.execute(_ENABLE, (now_ms, consumer)).rowcount > 0 for consumer in consumers]


def _told(connection: Connection, _now_ms: int, operators: Sequence[str]) -> list[int]:
    told = []
    for name in operators:
        connection.execute(_BEGIN, (name,))
        told.append(connection.execute(_TOLD, (name,)).fetchone()[0])
    return told


def _tell(connection: Connection, _now_ms: int, tells: Sequence[tuple[int, str]]) -> list[None]:
    for one in tells:
        connection.execute(_TELL, one)
    return [None] * len(tells)
