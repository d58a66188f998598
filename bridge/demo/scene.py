"""How large a demonstration is, and the configuration that the bridge is given for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = "auvy-demo"
TOPIC = "jobs.events"
TOKEN_VARIABLE = "DEMO_CONTROL_TOKEN"  # noqa: S105 - the name of a variable
KEY_VARIABLE = "AUVY_API_KEY"
CONFIGURED = ("job_1", "job_2")

_DEFAULT_S = 20.0
_HOLD_S = 2.5


@dataclass(frozen=True, slots=True)
class Scene:
    """Sizes. Emission lasts about `duration_s`; jobs appear over the first part of it."""

    duration_s: float
    seed: int
    events_per_s: float = 12.0

    @classmethod
    def of(cls, duration_s: float | None, seed: int) -> Scene:
        """The scene for a wished duration; the shortest that shows anything is four seconds."""
        return cls(max(4.0, _DEFAULT_S if duration_s is None else duration_s), seed)

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
        """How many appear by themselves. The limit keeps the embedded broker's single file small."""
        return min(800, max(9, round(self.duration_s * 0.8)))

    @property
    def handed_in(self) -> int:
        """How many more are started by us and handed in through the bridge's API."""
        return 3

    @property
    def deadline_s(self) -> float:
        """When everything must be delivered, from the start."""
        return 2 * self.duration_s + 60

    def simulator(self) -> list[str]:
        """The simulator's arguments."""
        numbers = {
            "jobs": self.jobs,
            "at-once": len(CONFIGURED) + 1,
            "spread-s": self.spread_s,
            "seed": self.seed,
            "job-s": self.job_s,
            "events-per-s": self.events_per_s,
            "hold-s": _HOLD_S,
        }
        return ["bridge.demo.simulators.auvy", "--faults", *(f"--{name}={value}" for name, value in numbers.items())]

    def receiver(self) -> list[str]:
        """The receiver's arguments."""
        return [
            "bridge.demo.receiver",
            f"--seed={self.seed}",
            "--server-error=0.02",
            "--rate-limit=0.005",
            "--slow=0.01",
        ]


def configuration(
    directory: Path, *, simulator: str, receiver: str, bootstrap_servers: str, control_port: int
) -> dict[str, Any]:
    """The bridge's settings. Patience is cut to seconds, so that trouble heals while somebody watches."""
    return {
        "sources": {
            SOURCE: {
                "provider": "auvy",
                "base_url": simulator,
                "token": f"${{{KEY_VARIABLE}}}",
                "jobs": list(CONFIGURED),
                "discover": {"every_s": 1},
                "discover_statuses": [],  # ended ones too: a job may begin and end between two listings
                "requests_per_minute": 60_000,
                "idle_timeout_s": 2.0,
                "status_interval_s": 0.5,
                "end_quiet_s": 1.0,
            }
        },
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
