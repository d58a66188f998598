"""The newest entries in memory: what it answers, and when it leaves the answer to the store."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.store import Checkpoint, Entry
from bridge.journal.stores.sqlite import open_journal
from bridge.journal.tail import Tail


def entry(position: int, data: bytes = b"0123456789") -> Entry:
    return Entry(0, position, 1, position, 0, f"e-{position}", "auvy", "job", "job.output", None, None, data)


def positions(tail: Tail, after: int, limit: int = 100, bytes_max: int = 1 << 20) -> list[int] | None:
    found = tail.after(after, limit, bytes_max)
    return None if found is None else [each.position for each in found]


def test_it_answers_from_the_first_entry_it_holds_to_the_one_before_the_last() -> None:
    tail = Tail(1 << 20)
    tail.extend([entry(5), entry(6)])
    tail.extend([entry(7)])
    assert positions(tail, 4) == [5, 6, 7]
    assert positions(tail, 6) == [7]
    assert (positions(tail, 3), positions(tail, 7)) == (None, None)


def test_it_keeps_to_the_limits_and_gives_one_at_least() -> None:
    tail = Tail(1 << 20)
    tail.extend([entry(n) for n in range(1, 10)])
    assert positions(tail, 2, limit=3) == [3, 4, 5]
    assert positions(tail, 2, bytes_max=25) == [3, 4]
    assert positions(tail, 2, bytes_max=1) == [3]


def test_it_forgets_the_oldest_within_its_bound_and_all_when_told() -> None:
    tail = Tail(50_000)
    for position in range(1, 100):
        tail.extend([entry(position, bytes(9_000))])
    assert positions(tail, 1) is None
    assert positions(tail, 95) == [96, 97, 98, 99]
    assert positions(tail, 98 - 10) is None  # never more than twice its bound
    tail.clear()
    assert positions(tail, 98) is None


def test_more_at_once_than_there_is_room_for_leaves_its_end() -> None:
    tail = Tail(500_000)
    tail.extend([entry(position, bytes(500)) for position in range(1, 3001)])
    assert positions(tail, 1) is None
    assert positions(tail, 2990) == list(range(2991, 3001))
    tail.extend([entry(3001)])
    assert positions(tail, 2999) == [3000, 3001]
    assert len(tail.after(2900, 1000, 1 << 20) or ()) == 101


def test_nothing_at_once_changes_nothing_and_what_comes_after_all_was_forgotten_is_told() -> None:
    tail = Tail(1 << 20)
    tail.extend([])
    assert positions(tail, 0) is None
    tail.extend([entry(1), entry(2)])
    tail.extend([])
    assert positions(tail, 0) == [1, 2]
    tail.clear()
    tail.extend([entry(3)])
    assert positions(tail, 1) is None
    assert positions(tail, 2) == [3]


def test_it_counts_right_however_much_comes_at_once() -> None:
    dice = random.Random(7)
    tail, end = Tail(100_000), 0
    for _ in range(2_000):
        count = dice.choice((1, 1, 2, 50, 63, 64, 65, 700))
        tail.extend([entry(end + n, bytes(dice.randrange(300))) for n in range(1, count + 1)])
        end += count
        held = tail.after(tail._entries[0].position - 1, 1 << 20, 1 << 30) if tail._entries else ()
        assert held
        assert held[-1].position == end
        taken = sum(512 + len(each.data) for each in held)
        assert taken == tail._bytes <= 200_000


def test_an_entry_takes_memory_besides_its_data() -> None:
    tail = Tail(1 << 20)
    tracemalloc.start()
    try:
        for start in range(1, 50_000, 100):
            tail.extend([entry(position, b"%030d" % position) for position in range(start, start + 100)])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 << 20
    assert positions(tail, 49_500)


async def test_the_tail_and_the_file_tell_the_same(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db") as journal:
        ((job, _),) = await journal.follow([JobKey("auvy", "jöb")], "config")
        events = [
            JobEvent("e-1", "auvy", "jöb", EventType.OUTPUT, b'{"a":"\xc3\xbc"}', "2025-01-01T00:00:00Z", "00-ab"),
            JobEvent("e-2", "auvy", "jöb", EventType.COMPLETED, b"{}"),
        ]
        await journal.append(job, events, Checkpoint(None, b""))
        kept = list(await journal.pending(0, 0, limit=10))
    async with open_journal(tmp_path / "journal.db") as journal:
        assert list(await journal.pending(0, 0, limit=10)) == kept
