"""How many events may be under way at an endpoint at once: the only place that finds out what it can bear. Pure."""

from __future__ import annotations


class Concurrency:
    """Additive increase, multiplicative decrease, between 1 and what the settings allow.

    As in TCP (RFC 5681): the limit doubles with each round of acceptances up to the last known bound, grows by one a
    round beyond it, and is halved once for all attempts that were under way together when the endpoint had too many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._bound = float(most)
        self._round = 0
        self.under_way = 0

    @property
    def limit(self) -> int:
        """Events that may be under way at once now."""
        return int(self._limit)

    @property
    def free(self) -> bool:
        """Whether one more may begin."""
        return self.under_way < self.limit

    def begin(self) -> int:
        """One more is under way; returns its round, for its end."""
        self.under_way += 1
        return self._round

    def accepted(self, begun: int, *, full: bool) -> None:
        """One ended well. Only a limit that is made full use of proves anything, and only in its own round."""
        if begun == self._round and full:
            step = 1.0 if self._limit < self._bound else 1.0 / self._limit
            self._limit = min(self._limit + step, self._most)
        self.under_way -= 1

    def overloaded(self, begun: int) -> None:
        """One ended with a sign that there were too many."""
        if begun == self._round:
            self._limit = self._bound = max(1.0, self._limit / 2)
            self._round += 1
        self.under_way -= 1

    def ended(self) -> None:
        """One ended without telling anything about how many there may be."""
        self.under_way -= 1

    def start_slowly(self) -> None:
        """Begin anew with one: the endpoint was away, or much is coming at once."""
        self._limit, self._bound = 1.0, float(self._most)
        self._round += 1
