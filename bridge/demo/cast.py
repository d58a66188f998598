"""Who can play in a demonstration: each source, the simulator behind it, and how its jobs come to the bridge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY_VARIABLE = "DEMO_API_KEY"
KEY = "key_demo:secret_demo"
"""What every simulator takes for a key."""

_KEY = f"${{{KEY_VARIABLE}}}"
_PACKED = Path(__file__).with_name("descriptions")
_DESCRIPTIONS = _PACKED if _PACKED.is_dir() else Path(__file__).parents[2] / "config" / "providers"
"""The descriptions of APIs, as a wheel brings them or a checkout holds them."""


@dataclass(frozen=True, slots=True)
class Cast:
    """One source of a demonstration."""

    source: str
    simulator: str
    """The module that plays the API."""
    settings: Callable[[str], dict[str, Any]]
    """What the source is configured with, given the simulator's address."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Of the simulator, beside how large the scene is."""
    hands_in: str | None = None
    """How the ids begin of the jobs that only we can tell the bridge of; None where it finds all by itself."""
    starts: tuple[str, Mapping[str, Any]] | None = None
    """The route and the body by which we start more jobs, to hand them in at once."""


def _auvy(url: str) -> dict[str, Any]:
    return {
        "provider": "auvy",
        "base_url": url,
        "token": _KEY,
        "jobs": ["job_1", "job_2"],
        "discover": {"every_s": 1},
        "discover_statuses": [],  # ended ones too: a job may begin and end between two listings
    }


def _tenfive(url: str) -> dict[str, Any]:
    return {"provider": "tenfive", "base_url": url, "token": _KEY}


def _flowrelay(url: str) -> dict[str, Any]:
    return {
        "provider": "flowrelay",
        "base_url": f"{url}/api/v1",
        "token": _KEY,
        "requests_per_minute": 240,  # the simulated minute is short
        "status_interval_s": 1.0,
    }


def _archastro(url: str) -> dict[str, Any]:
    return {
        "provider": "archastro",
        "base_url": url,
        "api_key": _KEY,
        "discover": {"every_s": 1},
        "discover_statuses": [],
    }


def _described(api: str, scheme: str = "Bearer ", header: str = "Authorization", **more: Any) -> Cast:
    def settings(url: str) -> dict[str, Any]:
        own = {name: f"{url}{value}" if name.endswith("_url") else value for name, value in more.items()}
        api_file = {"file": str(_DESCRIPTIONS / f"{api}.yaml")}
        return {"provider": "sse", "api": api_file, "base_url": url, "headers": {header: f"{scheme}{_KEY}"}, **own}

    found = "discover" in more
    return Cast(api, "described", settings, options={"api": api}, hands_in=None if found else "")


AUVY = Cast("auvy", "auvy", _auvy, starts=("/v1/jobs", {"pathway_id": "pw_demo", "stream": True}))
EVERYBODY = (
    AUVY,
    Cast("tenfive", "tenfive", _tenfive, hands_in=""),
    Cast("flowrelay", "flowrelay", _flowrelay, options={"minute-s": 10}, hands_in=""),
    Cast("archastro", "archastro", _archastro, hands_in="automation_run:"),
    _described("openai"),
    _described("langgraph", scheme="", header="x-api-key"),
    _described("replicate", stream_base_url="/streams", discover={"every_s": 1}),
    _described("fal", scheme="Key "),
)
"""The four that have a plug of their own and the four that are described."""
