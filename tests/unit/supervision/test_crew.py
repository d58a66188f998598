"""Sessions that fail in every way, supervised with a clock that only moves when somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.supervision.backoff import Backoff
from bridge.supervision.crew import Crew
from bridge.supervision.supervisor import SessionState, Surroundings
from bridge.telemetry.metrics import Metrics


class VirtualTime:
    """A clock that jumps by whatever is slept; sleepers otherwise only yield."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now_s += delay_s
        await asyncio.sleep(0)


class Scripted:
    """A session that plays one step a run: raise an error, or wait for ever."""

    def __init__(self, name: str, *steps: Exception | None, group: str = "auvy", useful_in: int | None = None) -> None:
        self.name, self.group = name, group
        self._steps = list(steps)
        self._useful_in = useful_in
        self.runs = 0
        self.running = asyncio.Event()
        self.parked: list[BridgeError] = []
        self.park_trouble = 0

    async def run(self, useful: Callable[[], None]) -> None:
        self.runs += 1
        if self.runs == self._useful_in:
            useful()
        if not self._steps:
            self.running.set()
            await asyncio.Event().wait()
        step = self._steps.pop(0)
        if step is not None:
            raise step

    async def park(self, error: BridgeError) -> None:
        if self.park_trouble:
            self.park_trouble -= 1
            raise Temporary("the journal is full")
        self.parked.append(error)


@asynccontextmanager
async def sailing(crew: Crew) -> AsyncIterator[Crew]:
    task = asyncio.create_task(crew.run())
    await asyncio.sleep(0)
    try:
        yield crew
    finally:
        crew.shut_down()
        await task


def crew_with(time: VirtualTime, metrics: Metrics | None = None) -> Crew:
    sleep: Callable[[float], Awaitable[None]] = time.sleep
    return Crew(
        Surroundings(
            metrics=metrics or Metrics(),
            log=structlog.get_logger(),
            new_backoff=lambda: Backoff(dice=lambda: 0.5, base_s=1.0, cap_s=60.0),
            clock=time.clock,
            sleep=sleep,
        )
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a turn of the loop is all that passes here
            await asyncio.sleep(0)


async def test_temporary_trouble_is_waited_out_with_growing_waits_and_floors() -> None:
    time = VirtualTime()
    session = Scripted("a", Temporary("cut"), Temporary("cut"), Temporary("429", after_s=17.0))
    async with sailing(crew_with(time)) as crew:
        crew.start(session)
        await session.running.wait()
    assert time.slept == [0.5, 1.0, 17.0]


async def test_something_useful_resets_the_backoff() -> None:
    time = VirtualTime()
    session = Scripted("a", *[Temporary("cut")] * 5, useful_in=4)
    async with sailing(crew_with(time)) as crew:
        crew.start(session)
        await session.running.wait()
    assert time.slept == [0.5, 1.0, 2.0, 0.5, 1.0]


async def test_a_rejected_session_is_parked_alone_and_can_be_resumed() -> None:
    one, other = Scripted("one", Rejected("404", reason="not_found")), Scripted("other")
    async with sailing(crew_with(VirtualTime())) as crew:
        crew.start(one)
        crew.start(other)
        await until(lambda: bool(one.parked))
        states = {status.name: status.state for status in crew.states()}
        assert states == {"one": SessionState.PARKED, "other": SessionState.RUNNING}
        assert crew.group_parked("auvy") is None
        assert crew.resume("auvy") == 1
        await one.running.wait()
        assert other.runs == 1


async def test_a_fatal_error_parks_its_group_and_no_other() -> None:
    first, second = Scripted("1", None, group="x"), Scripted("2")
    third, foreign = Scripted("3", Fatal("401", reason="unauthorized")), Scripted("4", group="other")
    async with sailing(crew_with(VirtualTime())) as crew:
        for session in (first, second, foreign):
            crew.start(session)
        await second.running.wait()
        crew.start(third)
        await until(lambda: bool(second.parked and third.parked))
        late = Scripted("late")
        crew.start(late)
        states = {status.name: status.state for status in crew.states()}
        assert states == {
            "2": SessionState.PARKED,
            "3": SessionState.PARKED,
            "late": SessionState.PARKED,
            "4": SessionState.RUNNING,
        }
        assert crew.group_parked("auvy") == "unauthorized: 401"
        assert late.runs == 0
        assert crew.resume("auvy") == 3
        await asyncio.gather(second.running.wait(), third.running.wait(), late.running.wait())
        assert crew.group_parked("auvy") is None


async def test_a_bug_stops_its_session_only_and_is_counted() -> None:
    metrics = Metrics()
    buggy, healthy = Scripted("buggy", ZeroDivisionError("1/0")), Scripted("healthy")
    async with sailing(crew_with(VirtualTime(), metrics)) as crew:
        crew.start(healthy)
        crew.start(buggy)
        await until(lambda: bool(buggy.parked))
        assert buggy.parked[0].reason == "bug"
        assert metrics.registry.get_sample_value("jobbridge_session_bugs_total", {"group": "auvy"}) == 1
        assert healthy.runs == 1


async def test_a_finished_session_leaves_the_crew() -> None:
    done = Scripted("done", None)
    async with sailing(crew_with(VirtualTime())) as crew:
        crew.start(done)
        await until(lambda: not crew.states())
        assert done.runs == 1


async def test_the_note_of_a_parked_session_is_tried_until_it_is_durable() -> None:
    session = Scripted("a", Rejected("gone", reason="gone"))
    session.park_trouble = 3
    async with sailing(crew_with(VirtualTime())) as crew:
        crew.start(session)
        await until(lambda: bool(session.parked))


async def test_stop_waits_until_the_session_is_gone_and_start_is_idempotent() -> None:
    session = Scripted("a")
    async with sailing(crew_with(VirtualTime())) as crew:
        crew.start(session)
        crew.start(session)
        await session.running.wait()
        await crew.stop("a")
        assert crew.states() == []
        assert session.runs == 1
        await crew.stop("nobody")
