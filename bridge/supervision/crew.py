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
        """Take a session aboard; one that is aboard under this name already stays as it is."""
        if session.name in self._members or self._stopping.is_set():
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
            member
            for member in self._members.values()
            if member.session.group == group and member.supervisor.status.state is SessionState.PARKED
        ]
        for member in again:
            if member.task is not None:
                member.task.cancel()
            member.supervisor = Supervisor(member.session, self._around, self._park_group)
            self._launch(member)
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

    def _launch(self, member: _Member) -> None:
        assert self._tasks is not None  # noqa: S101 - both callers have seen it
        error = self._parked.get(member.session.group)
        if error is not None:
            member.supervisor.park_with_group(error)
            return
        member.task = self._tasks.create_task(self._sail(member), name=member.session.name)

    async def _sail(self, member: _Member) -> None:
        await member.supervisor.run()
        if member.supervisor.status.state is not SessionState.PARKED:
            self._members.pop(member.session.name, None)

    def _park_group(self, group: str, error: Fatal) -> None:
        """Take down the other sessions of the group; each leaves its own durable note on the way."""
        self._parked[group] = error
        for member in list(self._members.values()):
            if member.session.group != group or member.supervisor.status.state is SessionState.PARKED:
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
