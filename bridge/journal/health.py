"""How endpoints are: the words for it, and the side of the journal that remembers it over restarts.

Written only when an endpoint's health changes, never for an attempt: while all is well it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class HealthState(StrEnum):
    """How an endpoint is, by all its attempts."""

    WELL = "well"
    """It may have begun to refuse what it is sent, but not for long enough to tell anybody."""
    FAILING = "failing"
    """Nothing but failure for a while; or enabled after it was disabled, and nothing accepted since."""
    DISABLED = "disabled"
    """Nothing is sent until a person enables it."""


class Health(NamedTuple):
    """One endpoint's health. All times are Unix milliseconds."""

    state: HealthState = HealthState.WELL
    failing_since_ms: int = 0
    """The first failure after the last success, or when a person enabled it since; 0 when it does not fail."""
    last_success_ms: int = 0
    """The success that ended its last failing; 0 before it."""
    reason: str | None = None
    """Of what failed it: an error's word."""
    revision: int = 0
    """Of its last turn; 0 before the first. The journal's own: one that is noted does not change it."""


class Turn(StrEnum):
    """A change of an endpoint's state that operators are told of."""

    FAILING = "endpoint.failing"
    DISABLED = "endpoint.disabled"
    RECOVERED = "endpoint.recovered"


class HealthTurn(NamedTuple):
    """One change of one endpoint's state."""

    revision: int
    """Rises over all endpoints, and is never given twice."""
    endpoint: str
    turn: Turn
    at_ms: int
    """Unix milliseconds at which it was journalled."""
    since_ms: int
    """Unix milliseconds of the first failure of this time of failing."""
    reason: str | None
    """The word of the error that led to it; None where it recovered."""


class HealthJournal(Protocol):
    """Health by consumer, and what operators were told. Every method raises `Temporary` as the journal does."""

    async def of(self, consumer: str) -> Health:
        """The health of one consumer; that of a new one where nothing was ever noted."""

    async def note(self, consumer: str, changes: Sequence[Health]) -> None:
        """Note what its health became, oldest first. Each that changes the state is a turn. A disabled one stays so:
        attempts that were under way when it was disabled change nothing."""

    async def enable(self, consumer: str) -> bool:
        """A disabled one counts as failing from now on; False, and nothing happens, where it is not disabled."""

    async def turns(self, after_revision: int, limit: int = 100) -> Sequence[HealthTurn]:
        """The next turns of all consumers, by rising revision; waits until there is one.

        The last 10,000 are kept: an operator who is away for longer misses the oldest.
        """

    async def told(self, operator: str) -> int:
        """Up to which revision the operator was told; one who was never asked for begins with what comes now."""

    async def tell(self, operator: str, revision: int) -> None:
        """The operator knows of everything up to that revision."""
