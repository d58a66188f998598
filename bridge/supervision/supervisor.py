"""Runs one session, looks at how it ended, waits, runs it again: the only loop in the house that tries again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from structlog.typing import FilteringBoundLogger

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.supervision.backoff import Backoff
from bridge.supervision.session import Session
from bridge.telemetry.metrics import Metrics


class SessionState(StrEnum):
    """What a supervised session is doing at the moment."""

    RUNNING = "running"
    WAITING = "waiting"
    """It failed in passing and is run again at `next_try_s`."""
    PARKED = "parked"
    """It stays down until a person resumes it."""


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """One session at a glance; times are Unix seconds."""

    name: str
    group: str
    state: SessionState
    since_s: float
    reason: str | None = None
    detail: str | None = None
    next_try_s: float | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What supervisors take from outside: time, sleep, numbers and words. Handed in, so that tests own them."""

    metrics: Metrics
    log: FilteringBoundLogger
    new_backoff: Callable[[], Backoff]
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Supervisor:
    """Keeps one session alive. `run` returns when the session is done for good or parked; `status` tells which."""

    def __init__(self, session: Session, around: Surroundings, on_fatal: Callable[[str, Fatal], None]) -> None:
        self._session = session
        self._around = around
        self._on_fatal = on_fatal
        self._backoff = around.new_backoff()
        self._useful_count = 0
        self.status = self._now(SessionState.RUNNING)

    async def run(self) -> None:
        """Run the session until it is done, parked, or this task is cancelled."""
        while (error := await self._once()) is not None:
            if not isinstance(error, Temporary):
                await self._park(error)
                return
            wait_s = self._backoff.next_s(error.after_s)
            self._report(error, wait_s)
            self.status = self._now(SessionState.WAITING, error, wait_s)
            await self._around.sleep(wait_s)

    async def _once(self) -> BridgeError | None:
        """How the session ended: None when there is nothing left to do."""
        self.status = self._now(SessionState.RUNNING)
        try:
            # In a task of its own: before Python 3.13 a TaskGroup in it that fails leaves its task marked as cancelled.
            await asyncio.create_task(self._session.run(self._useful), name=self._session.name)
        except Exception as error:  # noqa: BLE001 - `_bug` tells what nobody foresaw
            _heed_cancellation()
            return error if isinstance(error, BridgeError) else self._bug(error)
        return None

    def _bug(self, error: Exception) -> Rejected:
        """A bug stops this session, loudly, and no other."""
        self._around.metrics.bugs.labels(self._session.group).inc()
        self._around.log.exception("session.bug", session=self._session.name, group=self._session.group)
        return Rejected(f"{type(error).__name__}: {error}", reason="bug")

    def _useful(self) -> None:
        self._useful_count += 1
        self._backoff.reset()

    async def _park(self, error: BridgeError) -> None:
        self._report(error, None)
        self.status = self._now(SessionState.PARKED, error)
        if isinstance(error, Fatal):
            self._on_fatal(self._session.group, error)
        await self.note_parked(error)

    async def note_parked(self, error: BridgeError) -> None:
        """Have the session leave its durable note, however long that takes; without one if it cannot be written."""
        backoff = self._around.new_backoff()
        while True:
            try:
                return await self._session.park(error)
            except Temporary as trouble:
                _heed_cancellation()
                await self._around.sleep(backoff.next_s(trouble.after_s))
            except Exception as trouble:  # noqa: BLE001 - `_bug` tells it
                self._bug(trouble)
                return None

    def park_with_group(self, error: Fatal) -> None:
        """Show the session as parked because of another one of its group."""
        self.status = self._now(SessionState.PARKED, error)

    def _now(self, state: SessionState, error: BridgeError | None = None, wait_s: float | None = None) -> SessionStatus:
        now_s = self._around.clock()
        return SessionStatus(
            name=self._session.name,
            group=self._session.group,
            state=state,
            since_s=now_s,
            reason=error.reason if error else None,
            detail=str(error) if error else None,
            next_try_s=None if wait_s is None else now_s + wait_s,
        )

    def _report(self, error: BridgeError, wait_s: float | None) -> None:
        """One wide line per end of a session; the same trouble again is told at debug level only."""
        session = self._session
        self._around.metrics.session_ends.labels(session.group, error.reason).inc()
        again = self.last_reason == error.reason
        self.last_reason = error.reason
        tell = self._around.log.debug if again and wait_s is not None else self._around.log.warning
        tell(
            "session.end",
            session=session.name,
            group=session.group,
            reason=error.reason,
            detail=str(error),
            ran_s=round(self._around.clock() - self.status.since_s, 3),
            useful=self._useful_count,
            next_try_in_s=None if wait_s is None else round(wait_s, 3),
            parked=wait_s is None,
        )
        self._useful_count = 0

    last_reason: str | None = None


def _heed_cancellation() -> None:
    """Raise the cancellation that an error hides: before Python 3.13 a TaskGroup whose child fails in the tick in
    which it is cancelled raises the child's error in its place, and nobody would cancel us a second time."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
