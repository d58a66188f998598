"""What one job's provider says, read in order and handed on: frames, backfill and looks, with the end confirmed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from operator import attrgetter

from bridge.intake.ending import confirm, is_end
from bridge.intake.provider import Frame, Reading
from bridge.intake.scribe import Scribe
from bridge.intake.source import Source

_hole = attrgetter("hole")


class Reopen(Exception):
    """The server will close the stream and wants it opened again."""


class Reader:
    """Takes what the provider said into the journal. Each `take` answers whether the job is over."""

    def __init__(
        self,
        job_id: str,
        source: Source,
        scribe: Scribe,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._job_id = job_id
        self._source = source
        self._provider = source.provider
        self._scribe = scribe
        self._clock = clock
        self._sleep = sleep

    async def take_frames(self, frames: Sequence[Frame]) -> bool:
        """Take a batch off the stream. Raises `Reopen` when its server wants to be called again."""
        readings = self._read(frames)
        if any(map(_hole, readings)):
            if await self.backfill():
                return True
            readings = self._read(frames)  # behind what the backfill brought; a hole that stays is no loss
        wanted = [reading for reading in readings if not reading.reopen]
        over = await self.take(wanted, claimed=True)
        if not over and len(wanted) < len(readings):
            raise Reopen
        return over

    async def backfill(self) -> bool:
        """Take what the provider tells besides its stream."""
        async with aclosing(self._told()) as told:
            async for readings in told:
                if await self.take(readings, claimed=True):
                    return True
        return False

    async def take(self, readings: Sequence[Reading], *, claimed: bool = False) -> bool:
        """Take readings; where they are only claimed, the end of the job has to be confirmed before it counts."""
        for index, reading in enumerate(readings):
            if reading.status is not None and is_end(reading) and not self._scribe.ended:
                await self._scribe.take(readings[:index])
                end = await self._confirmed(reading) if claimed else reading
                await self._tell_besides()
                await self._scribe.take([end, *readings[index + 1 :]])
                return self._scribe.ended
        await self._scribe.take(readings)
        return self._scribe.ended

    async def _confirmed(self, claim: Reading) -> Reading:
        return await confirm(claim, self._source, self._job_id, self._clock, self._sleep)

    async def _tell_besides(self) -> None:
        """Before the end is told: everything that only the backfill knows."""
        if not self._provider.tells_beside:
            return
        async with aclosing(self._told()) as told:
            async for readings in told:
                await self._scribe.take([reading for reading in readings if not is_end(reading)])

    def _told(self) -> AsyncGenerator[Sequence[Reading], None]:
        return self._provider.backfill(self._job_id, self._scribe.cursor)

    def _read(self, frames: Sequence[Frame]) -> list[Reading]:
        cursor = self._scribe.cursor
        readings: list[Reading] = []
        for frame in frames:
            if frame.dropped_bytes:
                self._scribe.count_oversized()
            for reading in self._provider.read(frame, cursor):
                readings.append(reading)
                cursor = reading.cursor or cursor
        return readings
