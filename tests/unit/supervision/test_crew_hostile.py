"""What a crew must survive: races at the end, sessions whose own note is broken, words that come too late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.supervision.backoff import Backoff
from bridge.supervision.crew import Crew
from bridge.supervision.supervisor import SessionState, Surroundings
from bridge.telemetry.metrics import Metrics


class Session:
    """A session made of two functions."""

    def __init__(self, run: Callable[[], object], park: Callable[[], object] = lambda: None, name: str = "s") -> None:
        self.name, self.group = name, "auvy"
        self._run, self._park = run, park
        self.runs = 0
        self.started = asyncio.Event()

    async def run(self, useful: Callable[[], None]) -> None:
        self.runs += 1
        self.started.set()
        result = self._run()
        if asyncio.iscoroutine(result):
            await result

    async def park(self, error: BridgeError) -> None:
        result = self._park()
        if asyncio.iscoroutine(result):
            await result


def crew_with(metrics: Metrics | None = None) -> Crew:
    """Sessions that failed wait for an hour, so that whoever waits for one of them notices."""
    return Crew(
        Surroundings(
            metrics=metrics or Metrics(),
            log=structlog.get_logger(),
            new_backoff=lambda: Backoff(dice=lambda: 1.0, base_s=3600.0, cap_s=3600.0),
            clock=lambda: 0.0,
        )
    )


async def for_ever() -> None:
    await asyncio.Event().wait()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def raising(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


async def fails_when_cancelled() -> None:
    """As a TaskGroup does, before Python 3.13, when a child fails in the tick in which it is cancelled from outside."""
    try:
        await for_ever()
    except asyncio.CancelledError:
        raise Temporary("cut") from None


async def test_an_error_that_swallows_a_cancellation_does_not_keep_the_crew_from_ending() -> None:
    crew, session = crew_with(), Session(fails_when_cancelled)
    crew.start(session)
    async with asyncio.timeout(5):
        task = asyncio.create_task(crew.run())
        await session.started.wait()
        crew.shut_down()
        await task
    assert session.runs == 1


async def test_an_error_that_swallows_a_cancellation_does_not_keep_a_stopped_session_alive() -> None:
    crew, session = crew_with(), Session(fails_when_cancelled)
    crew.start(session)
    async with asyncio.timeout(5):
        task = asyncio.create_task(crew.run())
        await session.started.wait()
        await crew.stop("s")
        crew.shut_down()
        await task


@pytest.mark.parametrize(
    ("error", "state"), [(Temporary("cut"), SessionState.WAITING), (Fatal("gone"), SessionState.PARKED)]
)
async def test_the_error_of_a_task_group_in_a_session_is_not_taken_for_a_cancellation(
    error: BridgeError, state: SessionState
) -> None:
    async def run() -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.to_thread(raising(error)))
                tasks.create_task(for_ever())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    crew, session = crew_with(), Session(run)
    crew.start(session)
    async with asyncio.timeout(5):
        task = asyncio.create_task(crew.run())
        await session.started.wait()
        while (status := crew.state("s")) is not None and status.state is SessionState.RUNNING:  # noqa: ASYNC110 - a state tells nobody
            await asyncio.sleep(0.001)
        crew.shut_down()
        await task
    assert status is not None
    assert status.state is state


async def test_a_note_that_cannot_be_written_is_a_bug_of_its_session_only() -> None:
    metrics, crew = Metrics(), None
    crew = crew_with(metrics)
    broken = Session(raising(ValueError("unreadable memory")), raising(ValueError("unreadable memory")), "broken")
    healthy = Session(for_ever, name="healthy")
    crew.start(broken)
    crew.start(healthy)
    async with asyncio.timeout(5):
        task = asyncio.create_task(crew.run())
        await healthy.started.wait()
        await turns()
        assert not task.done()
        assert metrics.registry.get_sample_value("jobbridge_session_bugs_total", {"group": "auvy"}) == 2
        assert {status.name: str(status.state) for status in crew.states()} == {
            "broken": "parked",
            "healthy": "running",
        }
        crew.shut_down()
        await task


async def test_a_group_is_parked_although_the_note_of_its_first_session_cannot_be_written() -> None:
    crew = crew_with()
    crew.start(Session(raising(Fatal("401", reason="unauthorized")), raising(KeyError("gone"))))
    async with asyncio.timeout(5):
        task = asyncio.create_task(crew.run())
        await turns()
        assert crew.group_parked("auvy") is not None
        crew.shut_down()
        await task


async def test_resume_during_or_after_the_end_starts_nothing_that_nobody_would_stop() -> None:
    crew = crew_with()
    parked = Session(raising(Rejected("404", reason="not_found")))
    leaving = asyncio.Event()

    async def slow_to_leave() -> None:
        try:
            await for_ever()
        finally:
            await leaving.wait()

    slow = Session(slow_to_leave, name="slow")
    crew.start(parked)
    crew.start(slow)
    async with asyncio.timeout(5):
        task = asyncio.create_task(crew.run())
        await slow.started.wait()
        await turns()
        crew.shut_down()
        await turns()
        parked._run = for_ever
        crew.resume("auvy")
        leaving.set()
        await task
        crew.resume("auvy")
    assert parked.runs == 1


async def test_a_resumed_session_waits_until_its_own_note_is_out_of_the_way() -> None:
    """The note and the new run both write the subscription's memory: side by side they would undo each other."""
    crew, order = crew_with(), list[str]()

    async def note() -> None:
        order.append("note begins")
        try:
            await for_ever()
        finally:
            await turns(5)
            order.append("note ends")

    async def run() -> None:
        order.append("run")
        if order.count("run") == 1:
            raise Rejected("404", reason="not_found")
        await for_ever()

    session = Session(run, note)
    crew.start(session)
    async with asyncio.timeout(5):
        task = asyncio.create_task(crew.run())
        await session.started.wait()
        await turns()
        assert crew.resume("auvy") == 1
        await turns()
        assert order == ["run", "note begins", "note ends", "run"]
        crew.shut_down()
        await task
