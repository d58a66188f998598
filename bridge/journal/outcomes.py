"""What became of events at their consumers: the words for it, and the side of the journal where it is asked for.

Every pair of an event and a consumer that was there before it has a state, written down or implied. A log's settled
entries count as delivered; an endpoint settles every delivery with an outcome, so what it settled without one was none
of its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class DeliveryState(StrEnum):
    """What became of one event at one consumer."""

    PENDING = "pending"
    """Not reached yet. Implied, never written."""
    DELIVERED = "delivered"
    RETRYING = "retrying"
    """Refused for now; due again at `due_ms`. The head of its lane."""
    HELD = "held"
    """Waits behind a retrying event of the same job, or was redriven and has not been tried since."""
    FILTERED = "filtered"
    EXPIRED = "expired"
    DEAD = "dead"
    """Finally refused: a dead letter, kept until somebody redrives or drops it."""
    DROPPED = "dropped"
    """A person gave it up."""


NEVER_GOT = frozenset({DeliveryState.DEAD, DeliveryState.EXPIRED, DeliveryState.DROPPED})
"""What was meant for a consumer and is not going to reach it."""
REDRIVABLE = NEVER_GOT | {DeliveryState.DELIVERED, DeliveryState.FILTERED, DeliveryState.RETRYING}
DROPPABLE = frozenset({DeliveryState.DEAD, DeliveryState.RETRYING, DeliveryState.HELD})


class Outcome(NamedTuple):
    """What became of one entry at one consumer, to be recorded with the consumer's move."""

    position: int
    subscription: int
    state: DeliveryState
    attempts: int = 0
    first_ms: int = 0
    """Unix milliseconds of the first attempt; 0 before it."""
    due_ms: int = 0
    """Unix milliseconds of the next attempt, while retrying; or of the first one after a redrive at a set pace."""
    status: int | None = None
    """The receiver's last HTTP status, if it gave one."""
    detail: str | None = None
    """Why, in one line."""
    redriven: int = 0
    """How often a person had it delivered anew. The journal counts; an outcome that is recorded does not change it."""
    spared: int = 0
    """Those of the attempts that the endpoint's schedule does not count."""
    previous: int | None = None
    """`sequence` of the job's event before this one that was meant for the consumer; 0: there is none, None: not known
    here. What was once recorded stays."""


class Attempt(NamedTuple):
    """One try at an endpoint, whatever its end."""

    position: int
    subscription: int
    number: int
    """From 1, and from 1 again after a redrive."""
    at_ms: int
    """Unix milliseconds at which it began."""
    duration_ms: int
    status: int | None
    """The HTTP status, if there was an answer."""
    reason: str | None
    """The error's word; None where it was delivered."""
    address: str | None
    """Where it was dialled, if it came to that."""
    answer: str
    """The first bytes of the answer, as text."""
    detail: str | None
    """The error's sentence."""


class Place(NamedTuple):
    """Where an entry stands in the journal."""

    partition: int
    position: int

    def __str__(self) -> str:
        return f"{self.partition}-{self.position}"


BEGINNING = Place(0, 0)
"""Before the first entry."""


class Delivery(NamedTuple):
    """One event at one consumer, with what tells people which event it is."""

    place: Place
    subscription: int
    sequence: int
    recorded_ms: int
    event_id: str
    source: str
    job_id: str
    type: str
    consumer: str
    state: DeliveryState | None
    """None where the consumer came later than the event."""
    since_ms: int
    """Unix milliseconds at which it came to this state; 0 where it is implied."""
    attempts: int
    first_ms: int
    due_ms: int
    status: int | None
    detail: str | None
    redriven: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Deliveries of one consumer. Every condition that is set must hold."""

    consumer: str
    states: frozenset[DeliveryState]
    since_ms: int = 0
    """Journalled then or later."""
    source: str | None = None
    job_id: str | None = None
    type: str | None = None
    """A type, or a pattern such as `job.*`."""
    place: Place | None = None
    """Just the delivery of this one entry."""


class Page(NamedTuple):
    """A part of a selection, in the journal's order. May be empty although more follows."""

    deliveries: Sequence[Delivery]
    following: Place | None
    """Where to go on; None at the end."""


class OutcomeJournal(Protocol):
    """What became of every event, and the hand that changes it. Reads and changes go in small steps: none of them
    keeps delivery waiting, and one that is cut off may simply be repeated."""

    async def page(self, selection: Selection, after: Place = BEGINNING, limit: int = 100) -> Page:
        """Up to `limit` deliveries behind that place. Looks through a bounded number of entries."""

    async def count(self, selection: Selection) -> dict[DeliveryState, int]:
        """How many deliveries are selected, by state; looks through all entries that may match."""

    async def attempts(self, consumer: str, place: Place) -> Sequence[Attempt]:
        """The attempts still kept of one delivery, in order."""

    async def trail(self, subscription: int, after_sequence: int = 0, limit: int = 100) -> Sequence[Delivery]:
        """What became of a job's next `limit` events at every registered consumer, by rising sequence."""

    async def redrive(self, selection: Selection, *, per_second: float | None = None, dry_run: bool = False) -> int:
        """Have the selected ones delivered anew, among `REDRIVABLE`: held, no attempt counted, and whoever waits for
        `redriven` wakes. Returns how many. Raises `Rejected` for a consumer that is a log: it only goes forward.

        They are due at once or, `per_second`, one after the other in the journal's order, the first of them now.
        """

    async def drop(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Give up the selected ones, among `DROPPABLE`; they no longer keep their entries. Returns how many."""
