"""Server-sent events in, read-committed records on Apache Kafka out: `make bench`.

jobbridge (journalled, exactly once, its defaults) beside loops written by hand and beside mq-bridge, in turns and in
one run, because only ratios of one machine and one hour mean anything. `--check` tells instead how fast the streams
can be read at all, `--profile FILE` writes a profile of jobbridge's main thread.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from apache_kafka import apache_kafka
from contestants import CONTESTANTS
from job_api import JobApi
from measuring import Round, one_round, rate_of_reading

OURS = "jobbridge"
GOALS = {"transactions": 1.0, "mq-bridge": 3.0}
SLOW_S = 45.0
"""A contestant whose round takes longer has no further ones on as many streams."""


async def bench(names: Sequence[str], streams: Sequence[int], events: int, rounds: int, profile: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        async with apache_kafka(directory) as broker:
            for count in streams:
                found: dict[str, list[Round]] = {name: [] for name in names}
                slow = set()
                for _ in range(rounds):
                    for name in [name for name in names if name not in slow]:
                        began_s = time.perf_counter()
                        contestant = CONTESTANTS[name]
                        api = JobApi(count, contestant.events(count, events))
                        own = profile if name == OURS else None
                        found[name].append(await one_round(contestant, api, broker.bootstrap_servers, directory, own))
                        if time.perf_counter() - began_s > SLOW_S:
                            slow.add(name)
                _report(count, found)


def _report(streams: int, found: dict[str, list[Round]]) -> None:
    print(f"\n{streams:,} streams".ljust(17), f"{'events/s':>10} {'us CPU/event':>13} {'peak MB':>8}  rounds")
    for name, rounds in found.items():
        rate, cpu_us, peak_mb = map(statistics.median, zip(*rounds, strict=True))
        what = CONTESTANTS[name].what
        print(f"{name:16} {rate:10,.0f} {cpu_us:13.1f} {peak_mb:8,.0f} {len(rounds):6}   {what}")
    for name in [name for name in found if name != OURS and OURS in found]:
        print(f"{OURS} / {name:16} {_against(found[OURS], found[name], GOALS.get(name))}", flush=True)


def _against(ours: Sequence[Round], theirs: Sequence[Round], goal: float | None) -> str:
    """Medians of the rounds' own ratios: the two of a round ran one after the other, whatever else the machine did."""
    pairs = list(zip(ours, theirs, strict=False))
    speed, cpu, memory = (statistics.median(mine[n] / other[n] for mine, other in pairs) for n in range(3))
    said = f"{speed:6.2f} of the speed, {cpu:6.2f} of the CPU, {memory:6.2f} of the memory"
    return said if goal is None else f"{said}   goal {goal:g} of the speed: {'pass' if speed >= goal else 'FAIL'}"


async def check(streams: Sequence[int], events: int) -> None:
    for count in streams:
        print(f"{count:5,} streams: {await rate_of_reading(JobApi(count, events)):10,.0f} events/s can be read at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=120_000, help="in one run of a contestant that gets them all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="CONTESTANT")
    parser.add_argument("--profile", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="only tell how fast the streams can be read at all")
    given = parser.parse_args()
    # A thousand streams are a thousand open files, here and in each contestant, which inherits the limit.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if given.check:
        uvloop.run(check(given.streams, given.events))
    else:
        uvloop.run(bench(given.only, given.streams, given.events, given.rounds, given.profile))
