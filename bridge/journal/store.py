"""The seam of the journal, seen from its sides: intake writes, delivery reads and settles, control looks.

Every method is safe to call from many tasks at once. What a method has returned from is durable. `Temporary` is
raised when the disk or database cannot take a write now; nothing of the call has then happened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from bridge.event import Cursor, JobEvent, JobKey
from bridge.journal.endpoints import EndpointJournal
from bridge.journal.health import HealthJournal
from bridge.journal.outcomes import Attempt, DeliveryState, Outcome, OutcomeJournal

__all__ = ["Attempt", "DeliveryState", "Outcome"]  # the words of another file that the seam below is told in


class SubscriptionState(StrEnum):
    """What we mean to do about a job. The supervisor's moment-to-moment state is another matter."""

    ACTIVE = "active"
    PAUSED = "paused"
    """A person stopped it; a person may resume it."""
    PARKED = "parked"
    """It cannot go on by itself; `reason` says why. A person may resume it."""
    ENDED = "ended"
    """The job is over and its terminal event journalled."""
    REMOVED = "removed"
    """A person took it away. Kept, so that discovery does not bring it back."""


WISHES = frozenset({"api", "commands"})
"""Origins that stand for somebody's wish to have just this job followed."""


@dataclass(frozen=True, slots=True)
class SubscriptionRecord:
    """Our following of one job, as the journal remembers it."""

    id: int
    key: JobKey
    partition: int
    state: SubscriptionState
    reason: str | None
    cursor: Cursor | None
    memory: bytes
    """What intake knows about the job, in intake's own encoding. Empty at first."""
    sequence: int
    """The `sequence` of its last journalled event; 0 before the first."""
    origin: str
    """Who asked for it: `config`, `discovery`, `api` or `commands`."""
    created_ms: int
    updated_ms: int
    revision: int
    """Rises over all subscriptions whenever one of them is made or changes its state."""


class Checkpoint(NamedTuple):
    """What moves together with a subscription's events, in their transaction."""

    cursor: Cursor | None
    memory: bytes
    ended: bool = False
    """True with the terminal event: the subscription's state becomes `ended`."""


class Entry(NamedTuple):
    """One event in the journal. Everything a sink needs to put it on its wire without decoding `data`."""

    partition: int
    position: int
    subscription: int
    sequence: int
    """Rises by one per job, in the order journalled: a receiver sees gaps by it."""
    recorded_ms: int
    """Unix time in milliseconds at which it was journalled."""
    id: str
    source: str
    subject: str
    type: str
    time: str | None
    traceparent: str | None
    data: bytes

    @property
    def job_key(self) -> str:
        """The key of order and of Kafka partitioning."""
        return f"{self.source}/{self.subject}"


class Outstanding(NamedTuple):
    """An entry that a consumer has passed but not finished: its outcome so far and the entry itself."""

    outcome: Outcome
    entry: Entry


class SubscriptionJournal(Protocol):
    """Which jobs are followed. Used by discovery, the control API and the roster."""

    async def follow(self, keys: Sequence[JobKey], origin: str) -> Sequence[tuple[SubscriptionRecord, bool]]:
        """Make sure each job has a subscription; True beside those that are new.

        An existing one is left as it is, a removed one too unless the origin is among `WISHES`: that revives it.
        """

    async def subscription(self, key: JobKey) -> SubscriptionRecord | None:
        """The record of one job, if it was ever followed."""

    async def subscriptions(
        self,
        *,
        after_id: int = 0,
        limit: int = 100,
        source: str | None = None,
        state: SubscriptionState | None = None,
    ) -> Sequence[SubscriptionRecord]:
        """A page of records by rising id."""

    async def changed(self, after_revision: int, limit: int = 1000) -> Sequence[SubscriptionRecord]:
        """Records with a higher revision, by rising revision; waits until there is at least one."""

    async def steer(
        self, key: JobKey, state: SubscriptionState, reason: str | None = None
    ) -> SubscriptionRecord | None:
        """Set a subscription's state and reason; None when there is no such subscription.

        An `ended` subscription stays ended unless it is removed.
        """


class IntakeJournal(SubscriptionJournal, Protocol):
    """What intake sees beyond the subscriptions themselves."""

    async def append(
        self, subscription: SubscriptionRecord, events: Sequence[JobEvent], checkpoint: Checkpoint | None
    ) -> int:
        """Journal the events in order and move the cursor, in one transaction; returns how many were new.

        Without a checkpoint cursor and memory stay as they are: for events from elsewhere than the job's stream.

        An event whose (source, id) is there already is dropped. Waits while the journal is over its high-water
        mark, so that a reader who awaits this stops reading. Events may be empty: then only the checkpoint moves.
        """


class DeliveryJournal(Protocol):
    """What delivery sees. A consumer is one sink instance; its name is its identity over restarts."""

    @property
    def partitions(self) -> int:
        """How many partitions the journal has; they are numbered from 0."""

    @property
    def endpoint_health(self) -> HealthJournal:
        """How every endpoint is, by all its attempts."""

    async def register(self, consumers: Sequence[str], endpoints: Collection[str] = ()) -> None:
        """Declare who consumes, and which of them are endpoints. A new consumer starts at the end of the journal; one
        that is no longer named stops holding back retention but keeps its place in case it returns. Endpoints that
        the journal keeps itself consume without being named."""

    async def position(self, consumer: str, partition: int) -> int:
        """The settled position; 0 before the first entry. Raises KeyError for an unregistered consumer."""

    async def pending(self, partition: int, after: int, *, limit: int, bytes_max: int = 4 << 20) -> Sequence[Entry]:
        """The next entries behind `after`, in order; waits until there is at least one.

        At most `limit` entries and about `bytes_max` bytes of data, but always at least one entry.
        """

    async def entries(self, partition: int, after: int, *, limit: int, bytes_max: int = 4 << 20) -> Sequence[Entry]:
        """As `pending`, but without waiting: none where none is there. For who is not a consumer on its way."""

    async def begun(self, consumer: str, partition: int) -> int:
        """Where the consumer began: the journal's end when it was first registered. Never moves. Raises KeyError
        for an unregistered consumer."""

    async def settle(
        self,
        consumer: str,
        partition: int,
        upto: int,
        outcomes: Sequence[Outcome] = (),
        attempts: Sequence[Attempt] = (),
    ) -> None:
        """Move the consumer to `upto` (never back), record the outcomes and add the attempts, in one transaction.

        An outcome replaces an earlier one of the same entry and consumer. Entries up to `upto` without an
        outcome count as delivered at a log, as filtered at an endpoint.
        """

    async def settled(self, consumers: Collection[str]) -> None:
        """Returns once these consumers have settled all that is journalled, and hold nothing that could go out now."""

    async def lane(
        self, consumer: str, partition: int, subscription: int, limit: int, *, ordered: bool = True
    ) -> Sequence[Outstanding]:
        """The retrying and held entries of one job at one consumer, in order; else those first that are due first."""

    async def blocked(self, consumer: str, partition: int) -> dict[int, int]:
        """Every job that has outstanding entries at the consumer: its subscription and when its lane's
        head is due."""

    async def redriven(self, consumer: str, partition: int, after_revision: int) -> tuple[int, dict[int, int]]:
        """Waits until somebody changed outstanding entries of this consumer; returns the new revision, and what
        `blocked` does. Revisions begin anew with the process: the first call gives 0."""

    async def previous(self, consumer: str, entry: Entry, wants: Callable[[Entry], bool]) -> int | None:
        """`sequence` of the job's last entry before this one that was meant for the endpoint, whatever became of it: it
        has an outcome, or is not settled and `wants` holds for it. `wants` is called in another thread.

        0 where there is none since the endpoint began; None where it cannot be told any more: entries were pruned.
        """

    async def finished(self, consumer: str, partition: int, after: int) -> set[int]:
        """Positions behind `after` that already have an outcome: what a crash left ahead of the settled place."""


class EntryJournal(Protocol):
    """Where single entries are looked up."""

    async def entry(self, partition: int, position: int) -> Entry | None:
        """The entry at that position; None where the journal does not hold one (not yet, or no longer)."""


class RelayJournal(DeliveryJournal, EntryJournal, Protocol):
    """What delivery into a log sees besides, to check the log's own memory against the journal's."""


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """The journal at a glance, for readiness and metrics."""

    writable: bool
    detail: str
    live_bytes: int
    """Bytes in use by live data, of `high_water_bytes` allowed."""
    high_water_bytes: int
    entries: int
    """Entries kept, settled ones included."""
    depth: dict[str, int]
    """Unsettled entries of each consumer."""
    oldest_unsettled_ms: dict[str, int]
    """Unix milliseconds at which each consumer's oldest unsettled entry was journalled; absent when none is."""
    subscriptions: dict[str, dict[str, int]]
    """Subscriptions of each source by state."""
    outstanding: dict[str, dict[str, int]]
    """Entries of each consumer by delivery state, for those passed but not plainly delivered."""


class ControlJournal(SubscriptionJournal, EntryJournal, Protocol):
    """What control sees."""

    @property
    def outcomes(self) -> OutcomeJournal:
        """What became of every event at every consumer."""

    @property
    def endpoint_health(self) -> HealthJournal:
        """How every endpoint is, by all its attempts."""

    @property
    def endpoints(self) -> EndpointJournal:
        """The endpoints that were made while the bridge ran."""

    async def health(self) -> JournalHealth:
        """Never raises: a journal that cannot be read is not writable, with the reason in `detail`."""


class Journal(IntakeJournal, RelayJournal, ControlJournal, Protocol):
    """The whole journal, as a store implements it."""

    async def prune(self, settled_before_ms: int, limit: int = 1000) -> int:
        """Remove up to `limit` entries journalled before then that every registered consumer has settled and none
        still has outstanding or dead; returns how many went."""

    async def prune_attempts(self, before_ms: int, limit: int = 1000) -> int:
        """Forget up to `limit` attempts made before then; returns how many went."""
