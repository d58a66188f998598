"""One job followed while the journal fails, the clock jumps, and the provider contradicts itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobEvent, JobKey, JobStatus
from bridge.intake.provider import Frame, Provider, Reading, Refusal, Request, SourceSettings
from bridge.intake.source import Source
from bridge.intake.subscription import Subscription, Surroundings
from bridge.journal.store import Checkpoint, Journal, SubscriptionRecord, SubscriptionState
from bridge.journal.stores.sqlite import open_journal
from bridge.telemetry.metrics import Metrics

KEY = JobKey("src", "job")
RUNNING = Reading(status=JobStatus.RUNNING, provider_status="running")
WAITING = Reading(status=JobStatus.WAITING, provider_status="waiting")
DONE = Reading(status=JobStatus.COMPLETED, provider_status="done")
HANG = object()


class Time:
    """Moves when somebody waits. The wall clock can be moved besides, as an operator or a time server would."""

    def __init__(self) -> None:
        self.now_s = 5000.0
        self.wall_offset_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s + self.wall_offset_s

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s
        for _ in range(20):
            await asyncio.sleep(0)


class Numbers(Provider):
    """Frames are numbered texts, `e` is the end; the status endpoint answers one look after the other."""

    def __init__(self, looks: Sequence[Any]) -> None:
        self._looks = list(looks)

    def stream(self, job_id: str, cursor: Cursor | None) -> Request | None:
        return Request("http://test")

    def read(self, frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:
        if cursor is not None and int(frame.id) <= int(cursor):
            return ()
        status = JobStatus.COMPLETED if frame.data == b"e" else None
        return (Reading(None if status else EventType.OUTPUT, frame.id, Cursor(frame.id), status=status),)

    async def status(self, job_id: str) -> Reading:
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if callable(look):
            look = look()
        if isinstance(look, BridgeError):
            raise look
        assert isinstance(look, Reading)
        return look


class Stream:
    retry_s: float | None = None

    def __init__(self, script: Sequence[Any]) -> None:
        self._script = script

    async def __aiter__(self) -> AsyncIterator[list[Frame]]:
        for step in self._script:
            if step is HANG:
                await asyncio.Event().wait()
            if isinstance(step, asyncio.Event):
                await step.wait()
                continue
            yield [Frame("message", text.encode(), str(number)) for number, text in step]


class Scripts:
    """One script per connection; the last one serves all later ones."""

    full = False

    def __init__(self, *scripts: Any) -> None:
        self._scripts = list(scripts)

    @asynccontextmanager
    async def open(self, request: Request, refusal: Refusal) -> AsyncIterator[Stream]:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        if isinstance(script, BridgeError):
            raise script
        yield Stream(script)


class FailingOnce:
    """The journal, except that the first append of that type waits for `gate` and then fails."""

    def __init__(self, journal: Journal, type_: EventType) -> None:
        self._journal, self._type = journal, type_
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    async def append(self, subscription: SubscriptionRecord, events: Sequence[JobEvent], checkpoint: Checkpoint) -> int:
        if not self.reached.is_set() and any(event.type is self._type for event in events):
            self.reached.set()
            await self.gate.wait()
            raise Temporary("the disk is full")
        return await self._journal.append(subscription, events, checkpoint)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


class Following:
    def __init__(self, journal: Any, looks: Sequence[Any], *scripts: Any, **settings: Any) -> None:
        self.journal, self.time = journal, Time()
        options = SourceSettings.model_validate({"provider": "numbers"} | settings)
        source = Source("src", "numbers", Numbers(looks), Scripts(*scripts), options)
        around = Surroundings(
            journal, Metrics(), clock=self.time.monotonic, sleep=self.time.sleep, wall_clock=self.time.wall
        )
        self.subscription = Subscription(KEY, source, around)
        self.useful = 0

    async def run_once(self) -> None:
        def useful() -> None:
            self.useful += 1

        async with asyncio.timeout(5):
            await self.subscription.run(useful)

    async def run(self, tries: int = 8) -> list[str]:
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

    async def told(self) -> list[str]:
        async with asyncio.timeout(5):
            entries = await self.journal.pending(0, 0, limit=1000)
        return [entry.type for entry in entries]

    async def record(self) -> SubscriptionRecord:
        record = await self.journal.subscription(KEY)
        assert isinstance(record, SubscriptionRecord)
        return record


Follow = Callable[..., Following]


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    async with open_journal(":memory:", clock_ms=lambda: 1_000_000) as journal:
        await journal.follow([KEY], "api")
        yield journal


@pytest.mark.parametrize("reason", ["not_found", "gone"])
async def test_a_job_that_ended_before_its_stream_was_thrown_away_is_told_as_ended(
    journal: Journal, reason: str
) -> None:
    """The bridge was away for longer than the provider keeps streams; the status endpoint still knows the outcome."""
    job = Following(journal, [RUNNING, DONE], [[(1, "a")]], Rejected("HTTP 404", reason=reason))
    assert set(await job.run()) <= {"eof", "end_unseen", "stale_cursor"}
    assert (await job.told())[-2:] == ["watch.gap", "job.completed"]
    assert (await job.record()).state is SubscriptionState.ENDED


async def test_a_stream_that_is_gone_while_the_job_runs_is_still_refused(journal: Journal) -> None:
    job = Following(journal, [RUNNING], Rejected("HTTP 404", reason="not_found"))
    with pytest.raises(Rejected):
        await job.run_once()


@pytest.mark.parametrize("ending", [[], [HANG]])
async def test_repeats_on_every_connection_do_not_keep_a_job_from_ending(journal: Journal, ending: list[Any]) -> None:
    """A server that ignores the cursor, or greets every connection, and never shows the end."""
    job = Following(journal, [DONE], [[(1, "a")], *ending])
    await job.run()
    assert await job.told() == ["watch.started", "job.output", "watch.gap", "job.completed"]


async def test_a_change_whose_append_failed_is_told_by_the_next_run(journal: Journal) -> None:
    """The look finds `waiting`, its append fails, and the reader, next in line, journals a frame before all stops."""
    flaky = FailingOnce(journal, EventType.WAITING)
    job = Following(flaky, [RUNNING, WAITING, WAITING, DONE], [[(1, "a")], flaky.reached, [(2, "b")], HANG], [HANG])
    running = asyncio.create_task(job.run_once())
    async with asyncio.timeout(5):
        await flaky.reached.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        flaky.gate.set()
        with pytest.raises(Temporary):
            await running
    await job.run()
    assert EventType.WAITING in await job.told()


async def test_a_wall_clock_set_back_delays_no_end(journal: Journal) -> None:
    job = Following(journal, [], [[(1, "a"), (2, "e")]], confirm_timeout_s=10)

    def set_back() -> Reading:
        job.time.wall_offset_s -= 3600.0
        return RUNNING

    job.subscription._source.provider = Numbers([set_back])
    before_s = job.time.now_s
    with pytest.raises(Temporary) as caught:
        await job.run_once()
    assert caught.value.reason == "unconfirmed"
    assert job.time.now_s - before_s < 60


async def test_a_job_that_ended_and_was_removed_ends_at_once_when_asked_for_again(journal: Journal) -> None:
    job = Following(journal, [DONE], [[(1, "e")]])
    await job.run()
    told = await job.told()
    await journal.steer(KEY, SubscriptionState.REMOVED)
    [(revived, _)] = await journal.follow([KEY], "api")
    assert revived.state is SubscriptionState.ACTIVE
    assert await job.run() == []
    assert (await job.record()).state is SubscriptionState.ENDED
    assert await job.told() == told


async def test_a_refused_key_is_told_once_however_often_the_bridge_starts_with_it(journal: Journal) -> None:
    job = Following(journal, [RUNNING], [[(1, "e")]])
    for _ in range(3):
        await job.subscription.park(Fatal("HTTP 401", reason="unauthorized"))
    assert await job.told() == ["watch.denied"]


async def test_words_about_our_watching_do_not_reset_the_backoff(journal: Journal) -> None:
    job = Following(journal, [Temporary("HTTP 500")], [])
    with pytest.raises(Temporary):
        await job.run_once()
    assert await job.told() == ["watch.started"]
    assert job.useful == 0


async def test_a_status_answer_beyond_the_limit_leaves_the_stream_its_word(journal: Journal) -> None:
    """A job whose result is larger than an answer may be: its end must be told all the same."""
    too_large = Rejected("answer of more than 8388608 bytes", reason="too_large")
    job = Following(journal, [RUNNING, too_large], [[(1, "a")], [(2, "e")]])
    assert await job.run() == []
    assert (await job.told())[-1] == "job.completed"
