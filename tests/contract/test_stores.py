"""What the journal's seam means, over every store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from bridge.errors import Fatal
from bridge.event import Cursor, EventType, JobEvent, JobKey
from bridge.journal.store import (
    WISHES,
    Checkpoint,
    DeliveryState,
    Entry,
    Journal,
    Outcome,
    SubscriptionRecord,
    SubscriptionState,
)

if TYPE_CHECKING:
    from contract.conftest import OpenJournal

NOW_MS = 1_000_000


def event(record: SubscriptionRecord, name: str, data: bytes = b"{}") -> JobEvent:
    source, job_id = record.key
    return JobEvent(f"{source}/{job_id}/{name}", source, job_id, EventType.OUTPUT, data, "2025-01-01T00:00:00Z")


def events(record: SubscriptionRecord, *names: object, data: bytes = b"{}") -> list[JobEvent]:
    return [event(record, str(name), data) for name in names]


def at(cursor: str, *, ended: bool = False) -> Checkpoint:
    return Checkpoint(Cursor(cursor), f"memory at {cursor}".encode(), ended)


async def followed(journal: Journal, *job_ids: str) -> list[SubscriptionRecord]:
    return [record for record, _ in await journal.follow([JobKey("auvy", job_id) for job_id in job_ids], "config")]


async def entries(journal: Journal, partition: int = 0, after: int = 0) -> Sequence[Entry]:
    return await journal.pending(partition, after, limit=100_000, bytes_max=1 << 30)


async def now(journal: Journal, record: SubscriptionRecord) -> SubscriptionRecord:
    fresh = await journal.subscription(record.key)
    assert fresh is not None
    return fresh


# -- append -----------------------------------------------------------------------------------------------------------


async def test_append_journals_the_events_and_moves_the_cursor(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        given = JobEvent("id-1", "auvy", "a", EventType.STEP, b'{"n": "\xc3\xa9"}', "2025-01-01T00:00:00Z", "00-1-2-3")

        assert await journal.append(job, [given, event(job, "2")], at("c2")) == 2

        first, second = await entries(journal)
        assert first == Entry(
            0, 1, job.id, 1, NOW_MS, "id-1", "auvy", "a", "job.step", "2025-01-01T00:00:00Z", "00-1-2-3", given.data
        )
        assert first.job_key == "auvy/a"
        assert (second.position, second.sequence, second.traceparent) == (2, 2, None)
        moved = await now(journal, job)
        assert (moved.cursor, moved.memory, moved.sequence, moved.state) == ("c2", b"memory at c2", 2, "active")


async def test_append_without_events_moves_the_cursor_alone(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        assert await journal.append(job, [], at("c1")) == 0
        moved = await now(journal, job)
        assert (moved.cursor, moved.sequence, moved.revision) == ("c1", 0, job.revision)
        assert (await journal.health()).entries == 0


async def test_data_and_names_come_back_byte_for_byte(open_journal_at: OpenJournal) -> None:
    odd = ["", '"', "\\", "\u2028", "\U0001f600", "a\x1fb\x00c", "é" * 300]
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "j/ö b")
        given = [
            JobEvent(f"id {nth} {text}", "auvy", text, EventType.OUTPUT, data, text)
            for nth, text in enumerate(odd)
            for data in [bytes(range(256)) * nth + text.encode()]
        ]
        await journal.append(job, given, at("c"))
        found = await entries(journal)
        assert [(e.id, e.subject, e.time, e.data) for e in found] == [(g.id, g.subject, g.time, g.data) for g in given]
        assert await journal.append(job, given, at("c")) == 0


async def test_an_event_that_is_there_already_is_dropped_without_a_gap(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        assert await journal.append(job, events(job, 1, 2, 2, 3), at("c3")) == 3
        assert await journal.append(job, events(job, 2, 3, 4, 4, 1, 5), at("c5")) == 2
        found = await entries(journal)
        assert [(e.position, e.sequence, e.id.rpartition("/")[2]) for e in found] == [
            (nth, nth, str(nth)) for nth in range(1, 6)
        ]


async def test_jobs_do_not_share_event_ids(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        one, other = await followed(journal, "a", "b")
        same = JobEvent("1", "auvy", "a", EventType.OUTPUT, b"{}")
        assert await journal.append(one, [same], at("c")) == 1
        assert await journal.append(other, [same], at("c")) == 1


async def test_a_hundred_tasks_append_at_once_each_in_order(open_journal_at: OpenJournal) -> None:
    async with open_journal_at(partitions=4) as journal:
        jobs = await followed(journal, *(f"job-{nth}" for nth in range(100)))

        async def feed(job: SubscriptionRecord) -> None:
            for batch in range(5):
                # every batch begins with the last event of the one before, as after a reconnect
                names = range(batch * 7, batch * 7 + 8)
                assert await journal.append(job, events(job, *names), at(str(batch))) == (8 if batch == 0 else 7)

        await asyncio.gather(*(feed(job) for job in jobs))

        seen: dict[int, list[Entry]] = {job.id: [] for job in jobs}
        for partition in range(4):
            found = await entries(journal, partition)
            assert [e.position for e in found] == list(range(1, len(found) + 1))
            for entry in found:
                seen[entry.subscription].append(entry)
        for job in jobs:
            assert {e.partition for e in seen[job.id]} == {job.partition}
            assert [e.sequence for e in seen[job.id]] == list(range(1, 37))
            assert [e.id for e in seen[job.id]] == [e.id for e in events(job, *range(36))]
            assert (await now(journal, job)).cursor == "4"


async def test_two_appends_of_one_job_at_once_are_as_one_after_the_other(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        counts = await asyncio.gather(*(journal.append(job, events(job, 1, 2, 3), at(str(n))) for n in range(20)))
        assert sum(counts) == 3
        assert [(e.position, e.sequence) for e in await entries(journal)] == [(1, 1), (2, 2), (3, 3)]
        assert (await now(journal, job)).sequence == 3


async def test_an_append_that_cannot_be_written_fails_alone(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        good, bad = await followed(journal, "a", "b")
        lone_surrogate = JobEvent("\ud800", "auvy", "b", EventType.OUTPUT, b"{}")
        results = await asyncio.gather(
            journal.append(good, events(good, 1), at("c1")),
            journal.append(bad, [event(bad, "1"), lone_surrogate], at("c1")),
            journal.append(good, events(good, 2), at("c2")),
            return_exceptions=True,
        )
        assert results[0] == results[2] == 1
        assert isinstance(results[1], UnicodeEncodeError)
        assert [e.subject for e in await entries(journal)] == ["a", "a"]
        assert (await now(journal, bad)).cursor is None


async def test_callers_cancelled_while_they_append_harm_nobody(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        jobs = await followed(journal, *(f"job-{nth}" for nth in range(20)))
        doomed = [asyncio.create_task(journal.append(job, events(job, 1, 2), at("c2"))) for job in jobs]
        await asyncio.sleep(0)
        for task in doomed[::2]:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        for job in jobs:
            await journal.append(job, events(job, 1, 2, 3), at("c3"))
        found = await entries(journal)
        assert [e.position for e in found] == list(range(1, 61))
        for job in jobs:
            assert [e.sequence for e in found if e.subscription == job.id] == [1, 2, 3]


async def test_the_terminal_event_ends_the_subscription(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        job, removed = await followed(journal, "a", "b")
        await journal.steer(removed.key, SubscriptionState.REMOVED)
        await journal.append(job, events(job, 1), at("c1", ended=True))
        await journal.append(removed, events(removed, 1), at("c1", ended=True))
        ended = await now(journal, job)
        assert ended.state is SubscriptionState.ENDED
        assert ended.revision > job.revision
        assert (await now(journal, removed)).state is SubscriptionState.REMOVED


# -- reading ----------------------------------------------------------------------------------------------------------


async def test_pending_waits_until_there_is_an_entry(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        waiting = [asyncio.create_task(journal.pending(0, 0, limit=10)) for _ in range(3)]
        further = asyncio.create_task(journal.pending(0, 2, limit=10))
        await journal.append(job, [], at("c0"))
        assert not any(task.done() for task in [*waiting, further])
        await journal.append(job, events(job, 1, 2), at("c2"))
        for found in await asyncio.gather(*waiting):
            assert [e.position for e in found] == [1, 2]
        assert not further.done()
        await journal.append(job, events(job, 3), at("c3"))
        assert [e.position for e in await further] == [3]


async def test_a_cancelled_wait_leaves_the_others_waiting(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        doomed, patient = (asyncio.create_task(journal.pending(0, 0, limit=10)) for _ in range(2))
        await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)
        assert doomed.cancelled()
        await journal.append(job, events(job, 1), at("c1"))
        assert len(await patient) == 1


async def test_pending_keeps_to_its_limits_and_gives_one_at_least(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        await journal.append(job, events(job, *range(10), data=b"x" * 100), at("c"))
        assert [e.position for e in await journal.pending(0, 3, limit=4)] == [4, 5, 6, 7]
        assert [e.position for e in await journal.pending(0, 8, limit=4)] == [9, 10]
        assert [e.position for e in await journal.pending(0, 0, limit=9, bytes_max=350)] == [1, 2, 3]
        assert [e.position for e in await journal.pending(0, 4, limit=9, bytes_max=10)] == [5]


async def test_a_reader_who_settles_never_misses_what_commits_late(open_journal_at: OpenJournal) -> None:
    """Two writers, one slow: a position may never become visible below one that was visible before."""
    async with open_journal_at() as journal:
        slow, quick = await followed(journal, "slow", "quick")
        await journal.register(["reader"])
        total = 20 * 400 + 200

        async def write_slowly() -> None:
            for batch in range(20):
                await journal.append(slow, events(slow, *((batch, n) for n in range(400)), data=b"x" * 500), at("c"))

        async def write_quickly() -> None:
            for batch in range(200):
                await journal.append(quick, events(quick, batch), at("c"))

        async def read() -> list[int]:
            seen: list[int] = []
            settled = 0
            while len(seen) < total:
                seen += [e.position for e in await journal.pending(0, settled, limit=100)]
                settled = seen[-1]
                await journal.settle("reader", 0, settled)
            return seen

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write_slowly())
            tasks.create_task(write_quickly())
            reading = tasks.create_task(read())
        assert reading.result() == list(range(1, total + 1))


async def test_an_entry_can_be_looked_up_by_its_position(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        await journal.append(job, events(job, 1, 2), at("c"))
        assert await journal.entry(0, 2) == (await entries(journal))[1]
        assert await journal.entry(0, 3) is None


# -- consumers --------------------------------------------------------------------------------------------------------


async def test_a_new_consumer_begins_at_the_end_and_a_known_one_keeps_its_place(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        await journal.register(["early"])
        await journal.append(job, events(job, 1, 2, 3), at("c3"))
        await journal.settle("early", 0, 1)
        await journal.register(["early", "late"])
        assert (await journal.position("early", 0), await journal.position("late", 0)) == (1, 3)
        assert (await journal.begun("early", 0), await journal.begun("late", 0)) == (0, 3)


async def test_a_consumer_that_is_not_registered_is_a_key_error(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["kafka"])
        await journal.register([])
        for call in (journal.position("kafka", 0), journal.begun("other", 0), journal.settle("kafka", 0, 0)):
            with pytest.raises(KeyError):
                await call


async def test_a_consumer_that_returns_finds_its_place(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        await journal.register(["kafka", "hook"])
        await journal.append(job, events(job, 1, 2), at("c"))
        await journal.settle("hook", 0, 1)
        await journal.register(["kafka"])
        await journal.settle("kafka", 0, 2)
        assert (await journal.health()).depth == {"kafka": 0}
        await journal.register(["kafka", "hook"])
        assert await journal.position("hook", 0) == 1
        assert (await journal.health()).depth == {"kafka": 0, "hook": 1}


async def test_settle_never_moves_back(open_journal_at: OpenJournal) -> None:
    async with open_journal_at(partitions=2) as journal:
        jobs = await followed(journal, *(f"job-{nth}" for nth in range(20)))
        await journal.register(["kafka"])
        for job in jobs:
            await journal.append(job, events(job, 1, 2), at("c"))
        await journal.settle("kafka", 0, 4)
        await journal.settle("kafka", 0, 2)
        assert await journal.position("kafka", 0) == 4
        assert await journal.position("kafka", 1) == 0


async def test_a_consumer_ahead_of_the_journal_is_refused(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (job,) = await followed(journal, "a")
        await journal.register(["kafka"])
        await journal.append(job, events(job, 1), at("c"))
        with pytest.raises(Fatal, match="kafka has settled position 2 of partition 0, and the journal ends at 1"):
            await journal.settle("kafka", 0, 2)
        assert await journal.position("kafka", 0) == 0


# -- deliveries -------------------------------------------------------------------------------------------------------

RETRYING, HELD = DeliveryState.RETRYING, DeliveryState.HELD
DELIVERED, DEAD, FILTERED = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.FILTERED


async def test_outcomes_are_told_apart_by_lane_blocked_and_finished(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        a, b = await followed(journal, "a", "b")
        await journal.register(["hook", "other"])
        await journal.append(a, events(a, 1, 2, 3), at("c"))
        await journal.append(b, events(b, 1, 2, 3), at("c"))
        stuck = Outcome(1, a.id, RETRYING, 2, NOW_MS - 50, NOW_MS + 70, 503, "busy")
        await journal.settle(
            "hook",
            0,
            4,
            [
                stuck,
                Outcome(2, a.id, HELD),
                Outcome(3, a.id, FILTERED),
                Outcome(4, b.id, RETRYING, 1, NOW_MS, NOW_MS + 30),
                Outcome(6, b.id, DELIVERED, 1),
            ],
        )
        await journal.settle("other", 0, 1, [Outcome(1, a.id, RETRYING, 1, NOW_MS, NOW_MS)])
        kept = {e.position: e for e in await entries(journal)}

        lane = await journal.lane("hook", 0, a.id, 10)
        assert lane[0].outcome == stuck
        assert isinstance(lane[0].outcome.state, DeliveryState)
        assert [(o.outcome.position, o.outcome.state, o.entry) for o in lane] == [
            (1, RETRYING, kept[1]),
            (2, HELD, kept[2]),
        ]
        assert len(await journal.lane("hook", 0, a.id, 1)) == 1
        assert await journal.blocked("hook", 0) == {a.id: NOW_MS + 70, b.id: NOW_MS + 30}
        assert await journal.finished("hook", 0, 4) == {6}
        assert await journal.finished("hook", 0, 2) == {3, 4, 6}
        assert (await journal.health()).outstanding == {"hook": {"retrying": 2, "held": 1}, "other": {"retrying": 1}}


async def test_an_outcome_replaces_the_one_before(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (a,) = await followed(journal, "a")
        await journal.register(["hook"])
        await journal.append(a, events(a, 1, 2), at("c"))
        await journal.settle("hook", 0, 2, [Outcome(1, a.id, RETRYING, 1, 1, 10), Outcome(2, a.id, HELD)])
        await journal.settle("hook", 0, 0, [Outcome(1, a.id, RETRYING, 2, 1, 99)])
        assert await journal.blocked("hook", 0) == {a.id: 99}
        await journal.settle("hook", 0, 2, [Outcome(1, a.id, DEAD, 3, 1)])
        assert [o.outcome.position for o in await journal.lane("hook", 0, a.id, 10)] == [2]
        assert await journal.blocked("hook", 0) == {a.id: 0}
        await journal.settle("hook", 0, 2, [Outcome(2, a.id, DELIVERED, 1, 1)])
        assert await journal.blocked("hook", 0) == {}
        assert (await journal.health()).outstanding == {"hook": {"dead": 1}}


async def test_many_outcomes_of_one_settle_are_all_kept(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (a,) = await followed(journal, "a")
        await journal.register(["hook"])
        await journal.append(a, events(a, *range(1000)), at("c"))
        await journal.settle("hook", 0, 0, [Outcome(n, a.id, FILTERED) for n in range(1, 1001)])
        assert await journal.finished("hook", 0, 0) == set(range(1, 1001))


# -- subscriptions ----------------------------------------------------------------------------------------------------


async def test_follow_makes_each_subscription_once(open_journal_at: OpenJournal) -> None:
    a, b, c = (JobKey("auvy", job_id) for job_id in "abc")
    async with open_journal_at() as journal:
        first = await journal.follow([a, b, a], "config")
        assert [(record.key, new) for record, new in first] == [(a, True), (b, True), (a, False)]
        record = first[0][0]
        assert record == first[2][0] == await journal.subscription(a)
        assert (record.state, record.origin, record.cursor, record.memory, record.sequence) == (
            SubscriptionState.ACTIVE, "config", None, b"", 0,
        )  # fmt: skip
        assert (record.created_ms, record.updated_ms, record.reason) == (NOW_MS, NOW_MS, None)
        again = await journal.follow([c, b], "discovery")
        assert [(record.key, record.origin, new) for record, new in again] == [
            (c, "discovery", True),
            (b, "config", False),
        ]
        assert await journal.follow([], "config") == []
        assert await journal.subscription(JobKey("auvy", "d")) is None


async def test_a_job_has_one_partition_for_ever(open_durable_journal_at: OpenJournal) -> None:
    keys = [JobKey("auvy", f"job-{nth}") for nth in range(200)]
    async with open_durable_journal_at(partitions=8) as journal:
        before = {record.key: record.partition for record, _ in await journal.follow(keys, "config")}
        assert set(before.values()) == set(range(8)) == set(range(journal.partitions))
    async with open_durable_journal_at(partitions=8) as journal:
        assert {record.key: record.partition for record, _ in await journal.follow(keys, "api")} == before


async def test_subscriptions_are_listed_page_by_page(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        records = await followed(journal, *(f"job-{nth}" for nth in range(7)))
        other = [record for record, _ in await journal.follow([JobKey("tenfive", "x")], "api")]
        await journal.steer(records[3].key, SubscriptionState.PAUSED)
        assert [r.id for r in await journal.subscriptions(limit=3)] == [r.id for r in records[:3]]
        assert [r.id for r in await journal.subscriptions(after_id=records[4].id)] == [
            r.id for r in [*records[5:], *other]
        ]
        assert list(await journal.subscriptions(source="tenfive")) == other
        assert [r.id for r in await journal.subscriptions(state=SubscriptionState.PAUSED)] == [records[3].id]
        assert await journal.subscriptions(source="tenfive", state=SubscriptionState.PAUSED) == []


async def test_changed_waits_for_what_is_made_or_changes_its_state(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        a, b = await followed(journal, "a", "b")
        assert [r.key for r in await journal.changed(0)] == [a.key, b.key]
        assert [r.key for r in await journal.changed(0, limit=1)] == [a.key]
        waiting = asyncio.create_task(journal.changed(b.revision))
        await journal.append(b, events(b, 1), at("c1"))
        await journal.steer(b.key, SubscriptionState.ACTIVE)
        assert not waiting.done()
        await journal.steer(a.key, SubscriptionState.PARKED, "denied")
        (parked,) = await waiting
        assert (parked.key, parked.state, parked.reason) == (a.key, SubscriptionState.PARKED, "denied")
        waiting = asyncio.create_task(journal.changed(parked.revision))
        (c,) = await followed(journal, "c")
        assert await waiting == [c]
        await journal.append(b, events(b, 2), at("c2", ended=True))
        assert [r.state for r in await journal.changed(c.revision)] == [SubscriptionState.ENDED]


async def test_steer_sets_the_state_and_the_reason(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (a,) = await followed(journal, "a")
        assert await journal.steer(JobKey("auvy", "unknown"), SubscriptionState.PAUSED) is None
        parked = await journal.steer(a.key, SubscriptionState.PARKED, "no_stream")
        assert parked == await journal.subscription(a.key)
        assert parked is not None
        assert (parked.state, parked.reason) == (SubscriptionState.PARKED, "no_stream")
        resumed = await journal.steer(a.key, SubscriptionState.ACTIVE)
        assert resumed is not None
        assert (resumed.state, resumed.reason) == (SubscriptionState.ACTIVE, None)
        assert a.revision < parked.revision < resumed.revision


async def test_an_ended_subscription_stays_ended_unless_it_is_removed(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (a,) = await followed(journal, "a")
        await journal.append(a, events(a, 1), at("c1", ended=True))
        for state in (SubscriptionState.ACTIVE, SubscriptionState.PAUSED, SubscriptionState.PARKED):
            steered = await journal.steer(a.key, state, "why")
            assert steered is not None
            assert (steered.state, steered.reason) == (SubscriptionState.ENDED, None)
        removed = await journal.steer(a.key, SubscriptionState.REMOVED)
        assert removed is not None
        assert removed.state is SubscriptionState.REMOVED


@pytest.mark.parametrize("wish", sorted(WISHES))
async def test_only_a_wish_brings_back_what_was_removed(open_journal_at: OpenJournal, wish: str) -> None:
    async with open_journal_at() as journal:
        (a,) = await followed(journal, "a")
        await journal.append(a, events(a, 1), at("c1"))
        await journal.steer(a.key, SubscriptionState.REMOVED)
        await journal.steer(a.key, SubscriptionState.PARKED, "too late")
        for origin in ("config", "discovery"):
            ((record, new),) = await journal.follow([a.key], origin)
            assert (record.state, new) == (SubscriptionState.REMOVED, False)
        revision = record.revision
        ((record, new),) = await journal.follow([a.key], wish)
        assert (record.id, record.state, record.cursor, new) == (a.id, SubscriptionState.ACTIVE, "c1", False)
        assert [r.id for r in await journal.changed(revision)] == [a.id]


# -- room and retention -----------------------------------------------------------------------------------------------


async def test_over_the_high_water_mark_appends_wait_until_prune_makes_room(open_journal_at: OpenJournal) -> None:
    async with open_journal_at(high_water_bytes=3 << 20) as journal:
        a, b = await followed(journal, "a", "b")
        await journal.register(["kafka"])
        appended = 0
        while (await journal.health()).live_bytes <= 3 << 20:
            appended += await journal.append(a, events(a, *range(appended, appended + 50), data=b"x" * 4000), at("c"))
        waiting = [asyncio.create_task(journal.append(job, events(job, "late"), at("late"))) for job in (a, b)]

        await journal.settle("kafka", 0, appended)
        await journal.steer(b.key, SubscriptionState.PAUSED)
        assert (await journal.health()).writable
        assert not any(task.done() for task in waiting)
        assert (await now(journal, a)).cursor == "c"

        while await journal.prune(NOW_MS + 1, 100) == 100:
            pass
        assert await asyncio.gather(*waiting) == [1, 1]
        assert [e.position for e in await entries(journal)] == [appended + 1, appended + 2]


async def test_prune_takes_only_what_is_old_and_settled_by_all(open_journal_at: OpenJournal) -> None:
    clock = iter([NOW_MS] * 4 + [NOW_MS + 10] + [NOW_MS + 20] * 100)
    async with open_journal_at(clock_ms=lambda: next(clock)) as journal:
        (a,) = await followed(journal, "a")
        await journal.register(["kafka", "hook"])
        await journal.append(a, events(a, 1, 2), at("c"))
        await journal.append(a, events(a, 3), at("c"))
        await journal.append(a, events(a, 4), at("c"))
        assert [e.recorded_ms for e in await entries(journal)] == [NOW_MS, NOW_MS, NOW_MS, NOW_MS + 10]
        assert await journal.prune(NOW_MS + 5) == 0
        await journal.settle("kafka", 0, 4)
        assert await journal.prune(NOW_MS + 5) == 0
        await journal.settle("hook", 0, 1)
        assert await journal.prune(NOW_MS) == 0
        assert await journal.prune(NOW_MS + 5) == 1
        await journal.settle("hook", 0, 4)
        assert await journal.prune(NOW_MS + 5, limit=1) == 1
        assert await journal.prune(NOW_MS + 5) == 1
        assert [e.position for e in await entries(journal)] == [4]
        assert await journal.prune(NOW_MS + 10) == 0
        assert await journal.prune(NOW_MS + 11) == 1
        assert (await journal.health()).entries == 0


async def test_prune_keeps_what_is_outstanding_or_dead_until_it_is_finished(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        (a,) = await followed(journal, "a")
        await journal.register(["kafka", "hook"])
        await journal.append(a, events(a, *range(1, 11)), at("c"))
        await journal.settle("kafka", 0, 10)
        states = {2: DEAD, 3: FILTERED, 4: RETRYING, 5: HELD, 6: DELIVERED, 7: DeliveryState.EXPIRED}
        await journal.settle("hook", 0, 10, [Outcome(n, a.id, state) for n, state in states.items()])

        assert await journal.prune(NOW_MS + 1, limit=3) == 3
        assert await journal.prune(NOW_MS + 1) == 4
        assert [e.position for e in await entries(journal)] == [2, 4, 5]
        assert await journal.finished("hook", 0, 0) == {2, 4, 5}
        assert await journal.prune(NOW_MS + 1) == 0

        await journal.settle("hook", 0, 10, [Outcome(4, a.id, DELIVERED)])
        assert await journal.prune(NOW_MS + 1) == 1
        await journal.register(["kafka"])
        assert await journal.prune(NOW_MS + 1) == 2
        assert (await journal.health()).entries == 0


async def test_prune_goes_on_over_all_partitions_to_its_limit(open_journal_at: OpenJournal) -> None:
    async with open_journal_at(partitions=4) as journal:
        jobs = await followed(journal, *(f"job-{nth}" for nth in range(40)))
        await journal.register(["kafka"])
        for job in jobs:
            await journal.append(job, events(job, *range(10)), at("c"))
        for partition in range(4):
            found = await entries(journal, partition)
            dead = [Outcome(e.position, e.subscription, DEAD) for e in found if e.position % 2]
            await journal.settle("kafka", partition, found[-1].position, dead)
        assert [await journal.prune(NOW_MS + 1, limit=60) for _ in range(5)] == [60, 60, 60, 20, 0]
        assert (await journal.health()).entries == 200


async def test_positions_rise_on_after_everything_was_pruned(open_durable_journal_at: OpenJournal) -> None:
    async with open_durable_journal_at() as journal:
        (a,) = await followed(journal, "a")
        await journal.register(["kafka"])
        await journal.append(a, events(a, 1, 2, 3), at("c"))
        await journal.settle("kafka", 0, 3)
        assert await journal.prune(NOW_MS + 1) == 3
        waiting = asyncio.create_task(journal.pending(0, 0, limit=10))
        await journal.append(a, events(a, 4), at("c"))
        assert [(e.position, e.sequence) for e in await waiting] == [(4, 4)]
        await journal.settle("kafka", 0, 4)
        assert await journal.prune(NOW_MS + 1) == 1
    async with open_durable_journal_at() as journal:
        await journal.append(a, events(a, 5), at("c"))
        assert [(e.position, e.sequence) for e in await entries(journal)] == [(5, 5)]


# -- the whole --------------------------------------------------------------------------------------------------------


async def test_health_counts_what_is_left_to_do(open_journal_at: OpenJournal) -> None:
    clock = iter(range(NOW_MS, NOW_MS + 100))
    async with open_journal_at(partitions=2, high_water_bytes=1 << 25, clock_ms=lambda: next(clock)) as journal:
        jobs = await followed(journal, *(f"job-{nth}" for nth in range(20)))
        await journal.register(["kafka", "hook"])
        for job in jobs:
            await journal.append(job, events(job, 1), at("c"))
        *_, last = await entries(journal, 0)
        await journal.settle("kafka", 0, last.position)
        await journal.settle("kafka", 1, 20 - last.position)
        await journal.settle("hook", 0, 1)
        health = await journal.health()
        assert (health.writable, health.detail, health.high_water_bytes, health.entries) == (True, "ok", 1 << 25, 20)
        assert health.depth == {"kafka": 0, "hook": 19}
        oldest = min((await entries(journal, 0, 1))[0].recorded_ms, (await entries(journal, 1))[0].recorded_ms)
        assert health.oldest_unsettled_ms == {"hook": oldest}
        assert 0 < health.live_bytes < 1 << 25


async def test_health_of_a_closed_journal_is_told_not_raised(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        pass
    health = await journal.health()
    assert (health.writable, health.detail) == (False, "the journal is closed")


async def test_reopening_keeps_everything(open_durable_journal_at: OpenJournal) -> None:
    async with open_durable_journal_at(partitions=2) as journal:
        a, b = await followed(journal, "a", "b")
        await journal.register(["hook"])
        await journal.append(a, events(a, 1, 2, 3), at("c3"))
        await journal.append(b, events(b, 1), at("c1", ended=True))
        await journal.settle("hook", a.partition, 1, [Outcome(2, a.id, RETRYING, 1, 5, 6, 500, "no")])
        kept = [await journal.subscriptions(), await entries(journal, a.partition), await journal.health()]
        lane = await journal.lane("hook", a.partition, a.id, 10)
        revision = (await now(journal, b)).revision
    async with open_durable_journal_at(partitions=2) as journal:
        assert [await journal.subscriptions(), await entries(journal, a.partition), await journal.health()] == kept
        assert await journal.lane("hook", a.partition, a.id, 10) == lane
        assert len(lane) == 1
        assert await journal.position("hook", a.partition) == 1
        assert await journal.append(a, events(a, 2, 3, 4), at("c4")) == 1
        assert [e.sequence for e in await entries(journal, a.partition) if e.subscription == a.id] == [1, 2, 3, 4]
        assert (await followed(journal, "z"))[0].revision > revision
