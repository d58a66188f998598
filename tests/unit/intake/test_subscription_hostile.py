"""One job followed while the journal fails, the clock jumps, and the provider contradicts itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from scripted import DONE, HANG, KEY, RUNNING, Following, Look, Numbers, ScriptedStreams

from bridge.errors import Fatal, Rejected, Temporary
from bridge.event import EventType, JobEvent, JobStatus
from bridge.intake.provider import Reading
from bridge.journal.store import Checkpoint, Journal, SubscriptionRecord, SubscriptionState
from bridge.journal.stores.sqlite import open_journal

WAITING = Reading(status=JobStatus.WAITING, provider_status="waiting")


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


def following(journal: Any, looks: Sequence[Look], *scripts: Any, **settings: Any) -> Following:
    return Following(journal, Numbers(looks), ScriptedStreams(*scripts), **settings)


async def types_told(job: Following) -> list[str]:
    return [line.partition(" ")[0] for line in await job.told()]


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
    job = following(journal, [RUNNING, DONE], [[(1, "a")]], Rejected("HTTP 404", reason=reason))
    assert set(await job.run()) <= {"eof", "end_unseen", "stale_cursor"}
    assert (await types_told(job))[-2:] == ["watch.gap", "job.completed"]
    assert (await job.record()).state is SubscriptionState.ENDED


async def test_a_stream_that_is_gone_while_the_job_runs_is_still_refused(journal: Journal) -> None:
    job = following(journal, [RUNNING], Rejected("HTTP 404", reason="not_found"))
    with pytest.raises(Rejected):
        await job.run_once()


@pytest.mark.parametrize("ending", [[], [HANG]])
async def test_repeats_on_every_connection_do_not_keep_a_job_from_ending(journal: Journal, ending: list[Any]) -> None:
    """A server that ignores the cursor, or greets every connection, and never shows the end."""
    job = following(journal, [DONE], [[(1, "a")], *ending])
    await job.run()
    assert await types_told(job) == ["watch.started", "job.output", "watch.gap", "job.completed"]


async def test_a_change_whose_append_failed_is_told_by_the_next_run(journal: Journal) -> None:
    """The look finds `waiting`, its append fails, and the reader, next in line, journals a frame before all stops."""
    flaky = FailingOnce(journal, EventType.WAITING)
    job = following(flaky, [RUNNING, WAITING, WAITING, DONE], [[(1, "a")], flaky.reached, [(2, "b")], HANG], [HANG])
    running = asyncio.create_task(job.run_once())
    async with asyncio.timeout(5):
        await flaky.reached.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        flaky.gate.set()
        with pytest.raises(Temporary):
            await running
    await job.run()
    assert EventType.WAITING in await types_told(job)


async def test_a_wall_clock_set_back_delays_no_end(journal: Journal) -> None:
    job = following(journal, [], [[(1, "a"), (2, "e")]], confirm_timeout_s=10)

    def set_back() -> Reading:
        job.clock.wall_offset_s -= 3600.0
        return RUNNING

    job.subscription._source.provider = Numbers([set_back])
    before_s = job.clock.now_s
    with pytest.raises(Temporary) as caught:
        await job.run_once()
    assert caught.value.reason == "unconfirmed"
    assert job.clock.now_s - before_s < 60


async def test_a_job_that_ended_and_was_removed_ends_at_once_when_asked_for_again(journal: Journal) -> None:
    job = following(journal, [DONE], [[(1, "e")]])
    await job.run()
    told = await types_told(job)
    await journal.steer(KEY, SubscriptionState.REMOVED)
    [(revived, _)] = await journal.follow([KEY], "api")
    assert revived.state is SubscriptionState.ACTIVE
    assert await job.run() == []
    assert (await job.record()).state is SubscriptionState.ENDED
    assert await types_told(job) == told


async def test_a_refused_key_is_told_once_however_often_the_bridge_starts_with_it(journal: Journal) -> None:
    job = following(journal, [RUNNING], [[(1, "e")]])
    for _ in range(3):
        await job.subscription.park(Fatal("HTTP 401", reason="unauthorized"))
    assert await types_told(job) == ["watch.denied"]


async def test_words_about_our_watching_do_not_reset_the_backoff(journal: Journal) -> None:
    job = following(journal, [Temporary("HTTP 500")], [])
    with pytest.raises(Temporary):
        await job.run_once()
    assert await types_told(job) == ["watch.started"]
    assert job.useful == 0


async def test_a_status_answer_beyond_the_limit_leaves_the_stream_its_word(journal: Journal) -> None:
    """A job whose result is larger than an answer may be: its end must be told all the same."""
    too_large = Rejected("answer of more than 8388608 bytes", reason="too_large")
    job = following(journal, [RUNNING, too_large], [[(1, "a")], [(2, "e")]])
    assert await job.run() == []
    assert (await types_told(job))[-1] == "job.completed"
