"""The catalogue of stores: which one a journal's URL means."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from bridge.errors import Fatal
from bridge.journal.store import Journal
from bridge.journal.stores import sqlite

_SQLITE_FILE = "sqlite:///"
_SQLITE_MEMORY = "sqlite::memory:"


def open_store(
    url: str,
    *,
    partitions: int = 1,
    high_water_bytes: int = 4 << 30,
    clock_ms: Callable[[], int] = sqlite.now_ms,
    synchronous: str = "full",
    tail_bytes: int = 16 << 20,
) -> AbstractAsyncContextManager[Journal]:
    """The journal at `sqlite:///relative/path`, `sqlite:////absolute/path` or `sqlite::memory:`.

    Raises `Fatal`: at once for any other URL, on entering when the journal there is not fit for use.
    """
    path = sqlite.MEMORY if url == _SQLITE_MEMORY else url.removeprefix(_SQLITE_FILE)
    if path in ("", url):
        raise Fatal(
            f"journal {url!r} cannot be opened: write sqlite:///relative/path, sqlite:////absolute/path"
            f" or {_SQLITE_MEMORY}",
            reason="journal",
        )
    return sqlite.open_journal(
        path,
        partitions=partitions,
        high_water_bytes=high_water_bytes,
        clock_ms=clock_ms,
        synchronous=synchronous,
        tail_bytes=tail_bytes,
    )
