"""The catalogue of job APIs: ours by name, other packages' through the entry point group `jobbridge.providers`."""

from __future__ import annotations

from typing import Any

from bridge.intake.providers import archastro, auvy, described, flowrelay, tenfive
from bridge.plug import Plug
from bridge.plug import catalogue as _catalogue


def catalogue() -> dict[str, Plug[Any]]:
    """Every provider plug by its kind. Raises `Fatal` when an installed one cannot be loaded."""
    return _catalogue(
        [archastro.PLUG, auvy.PLUG, described.POLL, described.SSE, flowrelay.PLUG, tenfive.PLUG], "jobbridge.providers"
    )
