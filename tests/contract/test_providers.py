"""What following a job means, for every provider alike: whatever happens on the way, its whole life is told once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bridge.demo.simulators.faults import FaultRates
from contract.following import AnySimulator, Case, Following, assert_whole, every_provider, following

ROUGH = FaultRates(
    cut=0.4, stall=0.1, eof=0.25, rate_limit=0.01, server_error=0.06, unavailable=0.06, bad_gateway=0.06, slow=0.01
)
JOBS = 8
ODD = ("a/b c", "läuft·中文✓", "50%25?x=1#y&z;")


async def follow_all(followed: Following, simulator: AnySimulator) -> None:
    """Hand in what the bridge does not find by itself, and wait until every job is followed to its end."""
    jobs, prefix = [*simulator.population.jobs], followed.case.cast.hands_in
    if prefix is not None:
        await followed.hand_in(*(job for job in jobs if job.startswith(prefix)))
    await followed.until(*jobs)


@every_provider
async def test_a_jobs_whole_life_is_told_once_and_in_order(case: Case, tmp_path: Path) -> None:
    simulator = case.simulator(JOBS)
    async with simulator.served() as url, following(case, url, tmp_path) as followed:
        await follow_all(followed, simulator)
        assert_whole(followed, await followed.entries(), simulator)


@every_provider
async def test_a_provider_that_misbehaves_changes_nothing_of_it(case: Case, tmp_path: Path) -> None:
    simulator = case.simulator(JOBS, ROUGH)
    async with simulator.served() as url, following(case, url, tmp_path) as followed:
        await follow_all(followed, simulator)
        assert_whole(followed, await followed.entries(), simulator)
        assert simulator.population.faults.struck.total() > 0


@every_provider
async def test_a_bridge_that_was_away_goes_on_where_it_was(case: Case, tmp_path: Path) -> None:
    simulator = case.simulator(JOBS)
    async with simulator.served() as url:
        async with following(case, url, tmp_path) as followed:
            if case.cast.hands_in is not None:
                await followed.hand_in(*simulator.population.jobs)
            await followed.grown_to(2 * JOBS + 4)
            before = await followed.entries()
        living = [job for job in simulator.population.jobs.values() if not job.over]
        assert living
        await asyncio.gather(*(job.news(1.0) for job in living))
        async with following(case, url, tmp_path) as followed:
            await follow_all(followed, simulator)
            entries = await followed.entries()
            assert entries[: len(before)] == before
            assert_whole(followed, entries, simulator)


@every_provider
async def test_a_job_id_may_hold_anything_that_can_be_addressed(case: Case, tmp_path: Path) -> None:
    simulator = case.simulator(len(ODD))
    async with simulator.served() as url:
        jobs = [
            rename(simulator, job, case.cast.source, odd)
            for job, odd in zip([*simulator.population.jobs], ODD, strict=True)
        ]
        async with following(case, url, tmp_path, discover=None, jobs=None) as followed:
            await followed.hand_in(*jobs)
            await followed.until(*jobs)
            entries = await followed.entries()
    assert {entry.subject for entry in entries} == {*jobs}
    assert_whole(followed, entries, simulator)


def rename(simulator: AnySimulator, job: str, source: str, odd: str) -> str:
    """Call a job of the simulator so, as far as the API's own ids have room for it; returns its whole id."""
    part = odd.replace("/", "-")
    kind = job.rpartition("_")[0]
    odd_ids = {"archastro": f"{kind}_{odd}", "langgraph": f"{part}/{odd}", "fal": f"{part}/model/{part}"}
    renamed = simulator.population.jobs.pop(job)
    renamed.id = odd_ids.get(source, odd)
    simulator.population.jobs[renamed.id] = renamed
    return str(renamed.id)
