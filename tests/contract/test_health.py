"""What every store remembers of endpoints' health, and of what operators were told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bridge.journal.health import Health, HealthState, HealthTurn, Turn

if TYPE_CHECKING:
    from contract.conftest import OpenJournal

WELL, FAILING, DISABLED = HealthState
NOW_MS = 1_000_000


def failing(since_ms: int = 400, reason: str = "timeout") -> Health:
    return Health(FAILING, since_ms, reason=reason)


async def test_a_consumer_of_whom_nothing_was_noted_is_well(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        assert await journal.endpoint_health.of("partner") == Health()


async def test_only_a_change_of_state_is_a_turn(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        health = journal.endpoint_health
        await health.note("partner", [Health(failing_since_ms=400, reason="timeout")])
        assert await health.of("partner") == Health(WELL, 400, 0, "timeout", revision=0)
        await health.note("partner", [failing(), failing(reason="network"), Health(last_success_ms=900)])
        assert await health.of("partner") == Health(WELL, 0, 900, None, revision=2)
        assert await health.turns(0) == [
            HealthTurn(1, "partner", Turn.FAILING, NOW_MS, 400, "timeout"),
            HealthTurn(2, "partner", Turn.RECOVERED, NOW_MS, 400, None),
        ]


async def test_consumers_share_revisions_and_nothing_else(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        health = journal.endpoint_health
        await asyncio.gather(*(health.note(name, [failing()]) for name in ("one", "two", "three")))
        assert {(await health.of(name)).revision for name in ("one", "two", "three")} == {1, 2, 3}
        assert [turn.revision for turn in await health.turns(1, limit=1)] == [2]
        await health.note("one", [Health()])
        assert (await health.of("two")).state is FAILING


async def test_a_disabled_one_stays_so_until_it_is_enabled(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        health = journal.endpoint_health
        assert not await health.enable("partner")
        await health.note("partner", [Health(DISABLED, 400, reason="gone")])
        await health.note("partner", [Health(last_success_ms=900), failing()])
        assert await health.of("partner") == Health(DISABLED, 400, 0, "gone", revision=1)
        assert await health.enable("partner")
        assert not await health.enable("partner")
        assert await health.of("partner") == Health(FAILING, NOW_MS, 0, "gone", revision=1)
        await health.note("partner", [Health(last_success_ms=1_100_000)])
        assert [turn.turn for turn in await health.turns(0)] == [Turn.DISABLED, Turn.RECOVERED]
        assert (await health.turns(1))[0].since_ms == NOW_MS


async def test_turns_are_waited_for(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        health = journal.endpoint_health
        waiting = asyncio.create_task(health.turns(0))
        await health.note("partner", [Health(failing_since_ms=400)])
        assert not waiting.done()
        await health.note("partner", [failing()])
        async with asyncio.timeout(10):
            assert [turn.turn for turn in await waiting] == [Turn.FAILING]


async def test_an_operator_begins_with_what_comes_then_and_goes_on_where_it_was(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        health = journal.endpoint_health
        assert await health.told("early") == 0
        await health.note("partner", [failing(), Health(), failing()])
        assert await health.told("late") == 3
        assert await health.told("early") == 0
        await health.tell("early", 2)
        await health.tell("early", 1)
        assert (await health.told("early"), await health.told("late")) == (2, 3)


async def test_the_newest_ten_thousand_turns_are_kept(open_journal_at: OpenJournal) -> None:
    async with open_journal_at() as journal:
        await journal.endpoint_health.note("partner", [failing(), Health()] * 5_001)
        assert (await journal.endpoint_health.turns(0, limit=1))[0].revision == 3
        assert len(await journal.endpoint_health.turns(0, limit=20_000)) == 10_000


async def test_all_of_it_outlives_the_process(open_durable_journal_at: OpenJournal) -> None:
    async with open_durable_journal_at() as journal:
        await journal.endpoint_health.told("ops")
        await journal.endpoint_health.note("partner", [failing(), Health(DISABLED, 400, reason="gone")])
        await journal.endpoint_health.tell("ops", 1)
    async with open_durable_journal_at() as journal:
        assert await journal.endpoint_health.of("partner") == Health(DISABLED, 400, 0, "gone", revision=2)
        assert await journal.endpoint_health.told("ops") == 1
        [turn] = await journal.endpoint_health.turns(1)
        assert turn == HealthTurn(2, "partner", Turn.DISABLED, NOW_MS, 400, "gone")
