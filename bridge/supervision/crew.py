"""All supervisors of one half in one TaskGroup: start, stop, park a group, resume it, tell how everybody is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.errors import Fatal
from bridge.supervision.session import Session
from bridge.supervision.supervisor import SessionState, SessionStatus, Supervisor, Surroundings


@dataclass(slots=True)
class _Member:
    session: Session
    supervisor: Supervisor
    task: asyncio.Task[None] | None = None


class Crew:
    """Sessions by name. A group that met a `Fatal` error is parked whole until `resume`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._members: dict[str, _Member] = {}
        self._parked: dict[str, Fatal] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run every member, and those that are started later, until `shut_down`."""
        async with asyncio.TaskGroup() as self._tasks:
            for member in self._members.values():
                self._launch(member)
            await self._stopping.wait()
            for member in self._members.values():
                if member.task is not None:
                    member.task.cancel()

    def shut_down(self) -> None:
        """Cancel all sessions; `run` returns once they are gone."""
        self._stopping.set()

    def start(self, session: Session) -> None:
        """Take a session aboard; one of this name that is not parked by itself stays as it is.

        Parked by itself and wanted again: whoever parked and resumed it did both before anybody called `stop`.
        """
        aboard = self._members.get(session.name)
        if aboard is not None and session.group not in self._parked and self._is_parked(aboard):
            self._relaunch(aboard)
        if aboard is not None or self._stopping.is_set():
            return
        member = _Member(session, Supervisor(session, self._around, self._park_group))
        self._members[session.name] = member
        if self._tasks is not None:
            self._launch(member)

    async def stop(self, name: str) -> None:
        """Cancel a session and wait until it is gone; nothing happens when there is none of that name."""
        member = self._members.pop(name, None)
        if member is not None and member.task is not None:
            member.task.cancel()
            await asyncio.wait([member.task])

    def resume(self, group: str) -> int:
        """Run the parked sessions of a group again; returns how many."""
        self._parked.pop(group, None)
        again = [
            member for member in self._members.values() if member.session.group == group and self._is_parked(member)
        ]
        for member in again:
            self._relaunch(member)
        return len(again)

    def group_parked(self, group: str) -> str | None:
        """Why the whole group is parked; None when it is not."""
        error = self._parked.get(group)
        return None if error is None else f"{error.reason}: {error}"

    def states(self) -> Sequence[SessionStatus]:
        """How every session is at this moment."""
        return [member.supervisor.status for member in self._members.values()]

    def state(self, name: str) -> SessionStatus | None:
        """How one session is; None when it is not aboard."""
        member = self._members.get(name)
        return None if member is None else member.supervisor.status

    @staticmethod
    def _is_parked(member: _Member) -> bool:
        return member.supervisor.status.state is SessionState.PARKED

    def _relaunch(self, member: _Member) -> None:
        if member.task is not None:
            member.task.cancel()
        member.supervisor = Supervisor(member.session, self._around, self._park_group)
        self._launch(member)

    def _launch(self, member: _Member) -> None:
        assert self._tasks is not None  # noqa: S101 - both callers have seen it
        if self._stopping.is_set():
            return
        error = self._parked.get(member.session.group)
        if error is not None:
            member.supervisor.park_with_group(error)
            return
        member.task = self._tasks.create_task(self._sail(member, member.task), name=member.session.name)

    async def _sail(self, member: _Member, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        await member.supervisor.run()
        if not self._is_parked(member):
            self._members.pop(member.session.name, None)

    def _park_group(self, group: str, error: Fatal) -> None:
        """Take down the other sessions of the group; each leaves its own durable note on the way."""
        self._parked[group] = error
        for member in list(self._members.values()):
            if member.session.group != group or self._is_parked(member):
                continue
            if member.task is not None:
                member.task.cancel()
            member.supervisor.park_with_group(error)
            if self._tasks is not None and not self._stopping.is_set():
                member.task = self._tasks.create_task(self._note_parked(member.task, member.supervisor, error))

    @staticmethod
    async def _note_parked(ended: asyncio.Task[None] | None, supervisor: Supervisor, error: Fatal) -> None:
        if ended is not None:
            await asyncio.wait([ended])
        await supervisor.note_parked(error)


class Crews:
    """Several crews seen as one, for who looks on from outside."""

    def __init__(self, *crews: Crew) -> None:
        self._crews = crews

    def states(self) -> Sequence[SessionStatus]:
        """How every session of every crew is."""
        return [status for crew in self._crews for status in crew.states()]

    def group_parked(self, group: str) -> str | None:
        """Why the whole group is parked; None when it is not."""
        return next((why for crew in self._crews if (why := crew.group_parked(group))), None)

    async def resume(self, group: str) -> int:
        """Run the parked sessions of a group again; returns how many."""
        return sum(crew.resume(group) for crew in self._crews)
