"""The stores that the conformance suite runs over: one line for each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

from bridge.journal.store import Journal
from bridge.journal.stores import open_store


class OpenJournal(Protocol):
    """Opens the test's journal: the same one at every call, where the store keeps anything at all."""

    def __call__(
        self, *, partitions: int = 1, high_water_bytes: int = 1 << 30, clock_ms: Callable[[], int] = lambda: 1_000_000
    ) -> AbstractAsyncContextManager[Journal]: ...


def _sqlite_file(directory: Path) -> dict[str, Any]:
    return {"url": f"sqlite:///{directory / 'journal.db'}"}


def _sqlite_without_a_tail(directory: Path) -> dict[str, Any]:
    return _sqlite_file(directory) | {"tail_bytes": 0}


def _sqlite_memory(directory: Path) -> dict[str, Any]:
    return {"url": "sqlite::memory:"}


DURABLE = [
    pytest.param(_sqlite_file, id="sqlite-file"),
    pytest.param(_sqlite_without_a_tail, id="sqlite-file-without-a-tail"),
]
STORES = [*DURABLE, pytest.param(_sqlite_memory, id="sqlite-memory")]


def _opener(store: dict[str, Any]) -> OpenJournal:
    def open_journal(
        *, partitions: int = 1, high_water_bytes: int = 1 << 30, clock_ms: Callable[[], int] = lambda: 1_000_000
    ) -> AbstractAsyncContextManager[Journal]:
        return open_store(**store, partitions=partitions, high_water_bytes=high_water_bytes, clock_ms=clock_ms)

    return open_journal


@pytest.fixture(params=STORES)
def open_journal_at(request: pytest.FixtureRequest, tmp_path: Path) -> OpenJournal:
    """A journal of each store."""
    return _opener(request.param(tmp_path))


@pytest.fixture(params=DURABLE)
def open_durable_journal_at(request: pytest.FixtureRequest, tmp_path: Path) -> OpenJournal:
    """A journal of each store that outlives being closed."""
    return _opener(request.param(tmp_path))
