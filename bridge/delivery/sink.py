"""The seam of the lower half: what a destination must be able to do.

Two sorts of destination exist, because two sorts of order exist. A *log* (Kafka) takes ordered batches of a whole
partition. An *endpoint* (a webhook receiver) takes one event at a time and may refuse one job's while it takes
another's. Either translates and nothing else: loops above decide about waiting, trying again and giving up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from bridge.event import EventType
from bridge.journal.store import Entry, Outcome


class SinkSettings(BaseModel):
    """What every sink has, whatever its kind; each kind's settings extend it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    kind: str = Field(description="Kind of destination, for example `kafka` or `webhook`.")


class Mark(NamedTuple):
    """Up to where a destination holds the journal. Position 0 without an id: it holds nothing yet."""

    position: int
    event_id: str
    """The event at that position: the proof that it is this journal which the destination remembers."""
    outcomes: tuple[Outcome, ...] = ()
    """What was not plainly delivered by the write that got there: a crash may have come before it was settled."""


Check = Callable[[Mark], Awaitable[None]]
"""Raises where this journal cannot be the one that the destination remembers."""


class LogWriter(Protocol):
    """One open writer for one partition of the journal."""

    async def recover(self) -> Mark | None:
        """Tell up to where the destination holds the journal; any predecessor is fenced out by then.

        None where the destination keeps no such memory: the journal's settled position then stands.
        """

    async def add(self, entries: Sequence[Entry]) -> None:
        """Make entries ready to be written, in order, behind those that are. Nothing of them can be seen yet.

        Called while a `flush` is under way as well: then they are for the next one. Raises as `flush` does.
        """

    async def flush(self) -> Sequence[Outcome]:
        """Write all that was added before the call; returns when it is durable there.

        Returns outcomes only for entries that were not plainly delivered. Raises `Temporary` when none, or an
        unknown part, arrived: the writer is then closed and a new one recovers. `Fatal` when a person is needed.
        """


@runtime_checkable
class LogSink(Protocol):
    """A destination that keeps a log."""

    batch_entries: int
    """So many entries are flushed at once, at most."""

    def writer(self, partition: int, check: Check | None = None) -> AbstractAsyncContextManager[LogWriter]:
        """Open the partition's only writer. Entering raises like `LogWriter.flush`, and what `check` raises.

        `check` is given what the destination remembers before any predecessor is fenced out. What is still on its way
        there may be missing from it.
        """


class LogPlace(NamedTuple):
    """Where a log holds an event."""

    topic: str
    partition: int
    offset: int


class Absence(StrEnum):
    """Why it cannot be told where a log holds an event."""

    NOT_FOUND = "not_found"
    """It is not where it belongs by the present settings, or no longer."""
    NOT_REACHED = "not_reached"
    """The search came to its limit first."""
    UNAVAILABLE = "unavailable"
    """The log does not answer, or not to us."""


@runtime_checkable
class SearchableLog(Protocol):
    """A log that can be asked where it holds events."""

    async def whereabouts(self, entries: Sequence[Entry]) -> Sequence[LogPlace | Absence]:
        """Where each of these is, delivered entries of one job in order. Takes seconds at most, whatever the log's
        state, and raises nothing because of it."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receiver's acceptance of one event."""

    status: int
    duration_s: float


@dataclass(slots=True)
class Trial:
    """One attempt under way. The endpoint fills in what it learns, when it learns it, however the attempt ends."""

    number: int
    """From 1, per event: how often it was tried, refusals included that count against no schedule."""
    address: str | None = None
    """The address that was dialled."""
    status: int | None = None
    answer: str = ""
    """How the answer began, as text: `ANSWER_CHARS_MAX` characters at most."""
    redriven: int = 0
    """How often a person had it delivered anew."""
    previous: int | None = None
    """`sequence` of the job's event before this one that was meant for the endpoint; 0: none, None: pruned."""


ANSWER_CHARS_MAX = 200


def _for_ever(_type: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Patience:
    """How often an endpoint is tried again, how much goes on at once, and what may be left out when it is slow."""

    schedule_s: tuple[float, ...]
    """Waits before the second, third ... attempt; after the last one the event is a dead letter."""
    retry_after_max_s: float
    """A receiver's `Retry-After` is obeyed up to this."""
    concurrency: int
    """Events under way at once, each of another job. Fewer while the endpoint shows that it is too many."""
    age_max_s: float = 259_200.0
    """An event refused with 429 or 503, which the schedule does not count, is tried again for so long after its first
    attempt; then it is a dead letter."""
    ttl_s: Callable[[str], float | None] = _for_ever
    """By event type: an event journalled longer ago than this is not sent any more. None: it always is."""
    ordered: bool = True
    """Whether a refused event holds back those of its job that follow."""
    coalesce: frozenset[str] = frozenset()
    """Types of which a job's latest event is enough while the endpoint is behind: of `COALESCIBLE` alone."""
    circuit_jobs: int = 5
    """So many jobs refused one after another, and none accepted, and the endpoint is left alone for a while."""
    probe_wait_s: float = 5.0
    """How long it is left alone before one event is tried; doubled whenever that is refused, too."""
    probe_wait_max_s: float = 300.0
    failing_after_s: float = 60.0
    """Nothing but failure for so long is told to people."""
    disable_after_s: float | None = None
    """Nothing but failure for so long, and it is called no more until a person enables it. None: it always is."""


COALESCIBLE = frozenset({EventType.PROGRESS.value, EventType.OUTPUT.value})


class Unjudged(Exception):
    """An endpoint cannot tell whether it subscribes to an event; the text says why, and nothing of the event."""


class Endpoint(Protocol):
    """A destination that takes one event at a time."""

    patience: Patience

    def wants(self, entry: Entry) -> bool:
        """Whether this endpoint subscribes to such events. Raises `Unjudged`."""

    async def deliver(self, entry: Entry, trial: Trial) -> Receipt:
        """One attempt. Raises `Temporary` (try again), `Rejected` (a dead letter) or `Fatal` (the endpoint asked never
        to be called again)."""


class Signed(NamedTuple):
    """An event as it goes on the wire."""

    headers: Mapping[str, str]
    """Those that belong to the event: its id, time and signature, and what describes the body."""
    body: bytes


@runtime_checkable
class Pullable(Protocol):
    """An endpoint whose receiver may also fetch its events."""

    @property
    def pull_token(self) -> str | None:
        """What the receiver shows to be let in; None keeps it out."""

    def wants(self, entry: Entry) -> bool:
        """As for `Endpoint`, but true where it cannot be judged, as when it is delivered."""

    def signed(self, entry: Entry, previous: int | None) -> Signed:
        """The event as a delivery would bring it now. `previous` is as in `Trial`."""


class EndpointSink(Protocol):
    """Opens an endpoint: its connection pool lives as long as the context."""

    def endpoint(self) -> AbstractAsyncContextManager[Endpoint]: ...
