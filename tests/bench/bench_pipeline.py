"""Server-sent events in, read-committed records on Apache Kafka out: `make bench`.

jobbridge (journalled, exactly once, its defaults) beside the hand-written loop, in turns and in one run, because only
ratios of one machine and one hour mean anything. `--profile FILE` writes a profile of jobbridge's main thread.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import yaml
from aiohttp import web
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from apache_kafka import apache_kafka
from brokers import committed

PARTITIONS = 6
EVENT_BYTES = 500
CHUNK_EVENTS = 50
LOOK_S, STILL_S, END_S = 0.05, 1.5, 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Round(NamedTuple):
    """One run of one contestant."""

    events_per_s: float
    cpu_us: float
    """CPU of its process for one event, in microseconds."""


class Jobs:
    """A job API with `jobs` streams, which begin all at once when the last of them has been opened."""

    def __init__(self, jobs: int, events: int) -> None:
        self.jobs = jobs
        self.flowing = asyncio.Event()
        self._opened = 0
        frames = [_frame(number) for number in range(1, events // jobs + 1)]
        self.events = len(frames) * jobs
        self._chunks = [b"".join(frames[at : at + CHUNK_EVENTS]) for at in range(0, len(frames), CHUNK_EVENTS)]

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/v1/jobs/{id}/stream", self._stream)
        app.router.add_get("/v1/jobs/{id}/status", self._status)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b": hello\n\n")
        self._opened += 1
        if self._opened == self.jobs:
            self.flowing.set()
        await self.flowing.wait()
        for chunk in self._chunks:
            await answer.write(chunk)
        await asyncio.Event().wait()
        return answer

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response({"job_id": "job", "status": "running"})


def _frame(number: int) -> bytes:
    head, tail = f'id: {number}-0\ndata: {{"type":"token","token":"', '"}\n\n'
    return (head + "x" * (EVENT_BYTES - len(head) - len(tail)) + tail).encode()


async def one_round(contestant: str, servers: str, jobs: Jobs, directory: Path, profile: Path | None) -> Round:
    topic = f"bench-{contestant}-{time.time_ns()}"
    await _create(servers, topic)
    async with jobs.served() as url:
        command = _command(contestant, url, servers, topic, jobs.jobs, directory, profile)
        with (directory / f"{topic}.log").open("wb") as log:
            environ = os.environ | {"BENCH_TOKEN": "a-key"}
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, env=environ, stdout=log, stderr=log
            )
        try:
            await asyncio.wait_for(jobs.flowing.wait(), END_S)
            began_s, began_cpu_s = time.perf_counter(), _cpu_s(process.pid)
            ended_s, ended_cpu_s = await _until_still(servers, topic, jobs.events, process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), END_S)
            else:
                sys.stderr.write((directory / f"{topic}.log").read_text())
    types = [dict(record.headers).get("ce_type", b"job.output") for record in await committed(servers, topic)]
    count = types.count(b"job.output")  # jobbridge tells more than the events: that it watches, that the job runs
    assert count == jobs.events, f"{contestant}: {count} records of {jobs.events} events"
    return Round(jobs.events / (ended_s - began_s), (ended_cpu_s - began_cpu_s) / jobs.events * 1e6)


def _command(
    contestant: str, url: str, servers: str, topic: str, jobs: int, directory: Path, profile: Path | None
) -> Sequence[str]:
    if contestant == "hand":
        return [str(Path(__file__).with_name("hand_loop.py")), url, servers, topic, str(jobs)]
    source = {
        "provider": "auvy",
        "base_url": url,
        "token": "${BENCH_TOKEN}",
        "requests_per_minute": 1e6,
        "jobs": [f"job-{number}" for number in range(jobs)],
    }
    sink = {
        "kind": "kafka",
        "bootstrap_servers": servers,
        "topic": topic,
        "positions_topic": f"{topic}.positions",
        "transactional_id_prefix": topic,
    }
    config = directory / f"{topic}.yaml"
    settings = {
        "sources": {"auvy": source},
        "sinks": {"kafka": sink},
        "journal": {"url": f"sqlite:///{directory / topic}.db"},
        "control": {"host": "127.0.0.1", "port": 0},
    }
    config.write_text(yaml.safe_dump(settings))
    under = ["-m", "cProfile", "-o", str(profile)] if profile else []
    return [*under, "-m", "bridge", "run", "-c", str(config)]


async def _create(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1), NewTopic(f"{topic}.positions", 1, 1)])
    finally:
        await admin.close()


async def _until_still(servers: str, topic: str, events: int, pid: int) -> tuple[float, float]:
    """When the last stable offsets moved for the last time, and the CPU seconds used by then."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        reached, moved = 0, (time.perf_counter(), _cpu_s(pid))
        while time.perf_counter() < moved[0] + (STILL_S if reached >= events else END_S):
            now = sum((await consumer.end_offsets(places)).values())
            if now != reached:
                reached, moved = now, (time.perf_counter(), _cpu_s(pid))
            await asyncio.sleep(LOOK_S)
        return moved
    finally:
        await consumer.stop()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def main(events: int, rounds: int, streams: Sequence[int], profile: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        async with apache_kafka(directory) as broker:
            for count in streams:
                found: dict[str, list[Round]] = {"hand": [], "jobbridge": []}
                for _ in range(rounds):
                    for contestant, results in found.items():
                        own = profile if contestant == "jobbridge" else None
                        jobs = Jobs(count, events)
                        results.append(await one_round(contestant, broker.bootstrap_servers, jobs, directory, own))
                _report(count, found)


def _report(streams: int, found: dict[str, list[Round]]) -> None:
    medians = {name: Round(*map(statistics.median, zip(*rounds, strict=True))) for name, rounds in found.items()}
    for name, (rate, cpu_us) in medians.items():
        print(f"{streams:5} streams  {name:10} {rate:9,.0f} events/s  {cpu_us:6.1f} us CPU an event")
    ours, hand = medians["jobbridge"], medians["hand"]
    print(
        f"{streams:5} streams  jobbridge / hand-written: {ours.events_per_s / hand.events_per_s:.2f} of the speed, "
        f"{ours.cpu_us / hand.cpu_us:.2f} of the CPU",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.events, arguments.rounds, arguments.streams, arguments.profile))
