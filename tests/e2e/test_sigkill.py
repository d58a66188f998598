"""SIGKILL at random moments: nothing lost, nothing twice in the topic, order kept, whatever was going on just then."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random
from statistics import median

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from apache_kafka import apache_kafka
from rig import SECRET, River, river, until

from bridge.demo.children import server
from bridge.demo.receiver import SECRET_VARIABLE
from bridge.demo.scene import TOPIC
from bridge.demo.simulators.auvy_world import World
from bridge.kafka.consumer import close


class Moment(StrEnum):
    """What a bridge had reached when its last seconds began."""

    STARTED = "started"
    READY = "ready"
    RELAYING = "relaying"
    """It had committed records."""


LAST_S = {Moment.STARTED: 1.8, Moment.READY: 0.8, Moment.RELAYING: 0.4}
"""From that moment to the kill, at most."""
MOMENTS = [*Moment] * 8
SIMULATOR = ("bridge.demo.simulators.auvy", "--jobs=4", "--at-once=4", "--job-s=9", "--events-per-s=25", "--faults")
RECEIVER = ("bridge.demo.receiver", "--server-error=0.02", "--rate-limit=0.002", "--slow=0.005")


@dataclass(slots=True)
class Tail:
    """A read-committed reader at the end of the topic, which knows when each record became visible."""

    consumer: AIOKafkaConsumer
    places: list[TopicPartition]
    arrivals: list[tuple[float, TopicPartition, int]] = field(default_factory=list)

    async def read(self) -> None:
        while True:
            batches = await self.consumer.getmany(timeout_ms=50)
            now_s = time.monotonic()
            for place, records in batches.items():
                self.arrivals += [(now_s, place, record.offset) for record in records]

    def grows(self) -> Callable[[], Awaitable[bool]]:
        """Asks whether there are more records than now."""
        before = len(self.arrivals)

        async def grown() -> bool:
            return len(self.arrivals) > before

        return grown

    async def ends(self) -> dict[TopicPartition, int]:
        return dict(await self.consumer.end_offsets(self.places))


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL: when, what was going on, and what the topic held once the process was gone."""

    at_s: float
    running_jobs: int
    committed: dict[TopicPartition, int]

    def silence_s(self, tail: Tail) -> float:
        """Until a record became visible that was not there when the process died."""
        later = (at_s for at_s, place, offset in tail.arrivals if offset >= self.committed[place])
        return next(later) - self.at_s


@asynccontextmanager
async def tailing(servers: str) -> AsyncIterator[Tail]:
    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=servers, isolation_level="read_committed", fetch_max_wait_ms=20
    )
    await consumer.start()
    try:
        places = sorted(consumer.assignment())
        await consumer.seek_to_beginning()
        tail = Tail(consumer, places)
        reading = asyncio.create_task(tail.read())
        try:
            yield tail
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    finally:
        await close(consumer)


async def start_job(place: River, simulator: str) -> None:
    """One more job at the provider, for discovery to find. Asks until heard, since the simulator refuses at random."""
    asked, auth = {"pathway_id": "pw", "stream": True}, {"Authorization": f"Bearer {World().api_key}"}
    while True:
        async with place.http.post(f"{simulator}/v1/jobs", json=asked, headers=auth) as response:
            if response.ok:
                return


async def running_jobs(place: River, simulator: str) -> int:
    async with place.http.get(f"{simulator}/_sim/progress") as response:
        return sum(not job["over"] for job in (await response.json())["jobs"].values())


async def kill_once(place: River, simulator: str, tail: Tail, moment: Moment, dice: Random) -> Kill:
    """A bridge's whole short life on the journal that the one before left behind."""
    await start_job(place, simulator)
    async with place.bridge() as bridge:
        if moment is not Moment.STARTED:
            await until(place.is_ready, "the bridge is ready")
        if moment is Moment.RELAYING:
            await until(tail.grows(), "the bridge commits records")
        await asyncio.sleep(dice.uniform(0.0, LAST_S[moment]))
        bridge.kill()
        at_s = time.monotonic()
        await bridge.wait()
        return Kill(at_s, await running_jobs(place, simulator), await tail.ends())


@pytest.mark.timeout(180)
async def test_sigkill_at_any_moment_loses_and_repeats_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("SIGKILL_SEED") or Random().randrange(1 << 32))
    print(f"\nSIGKILL_SEED={seed}")
    dice, began_s = Random(seed), time.monotonic()
    (kafka := tmp_path / "kafka").mkdir()
    moments = dice.sample(MOMENTS, len(MOMENTS))
    async with (
        apache_kafka(kafka) as broker,
        server(tmp_path / "simulator.log", *SIMULATOR, f"--seed={seed}") as simulator,
        server(tmp_path / "receiver.log", *RECEIVER, f"--seed={seed}", environ={SECRET_VARIABLE: SECRET}) as receiver,
        river(tmp_path, simulator=simulator, receiver=receiver, servers=broker.bootstrap_servers) as place,
    ):
        async with place.ready_bridge():  # once in peace, so that the topic is there to be watched
            await until(lambda: _exists(broker.bootstrap_servers), "the topic exists")
        async with tailing(broker.bootstrap_servers) as tail:
            kills = [await kill_once(place, simulator, tail, moment, dice) for moment in moments]
            async with place.ready_bridge():
                await place.settled(60)
            proof = await place.proof()
            silences_s = [kill.silence_s(tail) for kill in kills]
    print(
        f"{len(kills)} kills, {time.monotonic() - began_s:.0f} s; from a kill to the next committed record: "
        f"median {median(silences_s):.2f} s, max {max(silences_s):.2f} s"
    )
    print(", ".join(f"{name} {count}" for name, count in proof.counts().items()))
    assert proof.flaws == []
    assert proof.jobs == 4 + len(kills)
    assert proof.events_emitted > 2000
    assert proof.webhook_events == proof.kafka_records > proof.events_emitted
    assert all(kill.running_jobs > 0 for kill in kills), kills
    place.assert_no_bug()


async def _exists(servers: str) -> bool:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    try:
        return TOPIC in await consumer.topics()
    finally:
        await close(consumer)
