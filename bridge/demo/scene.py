"""How large a demonstration is, and the configuration that the bridge is given for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.demo.cast import AUVY, KEY, Cast

TOPIC = "jobs.events"
TOKEN_VARIABLE = "DEMO_CONTROL_TOKEN"  # noqa: S105 - the name of a variable

_DEFAULT_S = 20.0
_HOLD_S = 2.5


@dataclass(frozen=True, slots=True)
class Scene:
    """Sizes. Emission lasts about `duration_s`; jobs appear over the first part of it."""

    duration_s: float
    seed: int
    casts: tuple[Cast, ...] = (AUVY,)
    events_per_s: float = 12.0

    @classmethod
    def of(cls, duration_s: float | None, seed: int, casts: tuple[Cast, ...] = (AUVY,)) -> Scene:
        """The scene for a wished duration; the shortest that shows anything is four seconds."""
        return cls(max(4.0, _DEFAULT_S if duration_s is None else duration_s), seed, casts)

    @property
    def job_s(self) -> float:
        """How long one job goes on."""
        return min(6.0, self.duration_s * 0.4)

    @property
    def spread_s(self) -> float:
        """For how long new jobs keep appearing."""
        return max(0.5, self.duration_s - self.job_s - _HOLD_S)

    @property
    def jobs(self) -> int:
        """How many appear by themselves at each source. The limit keeps the embedded broker's single file small."""
        return min(800 // len(self.casts), max(9, round(self.duration_s * 0.8)))

    @property
    def started(self) -> int:
        """How many more we start where a source lets us."""
        return 3

    @property
    def deadline_s(self) -> float:
        """When everything must be delivered, from the start."""
        return 2 * self.duration_s + 60

    def simulator(self, cast: Cast) -> list[str]:
        """The arguments of a source's simulator."""
        options = {
            "api-key": KEY,
            "jobs": self.jobs,
            "at-once": 3,
            "spread-s": self.spread_s,
            "seed": self.seed,
            "job-s": self.job_s,
            "events-per-s": self.events_per_s,
            "hold-s": _HOLD_S,
            **cast.options,
        }
        module = f"bridge.demo.simulators.{cast.simulator}"
        return [module, "--faults", *(f"--{name}={value}" for name, value in options.items())]

    def receiver(self) -> list[str]:
        """The receiver's arguments."""
        return [
            "bridge.demo.receiver",
            f"--seed={self.seed}",
            "--server-error=0.02",
            "--rate-limit=0.005",
            "--slow=0.01",
        ]


def source(cast: Cast, simulator: str) -> dict[str, Any]:
    """One source's settings. Patience is cut to seconds, so that trouble heals while somebody watches."""
    impatient = {
        "requests_per_minute": 60_000,
        "idle_timeout_s": 2.0,
        "status_interval_s": 0.5,
        "end_quiet_s": 1.0,
    }
    return impatient | cast.settings(simulator)


def configuration(
    directory: Path,
    *,
    sources: Mapping[str, dict[str, Any]],
    receiver: str,
    bootstrap_servers: str,
    control_port: int,
) -> dict[str, Any]:
    """The bridge's settings."""
    return {
        "sources": dict(sources),
        "sinks": {
            "kafka": {
                "kind": "kafka",
                "bootstrap_servers": bootstrap_servers,
                "topic": TOPIC,
                "create_topics": True,
                "replication_factor": 1,
            },
            "receiver": {
                "kind": "webhook",
                "url": f"{receiver}/hook",
                "secret": "${DEMO_WEBHOOK_SECRET}",
                "allow_http": True,
                "allow_private_networks": True,
                "concurrency": 32,
                "retry_schedule_s": [0.1, 0.3, 1.0, 1.0, 2.0, 2.0, 5.0, 5.0, 5.0],
            },
        },
        "journal": {"url": f"sqlite:///{directory / 'journal.db'}"},
        "control": {"host": "127.0.0.1", "port": control_port, "token": f"${{{TOKEN_VARIABLE}}}"},
        "supervision": {"backoff_base_s": 0.2, "backoff_cap_s": 2.0, "floor_max_s": 2.0},
    }
