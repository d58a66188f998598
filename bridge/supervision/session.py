"""The shape of what is supervised. Both halves fit it without importing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bridge.errors import BridgeError


class Session(Protocol):
    """Something that runs until it raises, or returns because there is nothing left to do."""

    @property
    def name(self) -> str:
        """Unique among all sessions."""

    @property
    def group(self) -> str:
        """What fails alike: a source's or a sink's name. A `Fatal` error of one session parks its whole group."""

    async def run(self, useful: Callable[[], None]) -> None:
        """Run. Calls `useful` whenever something useful came through, which resets the backoff.

        Raises `Temporary` to be run again after a wait, `Rejected` to be parked, `Fatal` to have its group parked.
        """

    async def park(self, error: BridgeError) -> None:
        """Leave a durable note that this session stops until somebody resumes it, and why."""
