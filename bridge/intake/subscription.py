"""One job followed: where were we, open, normalise, append, until the job is over. Ends otherwise only by raising."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobKey
from bridge.intake.ending import is_end, look
from bridge.intake.provider import OpenStream, Reading, Request
from bridge.intake.reader import Reader, Reopen
from bridge.intake.scribe import Scribe
from bridge.intake.source import Looker, Source
from bridge.journal.store import IntakeJournal, SubscriptionState
from bridge.telemetry.metrics import Metrics

_BARREN_TO_BELIEVE = 2
"""How many connections in a row may bring nothing new of a job that is over, before the next such one is believed.
A single stalled connection proves nothing: the frames may still be waiting behind it."""

_WORTHWHILE_S = 5.0
"""A stream that lived so long may be reopened at once when its server asks for it; a shorter one waits its backoff."""

_GONE = frozenset({"not_found", "gone"})
_LOST = _GONE | {"bug"}
_PLACE_GONE = frozenset({"stale_cursor", "gone"})
"""Behind a place in the stream, `gone` can be about the place alone: without it the stream is asked once more."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What subscriptions take from outside."""

    journal: IntakeJournal
    metrics: Metrics
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    wall_clock: Callable[[], float] = time.time
    """Only for what outlives the process; a duration never trusts it."""


class Subscription:
    """The session that follows one job."""

    def __init__(self, key: JobKey, source: Source, around: Surroundings) -> None:
        self.name = str(key)
        self.group = source.name
        self._key = key
        self._source = source
        self._around = around
        self._barren = 0
        self._countable = True
        self._refused: Cursor | None = None
        self._last_news_s = self._last_change_s = around.clock()
        self._stalled = False
        self._caught_up = asyncio.Event()

    async def run(self, useful: Callable[[], None]) -> None:
        """Follow the job; returns when it is over and its terminal event journalled, or nobody wants it followed."""
        around = self._around
        record = await around.journal.subscription(self._key)
        if record is None or record.state is not SubscriptionState.ACTIVE:
            return

        self._useful = useful

        def on_news() -> None:
            self._countable, self._barren, self._stalled = False, 0, False
            self._last_change_s = around.clock()
            useful()

        self._scribe = Scribe(record, self._source, around.journal, around.metrics, on_news)
        self._reader = Reader(self._key.job_id, self._source, self._scribe, around.clock, around.sleep)
        if self._scribe.ended:  # removed after its end, and now asked for again
            await self._scribe.confirm_end()
            return
        try:
            await self._follow()
        except Rejected as error:
            age_s = around.wall_clock() - record.created_ms / 1000
            young = age_s < self._source.settings.not_found_grace_s
            if error.reason == "not_found" and young:  # younger than the provider's own index of jobs
                raise Temporary(str(error), reason="not_found_yet") from error
            raise

    async def park(self, error: BridgeError) -> None:
        """Journal what became of our watching. Only a refusal of this job alone changes what we mean to do with it."""
        journal = self._around.journal
        record = await journal.subscription(self._key)
        if record is None or record.state is not SubscriptionState.ACTIVE:
            return
        scribe = Scribe(record, self._source, journal, self._around.metrics, on_news=lambda: None)
        if not scribe.given_up:
            type_ = EventType.WATCH_LOST if error.reason in _LOST else EventType.WATCH_DENIED
            await scribe.watch(type_, {"reason": error.reason, "text": str(error)})
        if not isinstance(error, Fatal):
            await journal.steer(self._key, SubscriptionState.PARKED, f"{error.reason}: {error}")

    # -- following

    async def _follow(self) -> None:
        """Stream where the API can and a place is free, else poll, until the job is over."""
        over = False
        while not over:
            cursor = self._scribe.cursor
            request = self._source.provider.stream(self._key.job_id, None if cursor == self._refused else cursor)
            async with self._source.authorized():
                over = await (self._poll() if request is None or self._crowded() else self._stream(request))

    async def _begin(self) -> None:
        """The provider has let us in: say so, unless that was the last word about our watching already."""
        if not self._scribe.watching:
            await self._scribe.watch(EventType.WATCH_STARTED, {"cursor": self._scribe.cursor})

    def _crowded(self) -> bool:
        return self._source.settings.poll_when_full and self._source.streams.full

    async def _stream(self, request: Request) -> bool:
        """One connection; False when the server wants it opened again at once."""
        opened_s = self._around.clock()
        try:
            async with self._source.streams.open(request, self._source.provider.refusal) as stream:
                await self._begin()
                self._caught_up.clear()
                await _first(self._listen(stream), self._look_beside(stream))
        except Reopen:
            if self._around.clock() - opened_s < _WORTHWHILE_S:
                raise Temporary("the server wants the stream reopened, again and again", reason="reopen") from None
            return False
        except Rejected as error:
            if error.reason in _PLACE_GONE and self._scribe.cursor not in {None, self._refused}:
                await self._refuse_cursor(error)
            if error.reason not in _GONE:
                raise
            await self._stream_gone(error)
        return True

    async def _listen(self, stream: OpenStream) -> None:
        """Read the stream until the job is over. Raises `Temporary` at any other end of it."""
        self._countable = True
        try:
            self._last_news_s = math.inf  # busy is not silent, however long the journal takes
            if await self._reader.backfill():
                return
            self._caught_up.set()
            self._last_news_s = self._around.clock()
            async for frames in stream:
                if frames:
                    self._last_news_s = math.inf
                    if await self._reader.take_frames(frames):
                        return
                    self._last_news_s = self._around.clock()
            await self._stream_ended()
        except Temporary as error:
            floors = [floor_s for floor_s in (error.after_s, stream.retry_s) if floor_s is not None]
            error.after_s = max(floors, default=None)
            raise

    async def _stream_ended(self) -> None:
        """A clean end proves nothing by itself: ask, and believe in the job's end only once nothing more comes."""
        seen = await look(self._source, self._key.job_id)
        if seen is None or not is_end(seen):
            raise Temporary("the stream ended before the job did", reason="eof")
        await self._end_unseen(seen)

    async def _look_beside(self, stream: OpenStream) -> None:
        """Look at the status endpoint beside the stream: some states are told nowhere else.

        Not before the log was read: a state of now must not come in front of what led to it. Returns when the job is
        over by the status endpoint and the stream believed to hold nothing more.
        """
        await self._caught_up.wait()
        with self._source.looker() as looker:
            while True:
                seen = await self._look_softly()
                if seen is not None and is_end(seen):
                    await self._quiet(stream)
                    await self._end_unseen(seen)
                    return
                if seen is not None:
                    await self._reader.take([seen])
                if self._source.provider.tells_beside:
                    await self._reader.backfill()
                await self._until_look(looker)

    async def _poll(self) -> bool:
        """Follow by the status endpoint alone; False when a stream could be opened instead.

        An answer is all that polling ever gets from a provider that is well, so each one counts as useful.
        """
        with self._source.looker(beside_stream=False) as looker:
            while True:
                seen = await self._polled()
                await self._begin()
                if await self._reader.take([seen]) or await self._reader.backfill():
                    return True
                self._useful()
                await self._until_look(looker)
                if self._source.settings.poll_when_full and not self._source.streams.full:
                    return False

    async def _polled(self) -> Reading:
        """A look that failed is repeated at the pace of looks, or once a second where that is slower."""
        try:
            return await self._source.provider.status(self._key.job_id)
        except Temporary as error:
            pace_s = min(1.0, self._source.settings.status_interval_s)
            error.after_s = max(error.after_s or 0.0, pace_s)
            raise

    async def _until_look(self, looker: Looker) -> None:
        """Wait for this job's next turn; one in which nothing moves is told of once and looked at less often."""
        settings, clock = self._source.settings, self._around.clock
        if settings.stalled_after_s is not None and not self._stalled:
            unchanged_s = clock() - self._last_change_s
            if unchanged_s >= settings.stalled_after_s:
                self._stalled = True
                detail = {"reason": "no_change", "unchanged_s": round(unchanged_s)}
                await self._scribe.watch(EventType.WATCH_STALLED, detail)
        looker.every_s = settings.stalled_interval_s if self._stalled else settings.status_interval_s
        await self._around.sleep(self._source.until_look_s(looker, clock()))

    async def _look_softly(self) -> Reading | None:
        """A look that may fail: a status endpoint in passing trouble is no reason to leave a stream that lives."""
        try:
            return await look(self._source, self._key.job_id)
        except Temporary:
            return None

    async def _quiet(self, stream: OpenStream) -> None:
        """Wait until the stream has been silent for the set time, and we have read what it said before."""
        quiet_s = self._source.settings.end_quiet_s
        while (left_s := self._last_news_s + quiet_s - self._around.clock()) > 0 or stream.unread:
            await self._around.sleep(min(left_s, quiet_s) if left_s > 0 else quiet_s)

    # -- what the provider refuses or fails to show

    async def _end_unseen(self, seen: Reading) -> None:
        """The job is over and its stream has not shown it: read again, and at last believe the status endpoint.

        Where the stream had spoken before, an end that it never showed is a gap.
        """
        self._barren += self._countable
        self._countable = False
        if self._barren <= _BARREN_TO_BELIEVE:
            raise Temporary("the job is over, but its stream has not shown the end yet", reason="end_unseen")
        if self._scribe.cursor is None:
            await self._reader.take([seen])
        else:
            await self._scribe.watch(EventType.WATCH_GAP, {"reason": "end_unseen"}, then=[seen])

    async def _stream_gone(self, error: Rejected) -> None:
        """A job can be over for longer than its stream is kept: then the status endpoint alone still tells its end."""
        seen = await look(self._source, self._key.job_id)
        if seen is None or not is_end(seen):
            raise error
        self._countable = True
        await self._end_unseen(seen)

    async def _refuse_cursor(self, error: Rejected) -> NoReturn:
        """A cursor that the provider no longer takes: say that there may be a gap, then start without it.

        What the stream then repeats is dropped by comparing it with the cursor that stays on record.
        """
        self._refused = self._scribe.cursor
        await self._scribe.watch(EventType.WATCH_GAP, {"reason": "stale_cursor", "text": str(error)})
        raise Temporary("the provider refused our cursor; its stream is read again", reason="stale_cursor")


async def _first(*runs: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends, then cancel the others; its error, if it had one, is raised as it is."""
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
