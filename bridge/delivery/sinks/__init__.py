"""The catalogue of sinks: ours by name, other packages' through the entry point group `jobbridge.sinks`."""

from __future__ import annotations

from typing import Any

from bridge.delivery.sinks import kafka, webhook
from bridge.plug import Plug
from bridge.plug import catalogue as _catalogue


def catalogue() -> dict[str, Plug[Any]]:
    """Every sink plug by its kind. Raises `Fatal` when an installed one cannot be loaded."""
    return _catalogue([kafka.PLUG, webhook.PLUG], "jobbridge.sinks")
