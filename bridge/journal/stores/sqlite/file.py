"""The only place that opens a journal's file: one process, our schema, a shape that fits.

Whatever is wrong with the file is a `Fatal` of one sentence that names it and says what to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from importlib.resources import files
from sqlite3 import Connection
from typing import NamedTuple

from bridge.errors import BridgeError, Fatal, Temporary

MEMORY = ":memory:"

_OLDEST_SQLITE = (3, 38, 0)
_PAGE_BYTES = 8192
_CACHE_KIB = 32 * 1024
_CHECKPOINT_PAGES = 1000
"""About 8 MiB of log; the writer then copies it over, a few milliseconds that grow with it."""
_BUSY_TIMEOUT_S = 5.0

_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Connections(NamedTuple):
    """One connection for the writer and one for reads; `turn` is held while either is used."""

    writing: Connection
    reading: Connection
    turn: AbstractContextManager[object]


def translated(error: sqlite3.Error) -> BridgeError | None:
    """What the error means for the loop; None when it is a mistake in a statement or its values."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _PASSING:
        return Temporary(f"the journal cannot be used now: {error}", reason="journal")
    if code in _BROKEN:
        return Fatal(f"the journal is damaged, restore it from a copy: {error}", reason="journal")
    return None


@contextmanager
def connected(path: str, *, partitions: int, synchronous: str) -> Iterator[Connections]:
    """Open, migrate and close the journal at `path`, or a new one in memory.

    Raises `Fatal` when the file is another process's, unreadable, no journal, newer, or of another partition count.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise _fatal(path, f"needs SQLite 3.38 or newer, and Python was built with {sqlite3.sqlite_version}")
    with ExitStack() as stack:
        if path != MEMORY:
            stack.enter_context(_sole_process(path))
        try:
            writing = stack.enter_context(closing(_connect(path, synchronous)))
            _migrate(writing, path)
            _fit_partitions(writing, path, partitions)
            if path == MEMORY:
                connections = Connections(writing, writing, threading.Lock())
            else:
                reading = stack.enter_context(closing(_connect(path, synchronous)))
                reading.execute("PRAGMA query_only = ON")
                connections = Connections(writing, reading, nullcontext())
        except sqlite3.Error as error:
            raise _fatal(path, f"cannot be opened: {error}") from error
        yield connections


@contextmanager
def _sole_process(path: str) -> Iterator[None]:
    """Hold the lock file beside the journal. The kernel lets go of it when the process ends, however it ends."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _fatal(path, f"cannot be opened: {error.strerror} ({path}.lock)") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _fatal(
                path, "is in use by another process: stop that one, or give this one a journal of its own"
            ) from error
        raise _fatal(path, f"cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _connect(path: str, synchronous: str) -> Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        for pragma, value in (
            ("page_size", _PAGE_BYTES),
            ("journal_mode", "wal"),
            ("synchronous", synchronous),
            ("cache_size", -_CACHE_KIB),
            ("temp_store", "memory"),
            ("wal_autocheckpoint", _CHECKPOINT_PAGES),
        ):
            connection.execute(f"PRAGMA {pragma} = {value}")
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: Connection, path: str) -> None:
    scripts = sorted(
        (script for script in (files("bridge.journal.stores") / "schema" / "sqlite").iterdir()),
        key=lambda script: script.name,
    )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(scripts):
        raise _fatal(
            path, f"has schema version {version} and this release knows {len(scripts)}: run the newer release again"
        )
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise _fatal(path, "is a database of something else: give the journal a file of its own")
    for number, script in enumerate(scripts[version:], start=version + 1):
        sql = script.read_text(encoding="utf-8")
        with connection:
            connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};")


def _fit_partitions(connection: Connection, path: str, partitions: int) -> None:
    (made_with,) = connection.execute("SELECT count(*) FROM partition").fetchone()
    if made_with not in (0, partitions):
        raise _fatal(
            path,
            f"was made with {made_with} partitions and is opened with {partitions}: jobs keep their partition for ever,"
            f" so set it back to {made_with}, or start a new journal",
        )
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT OR IGNORE INTO partition (number) VALUES (?)", [(number,) for number in range(partitions)]
        )


def _fatal(path: str, text: str) -> Fatal:
    return Fatal(f"journal {path} {text}", reason="journal")
