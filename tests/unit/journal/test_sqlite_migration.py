"""A journal that an earlier release wrote goes on where it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from bridge.journal.outcomes import DeliveryState, Place, Selection
from bridge.journal.stores.sqlite import open_journal

_FIRST = files("bridge.journal.stores") / "schema" / "sqlite" / "0001_journal.sql"


async def test_outcomes_from_before_they_were_dated_are_told_without_a_date(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"""
            {_FIRST.read_text()}
            PRAGMA user_version = 1;
            INSERT INTO partition VALUES (0, 2, 0, 2);
            INSERT INTO subscription (id, source, job_id, partition, state, sequence, origin, created_ms, updated_ms,
                                      revision) VALUES (1, 'auvy', 'a', 0, 'active', 2, 'config', 1, 1, 1);
            INSERT INTO entry VALUES (0, 1, 1, 1, 10, 'a-1', 'auvy', 'a', 'job.output', NULL, NULL, x''),
                                     (0, 2, 1, 2, 11, 'a-2', 'auvy', 'a', 'job.output', NULL, NULL, x'');
            INSERT INTO consumer VALUES ('hook', 0, 0, 2, 1);
            INSERT INTO delivery VALUES (0, 1, 'hook', 1, 'dead', 3, 5, 0, 500, 'no'),
                                        (0, 2, 'hook', 1, 'retrying', 1, 6, 99, 503, 'busy');
        """)
    async with open_journal(path, clock_ms=lambda: 100) as journal:
        await journal.register(["hook"], ["hook"])
        assert await journal.blocked("hook", 0) == {1: 99}
        every = Selection("hook", frozenset(DeliveryState))
        told = (await journal.outcomes.page(every)).deliveries
        assert [(one.place, one.state, one.since_ms, one.attempts, one.detail) for one in told] == [
            (Place(0, 1), DeliveryState.DEAD, 0, 3, "no"),
            (Place(0, 2), DeliveryState.RETRYING, 0, 1, "busy"),
        ]
        assert await journal.outcomes.redrive(Selection("hook", frozenset({DeliveryState.DEAD}))) == 1
        [(_, since_ms)] = [(one.state, one.since_ms) for one in (await journal.outcomes.page(every)).deliveries[:1]]
        assert since_ms == 100
