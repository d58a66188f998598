"""How fast the journal is here: `python tests/bench/bench_journal.py [--busy] [directory]`.

`--busy` keeps the event loop from ever resting meanwhile, which is how a bridge at its limit looks to the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

from bridge.event import Cursor, EventType, JobEvent, JobKey
from bridge.journal.store import Checkpoint, SubscriptionRecord
from bridge.journal.stores.sqlite import SqliteJournal, open_journal

JOBS, BATCH, ROUNDS = 50, 20, 60
TOTAL = JOBS * BATCH * ROUNDS
DATA = b'{"piece": "' + b"x" * 680 + b'"}'


async def feed(journal: SqliteJournal, subscription: SubscriptionRecord) -> list[float]:
    source, job_id = subscription.key
    waits_s = []
    for turn in range(ROUNDS):
        ids = [f"{source}/{job_id}/17000000{turn:05d}-{nth}" for nth in range(BATCH)]
        events = [
            JobEvent(event_id, source, job_id, EventType.OUTPUT, DATA, "2025-01-01T00:00:00Z") for event_id in ids
        ]
        start = time.perf_counter()
        await journal.append(subscription, events, Checkpoint(Cursor(ids[-1]), b"m" * 300))
        waits_s.append(time.perf_counter() - start)
    return waits_s


async def bench_append(journal: SqliteJournal) -> None:
    jobs = await journal.follow([JobKey("auvy-prod", f"job-{n:06d}") for n in range(JOBS)], "config")
    start, start_cpu = time.perf_counter(), time.process_time()
    waits_s = sorted(chain.from_iterable(await asyncio.gather(*(feed(journal, job) for job, _ in jobs))))
    took_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    p50, p99 = (waits_s[int(len(waits_s) * share)] * 1000 for share in (0.5, 0.99))
    print(
        f"append  {TOTAL / took_s:9,.0f} events/s   {cpu_s / TOTAL * 1e6:.1f} us CPU each,"
        f" p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )


async def bench_pending(journal: SqliteJournal) -> None:
    start, position = time.perf_counter(), 0
    while position < TOTAL:
        position = (await journal.pending(0, position, limit=500))[-1].position
    print(f"pending {TOTAL / (time.perf_counter() - start):9,.0f} entries/s")


async def bench_prune(journal: SqliteJournal) -> None:
    await journal.settle("kafka", 0, TOTAL)
    start = time.perf_counter()
    while await journal.prune(1 << 60):
        pass
    print(f"prune   {TOTAL / (time.perf_counter() - start):9,.0f} entries/s")


async def burn() -> None:
    while True:
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)


async def main(path: Path, *, busy: bool) -> None:
    async with open_journal(path) as journal:
        await journal.register(["kafka"])
        burning = asyncio.create_task(burn()) if busy else None
        await bench_append(journal)
        await bench_pending(journal)
        await bench_prune(journal)
        if burning is not None:
            burning.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--switch-interval", type=float, default=sys.getswitchinterval())
    arguments = parser.parse_args()
    sys.setswitchinterval(arguments.switch_interval)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
        asyncio.run(main(Path(scratch) / "journal.db", busy=arguments.busy))
