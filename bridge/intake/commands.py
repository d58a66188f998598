"""Which jobs to follow, as far as records on a Kafka topic ask for it. Everything asked for is handed to the journal.

Offsets are committed after the journal has it. A crash in between brings the commands again, and that does no harm:
each says how things shall be and not what to change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from structlog.typing import FilteringBoundLogger

from bridge.errors import BridgeError, Rejected, Temporary
from bridge.event import JobKey, addressable
from bridge.journal.store import ControlJournal, SubscriptionRecord, SubscriptionState
from bridge.kafka.connection import Connection
from bridge.kafka.consumer import Member, Record, joined
from bridge.telemetry.metrics import Metrics

ORIGIN = "commands"

_PLACES_MAX = 20


class CommandSettings(Connection):
    """The topic on which others say what to follow."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    topic: str = Field(
        "jobs.commands",
        min_length=1,
        description="Topic of commands: JSON objects with `source`, `job_id` and, where it is not `follow`, an "
        "`action`: `unfollow`, `pause` or `resume`. They do what the API does, so `follow` brings back a removed job. "
        "A command that cannot be used is logged, counted and passed over; so is one for a source that is not "
        "configured: roll out the source first, or send the command again.",
    )
    group_id: str = Field(
        "jobbridge",
        min_length=1,
        description="Consumer group. Those who share it share the commands out: each bridge with a journal of its own "
        "needs its own. A new group begins with the first record there is.",
    )
    session_timeout_s: float = Field(
        10.0, gt=0, description="After so long without a sign of life another member of the group takes over."
    )
    record_bytes_max: int = Field(65_536, ge=256, description="A larger command is passed over unread.")

    @property
    def session(self) -> str:
        """The name of what reads it, which no source or sink can have."""
        return f"commands:{self.topic}"


class Wish(StrEnum):
    """What can be asked for one job."""

    FOLLOW = "follow"
    UNFOLLOW = "unfollow"
    PAUSE = "pause"
    RESUME = "resume"


_STATES = {
    Wish.UNFOLLOW: SubscriptionState.REMOVED,
    Wish.PAUSE: SubscriptionState.PAUSED,
    Wish.RESUME: SubscriptionState.ACTIVE,
}


class Command(BaseModel):
    """The value of one record. Members that we do not know are its sender's own business."""

    model_config = ConfigDict(strict=True)

    source: str
    job_id: Annotated[str, AfterValidator(addressable)]
    action: Wish = Wish.FOLLOW

    @property
    def key(self) -> JobKey:
        """The job it is about."""
        return JobKey(self.source, self.job_id)


_REASONS = {"source": "unknown_source", "job_id": "bad_job_id", "action": "unknown_action"}


def decode(value: bytes | None, bytes_max: int, sources: Collection[str]) -> Command:
    """The command in a record. Raises `Rejected`, whose reason says why there is none; nothing of the value shows."""
    if value is None:
        raise Rejected("a command has a value", reason="no_value")
    if len(value) > bytes_max:
        raise Rejected("the command is over record_bytes_max", reason="too_large")
    try:
        command = Command.model_validate_json(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        reason = "not_json" if fault["type"] == "json_invalid" else _REASONS.get(str(*fault["loc"][:1]), "not_object")
        raise Rejected("the command has the wrong shape", reason=reason) from None  # the cause holds the value
    if command.source not in sources:
        raise Rejected("the command is for a source that is not configured", reason="unknown_source")
    return command


class Commands:
    """The session that obeys the topic as a member of its consumer group."""

    def __init__(
        self,
        settings: CommandSettings,
        sources: Collection[str],
        *,
        journal: ControlJournal,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self.name = self.group = settings.session
        self._settings = settings
        self._sources = sources
        self._journal = journal
        self._metrics = metrics
        self._log = log

    async def run(self, useful: Callable[[], None]) -> None:
        """Obey for ever; leave and join again whenever the way to the brokers must be built anew."""
        settings = self._settings
        while True:
            async with joined(
                settings,
                topic=settings.topic,
                group_id=settings.group_id,
                session_timeout_s=settings.session_timeout_s,
            ) as member:
                stale = False
                while not stale:  # a link may end sooner than it takes to join: each is good for a batch
                    await self._next(member)
                    useful()
                    stale = member.stale

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: what was not committed stays where it is."""

    async def _next(self, member: Member) -> None:
        records = await member.records()
        if records:
            await self._check_room()
            await self._obey(records)
            await member.commit()

    async def _check_room(self) -> None:
        """A full journal would take subscriptions all the same; what they bring could only wait."""
        health = await self._journal.health()
        if health.live_bytes > health.high_water_bytes:
            raise Temporary("the journal is over high_water_bytes: commands wait", reason="journal")

    async def _obey(self, records: Sequence[Record]) -> None:
        """Journal what they ask for, in their order; neighbours that ask for the same do so together."""
        passed_over: dict[str, list[Record]] = {}
        wanted: list[tuple[Command, Record]] = []
        for record in records:
            try:
                command = decode(record.value, self._settings.record_bytes_max, self._sources)
            except Rejected as error:
                passed_over.setdefault(error.reason, []).append(record)
            else:
                wanted.append((command, record))
        for wish, neighbours in groupby(wanted, key=lambda pair: pair[0].action):
            pairs = list(neighbours)
            reasons = await self._journal_all(wish, [command.key for command, _ in pairs])
            self._metrics.commands.labels(wish.value).inc(reasons.count(None))
            for (_, record), reason in zip(pairs, reasons, strict=True):
                if reason is not None:
                    passed_over.setdefault(reason, []).append(record)
        self._report(passed_over)

    async def _journal_all(self, wish: Wish, keys: Sequence[JobKey]) -> list[str | None]:
        """Why each could not be done; None where it was, or had been before."""
        if wish is Wish.FOLLOW:
            await self._journal.follow(keys, ORIGIN)
            return [None] * len(keys)
        state = _STATES[wish]
        subscriptions = await asyncio.gather(*(self._journal.steer(key, state) for key in keys))
        return [_obstacle(state, subscription) for subscription in subscriptions]

    def _report(self, passed_over: dict[str, list[Record]]) -> None:
        for reason, records in passed_over.items():
            self._metrics.commands_passed_over.labels(reason).inc(len(records))
            self._log.warning(
                "commands.passed_over",
                topic=self._settings.topic,
                reason=reason,
                count=len(records),
                places=[f"{record.partition}:{record.offset}" for record in records[:_PLACES_MAX]],
            )


def _obstacle(wanted: SubscriptionState, subscription: SubscriptionRecord | None) -> str | None:
    if subscription is None or subscription.state not in {wanted, SubscriptionState.ENDED}:
        return "not_followed"
    return None if subscription.state is wanted else "job_over"
