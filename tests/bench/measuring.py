"""One run of one contestant, and what it took: the only place that reads clocks, /proc and the topic's ends."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from brokers import committed
from contestants import Contestant, Course
from job_api import JobApi

PARTITIONS = 6
LOOK_S, STILL_S, START_S, END_S = 0.05, 1.5, 180.0, 30.0
T = TypeVar("T")
_TICKS = os.sysconf("SC_CLK_TCK")


class Round(NamedTuple):
    """What one run took, of the contestant's process and its children."""

    events_per_s: float
    cpu_us: float
    """CPU for one event, in microseconds."""
    peak_mb: float
    """The most memory that it held at any time since it started (VmHWM)."""


class _Look(NamedTuple):
    """What was to be seen at one moment."""

    at_s: float
    cpu_s: float
    ends: tuple[int, ...]
    """How far a read-committed reader could read, by partition."""


async def one_round(contestant: Contestant, api: JobApi, servers: str, directory: Path, profile: Path | None) -> Round:
    """Raises `RuntimeError` when the contestant ends by itself, or brings fewer or more events than there were."""
    topic = f"bench-{time.time_ns()}"
    own = directory / topic
    own.mkdir()
    await _create(servers, topic)
    async with api.served() as url, _reader(servers) as reader:
        course = Course(url, servers, topic, api.streams, own, profile)
        async with _running(contestant.command(course), own / "log") as process:
            await _unless_ended(process, asyncio.wait_for(api.opened.wait(), START_S))
            family = _family(process.pid)
            await _unless_ended(process, _looks(reader, topic, api.streams, family))
            began_s, began_cpu_s = time.perf_counter(), _cpu_s(family)
            api.flowing.set()
            looks = await _unless_ended(process, _looks(reader, topic, api.streams + api.events, family))
            peak_mb = sum(map(_peak_mb, family))
            last, count = await _written(servers, topic)
            if count != api.streams + api.events:
                raise RuntimeError(f"{contestant.what}: {count} records of {api.streams + api.events} events")
    ended = next(look for look in looks if all(map(int.__gt__, look.ends, last)))
    return Round(api.events / (ended.at_s - began_s), (ended.cpu_s - began_cpu_s) / api.events * 1e6, peak_mb)


@asynccontextmanager
async def _running(command: Sequence[str], log_path: Path) -> AsyncIterator[Process]:
    """The contestant, ended with the block; what it said is told when the block fails."""
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=log, stderr=log)
    try:
        yield process
    except BaseException:
        sys.stderr.write(await asyncio.to_thread(log_path.read_text, errors="replace"))
        raise
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), END_S)


async def _unless_ended(process: Process, work: Coroutine[Any, Any, T]) -> T:
    working, ending = asyncio.ensure_future(work), asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RuntimeError(f"the contestant ended by itself, with code {process.returncode}")
        return await working
    finally:
        working.cancel()
        ending.cancel()


async def _create(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        positions = NewTopic(f"{topic}.positions", 1, 1, topic_configs={"cleanup.policy": "compact"})
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1), positions])
    finally:
        await admin.close()


@asynccontextmanager
async def _reader(servers: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _looks(reader: AIOKafkaConsumer, topic: str, events: int, family: Sequence[int]) -> list[_Look]:
    """Look again and again, until so many events can have been written and nothing moves any more."""
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    looks: list[_Look] = []
    while not looks or time.perf_counter() < looks[-1].at_s + (STILL_S if sum(looks[-1].ends) >= events else END_S):
        ends = await reader.end_offsets(places)
        look = _Look(time.perf_counter(), _cpu_s(family), tuple(ends[place] for place in places))
        if not looks or look.ends != looks[-1].ends:
            looks.append(look)
        await asyncio.sleep(LOOK_S)
    return looks


async def rate_of_reading(api: JobApi) -> float:
    """How many events a second a reader takes that does nothing with the bytes: the most that the bench can show."""
    async with api.served() as url:
        reader = [str(Path(__file__).with_name("raw_reader.py")), url, str(api.streams), str(api.stream_bytes)]
        process = await asyncio.create_subprocess_exec(sys.executable, *reader)
        await _unless_ended(process, asyncio.wait_for(api.opened.wait(), START_S))
        began_s = time.perf_counter()
        api.flowing.set()
        await process.wait()
        return api.events / (time.perf_counter() - began_s)


async def _written(servers: str, topic: str) -> tuple[list[int], int]:
    """The last offset of an event by partition, and how many there are.

    Only output counts: jobbridge tells more than it hears, that it watches a job and that the job runs.
    """
    last, count = [-1] * PARTITIONS, 0
    for record in await committed(servers, topic):
        if dict(record.headers).get("ce_type", b"job.output") == b"job.output":
            last[record.partition] = record.offset
            count += 1
    return last, count


def _family(pid: int) -> list[int]:
    """A process and all that came from it."""
    family = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            for child in (task / "children").read_text().split():
                family += _family(int(child))
    return family


def _cpu_s(family: Sequence[int]) -> float:
    """User and system time until now, that of children that ended included."""
    ticks = 0
    for pid in family:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def _peak_mb(pid: int) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].removesuffix("kB")) / 1024
