"""A hundred endpoints of one bridge, a dead and a slow one among them: what the others feel of those two."""

from __future__ import annotations

from pathlib import Path

import pytest
from arena import arena, endpoint, ledger, peak_memory_mib, program
from arrivals import Arrival, complete, flaws, percentile
from cable import free_port
from told_jobs import ToldJobs

WELL = 98
TEAMS = 49
"""Each endpoint that is well asks for the jobs of one team, so that two share them."""
JOBS_PER_TEAM, EVENTS = 2, 20
EVENTS_PER_S = 250
WARM, CALM, STORM = PHASES = "warm", "calm", "storm"
"""What jobs' ids begin with. The dead and the slow endpoint ask for the jobs of the storm, and nothing before."""
WORSE_MAX = 3.0
STEP_MS = 150.0
"""What the scheduling of a busy machine adds to a percentile now and then."""


def lengths(phase: str) -> dict[str, int]:
    events = 4 if phase == WARM else EVENTS
    return {f"{phase}-{team:02}-{number}": events for team in range(TEAMS) for number in range(JOBS_PER_TEAM)}


def of_team(jobs: dict[str, int], number: int) -> dict[str, int]:
    """Those that the endpoint of this number asks for."""
    return {job: length for job, length in jobs.items() if job.split("-")[1] == f"{number % TEAMS:02}"}


def told(phase: str, arrivals: list[Arrival]) -> tuple[str, float]:
    """The phase in a line, and its 99th percentile in milliseconds."""
    late_ms = [arrival.late_ms for arrival in arrivals if arrival.job.startswith(phase)]
    p50, p99 = percentile(late_ms, 0.5), percentile(late_ms, 0.99)
    return f"{phase}: {len(late_ms):,} arrivals, p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {max(late_ms):.0f} ms", p99


@pytest.mark.timeout(150)
async def test_a_dead_and_a_slow_endpoint_delay_none_of_the_others(tmp_path: Path) -> None:
    phases = {phase: lengths(phase) for phase in PHASES}
    every = {job: length for jobs in phases.values() for job, length in jobs.items()}
    wanted = {f"well-{number}": of_team(every, number) for number in range(WELL)}
    jobs = ToldJobs(every)
    async with program(tmp_path, "bad_receiver") as bad, program(tmp_path, "good_receiver") as good:
        sinks = {
            f"well-{number}": endpoint(f"{good}/well-{number}", jobs=[f"*-{number % TEAMS:02}-*"])
            for number in range(WELL)
        }
        sinks["dead"] = endpoint(f"http://127.0.0.1:{free_port()}/", jobs=[f"{STORM}-*"], retry_schedule_s=[1] * 9)
        sinks["slow"] = endpoint(f"{bad}/slow", jobs=[f"{STORM}-*"])
        async with arena(tmp_path, jobs, sinks) as place, place.bridge() as bridge:
            idle_mib = peak_memory_mib(bridge)
            for phase, said in phases.items():

                async def arrived(said: dict[str, int] = said) -> bool:
                    of_phase = {f"well-{number}": of_team(said, number) for number in range(WELL)}
                    return complete((await ledger(place.http, good))[0], of_phase)

                await jobs.tell(EVENTS_PER_S, list(said))
                await place.until(arrived, f"all of the {phase} has arrived")
            arrivals, _ = await ledger(place.http, good)
            suffered = {name: await place.tried(name, 1000) for name in ("dead", "slow")}
            peak_mib = peak_memory_mib(bridge)
        place.assert_no_bug()
    (calm, calm_ms), (storm, storm_ms) = told(CALM, arrivals), told(STORM, arrivals)
    print(f"\n{len(sinks)} endpoints, {sum(every.values()):,} events; {calm}; with a dead and a slow one: {storm}")
    print(f"memory {idle_mib:.0f} MiB at rest, {peak_mib:.0f} MiB at most")
    assert flaws(arrivals, wanted) == []
    assert {one["state"] for one in suffered["dead"]} <= {"retrying", "dead"}
    assert {one["reason"] for delivery in suffered["dead"] for one in delivery["history"]} == {"network"}
    assert "delivered" in {one["state"] for one in suffered["slow"]}
    assert storm_ms <= WORSE_MAX * calm_ms + STEP_MS
