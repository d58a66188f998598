"""Endpoints that are made while the bridge runs, as their callers see them, and the changes of their table."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from sqlite3 import Connection
from typing import Any, NamedTuple

from bridge.errors import Rejected
from bridge.journal.endpoints import EndpointChange, EndpointRecord, EndpointState
from bridge.journal.stores.sqlite.writer import Writer

_SELECT = "SELECT name, state, reason, settings, sealed, created_ms, updated_ms, revision FROM endpoint "
_PAGE = _SELECT + "WHERE name > ? AND state <> 'removed' ORDER BY name LIMIT ?"
_ONE = _SELECT + "WHERE name = ? AND state <> 'removed'"
_CHANGED = _SELECT + "WHERE revision > ? ORDER BY revision LIMIT ?"
_TAKEN = "SELECT 1 FROM endpoint WHERE name = :name UNION ALL SELECT 1 FROM consumer WHERE name = :name LIMIT 1"
_ADD = """
INSERT INTO endpoint (name, state, settings, sealed, created_ms, updated_ms, revision)
SELECT :name, 'active', :settings, :sealed, :now_ms, :now_ms, coalesce(max(revision), 0) + 1 FROM endpoint
"""
_BEGIN = """
INSERT INTO consumer (name, partition, begun, settled, endpoint)
SELECT :name, number, last_position, last_position, 1 FROM partition
"""
_CHANGE = """
UPDATE endpoint SET settings = coalesce(:settings, settings), sealed = coalesce(:sealed, sealed),
       state = coalesce(:state, state), reason = CASE WHEN :state IS NULL THEN reason ELSE :reason END,
       updated_ms = :now_ms, revision = (SELECT max(revision) + 1 FROM endpoint)
 WHERE name = :name AND state <> 'removed' AND revision = coalesce(:revision, revision)
"""
_REMOVE = """
UPDATE endpoint SET state = 'removed', reason = NULL, settings = '{}', sealed = x'', updated_ms = :now_ms,
       revision = (SELECT max(revision) + 1 FROM endpoint)
 WHERE name = :name AND state <> 'removed'
"""
_UNREGISTER = "UPDATE consumer SET registered = 0 WHERE name = :name"


class Add(NamedTuple):
    """A new endpoint."""

    name: str
    settings: bytes
    sealed: bytes


class Change(NamedTuple):
    """What is to become of an endpoint, if it still is at that revision."""

    name: str
    change: EndpointChange
    revision: int | None


class Endpoints:
    """Fits the seam. `read` has a question answered in the reader's thread."""

    def __init__(self, read: Callable[..., Awaitable[Any]], writer: Writer) -> None:
        self._read = read
        self._writer = writer
        self._changes = 0
        self._changed = asyncio.Event()

    async def page(self, after_name: str = "", limit: int = 100) -> Sequence[EndpointRecord]:
        found: Sequence[EndpointRecord] = await self._read(_found, _PAGE, after_name, limit)
        return found

    async def record(self, name: str) -> EndpointRecord | None:
        return next(iter(await self._read(_found, _ONE, name)), None)

    async def changed(self, after_revision: int, limit: int = 1000) -> Sequence[EndpointRecord]:
        while True:
            seen = self._changes
            found: Sequence[EndpointRecord] = await self._read(_found, _CHANGED, after_revision, limit)
            if found:
                return found
            while self._changes == seen:
                await self._changed.wait()

    async def add(self, name: str, settings: bytes, sealed: bytes) -> EndpointRecord:
        record: EndpointRecord | None = await self._write(add, Add(name, settings, sealed))
        if record is None:
            raise Rejected(f"the name {name} is taken, or was: a name is never used twice", reason="taken")
        return record

    async def change(self, name: str, change: EndpointChange, *, revision: int | None = None) -> EndpointRecord:
        record: EndpointRecord | None = await self._write(alter, Change(name, change, revision))
        if record is None:
            raise Rejected(f"{name} was changed or removed by somebody else meanwhile", reason="stale")
        return record

    async def remove(self, name: str) -> bool:
        removed: bool = await self._write(remove, name)
        return removed

    async def _write(self, write: Callable[..., Any], argument: Any) -> Any:
        try:
            return await self._writer.submit(write, argument)
        finally:  # whoever asked may be gone, and it is written all the same
            self._changes += 1
            self._changed.set()
            self._changed.clear()


def add(connection: Connection, now_ms: int, adds: Sequence[Add]) -> list[EndpointRecord | None]:
    """None for one whose name is taken."""
    return [_add(connection, now_ms, one) for one in adds]


def alter(connection: Connection, now_ms: int, changes: Sequence[Change]) -> list[EndpointRecord | None]:
    """None for one that is not there, or no longer at its revision."""
    return [_alter(connection, now_ms, *one) for one in changes]


def remove(connection: Connection, now_ms: int, names: Sequence[str]) -> list[bool]:
    """Whether each was there."""
    return [_remove(connection, now_ms, name) for name in names]


def _remove(connection: Connection, now_ms: int, name: str) -> bool:
    if not connection.execute(_REMOVE, {"name": name, "now_ms": now_ms}).rowcount:
        return False
    connection.execute(_UNREGISTER, {"name": name})
    connection.execute("UPDATE partition SET swept = 0")  # what it held back is looked at again by the next prune
    return True


def _add(connection: Connection, now_ms: int, new: Add) -> EndpointRecord | None:
    if connection.execute(_TAKEN, {"name": new.name}).fetchone():
        return None
    bounds = {"name": new.name, "settings": new.settings.decode(), "sealed": new.sealed, "now_ms": now_ms}
    connection.execute(_ADD, bounds)
    connection.execute(_BEGIN, {"name": new.name})
    return _found(connection, _ONE, new.name)[0]


def _alter(
    connection: Connection, now_ms: int, name: str, change: EndpointChange, revision: int | None
) -> EndpointRecord | None:
    bounds = {
        "name": name,
        "settings": None if change.settings is None else change.settings.decode(),
        "sealed": change.sealed,
        "state": None if change.state is None else change.state.value,
        "reason": change.reason,
        "revision": revision,
        "now_ms": now_ms,
    }
    if not connection.execute(_CHANGE, bounds).rowcount:
        return None
    return _found(connection, _ONE, name)[0]


def _found(connection: Connection, sql: str, *bounds: str | int) -> list[EndpointRecord]:
    return [
        EndpointRecord(name, EndpointState(state), reason, settings.encode(), sealed, *rest)
        for name, state, reason, settings, sealed, *rest in connection.execute(sql, bounds)
    ]
