"""The newest entries of a journal, kept in memory: a consumer that keeps up never has its store asked for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from operator import attrgetter

from bridge.journal.store import Entry

_ENTRY_BYTES = 512
"""What an entry takes in memory besides its data: small events are mostly that."""
_SPARE = 2
"""Trimmed only once it is over its limit by this factor, so that each entry is moved a bounded number of times."""
_PIECE_ENTRIES = 64
"""What is trimmed together, at most: all that came at once may be more than there is room for."""

_data = attrgetter("data")


class Tail:
    """The end of one partition, without gaps: positions rise by one, up to the last one committed."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` bounds the memory that the entries take."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: list[Entry] = []
        self._pieces: deque[tuple[int, int]] = deque()
        """How many entries are in each, and what they take."""

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take over what was committed, in order, directly behind what is here."""
        self._entries += entries
        for start in range(0, len(entries), _PIECE_ENTRIES):
            piece = entries[start : start + _PIECE_ENTRIES]
            size = _ENTRY_BYTES * len(piece) + _data_bytes(piece)
            self._pieces.append((len(piece), size))
            self._bytes += size
        if self._bytes > self._bytes_max * _SPARE:
            self._trim()

    def clear(self) -> None:
        """Forget everything: the store alone knows what is left."""
        self._entries.clear()
        self._pieces.clear()
        self._bytes = 0

    def after(self, position: int, limit: int, bytes_max: int) -> Sequence[Entry] | None:
        """What follows `position`, at least one entry and within the limits; None where only the store can tell."""
        entries = self._entries
        if not entries or not entries[0].position - 1 <= position < entries[-1].position:
            return None
        start = position + 1 - entries[0].position
        found = entries[start : start + limit]
        if _data_bytes(found) <= bytes_max:
            return found
        total = 0
        for count, entry in enumerate(found):
            total += len(entry.data)
            if total > bytes_max and count:
                return found[:count]
        return found

    def _trim(self) -> None:
        gone = 0
        while self._bytes > self._bytes_max:
            count, size = self._pieces.popleft()
            gone += count
            self._bytes -= size
        del self._entries[:gone]


def _data_bytes(entries: Sequence[Entry]) -> int:
    return sum(map(len, map(_data, entries)))
