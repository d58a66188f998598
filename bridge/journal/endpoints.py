"""Endpoints that are made and changed while the bridge runs: the side of the journal where they are kept.

The journal knows nothing of what their settings mean, and never holds a secret that is not sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class EndpointState(StrEnum):
    """What is meant to happen at an endpoint."""

    ACTIVE = "active"
    DISABLED = "disabled"
    """Nothing is sent; what it does not get is kept for it. `reason` says why."""
    REMOVED = "removed"
    """Gone for good. The name is kept, so that nobody else gets what was meant for it."""


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """One endpoint, as the journal remembers it."""

    name: str
    state: EndpointState
    reason: str | None
    settings: bytes
    """JSON, without any secret."""
    sealed: bytes = field(repr=False)
    """Its secrets, encrypted by whoever made it."""
    created_ms: int
    updated_ms: int
    revision: int
    """Rises over all endpoints whenever one of them is made or changed."""


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What an endpoint is to become. None leaves a part as it is."""

    settings: bytes | None = None
    sealed: bytes | None = field(default=None, repr=False)
    state: EndpointState | None = None
    """With it comes `reason`, also where that is None."""
    reason: str | None = None


class EndpointJournal(Protocol):
    """Which endpoints there are. Used by the control API and the roster of endpoints."""

    async def page(self, after_name: str = "", limit: int = 100) -> Sequence[EndpointRecord]:
        """Endpoints by rising name, without removed ones."""

    async def record(self, name: str) -> EndpointRecord | None:
        """One endpoint; None where it never was or is removed."""

    async def changed(self, after_revision: int, limit: int = 1000) -> Sequence[EndpointRecord]:
        """Records with a higher revision, by rising revision, removed ones too; waits until there is at least one."""

    async def add(self, name: str, settings: bytes, sealed: bytes) -> EndpointRecord:
        """A new endpoint. It consumes from the journal's present end on, registered in the same transaction.

        Raises `Rejected` where any consumer has or had that name.
        """

    async def change(self, name: str, change: EndpointChange, *, revision: int | None = None) -> EndpointRecord:
        """The endpoint as it is afterwards; its place in the journal stays.

        Raises `Rejected` where there is none, or where it no longer is at that `revision`: somebody else was first.
        """

    async def remove(self, name: str) -> bool:
        """Forget its secrets and let go of what was kept for it; False where there is no such endpoint."""
