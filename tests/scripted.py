"""A job that plays a script over a subscription with everything real around it but the network and the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bridge.errors import BridgeError, Temporary
from bridge.event import Cursor, EventType, JobKey, JobStatus
from bridge.intake.provider import Frame, Provider, Reading, Refusal, Request, SourceSettings
from bridge.intake.source import Source
from bridge.intake.subscription import Subscription, Surroundings
from bridge.journal.store import Entry, Journal, SubscriptionRecord
from bridge.telemetry.metrics import Metrics

KEY = JobKey("src", "job")
HANG = object()
"""In a script of frames: stay silent for ever."""

OURS = object()
"""In a script of frames: those behind it have arrived, and we do not get round to them for a long time."""

NEVER = 1e6
"""As an interval between looks: one look when the stream opens, and no second one."""

RUNNING = Reading(status=JobStatus.RUNNING, provider_status="running")
DONE = Reading(status=JobStatus.COMPLETED, provider_status="done", result="fine")


Look = Reading | BridgeError | Callable[[], Reading | BridgeError]


class Clock:
    """Time that moves only when somebody waits. A wait of `NEVER` is for ever, so that it moves nobody else's time.

    The wall clock can be moved besides, as an operator or a time server would.
    """

    def __init__(self) -> None:
        self.now_s = 5000.0
        self.wall_offset_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s + self.wall_offset_s

    async def sleep(self, delay_s: float) -> None:
        if delay_s >= NEVER:
            await asyncio.Event().wait()
        self.now_s += delay_s
        for _ in range(20):
            await asyncio.sleep(0)


class Numbers(Provider):
    """A provider whose frames are numbered texts: `e` is the end, anything else output."""

    def __init__(self, looks: Sequence[Look], *, polled: bool = False) -> None:
        self.told: list[Reading] = []
        """What `backfill` knows, each reading with its number as key and cursor."""
        self.renewals: list[bool] = []
        self._looks = list(looks)
        self._polled = polled
        self.asked: list[Cursor | None] = []

    def stream(self, job_id: str, cursor: Cursor | None) -> Request | None:
        self.asked.append(cursor)
        return None if self._polled else Request("http://test")

    def read(self, frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:
        if cursor is not None and int(frame.id) <= int(cursor):
            return ()
        if frame.data == b"reopen":
            return (Reading(reopen=True),)
        hole = cursor is not None and int(frame.id) > int(cursor) + 1
        status = JobStatus.COMPLETED if frame.data == b"e" else None
        type_ = None if status else EventType.OUTPUT
        return (
            Reading(type_, frame.id, Cursor(frame.id), status=status, detail={"text": frame.data.decode()}, hole=hole),
        )

    async def backfill(self, job_id: str, cursor: Cursor | None) -> AsyncGenerator[Sequence[Reading], None]:
        behind = [reading for reading in self.told if int(reading.key or 0) > int(cursor or 0)]
        if behind:
            yield behind

    async def renew(self) -> bool:
        return bool(self.renewals) and self.renewals.pop(0)

    async def status(self, job_id: str) -> Reading:
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if callable(look):
            look = look()
        if isinstance(look, BridgeError):
            raise look
        return look


class ScriptedStream:
    retry_s: float | None = None

    def __init__(self, script: Sequence[Any]) -> None:
        self._script = script
        self.unread = False

    async def __aiter__(self) -> AsyncIterator[list[Frame]]:
        for step in self._script:
            self.unread = step is OURS
            if step is OURS:
                for _ in range(200):
                    await asyncio.sleep(0)
                continue
            if step is HANG:
                await asyncio.Event().wait()
            if isinstance(step, BridgeError):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
                continue
            yield [Frame("message", text.encode(), str(number)) for number, text in step]


class ScriptedStreams:
    """One script per connection; the last one serves all later ones."""

    full = False

    def __init__(self, *scripts: Sequence[Any] | BridgeError) -> None:
        self._scripts = list(scripts)
        self.opened = 0

    @asynccontextmanager
    async def open(self, request: Request, refusal: Refusal) -> AsyncIterator[ScriptedStream]:
        self.opened += 1
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        if isinstance(script, BridgeError):
            raise script
        yield ScriptedStream(script)


class Following:
    """A subscription with everything around it."""

    def __init__(self, journal: Journal, provider: Numbers, streams: ScriptedStreams, **settings: Any) -> None:
        self.clock = Clock()
        self.journal = journal
        self.metrics = Metrics()
        self.provider, self.streams = provider, streams
        options = SourceSettings.model_validate({"provider": "numbers"} | settings)
        source = Source("src", "numbers", provider, streams, options)
        self.subscription = Subscription(
            KEY, source, Surroundings(journal, self.metrics, self.clock, self.clock.sleep, self.clock.wall)
        )
        self.useful = 0

    async def run_once(self) -> None:
        def useful() -> None:
            self.useful += 1

        async with asyncio.timeout(5):
            await self.subscription.run(useful)

    async def run(self, tries: int = 10) -> list[str]:
        """Run until it returns, as a supervisor would; the reasons on the way."""
        reasons = []
        for _ in range(tries):
            try:
                await self.run_once()
            except Temporary as error:
                reasons.append(error.reason)
            else:
                return reasons
        raise AssertionError(f"still running after {reasons}")

    async def entries(self) -> Sequence[Entry]:
        async with asyncio.timeout(5):
            return await self.journal.pending(0, 0, limit=1000)

    async def record(self) -> SubscriptionRecord:
        record = await self.journal.subscription(KEY)
        assert record is not None
        return record

    async def told(self) -> list[str]:
        """Type and key of every event."""
        return [f"{entry.type} {entry.id.rpartition(':')[2]}" for entry in await self.entries()]
