"""One job followed over streams that end in every way, into a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from scripted import DONE, HANG, KEY, NEVER, OURS, RUNNING, Following, Look, Numbers, ScriptedStream, ScriptedStreams

from bridge.errors import Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobStatus
from bridge.intake.provider import Reading, Refusal, Request
from bridge.journal.store import SubscriptionState
from bridge.journal.stores.sqlite import open_journal

Follow = Callable[..., Following]


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    async with open_journal(":memory:", clock_ms=lambda: 1_000_000) as journal:
        await journal.follow([KEY], "api")

        def make(looks: Sequence[Look], *scripts: Any, polled: bool = False, **settings: Any) -> Following:
            return Following(journal, Numbers(looks, polled=polled), ScriptedStreams(*scripts), **settings)

        yield make


async def test_a_job_is_followed_to_its_confirmed_end(follow: Follow) -> None:
    job = follow([RUNNING, DONE], [[(1, "a"), (2, "b")], [(3, "e")]], status_interval_s=NEVER)
    assert await job.run() == []
    told = await job.told()
    assert [line for line in told if "status" not in line] == [
        "watch.started watch.1",
        "job.output 1",
        "job.output 2",
        "job.completed 3",
    ]
    record = await job.journal.subscription(KEY)
    assert record is not None
    assert (record.state, record.cursor) == (SubscriptionState.ENDED, "3")
    assert orjson.loads((await job.entries())[-1].data)["result"] == "fine"


async def test_every_kind_of_broken_stream_is_resumed_behind_the_cursor(follow: Follow) -> None:
    job = follow(
        [RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, DONE],
        [[(1, "a")], Temporary("cut", reason="cut")],
        [[(1, "a"), (2, "b")]],
        [[(3, "c")], Temporary("idle", reason="idle")],
        [[(4, "e")]],
        status_interval_s=NEVER,
    )
    assert await job.run() == ["cut", "eof", "idle"]
    assert job.provider.asked == [None, "1", "2", "3"]
    assert [line for line in await job.told() if line.startswith("job.output")] == [
        "job.output 1",
        "job.output 2",
        "job.output 3",
    ]


async def test_the_stream_may_run_ahead_of_the_status_endpoint(follow: Follow) -> None:
    job = follow([RUNNING, RUNNING, RUNNING, DONE], [[(1, "e")]], status_interval_s=NEVER)
    assert await job.run() == []
    assert (await job.told())[-1] == "job.completed 1"


async def test_an_end_that_is_never_confirmed_is_not_journalled(follow: Follow) -> None:
    job = follow([RUNNING], [[(1, "a"), (2, "e")]], confirm_timeout_s=3, status_interval_s=NEVER)
    with pytest.raises(Temporary) as caught:
        await job.run_once()
    assert caught.value.reason == "unconfirmed"
    record = await job.journal.subscription(KEY)
    assert record is not None
    assert (record.state, record.cursor) == (SubscriptionState.ACTIVE, "1")


async def test_a_stream_that_ends_because_the_job_waits_is_no_end(follow: Follow) -> None:
    waiting = Reading(status=JobStatus.WAITING, provider_status="interrupted", waiting_for="approval")
    job = follow([RUNNING, *[waiting] * 12, DONE], [[(1, "a"), (2, "e")]], [[(3, "e")]], status_interval_s=NEVER)
    assert await job.run() == ["eof"]
    assert [line for line in await job.told() if "status" not in line and "watch" not in line] == [
        "job.output 1",
        "job.waiting 2",
        "job.completed 3",
    ]


async def test_the_status_endpoint_has_the_last_word_on_how_it_ended(follow: Follow) -> None:
    failed = Reading(status=JobStatus.FAILED, provider_status="failed", error={"message": "late trouble"})
    job = follow([failed], [[(1, "e")]])
    await job.run()
    assert (await job.told())[-1] == "job.failed 1"
    assert orjson.loads((await job.entries())[-1].data)["error"] == {"message": "late trouble"}


async def test_without_a_status_endpoint_the_stream_is_believed_and_the_event_says_so(follow: Follow) -> None:
    job = follow([Rejected("none", reason="no_status")], [[(1, "e")]])
    await job.run()
    assert orjson.loads((await job.entries())[-1].data)["detail"]["confirmed"] is False


async def test_a_closed_stream_does_not_end_a_job_whose_frames_are_still_to_come(follow: Follow) -> None:
    """The job is long over at the provider, its stream closes early, stalls and closes again before the last frames."""
    job = follow([DONE], [[(1, "a")]], [], [HANG], [[(2, "b")]], [], [[(3, "e")]])
    assert set(await job.run()) == {"end_unseen"}
    assert [line for line in await job.told() if not line.startswith("watch")] == [
        "job.output 1",
        "job.output 2",
        "job.completed 3",
    ]


async def test_an_end_that_the_stream_never_shows_is_at_last_believed_with_a_gap(follow: Follow) -> None:
    job = follow([DONE], [[(1, "a")]], [])
    await job.run()
    assert await job.told() == [
        "watch.started watch.1",
        "job.output 1",
        "watch.gap watch.2",
        "job.completed status.1",
    ]


async def test_frames_that_wait_for_us_are_no_silence(follow: Follow) -> None:
    """The bridge is overloaded: in every connection the frames wait for longer than a quiet stream is believed."""
    job = follow([DONE], [OURS, [(1, "a"), (2, "e")]])
    assert await job.run() == []
    assert await job.told() == ["watch.started watch.1", "job.output 1", "job.completed 2"]


async def test_a_job_without_any_frames_ends_by_its_status_alone(follow: Follow) -> None:
    job = follow([RUNNING, DONE], [HANG])
    assert set(await job.run()) == {"end_unseen"}
    assert await job.told() == ["watch.started watch.1", "job.started status.1", "job.completed status.2"]


async def test_waiting_is_found_beside_a_silent_stream(follow: Follow) -> None:
    waiting = Reading(status=JobStatus.WAITING, provider_status="waiting", waiting_for="approval")
    job = follow([RUNNING, waiting, waiting, RUNNING, DONE], [HANG])
    await job.run()
    assert [line.split()[0] for line in await job.told()] == [
        "watch.started",
        "job.started",
        "job.waiting",
        "job.resumed",
        "job.completed",
    ]


async def test_a_refused_cursor_is_a_gap_and_the_stream_is_read_again_without_repeats(follow: Follow) -> None:
    stale = Rejected("HTTP 400", reason="stale_cursor")
    job = follow(
        [RUNNING, RUNNING, DONE],
        [[(1, "a"), (2, "b")], Temporary("cut", reason="cut")],
        stale,
        [[(1, "a"), (2, "b"), (3, "e")]],
        status_interval_s=NEVER,
    )
    assert await job.run() == ["cut", "stale_cursor"]
    assert job.provider.asked == [None, "2", None]
    assert [line for line in await job.told() if "status" not in line] == [
        "watch.started watch.1",
        "job.output 1",
        "job.output 2",
        "watch.gap watch.2",
        "job.completed 3",
    ]


async def test_a_provider_without_streams_is_polled(follow: Follow) -> None:
    job = follow([RUNNING, RUNNING, DONE], polled=True)
    await job.run()
    assert [line.split()[0] for line in await job.told()] == ["watch.started", "job.started", "job.completed"]


async def test_an_unknown_job_is_given_a_moment_and_then_parked_as_lost(follow: Follow) -> None:
    job = follow([RUNNING], Rejected("HTTP 404", reason="not_found"), not_found_grace_s=10)
    job.clock.now_s = 1005.0
    with pytest.raises(Temporary) as early:
        await job.run_once()
    assert early.value.reason == "not_found_yet"
    job.clock.now_s = 1011.0
    with pytest.raises(Rejected) as late:
        await job.run_once()
    await job.subscription.park(late.value)
    record = await job.journal.subscription(KEY)
    assert record is not None
    assert (record.state, record.reason) == (SubscriptionState.PARKED, "not_found: HTTP 404")
    assert await job.told() == ["watch.lost watch.1"]


async def test_a_refused_key_leaves_the_subscription_wanted_and_says_that_nobody_watches(follow: Follow) -> None:
    job = follow([RUNNING], Fatal("HTTP 401", reason="unauthorized"), [[(1, "e")]])
    with pytest.raises(Fatal) as caught:
        await job.run_once()
    await job.subscription.park(caught.value)
    record = await job.journal.subscription(KEY)
    assert record is not None
    assert record.state is SubscriptionState.ACTIVE
    assert await job.told() == ["watch.denied watch.1"]


async def test_only_news_counts_as_useful(follow: Follow) -> None:
    job = follow([RUNNING], [[(1, "a")], Temporary("cut")], [[], [], [(1, "a")], Temporary("cut")])
    for _ in range(3):
        with pytest.raises(Temporary):
            await job.run_once()
    useful_events = 3  # watch.started, job.started or output: whatever was new
    assert job.useful <= useful_events
    before = job.useful
    with pytest.raises(Temporary):
        await job.run_once()
    assert job.useful == before


def told(number: int) -> Reading:
    """What the backfill knows of one number."""
    return Reading(EventType.OUTPUT, str(number), Cursor(str(number)), detail={"text": "from the list"})


async def test_what_was_missed_is_filled_in_before_the_stream_goes_on(follow: Follow) -> None:
    job = follow(
        [RUNNING, RUNNING, RUNNING, DONE],
        [[(1, "a")], Temporary("cut", reason="cut")],
        [[(4, "d"), (5, "e")]],
        status_interval_s=NEVER,
    )
    with pytest.raises(Temporary):
        await job.run_once()
    job.provider.told = [told(2), told(3)]
    await job.run()
    assert [line for line in await job.told() if line.startswith("job.") and "status" not in line] == [
        "job.output 1",
        "job.output 2",
        "job.output 3",
        "job.output 4",
        "job.completed 5",
    ]


async def test_a_hole_in_a_living_stream_is_asked_for_once_and_then_accepted(follow: Follow) -> None:
    job = follow([RUNNING, DONE], [[(1, "a")], [(3, "c")], [(9, "e")]], status_interval_s=NEVER)
    asked = 0
    backfill = job.provider.backfill

    async def counted(job_id: str, cursor: Cursor | None) -> AsyncGenerator[Sequence[Reading], None]:
        nonlocal asked
        asked += 1
        if cursor == "1":
            job.provider.told = [told(2)]
        async for readings in backfill(job_id, cursor):
            yield readings

    job.provider.backfill = counted  # type: ignore[method-assign]
    await job.run()
    assert [line for line in await job.told() if "status" not in line and "watch" not in line] == [
        "job.output 1",
        "job.output 2",
        "job.output 3",
        "job.completed 9",
    ]
    assert asked == 3  # when the stream opened, before 3, before 9


async def test_what_only_the_backfill_tells_comes_before_the_end(follow: Follow) -> None:
    job = follow([RUNNING, DONE], [[(1, "a")], [(3, "e")]], status_interval_s=NEVER)
    job.provider.tells_beside = True
    job.provider.told = [told(1), told(2)]
    await job.run()
    assert [line for line in await job.told() if "status" not in line and "watch" not in line] == [
        "job.output 1",
        "job.output 2",
        "job.completed 3",
    ]


async def test_a_server_that_wants_to_be_called_again_is_no_failure_once_it_lived_a_while(follow: Follow) -> None:
    job = follow([RUNNING, DONE], [[(1, "a"), (2, "reopen")]], [[(2, "e")]], status_interval_s=NEVER)
    opened = job.streams.open

    @asynccontextmanager
    async def aging(request: Request, refusal: Refusal) -> AsyncIterator[ScriptedStream]:
        async with opened(request, refusal) as stream:
            job.clock.now_s += 60
            yield stream

    job.streams.open = aging  # type: ignore[method-assign]
    assert await job.run() == []
    assert job.streams.opened == 2


async def test_one_that_wants_so_at_once_waits_its_backoff(follow: Follow) -> None:
    job = follow([RUNNING], [[(1, "reopen")]], status_interval_s=NEVER)
    with pytest.raises(Temporary) as caught:
        await job.run_once()
    assert caught.value.reason == "reopen"


async def test_a_refused_credential_is_renewed_once(follow: Follow) -> None:
    refused = Fatal("HTTP 401", reason="unauthorized")
    job = follow([RUNNING, DONE], refused, [[(1, "e")]], status_interval_s=NEVER)
    job.provider.renewals = [True]
    assert await job.run() == ["renewed"]


async def test_a_job_in_which_nothing_moves_is_told_of_once_and_looked_at_less_often(follow: Follow) -> None:
    job = follow([*[RUNNING] * 20, DONE], polled=True, status_interval_s=2, stalled_after_s=10, stalled_interval_s=50)
    began_s = job.clock.now_s
    await job.run()
    stalled = [entry for entry in await job.entries() if entry.type == "watch.stalled"]
    assert len(stalled) == 1
    assert orjson.loads(stalled[0].data)["detail"]["reason"] == "no_change"
    assert job.clock.now_s - began_s > 10 * 50
    assert (await job.told())[-1].startswith("job.completed")


async def test_without_a_free_place_for_a_stream_a_job_can_be_polled_until_there_is_one(follow: Follow) -> None:
    job = follow([RUNNING, RUNNING, RUNNING, DONE], [[(1, "e")]], poll_when_full=True)
    job.streams.full = True
    looks = job.provider.status

    async def status(job_id: str) -> Reading:
        seen = await looks(job_id)
        job.streams.full = False
        return seen

    job.provider.status = status  # type: ignore[method-assign]
    await job.run()
    assert job.streams.opened == 1
    assert (await job.told())[-1] == "job.completed 1"


async def test_a_state_of_now_does_not_come_in_front_of_the_log_that_led_to_it(follow: Follow) -> None:
    job = follow([RUNNING, DONE], [[(3, "e")]], status_interval_s=NEVER)

    async def slowly(job_id: str, cursor: Cursor | None) -> AsyncGenerator[Sequence[Reading], None]:
        for _ in range(20):
            await asyncio.sleep(0)
        if cursor is None:
            yield [Reading(key="1", cursor=Cursor("1"), status=JobStatus.PENDING, provider_status="queued")]
            yield [Reading(key="2", cursor=Cursor("2"), status=JobStatus.RUNNING, provider_status="running")]

    job.provider.backfill = slowly  # type: ignore[method-assign]
    await job.run()
    assert await job.told() == ["watch.started watch.1", "job.queued 1", "job.started 2", "job.completed 3"]


async def test_a_failed_poll_is_not_repeated_within_a_second(follow: Follow) -> None:
    job = follow([Temporary("HTTP 500", reason="server_error"), Temporary("HTTP 503", after_s=7)], polled=True)
    floors = []
    for _ in range(2):
        with pytest.raises(Temporary) as caught:
            await job.run_once()
        floors.append(caught.value.after_s)
    assert floors == [1.0, 7]
