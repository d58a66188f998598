"""What became of every event at every consumer, over every store: asked for, counted, redriven, dropped, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bridge.errors import Rejected
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.outcomes import (
    DROPPABLE,
    REDRIVABLE,
    Attempt,
    Delivery,
    DeliveryState,
    Outcome,
    Place,
    Selection,
)
from bridge.journal.store import Journal, SubscriptionRecord

if TYPE_CHECKING:
    from contract.conftest import OpenJournal

NOW_MS = 1_000_000
ALL = frozenset(DeliveryState)
PENDING, DELIVERED, RETRYING, HELD, FILTERED, EXPIRED, DEAD, DROPPED = DeliveryState


def selection(consumer: str = "hook", *states: DeliveryState, **conditions: Any) -> Selection:
    return Selection(consumer, frozenset(states or ALL), **conditions)


async def job(journal: Journal, name: str, events: int, *, of: EventType = EventType.OUTPUT) -> SubscriptionRecord:
    """A job of that name with so many more events."""
    source, _, job_id = name.rpartition("/")
    [(record, _)] = await journal.follow([JobKey(source or "auvy", job_id)], "config")
    known = record.sequence
    ids = [f"{name}/{nth}" for nth in range(known + 1, known + events + 1)]
    await journal.append(record, [JobEvent(id_, *record.key, of, b"{}") for id_ in ids], None)
    return record


async def all_of(journal: Journal, wanted: Selection, limit: int = 1000) -> list[Delivery]:
    """Every page of a selection."""
    found: list[Delivery] = []
    page = await journal.outcomes.page(wanted, limit=limit)
    while True:
        assert len(page.deliveries) <= limit
        found += page.deliveries
        if page.following is None:
            return found
        page = await journal.outcomes.page(wanted, page.following, limit)


async def states(journal: Journal, consumer: str = "hook") -> dict[int, DeliveryState | None]:
    return {one.place.position: one.state for one in await all_of(journal, selection(consumer))}


def outcomes(record: SubscriptionRecord, wanted: dict[int, DeliveryState]) -> list[Outcome]:
    return [Outcome(position, record.id, state, 1, NOW_MS - 5) for position, state in wanted.items()]


# -- asking -----------------------------------------------------------------------------------------------------------


async def test_every_event_has_an_outcome_at_every_consumer(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["kafka", "hook"], ["hook"])
        a = await job(journal, "a", 9)
        noted = {2: DELIVERED, 3: RETRYING, 4: HELD, 5: EXPIRED, 6: DEAD, 8: DELIVERED}
        await journal.settle("hook", 0, 7, outcomes(a, noted))
        await journal.settle("kafka", 0, 3, outcomes(a, {2: DEAD}))

        assert await states(journal) == {1: FILTERED, **noted, 7: FILTERED, 9: PENDING}
        assert await states(journal, "kafka") == {1: DELIVERED, 2: DEAD, 3: DELIVERED} | dict.fromkeys(
            range(4, 10), PENDING
        )
        assert await journal.outcomes.count(selection()) == {
            FILTERED: 2, DELIVERED: 2, RETRYING: 1, HELD: 1, EXPIRED: 1, DEAD: 1, PENDING: 1,
        }  # fmt: skip
        for state in ALL:
            only = selection("hook", state)
            found = await all_of(journal, only)
            assert {one.state for one in found} <= {state}
            assert sum((await journal.outcomes.count(only)).values()) == len(found)


async def test_a_delivery_tells_its_event_and_since_when(open_journal_at: OpenJournal) -> None:
    clock = NOW_MS
    async with open_journal_at(clock_ms=lambda: clock) as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "auvy/a", 1)
        first = Outcome(1, a.id, RETRYING, 1, NOW_MS - 50, NOW_MS + 70, 503, "busy")
        await journal.settle("hook", 0, 1, [first])
        clock += 100
        await journal.settle("hook", 0, 1, [first._replace(attempts=2, due_ms=NOW_MS + 500)])
        [told] = await all_of(journal, selection())
        assert told == Delivery(
            place=Place(0, 1), subscription=a.id, sequence=1, recorded_ms=NOW_MS, event_id="auvy/a/1", source="auvy",
            job_id="a", type="job.output", consumer="hook", state=RETRYING, since_ms=NOW_MS, attempts=2,
            first_ms=NOW_MS - 50, due_ms=NOW_MS + 500, status=503, detail="busy", redriven=0,
        )  # fmt: skip
        await journal.settle("hook", 0, 1, [first._replace(state=DEAD, attempts=3)])
        [dead] = await all_of(journal, selection())
        assert (dead.state, dead.since_ms) == (DEAD, NOW_MS + 100)


async def test_what_was_there_before_a_consumer_is_none_of_its_deliveries(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["early"])
        await job(journal, "a", 2)
        await journal.register(["early", "hook"], ["hook"])
        await job(journal, "a", 1)
        assert await states(journal) == {3: PENDING}
        assert set(await states(journal, "early")) == {1, 2, 3}


async def test_a_selection_is_by_source_job_type_time_and_place(open_journal_at: OpenJournal) -> None:
    clock = NOW_MS
    async with open_journal_at(clock_ms=lambda: clock) as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "auvy/a", 2)
        await job(journal, "auvy/b", 1, of=EventType.PROGRESS)
        clock += 10
        await job(journal, "tenfive/a", 1)
        await journal.settle("hook", 0, 4, outcomes(a, dict.fromkeys(range(1, 5), DEAD)))
        wanted: list[tuple[dict[str, Any], list[int]]] = [
            ({"source": "auvy"}, [1, 2, 3]),
            ({"job_id": "a"}, [1, 2, 4]),
            ({"source": "auvy", "job_id": "a"}, [1, 2]),
            ({"source": "nowhere", "job_id": "a"}, []),
            ({"type": "job.progress"}, [3]),
            ({"type": "job.*"}, [1, 2, 3, 4]),
            ({"type": "watch.*"}, []),
            ({"since_ms": NOW_MS + 1}, [4]),
            ({"place": Place(0, 3)}, [3]),
            ({"place": Place(0, 3), "type": "job.output"}, []),
            ({"place": Place(0, 5)}, []),
            ({"place": Place(7, 1)}, []),
        ]
        for conditions, positions in wanted:
            for states_ in (ALL, {DEAD}):  # found through the journal, and through what is noted
                chosen = selection("hook", *states_, **conditions)
                assert [one.place.position for one in await all_of(journal, chosen)] == positions, conditions
                assert await journal.outcomes.count(chosen) == ({DEAD: len(positions)} if positions else {})


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_pages_hold_everything_once_over_all_partitions(open_journal_at: OpenJournal, limit: int) -> None:
    async with open_journal_at(partitions=4) as journal:
        await journal.register(["hook"], ["hook"])
        total: dict[Place, DeliveryState] = {}
        for nth in range(12):
            record = await job(journal, f"job-{nth}", 5)
            for entry in await journal.pending(record.partition, 0, limit=1000):
                if entry.subscription == record.id:
                    total[Place(record.partition, entry.position)] = DEAD if entry.sequence % 2 else DELIVERED
                    outcome = Outcome(entry.position, record.id, total[Place(record.partition, entry.position)])
                    await journal.settle("hook", record.partition, 0, [outcome])
        for chosen in (ALL, {DEAD}, {DELIVERED}):
            found = await all_of(journal, selection("hook", *chosen), limit)
            assert [one.place for one in found] == sorted(place for place, state in total.items() if state in chosen)


async def test_a_selection_larger_than_one_look_is_found_and_changed_as_a_whole(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 2500)
        await journal.settle("hook", 0, 2500, outcomes(a, dict.fromkeys(range(3, 2500), DEAD)))
        assert len(await all_of(journal, selection("hook", DEAD))) == 2497
        assert await journal.outcomes.count(selection()) == {FILTERED: 3, DEAD: 2497}
        assert await journal.outcomes.redrive(selection("hook", DEAD, FILTERED)) == 2500
        assert await journal.outcomes.count(selection()) == {HELD: 2500}
        assert await journal.outcomes.drop(selection("hook", HELD)) == 2500


async def test_a_trail_tells_each_event_at_each_consumer_that_was_there(open_journal_at: OpenJournal) -> None:
    async with open_journal_at(partitions=2) as journal:
        await journal.register(["kafka", "gone"])
        a = await job(journal, "a", 2)
        await job(journal, "b", 3)
        await journal.register(["kafka", "hook"], ["hook"])
        await job(journal, "a", 1)
        await journal.settle("kafka", a.partition, 1)
        last = (await journal.pending(a.partition, 0, limit=100))[-1].position
        await journal.settle("hook", a.partition, 0, [Outcome(last, a.id, DEAD, 3, 1, 0, 410, "gone")])

        told = await journal.outcomes.trail(a.id)
        assert [(one.sequence, one.consumer, one.state) for one in told] == [
            (1, "hook", None), (1, "kafka", DELIVERED), (2, "hook", None), (2, "kafka", PENDING),
            (3, "hook", DEAD), (3, "kafka", PENDING),
        ]  # fmt: skip
        assert (told[4].status, told[4].detail, told[4].event_id) == (410, "gone", "a/3")
        assert [one.sequence for one in await journal.outcomes.trail(a.id, 1, 1)] == [2, 2]
        assert await journal.outcomes.trail(a.id, 3) == []


# -- attempts ---------------------------------------------------------------------------------------------------------


def tried(record: SubscriptionRecord, position: int, number: int, at_ms: int = NOW_MS) -> Attempt:
    return Attempt(position, record.id, number, at_ms, 12, 503, "server_error", "203.0.113.9", "no \u2028 \x00", "busy")


async def test_attempts_are_kept_with_the_settle_that_brings_them(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook", "other"], ["hook", "other"])
        a = await job(journal, "a", 2)
        first, second, third = tried(a, 1, 1), tried(a, 1, 2), tried(a, 2, 1)._replace(reason=None, detail=None)
        await journal.settle("hook", 0, 0, outcomes(a, {1: RETRYING}), [first, third])
        await journal.settle("hook", 0, 0, outcomes(a, {1: DEAD}), [second])
        await journal.settle("other", 0, 0, [], [first])
        assert await journal.outcomes.attempts("hook", Place(0, 1)) == [first, second]
        assert await journal.outcomes.attempts("hook", Place(0, 2)) == [third]
        assert await journal.outcomes.attempts("other", Place(0, 1)) == [first]
        assert await journal.outcomes.attempts("hook", Place(1, 1)) == []


async def test_a_settle_that_fails_leaves_neither_outcome_nor_attempt(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 1)
        unwritable = tried(a, 1, 2)._replace(answer="\ud800")
        with pytest.raises(UnicodeEncodeError):
            await journal.settle("hook", 0, 1, outcomes(a, {1: DEAD}), [tried(a, 1, 1), unwritable])
        assert await journal.outcomes.attempts("hook", Place(0, 1)) == []
        assert await states(journal) == {1: PENDING}


async def test_attempts_are_forgotten_by_age_in_steps(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 1)
        await journal.settle("hook", 0, 1, [], [tried(a, 1, nth, NOW_MS + nth) for nth in range(1, 1001)])
        assert [await journal.prune_attempts(NOW_MS + 801, 300) for _ in range(4)] == [300, 300, 200, 0]
        assert [one.number for one in await journal.outcomes.attempts("hook", Place(0, 1))] == [*range(801, 1001)]


# -- redriving and dropping -------------------------------------------------------------------------------------------


async def test_redrive_holds_what_may_be_delivered_anew_and_counts_first(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 9)
        before = {1: DELIVERED, 2: RETRYING, 3: HELD, 4: FILTERED, 5: EXPIRED, 6: DEAD, 7: DROPPED, 8: FILTERED}
        written = {position: state for position, state in before.items() if position != 8}
        await journal.settle("hook", 0, 8, outcomes(a, written))
        before[9] = PENDING
        assert await states(journal) == before

        assert await journal.outcomes.redrive(selection(), dry_run=True) == 7
        assert await states(journal) == before
        assert await journal.outcomes.redrive(selection()) == 7
        assert await states(journal) == dict.fromkeys(range(1, 9), HELD) | {9: PENDING}
        lane = await journal.lane("hook", 0, a.id, 10)
        assert [(o.outcome.position, o.outcome.attempts, o.outcome.first_ms, o.outcome.redriven) for o in lane] == [
            (nth, 1, NOW_MS - 5, 0) if nth == 3 else (nth, 0, 0, 1) for nth in range(1, 9)
        ]
        assert {before[n] for n in range(1, 9) if n != 3} == REDRIVABLE
        assert await journal.outcomes.redrive(selection()) == 0


async def test_what_is_redriven_at_a_set_pace_is_due_one_after_the_other(open_journal_at: OpenJournal) -> None:
    async with open_journal_at(partitions=2) as journal:
        await journal.register(["hook"], ["hook"])
        a, b = await job(journal, "a", 1500), await job(journal, "d", 2)
        assert (b.partition, a.partition) == (0, 1)
        await journal.settle("hook", a.partition, 1500)
        await journal.settle("hook", b.partition, 2)
        assert await journal.outcomes.redrive(selection("hook", FILTERED), per_second=4, dry_run=True) == 1502
        assert await journal.blocked("hook", a.partition) == {}
        assert await journal.outcomes.redrive(selection("hook", FILTERED), per_second=4) == 1502
        lanes = [await journal.lane("hook", one.partition, one.id, 2000) for one in (b, a)]
        due_ms = [one.outcome.due_ms for lane in lanes for one in lane]
        assert due_ms == [NOW_MS + nth * 250 for nth in range(1502)]
        assert await journal.blocked("hook", a.partition) == {a.id: due_ms[2]}


async def test_how_often_something_was_redriven_outlives_its_outcomes(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 1)
        for times in range(1, 4):
            await journal.settle("hook", 0, 1, outcomes(a, {1: DEAD}))
            assert await journal.outcomes.redrive(selection("hook", DEAD)) == 1
            [held] = await journal.lane("hook", 0, a.id, 1)
            assert held.outcome.redriven == times
        await journal.settle("hook", 0, 1, outcomes(a, {1: DELIVERED}))
        assert [one.redriven for one in await all_of(journal, selection())] == [3]


async def test_a_log_cannot_be_redriven_and_its_dead_letters_can_be_dropped(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["kafka", "hook"], ["hook"])
        a = await job(journal, "a", 2)
        await journal.settle("kafka", 0, 2, outcomes(a, {1: DEAD}))
        for dry_run in (True, False):
            with pytest.raises(Rejected, match="kafka is a log"):
                await journal.outcomes.redrive(selection("kafka"), dry_run=dry_run)
        assert await journal.outcomes.drop(selection("kafka")) == 1
        assert await states(journal, "kafka") == {1: DROPPED, 2: DELIVERED}


async def test_a_redriven_event_ahead_of_a_retrying_one_is_due_at_once(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 3)
        waiting = Outcome(2, a.id, RETRYING, 1, NOW_MS, NOW_MS + 99)
        await journal.settle("hook", 0, 3, [*outcomes(a, {1: DEAD, 3: HELD}), waiting])
        assert await journal.blocked("hook", 0) == {a.id: NOW_MS + 99}
        await journal.outcomes.redrive(selection("hook", DEAD))
        assert await journal.blocked("hook", 0) == {a.id: 0}
        assert [o.outcome.position for o in await journal.lane("hook", 0, a.id, 10)] == [1, 2, 3]


async def test_who_waits_for_redriven_is_woken_with_what_is_outstanding(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook", "other"], ["hook", "other"])
        a, b = await job(journal, "a", 1), await job(journal, "b", 1)
        dead = [*outcomes(a, {1: DEAD}), *outcomes(b, {2: DEAD})]
        await journal.settle("hook", 0, 2, dead)
        await journal.settle("other", 0, 2, dead)
        waiting = asyncio.create_task(journal.redriven("hook", 0, 0))
        await journal.outcomes.redrive(selection("other"))
        assert not waiting.done()
        await journal.outcomes.redrive(selection("hook", DEAD, place=Place(0, 2)))
        revision, lanes = await waiting
        assert lanes == {b.id: 0}
        assert await journal.redriven("hook", 0, 0) == (revision, lanes)
        waiting = asyncio.create_task(journal.redriven("hook", 0, revision))
        await journal.outcomes.redrive(selection("hook", DEAD))
        assert await waiting == (revision + 1, {a.id: 0, b.id: 0})
        waiting = asyncio.create_task(journal.redriven("hook", 0, revision + 1))
        await journal.outcomes.drop(selection("hook", HELD, place=Place(0, 1)))
        assert await waiting == (revision + 2, {b.id: 0})


async def test_a_redrive_that_is_cut_off_wakes_all_the_same(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 20_000)
        await journal.settle("hook", 0, 20_000)
        waiting = asyncio.create_task(journal.redriven("hook", 0, 0))
        cut_off = asyncio.create_task(journal.outcomes.redrive(selection("hook", FILTERED)))
        while not await journal.blocked("hook", 0):
            assert not waiting.done()
        cut_off.cancel()
        assert (await waiting)[1] == {a.id: 0}
        await asyncio.wait([cut_off])
        assert cut_off.cancelled()
        assert await journal.outcomes.redrive(selection("hook", FILTERED)) > 0
        assert await journal.outcomes.count(selection()) == {HELD: 20_000}


async def test_drop_gives_up_what_is_not_finished_and_lets_its_entries_go(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 6)
        before = {1: DELIVERED, 2: RETRYING, 3: HELD, 4: DEAD, 5: EXPIRED, 6: DEAD}
        await journal.settle("hook", 0, 6, outcomes(a, before))
        assert await journal.prune(NOW_MS + 1) == 2
        left = {position: state for position, state in before.items() if state in DROPPABLE}
        assert await states(journal) == left

        assert await journal.outcomes.drop(selection("hook", DEAD, place=Place(0, 4)), dry_run=True) == 1
        assert await states(journal) == left
        assert await journal.outcomes.drop(selection("hook", DEAD, place=Place(0, 4))) == 1
        assert await states(journal) == left | {4: DROPPED}
        assert await journal.prune(NOW_MS + 1) == 1
        assert await journal.outcomes.drop(selection()) == 3
        assert await journal.blocked("hook", 0) == {}
        assert await journal.prune(NOW_MS + 1) == 3
        assert (await journal.health()).entries == 0


async def test_redriven_entries_are_kept_until_they_are_delivered(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 3)
        await journal.settle("hook", 0, 3, outcomes(a, {2: EXPIRED}))
        assert await journal.outcomes.redrive(selection("hook", EXPIRED)) == 1
        assert await journal.prune(NOW_MS + 1) == 2
        await journal.settle("hook", 0, 3, outcomes(a, {2: DELIVERED}))
        assert await journal.prune(NOW_MS + 1) == 1


async def test_outcomes_and_attempts_outlive_the_process(open_durable_journal_at: OpenJournal) -> None:
    async with open_durable_journal_at() as journal:
        await journal.register(["hook"], ["hook"])
        a = await job(journal, "a", 3)
        await journal.settle("hook", 0, 3, outcomes(a, {2: DEAD}), [tried(a, 2, 1)])
        await journal.outcomes.redrive(selection("hook", DEAD))
        kept: list[Sequence[Any]] = [
            await all_of(journal, selection()),
            await journal.outcomes.attempts("hook", Place(0, 2)),
        ]
    async with open_durable_journal_at() as journal:
        assert kept == [await all_of(journal, selection()), await journal.outcomes.attempts("hook", Place(0, 2))]
        assert await journal.blocked("hook", 0) == {a.id: 0}


async def test_delivery_goes_on_while_much_is_redriven(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["hook", "other"], ["hook", "other"])
        a = await job(journal, "a", 5000)
        await journal.settle("hook", 0, 5000, outcomes(a, dict.fromkeys(range(1, 5001), DEAD)))
        redriving = asyncio.create_task(journal.outcomes.redrive(selection("hook", DEAD)))
        settles = 0
        while not redriving.done():
            await journal.settle("other", 0, settles := settles + 1)
        assert await redriving == 5000
        assert settles > 3
        assert await journal.outcomes.count(replace(selection("other", DELIVERED, FILTERED))) == {FILTERED: settles}
