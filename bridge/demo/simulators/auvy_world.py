"""Which AUVY jobs there are in a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from bridge.demo.simulators import world
from bridge.demo.simulators.auvy_job import PLOTS, SimulatedJob, life


@dataclass(frozen=True, slots=True)
class World(world.World):
    """What is simulated. An `after` that is no longer retained skips what is gone, or is refused if `strict_after`."""

    strict_after: bool = False
    unready_s: float = 0.0
    """How long a new job's stream answers 404."""
    api_key: str = "ak_live_demo"
    share_token: str = "st_demo"  # noqa: S105 - a toy's token


class Population(world.Population[World, SimulatedJob]):
    """Its jobs. Without the wish `streaming` a job's plot says whether it streams."""

    def bear(self, number: int, dice: Random, **wishes: Any) -> SimulatedJob:
        plot = PLOTS[(number - 1) % len(PLOTS)]
        return SimulatedJob(
            f"job_{number}",
            life(plot, self.world.pace, dice),
            epoch_ms=self.world.epoch_ms + 137 * number,
            lag_s=self.world.pace.status_lag_s,
            streaming=wishes.get("streaming", plot != "silent"),
            closes=number % 2 == 0,
        )
