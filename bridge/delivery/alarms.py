"""When each sleeping lane is due: the only place that sorts by it. Pure."""

from __future__ import annotations

from heapq import heappop, heappush


class Alarms:
    """The earliest time asked for each lane, in Unix milliseconds."""

    def __init__(self) -> None:
        self._due_ms: dict[int, int] = {}
        # May hold times that gave way to an earlier one of the same lane: those are passed over.
        self._heap: list[tuple[int, int]] = []

    def set(self, lane: int, due_ms: int) -> bool:
        """Wake that lane then, unless it is to be woken earlier anyway. Returns whether this changed something."""
        if self._due_ms.get(lane, due_ms + 1) <= due_ms:
            return False
        self._due_ms[lane] = due_ms
        heappush(self._heap, (due_ms, lane))
        return True

    def due(self, now_ms: int) -> list[int]:
        """The lanes whose time has come, the longest due first. They have no alarm any more."""
        lanes = []
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, lane = heappop(self._heap)
            if self._due_ms.get(lane) == due_ms:
                del self._due_ms[lane]
                lanes.append(lane)
        return lanes

    def wait_s(self, now_ms: int) -> float | None:
        """Seconds until there is something to look at; None when nothing is set."""
        return (self._heap[0][0] - now_ms) / 1000 if self._heap else None
