"""Bridge and broker killed again and again under a known history of events, and the topic then held against it.

`make chaos`: 50 kills over 200,000 events, some ten minutes. `--seed` repeats the plan of an earlier run; what the
machine makes of it differs. A run that fails keeps its folder: logs, configuration, journals, the broker's data.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from brokers import committed, written
from monkey import KILLS, Monkey, plan
from numbered_jobs import JobApi
from stage import TOPIC, Stage, stage
from verdict import Told, judge, recovery_table

from bridge.journal.stores.sqlite import open_journal

_SOURCES = ["north", "east", "south"]
_JOBS_AT_ONCE = 12
_SHOWN = 10


class Chaos(NamedTuple):
    """How much of it. Events and kills are spread over `seconds`; a slow machine takes longer and tells more events."""

    kills: int
    events: int
    seconds: float
    seed: int


async def run_chaos(chaos: Chaos, directory: Path, say: Callable[[str], None]) -> None:
    """Do it all. Raises `AssertionError` with the seed, the folder and the first of what is wrong."""
    say(f"seed {chaos.seed}: {chaos.kills} kills over {chaos.events:,} events in {directory}")
    dice = Random(chaos.seed)
    api = JobApi(_SOURCES, _JOBS_AT_ONCE, chaos.events / chaos.seconds, dice)
    strikes = plan(chaos.kills, chaos.seconds, Random(chaos.seed))
    try:
        async with stage(directory, api) as on:
            began_s = time.monotonic()

            def tell(what: str) -> None:
                passed_s, kills = time.monotonic() - began_s, f"{monkey.kills}/{chaos.kills} kills"
                visible = f"{api.said:,} events said, {len(on.tail.arrivals):,} records visible"
                say(f"{passed_s:6.1f} s  {kills}  {visible}  {what}")

            monkey = Monkey(on, tell)
            await on.flows()
            await monkey.run(strikes)
            while api.said < chaos.events:  # noqa: ASYNC110 - no deadline of ours
                await asyncio.sleep(0.1)
            api.close()
            tell("all is said")
            await on.until(lambda: on.tail.ended >= api.jobs.keys(), "every job's end is in the topic")
            tell("all is delivered")
            flaws = await _flaws(on, monkey, say)
    except BaseException:
        say(f"failed with seed {chaos.seed}; everything is kept in {directory}")
        raise
    assert not flaws, "\n".join([f"seed {chaos.seed}, see {directory}", *flaws[:_SHOWN], f"{len(flaws)} flaws"])


async def _flaws(on: Stage, monkey: Monkey, say: Callable[[str], None]) -> list[str]:
    """The verdict, told and returned with whatever else is wrong."""
    flaws = [f"{name} {value:g}" for name, value in (await on.settled()).items() if "_bugs_total" in name and value]
    if code := await on.end_bridge():
        flaws.append(f"the last bridge ended with {code}")
    async with open_journal(on.bridge.folder / "journal.db") as journal:
        kept = await journal.health()
    servers = on.broker.bootstrap_servers
    records = [Told.of(record) for record in await committed(servers, TOPIC)]
    hidden = len(await written(servers, TOPIC)) - len(records)
    verdict = judge(on.api.history, records)

    kills = ", ".join(f"{sum(blow.kind == kind for blow in monkey.struck)} {kind}" for kind in KILLS)
    say(f"{monkey.kills} kills: {kills}")
    say(recovery_table(monkey.struck, on.tail.arrivals))
    say(f"longest from written to visible: {max(seen_s - taken_s for seen_s, taken_s in on.tail.arrivals):.1f} s")
    say(f"{len(on.api.jobs)} jobs, {on.api.said:,} events said, {len(records):,} records committed, {hidden:,} hidden")
    say(str(verdict))

    flaws += verdict.flaws
    flaws += [flaw for bridge in on.bridges for flaw in bridge.flaws()]
    if kept.entries != len(records):
        flaws.append(f"the journal holds {kept.entries} entries, the topic {len(records)}")
    if vanished := on.tail.places - {record.place for record in records}:
        flaws.append(f"{len(vanished)} records were visible and are gone, such as {min(vanished)}")
    if not hidden:
        flaws.append("no record was ever aborted: the commits that were lost proved nothing")
    return flaws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of bridge and broker together, at least 6")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--seed", type=int, default=Random().randrange(1 << 32))
    chaos = Chaos(**vars(parser.parse_args()))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the reader's own troubles are expected
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        asyncio.run(run_chaos(chaos, directory, lambda line: print(line, flush=True)))
    except AssertionError as error:
        sys.exit(f"FAILED: {error}")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
