"""How the bridge ends, and what it makes of others that are away for a while: nothing is lost, nothing told twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cable import Cable
from rig import AwayReceiver, River, WatchedSimulator, river, until

from bridge.demo.broker import embedded_broker
from bridge.demo.simulators.auvy_world import World
from bridge.demo.simulators.world import Pace
from bridge.journal.store import JournalHealth, SubscriptionState
from bridge.journal.stores.sqlite import open_journal

JOBS = 5
AWAY_S = 3.0
AWAY_JOB_S = 5.0
"""Jobs that go on before, while and after somebody is away."""


@dataclass(slots=True)
class Stage:
    """Everybody but the bridge."""

    place: River
    cable: Cable
    simulator: WatchedSimulator
    receiver: AwayReceiver
    receiving: AsyncExitStack
    """Closed, the receiver is away."""

    async def flows(self) -> bool:
        """Whether every job is heard of and both destinations are fed."""
        seen = await self.place.watcher.look()
        return all(job.events > 3 for job in seen.jobs) and seen.kafka > 20 and seen.webhooks > 20

    async def kept(self) -> JournalHealth:
        """What the journal says of itself once no process holds it."""
        async with open_journal(self.place.journal) as journal:
            return await journal.health()


@asynccontextmanager
async def stage(directory: Path, job_s: float = 4.0) -> AsyncIterator[Stage]:
    simulator = WatchedSimulator(World(jobs=JOBS, at_once=JOBS, pace=Pace(job_s=job_s, events_per_s=15, hold_s=1.0)))
    receiver = AwayReceiver()
    async with (
        embedded_broker(directory / "broker") as broker,
        (cable := Cable(broker.bootstrap_servers)).laid(),
        simulator.served() as url,
        AsyncExitStack() as receiving,
        river(directory, simulator=url, receiver=receiver.url, servers=cable.servers) as place,
    ):
        await receiving.enter_async_context(receiver.served())
        yield Stage(place, cable, simulator, receiver, receiving)


async def test_sigterm_in_the_middle_of_everything_drains_and_exits_0(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        async with on.place.ready_bridge() as bridge:
            await until(on.flows, "events flow")
            began_s = time.monotonic()
            bridge.terminate()
            assert await bridge.wait() == 0
            print(f"drained and ended in {time.monotonic() - began_s:.2f} s")
            assert time.monotonic() - began_s < 5
        kept = await on.kept()
        assert kept.entries > 20
        assert kept.depth == {"kafka": 0, "receiver": 0}
        on.place.assert_no_bug()
        assert '"bridge.stopped"' in on.place.said()

        async with on.place.ready_bridge():
            await on.place.settled()
        assert (await on.place.proof()).flaws == []


async def test_a_drain_that_hangs_ends_at_its_deadline_and_loses_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.place.overrides["SUPERVISION__DRAIN_TIMEOUT_S"] = "1"
        async with on.place.ready_bridge() as bridge:
            await until(on.flows, "events flow")
            await on.cable.cut()
            await _kafka_depth(on)
            began_s = time.monotonic()
            bridge.terminate()
            assert await bridge.wait() == 0
            assert 1.0 <= time.monotonic() - began_s < 8
        assert (await on.kept()).depth["kafka"] > 0
        assert '"bridge.drain_deadline"' in on.place.said()
        on.place.assert_no_bug()

        await on.cable.mend()
        async with on.place.ready_bridge():
            await on.place.settled()
        assert (await on.place.proof()).flaws == []


async def test_a_second_sigterm_ends_a_hanging_drain_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        async with on.place.ready_bridge() as bridge:
            await until(on.flows, "events flow")
            await on.cable.cut()
            await _kafka_depth(on)
            bridge.terminate()
            await until(lambda: _draining(on.place), "the bridge says that it drains")
            began_s = time.monotonic()
            bridge.terminate()
            assert await bridge.wait() == 128 + signal.SIGTERM
            assert time.monotonic() - began_s < 1
        on.place.assert_no_bug()

        await on.cable.mend()
        async with on.place.ready_bridge():
            await on.place.settled()
        assert (await on.place.proof()).flaws == []


async def test_a_broker_that_is_away_for_a_while_costs_no_event_and_no_readiness(tmp_path: Path) -> None:
    async with stage(tmp_path, AWAY_JOB_S) as on, on.place.ready_bridge():
        await until(on.flows, "events flow")
        await on.cable.cut()
        journalled = (await on.place.watcher.look()).journalled
        assert await _readiness(on.place, AWAY_S) == {200}
        seen = await on.place.watcher.look()
        assert seen.journalled > journalled + 50
        assert seen.backlog > 50
        await on.cable.mend()
        began_s = time.monotonic()
        await on.place.settled()
        print(f"settled {time.monotonic() - began_s:.2f} s after the broker was back")
        assert (await on.place.proof()).flaws == []
    on.place.assert_no_bug()


async def test_a_receiver_that_is_away_for_a_while_costs_no_event_and_no_readiness(tmp_path: Path) -> None:
    async with stage(tmp_path, AWAY_JOB_S) as on, on.place.ready_bridge():
        await until(on.flows, "events flow")
        await on.receiving.aclose()
        assert await _readiness(on.place, AWAY_S) == {200}
        assert (await on.place.watcher.look()).backlog > 50
        async with on.receiver.served():
            await on.place.settled()
            proof = await on.place.proof()
        assert proof.flaws == []
    on.place.assert_no_bug()


async def test_a_restart_goes_on_from_every_cursor_and_hears_nothing_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        async with on.place.ready_bridge() as bridge:
            await until(on.flows, "events flow")
            bridge.terminate()
            assert await bridge.wait() == 0
        async with open_journal(on.place.journal) as journal:
            records = await journal.subscriptions(state=SubscriptionState.ACTIVE)
        cursors = {record.key.job_id: record.cursor for record in records}
        assert len(cursors) > 1
        assert None not in cursors.values()
        on.simulator.heard.clear()

        async with on.place.ready_bridge():
            await until(lambda: _heard(on.simulator, set(cursors)), "every job is listened to again")
            first = dict(reversed([(heard.job, heard.after) for heard in on.simulator.heard]))
            assert first == cursors
            await on.place.settled()
            async with on.place.http.get(f"{on.place.control}/metrics") as response:
                repeats = [line for line in (await response.text()).splitlines() if "duplicate_events_total{" in line]
        assert repeats == []
        assert (await on.place.proof()).flaws == []


async def _heard(simulator: WatchedSimulator, jobs: set[str]) -> bool:
    return {heard.job for heard in simulator.heard} >= jobs


async def _draining(place: River) -> bool:
    status, about = await place.ask("/readyz?verbose=1")
    return status == 503 and about["obstacles"] == ["draining"]


async def _kafka_depth(on: Stage) -> None:
    """Wait until Kafka owes events."""

    async def owes() -> bool:
        _, about = await on.place.ask("/v1/sinks")
        return any(sink["depth"] > 0 for sink in about["sinks"] if sink["name"] == "kafka")

    await until(owes, "events wait for the broker")


async def _readiness(place: River, for_s: float) -> set[int]:
    """Every answer of `/readyz` over that time."""
    answers: Counter[int] = Counter()
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        async with place.http.get(f"{place.control}/readyz") as response:
            answers[response.status] += 1
        await asyncio.sleep(0.1)
    return set(answers)
