"""The window of entries in memory: which position is safe to settle."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.delivery.progress import Progress, Window
from bridge.journal.store import DeliveryState, Entry, Outcome
from bridge.telemetry.metrics import Metrics


def entry(position: int, size: int = 1) -> Entry:
    return Entry(0, position, 1, position, 0, str(position), "s", "j", "job.output", None, None, b"x" * size)


def test_position_waits_for_the_lowest_unfinished_entry() -> None:
    window = Window(10)
    for position in (11, 12, 13):
        window.take(entry(position))
    assert window.settled == 10
    window.finish(12)
    assert window.settled == 10
    window.finish(11)
    assert window.settled == 12
    window.finish(13)
    assert window.settled == 13


def test_passed_over_entries_move_the_position_as_far_as_nothing_is_open_before_them() -> None:
    window = Window(0)
    window.pass_over(1)
    assert window.settled == 1
    window.take(entry(2))
    window.pass_over(3)
    assert (window.settled, window.scanned) == (1, 3)


def test_finishing_what_was_never_taken_changes_nothing() -> None:
    window = Window(0, entries_max=4, bytes_max=100)
    window.take(entry(1, size=10))
    window.finish(7)
    assert (window.settled, window.room) == (0, (3, 90))


def test_room_opens_again_only_when_half_of_it_is_free() -> None:
    window = Window(0, entries_max=4, bytes_max=100)
    for position in (1, 2, 3):
        window.take(entry(position))
    assert window.room == (0, 0)
    window.finish(2)
    assert window.room == (2, 98)


def test_large_entries_fill_the_room_by_bytes() -> None:
    window = Window(0, entries_max=100, bytes_max=100)
    window.take(entry(1, size=60))
    assert window.room == (0, 0)
    window.finish(1)
    assert window.room == (100, 100)


@given(taken=st.lists(st.booleans(), max_size=40), order=st.randoms(use_true_random=False))
def test_every_entry_at_or_before_the_position_is_finished(taken: list[bool], order: Random) -> None:
    window = Window(0)
    unfinished = [position for position, take in enumerate(taken, start=1) if take]
    for position, take in enumerate(taken, start=1):
        window.take(entry(position)) if take else window.pass_over(position)
    finishing = list(unfinished)
    order.shuffle(finishing)
    for position in finishing:
        assert window.settled == min(unfinished) - 1
        window.finish(position)
        unfinished.remove(position)
    assert window.settled == len(taken)


async def test_many_who_wait_for_a_settling_share_it() -> None:
    class SlowDisk:
        """A disk so slow that more is noted during every write."""

        def __init__(self) -> None:
            self.written: list[list[int]] = []

        async def settle(
            self, _consumer: str, _partition: int, _upto: int, outcomes: tuple[Outcome, ...], _attempts: tuple[()]
        ) -> None:
            self.written.append([outcome.position for outcome in outcomes])
            note(100 + len(self.written))
            await asyncio.sleep(0)

    def note(position: int) -> None:
        progress.note(Outcome(position, 1, DeliveryState.DELIVERED))

    async def note_and_settle(position: int) -> None:
        note(position)
        await progress.settle()

    disk: Any = SlowDisk()
    progress = Progress(disk, "partner", 0, 0, Metrics())
    await asyncio.gather(*map(note_and_settle, range(1, 21)))
    assert disk.written == [[*range(1, 21)]]


async def test_a_settling_that_was_cut_off_is_waited_for_and_not_written_twice() -> None:
    class SlowDisk:
        def __init__(self) -> None:
            self.written: list[int] = []
            self.began, self.go_on = asyncio.Event(), asyncio.Event()

        async def settle(
            self, _consumer: str, _partition: int, _upto: int, outcomes: tuple[Outcome, ...], _attempts: tuple[()]
        ) -> None:
            self.began.set()
            await self.go_on.wait()
            self.written += [outcome.position for outcome in outcomes]

    disk: Any = SlowDisk()
    progress = Progress(disk, "partner", 0, 0, Metrics())
    progress.note(Outcome(1, 1, DeliveryState.DELIVERED))
    cut_off = asyncio.create_task(progress.settle())
    await disk.began.wait()
    cut_off.cancel()
    await asyncio.wait([cut_off])
    progress.note(Outcome(2, 1, DeliveryState.DELIVERED))
    again = asyncio.create_task(progress.settle())
    disk.go_on.set()
    await again
    assert cut_off.cancelled()
    assert disk.written == [1, 2]
