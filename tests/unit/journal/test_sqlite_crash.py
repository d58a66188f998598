"""A journal whose process is killed at random moments: what was acknowledged is there, and nothing is torn."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from bridge.event import Cursor, EventType, JobEvent, JobKey
from bridge.journal.store import Checkpoint, Entry
from bridge.journal.stores.sqlite import open_journal

JOBS, BATCH, KILLS = 8, 7, 10


async def append_for_ever(path: str) -> None:
    """Print the cursor of every append, which is also the number of its last event, once it is acknowledged."""
    async with open_journal(path) as journal, asyncio.TaskGroup() as tasks:
        keys = [JobKey("auvy", f"job-{n}") for n in range(JOBS)]

        async def feed(key: JobKey) -> None:
            job = await journal.subscription(key)
            assert job is not None
            done = int(job.cursor or 0)
            while True:
                events = [
                    JobEvent(str(n), *key, EventType.OUTPUT, f"{key}:{n}".encode() * 50)
                    for n in range(done + 1, done + BATCH + 1)
                ]
                done += BATCH
                await journal.append(job, events, Checkpoint(Cursor(str(done)), b""))
                print(key.job_id, done, flush=True)

        await journal.follow(keys, "config")
        for key in keys:
            tasks.create_task(feed(key))


def killed_while_appending(path: Path, lines: int, acknowledged: dict[str, int]) -> None:
    with subprocess.Popen([sys.executable, __file__, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(lines):
            note(child.stdout.readline(), acknowledged)
        child.send_signal(signal.SIGKILL)
        # what it had told already, read to the end, less the line that the kill may have torn
        for line in child.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                note(line, acknowledged)
    assert child.returncode == -signal.SIGKILL


def note(line: str, acknowledged: dict[str, int]) -> None:
    job_id, done = line.split()
    acknowledged[job_id] = max(acknowledged.get(job_id, 0), int(done))


async def entries(path: Path) -> list[Entry]:
    async with open_journal(path) as journal:
        found: list[Entry] = []
        if (await journal.health()).entries:
            found += await journal.pending(0, 0, limit=1_000_000, bytes_max=1 << 30)
        for record in await journal.subscriptions():
            assert record.cursor == str(record.sequence)  # the cursor moved with its events, or not at all
        return found


async def test_nothing_acknowledged_is_lost_however_often_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    dice = random.Random(20)
    acknowledged: dict[str, int] = {}
    for _ in range(KILLS):
        killed_while_appending(path, dice.randrange(1, 400), acknowledged)
        found = await entries(path)
        assert [e.position for e in found] == list(range(1, len(found) + 1))
        for job_id, done in acknowledged.items():
            numbers = [int(e.id) for e in found if e.subject == job_id]
            assert numbers == list(range(1, len(numbers) + 1)) == [e.sequence for e in found if e.subject == job_id]
            assert numbers[-1] >= done
            assert all(e.data == f"auvy/{job_id}:{e.id}".encode() * 50 for e in found if e.subject == job_id)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(acknowledged) == JOBS


if __name__ == "__main__":
    asyncio.run(append_for_ever(sys.argv[1]))
