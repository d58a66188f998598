"""Endpoints made while the bridge runs, over every store: begun at the journal's end, changed, removed, followed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from bridge.errors import Rejected
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.endpoints import EndpointChange, EndpointRecord, EndpointState
from bridge.journal.outcomes import Attempt, DeliveryState, Outcome
from bridge.journal.store import Journal, SubscriptionRecord

if TYPE_CHECKING:
    from contract.conftest import OpenJournal


async def journalled(journal: Journal, *ids: str) -> SubscriptionRecord:
    [(record, _)] = await journal.follow([JobKey("auvy", "a")], "config")
    await journal.append(record, [JobEvent(id_, *record.key, EventType.OUTPUT, b"{}") for id_ in ids], None)
    return record


async def soon(records: asyncio.Task[Sequence[EndpointRecord]]) -> Sequence[EndpointRecord]:
    async with asyncio.timeout(20):
        return await records


async def test_a_new_endpoint_begins_at_the_journals_end(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journalled(journal, "a-1", "a-2")
        made = await journal.endpoints.add("hook", b'{"url":"u"}', b"sealed")
        assert (made.state, made.settings, made.sealed) == (EndpointState.ACTIVE, b'{"url":"u"}', b"sealed")
        assert await journal.position("hook", 0) == 2
        await journalled(journal, "a-3")
        assert (await journal.health()).depth["hook"] == 1


async def test_a_name_is_never_given_away_again(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["kafka", "old"])
        await journal.register(["kafka"])
        await journal.endpoints.add("hook", b"{}", b"")
        assert await journal.endpoints.remove("hook")
        for taken in ("kafka", "old", "hook"):
            with pytest.raises(Rejected, match="never used twice"):
                await journal.endpoints.add(taken, b"{}", b"")
        assert await journal.endpoints.page() == []


async def test_what_is_registered_over_a_restart_leaves_made_endpoints_be(open_durable_journal_at: OpenJournal) -> None:
    async with open_durable_journal_at() as journal:
        await journal.register(["kafka"])
        await journal.endpoints.add("hook", b"{}", b"s")
        await journalled(journal, "a-1")
        await journal.settle("hook", 0, 1)
    async with open_durable_journal_at() as journal:
        await journal.register(["kafka"])
        assert await journal.position("hook", 0) == 1
        assert [one.name for one in await journal.endpoints.page()] == ["hook"]


async def test_a_removed_endpoint_pins_nothing_and_its_last_settle_is_nobodys(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.register(["kafka"])
        await journal.endpoints.add("hook", b'{"url":"u"}', b"sealed")
        job = await journalled(journal, "a-1", "a-2")
        await journal.settle("kafka", 0, 2)
        await journal.settle("hook", 0, 0, [Outcome(1, job.id, DeliveryState.RETRYING, 1, 5, 9)])
        assert await journal.prune(2_000_000) == 0
        assert await journal.endpoints.remove("hook")
        assert not await journal.endpoints.remove("hook")
        tried = Attempt(2, job.id, 1, 5, 1, 204, None, None, "", None)
        await journal.settle("hook", 0, 2, [Outcome(2, job.id, DeliveryState.DELIVERED)], [tried])
        assert await journal.prune(2_000_000) == 2
        assert await journal.endpoints.record("hook") is None
        [gone] = await journal.endpoints.changed(1)
        assert (gone.state, gone.settings, gone.sealed) == (EndpointState.REMOVED, b"{}", b"")


async def test_what_a_removed_endpoint_alone_held_back_goes_although_it_was_passed_over(
    open_journal_at: OpenJournal,
) -> None:
    async with open_journal_at() as journal:
        await journal.endpoints.add("hook", b"{}", b"")
        job = await journalled(journal, "a-1", "a-2")
        await journal.settle("hook", 0, 2, [Outcome(1, job.id, DeliveryState.DEAD, 1, 5)])
        assert await journal.prune(2_000_000) == 1
        assert await journal.prune(2_000_000) == 0
        await journal.endpoints.remove("hook")
        assert await journal.prune(2_000_000) == 1


async def test_changes_are_followed_by_whoever_waits_for_them(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        endpoints = journal.endpoints
        waiting = asyncio.create_task(_following(journal, 0))
        a = await endpoints.add("a", b"{}", b"1")
        [seen] = await soon(waiting)
        assert seen == a
        waiting = asyncio.create_task(_following(journal, a.revision))
        b = await endpoints.add("b", b"{}", b"2")
        assert await soon(waiting) == [b]
        changed = await endpoints.change("a", EndpointChange(state=EndpointState.DISABLED, reason="asked for"))
        assert (changed.settings, changed.sealed, changed.reason) == (b"{}", b"1", "asked for")
        await endpoints.remove("b")
        after = await endpoints.changed(b.revision)
        assert [(one.name, one.state) for one in after] == [("a", "disabled"), ("b", "removed")]
        assert await endpoints.page() == [changed]
        assert await endpoints.page("a") == []


async def _following(journal: Journal, revision: int) -> Sequence[EndpointRecord]:
    return await journal.endpoints.changed(revision)


async def test_of_two_changes_to_what_both_have_seen_the_second_is_refused(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        made = await journal.endpoints.add("hook", b"{}", b"")
        first = await journal.endpoints.change("hook", EndpointChange(settings=b"[1]"), revision=made.revision)
        with pytest.raises(Rejected, match="somebody else"):
            await journal.endpoints.change("hook", EndpointChange(settings=b"[2]"), revision=made.revision)
        with pytest.raises(Rejected):
            await journal.endpoints.change("nobody", EndpointChange(settings=b"[2]"))
        assert await journal.endpoints.record("hook") == first
        assert first.settings == b"[1]"
