"""What is removed when: events and attempts, each at its age, and everything settled at once when room is short."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.outcomes import Attempt, Place
from bridge.journal.retention import Retention
from bridge.journal.stores.sqlite import SqliteJournal, open_journal

NOW_S = 1_000_000.0
HIGH_WATER_BYTES = 4 << 20


async def _one_round(journal: SqliteJournal) -> None:
    """Let a retention of an hour for events and a minute for attempts go through its round once."""
    done = asyncio.Event()
    retention = Retention(
        journal, retention_s=3600.0, attempts_retention_s=60.0, interval_s=3600.0, clock=lambda: NOW_S
    )
    running = asyncio.create_task(retention.run(done.set))
    await done.wait()
    running.cancel()
    await asyncio.wait([running])


async def _past(journal: SqliteJournal, *ages_s: int, data: bytes = b"{}") -> None:
    """One settled event, with an attempt for each age."""
    await journal.register(["hook"], ["hook"])
    [(job, _)] = await journal.follow([JobKey("auvy", "a")], "config")
    await journal.append(job, [JobEvent("1", "auvy", "a", EventType.OUTPUT, data)], None)
    tried = [
        Attempt(1, job.id, number, int((NOW_S - age_s) * 1000), 5, 200, None, None, "", None)
        for number, age_s in enumerate(ages_s, start=1)
    ]
    await journal.settle("hook", 0, 1, [], tried)


async def _kept(journal: SqliteJournal) -> tuple[int, list[int]]:
    attempts = await journal.outcomes.attempts("hook", Place(0, 1))
    return (await journal.health()).entries, [attempt.number for attempt in attempts]


async def test_events_and_attempts_go_each_at_their_own_age(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", clock_ms=lambda: int((NOW_S - 1800) * 1000)) as journal:
        await _past(journal, *[1800] * 2500, 61, 59, 1)
        await _one_round(journal)
        assert await _kept(journal) == (1, [2502, 2503])


async def test_near_the_high_water_mark_both_go_at_once(tmp_path: Path) -> None:
    async with open_journal(
        tmp_path / "journal.db", clock_ms=lambda: int((NOW_S - 1) * 1000), high_water_bytes=HIGH_WATER_BYTES
    ) as journal:
        await _past(journal, 2, 1, data=b"x" * int(HIGH_WATER_BYTES * 0.9))
        await _one_round(journal)
        assert await _kept(journal) == (0, [])
