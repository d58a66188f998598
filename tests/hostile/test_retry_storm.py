"""SIGKILL, again and again, while every second delivery is refused: nothing lost or out of order, repeats explained."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from arena import SECRET, Arena, arena, endpoint, ledger, program
from arrivals import Arrival, Repeat, complete, counts, flaws, repeats
from npm_receiver import npm_arrivals, npm_receiver
from told_jobs import ToldJobs

PYPI, NPM = ("storm-1", "storm-2"), "storm-npm"
KILLS = 6
JOBS, EVENTS = 5, 8
"""Before each kill; with a wait after every second attempt they take longer than what is left until then."""
LAST_S = 1.2
FAIL = 0.5
RETRY_S = 0.15
CONCURRENCY = 8
UNSETTLED_MAX = 4
"""A lane's events that are accepted one after the other while the journal writes what became of those before."""


def settings(url: str) -> dict[str, Any]:
    """An endpoint that is tried again until it takes an event, and soon."""
    return endpoint(
        url,
        retry_schedule_s=[RETRY_S] * 100,
        retry_after_max_s=2 * RETRY_S,
        probe_wait_s=0.05,
        probe_wait_max_s=0.1,
        concurrency=CONCURRENCY,
    )


def of_round(number: int) -> dict[str, int]:
    return {f"job-{number}-{job}": EVENTS for job in range(JOBS)}


async def kill_again_and_again(place: Arena, dice: Random) -> list[float]:
    """One bridge after the other, each with jobs of its own; when each was killed, in Unix milliseconds."""
    kills_ms = []
    for number in range(KILLS):
        async with place.bridge() as bridge:
            await place.jobs.tell(float("inf"), list(of_round(number)))
            await asyncio.sleep(dice.uniform(0.0, LAST_S))
            bridge.kill()
            kills_ms.append(time.time() * 1000)
            await bridge.wait()
    return kills_ms


def started_ms(log: Path) -> float:
    """When that bridge was there, before it delivered anything: what its predecessor had on its way is over by then."""
    told = (orjson.loads(line) for line in log.read_bytes().splitlines())
    return next(_unix_ms(line["timestamp"]) for line in told if line["event"] == "bridge.started")


def by_bridge(found: list[Repeat], starts_ms: list[float]) -> Counter[float]:
    """What each bridge repeated of what one before it had brought. Raises where one repeated its own."""
    repeated: Counter[float] = Counter()
    for repeat in found:
        reasons = [at_ms for at_ms in starts_ms if repeat.first_ms < at_ms <= repeat.again_ms]
        assert reasons, f"repeated without a kill in between: {repeat}"
        repeated[reasons[-1]] += 1
    return repeated


async def attempts_kept(place: Arena, kills_ms: list[float]) -> int:
    """Check that attempts count on over kills and keep their distance; returns how many deliveries prove that."""
    proofs = 0
    for name in (*PYPI, NPM):
        for delivery in await place.tried(name, 80):
            history = delivery["history"]
            assert delivery["state"] == "delivered", delivery
            assert [one["number"] for one in history] == list(range(1, delivery["attempts"] + 1)), delivery
            for before, after in pairwise(history):
                ended_ms = _unix_ms(before["at"]) + before["duration_s"] * 1000
                assert _unix_ms(after["at"]) - ended_ms >= RETRY_S * 1000 - 5, delivery
                proofs += any(ended_ms < at_ms < _unix_ms(after["at"]) for at_ms in kills_ms)
    return proofs


def _unix_ms(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp() * 1000


@pytest.mark.timeout(150)
async def test_sigkill_in_a_retry_storm_loses_and_reorders_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("STORM_SEED") or Random().randrange(1 << 32))
    print(f"\nSTORM_SEED={seed}")
    jobs = ToldJobs({job: length for number in range(KILLS) for job, length in of_round(number).items()})
    wanted = {name: dict.fromkeys(jobs.jobs, EVENTS) for name in (*PYPI, NPM)}
    async with program(tmp_path, "good_receiver", f"--fail={FAIL}", f"--seed={seed}") as receivers:
        with npm_receiver(tmp_path, SECRET, FAIL) as npm:
            sinks = {name: settings(f"{receivers}/{name}") for name in PYPI} | {NPM: settings(npm)}
            async with arena(tmp_path, jobs, sinks) as place:

                async def arrived() -> tuple[list[Arrival], int]:
                    accepted, refused = await ledger(place.http, receivers)
                    return accepted + npm_arrivals(tmp_path, NPM), refused

                async def settled() -> bool:
                    depths = [sink["depth"] or sink["outstanding"] for sink in (await place.ask("/sinks"))["sinks"]]
                    return not any(depths) and complete((await arrived())[0], wanted)

                kills_ms = await kill_again_and_again(place, Random(seed))
                async with place.bridge():
                    await place.until(settled, "everything has arrived and is settled")
                    kept = await attempts_kept(place, kills_ms)
                arrivals, refused = await arrived()
                place.assert_no_bug()
    found = repeats(arrivals)
    starts_ms = [started_ms(log) for log in place.logs[1:]]
    repeated = by_bridge(found, starts_ms)
    in_flight_max = CONCURRENCY * UNSETTLED_MAX * len(sinks)
    print(
        f"{len(kills_ms)} kills over {dict(counts(arrivals))} accepted and {refused} refused; "
        f"repeated: {len(found)}, by kill {[repeated[at_ms] for at_ms in starts_ms]}, at most {in_flight_max} each; "
        f"schedules kept over a kill: {kept}"
    )
    assert flaws(arrivals, wanted) == []
    assert max(repeated.values(), default=0) <= in_flight_max
    assert kept > 0
