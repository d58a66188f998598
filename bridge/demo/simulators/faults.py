"""Misbehaviour that every simulator shares: which fault strikes when, how it looks on the wire, how many there were.

The dice are drawn per subject (a job's stream, a route), so that the nth request about a subject meets the same fault
in every run with the same seed, however the requests of other subjects fall in between.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from random import Random
from typing import NoReturn

from aiohttp import web


class Fault(StrEnum):
    """Every way to misbehave. The first three strike a stream that is open, the rest at the door."""

    CUT = "cut"
    """The connection is torn down in the middle of a frame."""
    STALL = "stall"
    """Silence, keep-alive comments included, until the client goes away."""
    EOF = "eof"
    """A clean end of the stream long before the job ends."""
    RATE_LIMIT = "rate_limit"
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    BAD_GATEWAY = "bad_gateway"
    """A proxy's HTML page where JSON or events were due."""
    SLOW = "slow"
    """The first byte comes late."""


INTERRUPTIONS = (Fault.CUT, Fault.STALL, Fault.EOF)


@dataclass(frozen=True, slots=True)
class FaultRates:
    """How often each fault strikes: interruptions per opened stream, the others per request. Each from 0 to 1."""

    cut: float = 0.0
    stall: float = 0.0
    eof: float = 0.0
    rate_limit: float = 0.0
    server_error: float = 0.0
    unavailable: float = 0.0
    bad_gateway: float = 0.0
    slow: float = 0.0

    def of(self, fault: Fault) -> float:
        """The rate of one fault."""
        return float(getattr(self, fault.value))

    def changed(self, assignments: Sequence[str]) -> FaultRates:
        """A copy with `NAME=RATE` assignments applied; raises ValueError on an unknown name or a bad rate."""
        rates = dict(assignment.split("=", 1) for assignment in assignments)
        if unknown := rates.keys() - {field.name for field in fields(self)}:
            raise ValueError(f"unknown fault {min(unknown)!r}; one of {', '.join(Fault)}")
        return replace(self, **{name: float(rate) for name, rate in rates.items()})


CALM = FaultRates()
ROUGH = FaultRates(
    cut=0.45, stall=0.1, eof=0.2, rate_limit=0.06, server_error=0.05, unavailable=0.04, bad_gateway=0.03, slow=0.1
)


class Faults:
    """Draws the faults and counts those that struck."""

    def __init__(self, rates: FaultRates, seed: int) -> None:
        self.rates = rates
        self.struck: Counter[str] = Counter()
        self._seed = seed
        self._dice: dict[str, Random] = {}

    def at_the_door(self, subject: str) -> Fault | None:
        """The fault that meets a request before it is looked at."""
        return self._draw(subject, [fault for fault in Fault if fault not in INTERRUPTIONS])

    def on_the_way(self, subject: str) -> tuple[Fault | None, int]:
        """The interruption that a freshly opened stream will suffer, and after how many whole frames (at least 1)."""
        fault = self._draw(subject, INTERRUPTIONS, count=False)
        return fault, self._of(subject).randint(1, 25)

    def strike(self, fault: Fault) -> None:
        """Count a fault that has just been suffered."""
        self.struck[fault.value] += 1

    def _draw(self, subject: str, faults: Sequence[Fault], *, count: bool = True) -> Fault | None:
        roll = self._of(subject).random()
        for fault in faults:
            roll -= self.rates.of(fault)
            if roll < 0:
                if count:
                    self.strike(fault)
                return fault
        return None

    def _of(self, subject: str) -> Random:
        return self._dice.setdefault(subject, Random(f"{self._seed}:{subject}"))  # noqa: S311 - dice, no secret


def html_page() -> web.Response:
    """What a proxy answers when nothing behind it does."""
    page = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
    return web.Response(status=502, text=page, content_type="text/html")


async def interrupt(fault: Fault, request: web.Request, response: web.StreamResponse, next_frame: bytes) -> None:
    """Let an interruption happen to an open stream; the caller then returns without writing more."""
    if fault is Fault.CUT:
        await response.write(next_frame[: max(1, len(next_frame) // 2)])
        if request.transport is not None:
            request.transport.abort()
    elif fault is Fault.STALL:
        await silence()


async def silence() -> NoReturn:
    """Never comes back: the server cancels it when the client goes away."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets this future")
