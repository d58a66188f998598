"""How long to wait before the next try: exponential, capped, with full jitter. Pure; the dice are handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Dice = Callable[[], float]
"""A number in [0, 1), as `random.random` gives."""


@dataclass(slots=True)
class Backoff:
    """Waits of one session. The nth wait is drawn evenly from [0, min(cap, base * 2**n)), then raised to the floor.

    The floor is the other side's wish, clamped to `floor_max_s`: a server cannot put us to sleep for a day.
    """

    dice: Dice
    base_s: float = 0.5
    cap_s: float = 60.0
    floor_max_s: float = 300.0
    attempt: int = field(default=0, init=False)

    def next_s(self, floor_s: float | None = None) -> float:
        """The next wait in seconds."""
        ceiling_s = min(self.cap_s, self.base_s * 2.0 ** min(self.attempt, 32))
        self.attempt += 1
        return max(self.dice() * ceiling_s, min(floor_s or 0.0, self.floor_max_s))

    def reset(self) -> None:
        """Something useful came through: begin again from the base."""
        self.attempt = 0
