"""What goes wrong and when: a plan drawn from a seed, and the hand that carries it out.

Blows fall at random moments, also while others last: a bridge may die while the broker is away. Only what needs the
same thing waits for it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from asyncio import Lock, TaskGroup
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from random import Random
from typing import NamedTuple

from stage import TRANSACTION_TIMEOUT_S, Stage
from verdict import Struck


class Kind(StrEnum):
    """What can happen."""

    BRIDGE = "bridge killed"
    LOST_COMMIT = "bridge killed, its commit lost"
    LATE_COMMIT = "bridge killed, its commit late"
    UNHEARD_COMMIT = "bridge killed, its commit's answer lost"
    BROKER = "broker killed"
    BROKER_STOP = "broker stopped and started"
    ZOMBIE = "zombie bridge"
    ZOMBIE_IN_COMMIT = "zombie bridge, stopped in its commit"
    KAFKA_CUT = "connection to Kafka cut"
    KAFKA_STALL = "connection to Kafka stalled"
    PROVIDER_CUT = "connection to the provider cut"
    PROVIDER_STALL = "connection to the provider stalled"


KILLS = {
    Kind.BRIDGE: 0.33,
    Kind.LOST_COMMIT: 0.1,
    Kind.LATE_COMMIT: 0.1,
    Kind.UNHEARD_COMMIT: 0.1,
    Kind.BROKER: 0.25,
    Kind.BROKER_STOP: 0.12,
}
"""The share of each among the kills."""
OTHERS = {
    Kind.ZOMBIE: 0.04,
    Kind.ZOMBIE_IN_COMMIT: 0.04,
    Kind.KAFKA_CUT: 0.06,
    Kind.KAFKA_STALL: 0.06,
    Kind.PROVIDER_CUT: 0.06,
    Kind.PROVIDER_STALL: 0.06,
}
"""How many there are of each for one kill."""

_BRIDGE, _BROKER, _CABLE, _LINE = "bridge", "broker", "cable", "line"
_NEEDS: dict[Kind, Sequence[str]] = {
    Kind.BRIDGE: [_BRIDGE],
    Kind.LOST_COMMIT: [_BRIDGE, _BROKER, _CABLE],
    Kind.LATE_COMMIT: [_BRIDGE, _BROKER, _CABLE],
    Kind.UNHEARD_COMMIT: [_BRIDGE, _BROKER, _CABLE],
    Kind.BROKER: [_BROKER],
    Kind.BROKER_STOP: [_BROKER],
    Kind.ZOMBIE: [_BRIDGE, _BROKER, _CABLE],
    Kind.ZOMBIE_IN_COMMIT: [_BRIDGE, _BROKER, _CABLE],
    Kind.KAFKA_CUT: [_CABLE],
    Kind.KAFKA_STALL: [_CABLE],
    Kind.PROVIDER_CUT: [_LINE],
    Kind.PROVIDER_STALL: [_LINE],
}


class Strike(NamedTuple):
    """One planned blow."""

    at_s: float
    """From the beginning."""
    kind: Kind
    luck: float
    """Between 0 and 1: decides whatever is random about it."""


def plan(kills: int, seconds: float, dice: Random) -> list[Strike]:
    """So many kills and what belongs to them, spread at random over that time; each kind at least once."""
    kinds = [kind for kind, share in KILLS.items() for _ in range(max(1, int(share * kills)))]
    kinds += [Kind.BRIDGE] * (kills - len(kinds))
    kinds += [kind for kind, rate in OTHERS.items() for _ in range(max(1, round(rate * kills)))]
    dice.shuffle(kinds)
    moments = sorted(dice.uniform(0.0, seconds) for _ in kinds)
    return [Strike(at_s, kind, dice.random()) for at_s, kind in zip(moments, kinds, strict=True)]


class Monkey:
    """Carries out a plan. `struck` tells what really fell, and when."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.struck: list[Struck] = []
        self._stage = stage
        self._say = say
        self._free = {name: Lock() for name in (_BRIDGE, _BROKER, _CABLE, _LINE)}
        self._blows: dict[Kind, Callable[[Kind, float], Awaitable[None]]] = {
            Kind.BRIDGE: self._kill,
            Kind.LOST_COMMIT: self._kill_in_commit,
            Kind.LATE_COMMIT: self._kill_in_commit,
            Kind.UNHEARD_COMMIT: self._kill_in_commit,
            Kind.BROKER: self._restart_broker,
            Kind.BROKER_STOP: self._restart_broker,
            Kind.ZOMBIE: self._raise_zombie,
            Kind.ZOMBIE_IN_COMMIT: self._raise_zombie,
            Kind.KAFKA_CUT: self._cut,
            Kind.KAFKA_STALL: self._stall,
            Kind.PROVIDER_CUT: self._cut,
            Kind.PROVIDER_STALL: self._stall,
        }

    @property
    def kills(self) -> int:
        return sum(blow.kind in KILLS for blow in self.struck)

    async def run(self, strikes: Sequence[Strike]) -> None:
        """Return when all of it has happened and is over. Raises the first error of any of it."""
        try:
            async with TaskGroup() as going_on:
                await self._begin(strikes, going_on)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _begin(self, strikes: Sequence[Strike], going_on: TaskGroup) -> None:
        began_s = time.monotonic()
        for strike in strikes:
            await asyncio.sleep(strike.at_s - (time.monotonic() - began_s))
            needed = AsyncExitStack()
            for name in _NEEDS[strike.kind]:
                await needed.enter_async_context(self._free[name])
            going_on.create_task(self._strike(strike, needed))

    async def _strike(self, strike: Strike, needed: AsyncExitStack) -> None:
        async with needed:
            await self._blows[strike.kind](strike.kind, strike.luck)
        self._say(strike.kind)

    def _fell(self, kind: Kind, at_s: float | None = None) -> None:
        self.struck.append(Struck(kind, time.time() if at_s is None else at_s))

    async def _kill(self, kind: Kind, luck: float) -> None:
        self._fell(kind, await self._stage.restart_bridge())

    async def _kill_in_commit(self, kind: Kind, luck: float) -> None:
        """In the very middle: its records are written, and the commit is on its way, or the answer to it is."""
        async with self._stage.cable.trap(answer=kind is Kind.UNHEARD_COMMIT) as trap:
            await self._stage.until(trap.caught.is_set, "the bridge commits")
            self._fell(kind, await self._stage.restart_bridge())
            trap.lost = kind is not Kind.LATE_COMMIT
            if not trap.lost:  # it arrives before the successor took over, or after that
                await asyncio.sleep(3.0 * luck)

    async def _restart_broker(self, kind: Kind, luck: float) -> None:
        broker = self._stage.broker
        await (broker.stop() if kind is Kind.BROKER_STOP else broker.kill())
        self._fell(kind)
        await asyncio.sleep(luck)
        await broker.start()

    async def _raise_zombie(self, kind: Kind, luck: float) -> None:
        """A bridge stands still, its volume goes to a successor, and it wakes with the old one still in its hands."""
        stage, zombie = self._stage, self._stage.bridge
        await stage.flows()  # it has begun its work
        zombie.zombie = True
        async with AsyncExitStack() as trapped:
            if kind is Kind.ZOMBIE_IN_COMMIT:
                trap = await trapped.enter_async_context(stage.cable.trap(answer=False))
                await stage.until(trap.caught.is_set, "the bridge commits")
            zombie.process.send_signal(signal.SIGSTOP)
            self._fell(kind)
            await asyncio.sleep(TRANSACTION_TIMEOUT_S + 0.5 + luck)
        await stage.start_bridge(stage.copy_journal())
        await stage.flows()
        zombie.process.send_signal(signal.SIGCONT)
        await stage.until(lambda: zombie.parked() is not None, "the zombie stops")
        assert zombie.parked() == "fenced", f"{zombie.log.name} stopped because of {zombie.parked()}"
        await stage.flows()
        zombie.process.kill()
        await zombie.process.wait()

    async def _cut(self, kind: Kind, luck: float) -> None:
        line = self._stage.cable if kind is Kind.KAFKA_CUT else self._stage.line
        self._fell(kind)
        await line.cut()
        await asyncio.sleep(2.0 * luck)
        await line.mend()

    async def _stall(self, kind: Kind, luck: float) -> None:
        """For longer than a transaction may last, or shorter."""
        line = self._stage.cable if kind is Kind.KAFKA_STALL else self._stage.line
        self._fell(kind)
        line.stall()
        await asyncio.sleep(1.3 * TRANSACTION_TIMEOUT_S * luck)
        line.flow()
