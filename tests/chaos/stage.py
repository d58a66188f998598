"""Who plays in the chaos: a job API and a broker behind lines that can fail, one bridge after the other, one reader."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientSession
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from apache_kafka import apache_kafka
from brokers import Broker
from cable import Cable, Line
from numbered_jobs import TOKEN, JobApi
from verdict import Arrival, Told

from bridge.demo.children import child, last_words

TOPIC = "chaos.events"
PARTITIONS = 6
TRANSACTION_TIMEOUT_S = 6.0
STUCK_S = 90.0
"""Without a committed record for so long, everybody alive and connected, the river does not flow any more."""

_LOOK_S = 0.05
_DEPTH = 'jobbridge_journal_depth_entries{sink="kafka"}'


@dataclass(slots=True)
class BridgeProcess:
    """One bridge, alive or not, and the folder of the journal that it works on."""

    process: Process
    folder: Path
    log: Path
    killed: bool = False
    zombie: bool = False
    """It was left standing and had a successor: the only one that may be parked, and for that reason alone."""

    def check_alive(self) -> None:
        """Raise `AssertionError` where it ended although nobody killed it."""
        code = self.process.returncode
        assert code is None or self.killed, f"{self.log} ended by itself with {code}: {last_words(self.log)}"

    def said(self) -> list[dict[str, Any]]:
        """Its log, line by line; a line that is no JSON stands under `text`."""
        return [_line(text) for text in self.log.read_text(errors="replace").splitlines()]

    def parked(self) -> str | None:
        """Why its first parked session was parked."""
        return next((str(line["reason"]) for line in self.said() if line.get("parked")), None)

    def flaws(self) -> list[str]:
        """What must never be in its log: an error that nobody foresaw, or that it stopped and waits for a person."""
        return [f"{self.log.name}: {line}"[:500] for line in self.said() if self._is_flaw(line)]

    def _is_flaw(self, line: dict[str, Any]) -> bool:
        if line.get("parked"):
            return not (self.zombie and line["reason"] == "fenced")
        # The client library tells of a sender that a broken connection ended; the sink builds a new producer then.
        ours = not str(line.get("logger")).startswith("aiokafka")
        return ours and ("exception" in line or "Traceback" in line.get("text", ""))


def _line(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    return line if isinstance(line, dict) else {"text": text}


class Tail:
    """A read-committed reader that lives through everything, and knows when each record became visible."""

    def __init__(self, servers: str) -> None:
        self.arrivals: list[Arrival] = []
        self.places: set[tuple[int, int]] = set()
        self.ended: set[str] = set()
        """Jobs whose terminal event was seen."""
        self._servers = servers
        self._next = {TopicPartition(TOPIC, number): 0 for number in range(PARTITIONS)}

    async def read(self) -> None:
        """Read for ever."""
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._servers,
                isolation_level="read_committed",
                enable_auto_commit=False,
                fetch_max_wait_ms=20,
            )
            try:
                await consumer.start()
                consumer.assign(list(self._next))
                for place, offset in self._next.items():
                    consumer.seek(place, offset)
                while True:
                    self._take(await consumer.getmany(timeout_ms=50))
            except (kafka.KafkaError, OSError):
                await asyncio.sleep(_LOOK_S)
            finally:
                await consumer.stop()

    def _take(self, batches: dict[TopicPartition, list[Any]]) -> None:
        now_s = time.time()
        for place, records in batches.items():
            for record in records:
                told = Told.of(record)
                self.arrivals.append(Arrival(now_s, record.timestamp / 1000))
                self.places.add(told.place)
                if told.terminal:
                    self.ended.add(told.job)
                self._next[place] = record.offset + 1


@dataclass(slots=True)
class Stage:
    """Everybody, and how bridges come and go."""

    directory: Path
    broker: Broker
    cable: Cable
    line: Line
    api: JobApi
    tail: Tail
    bridges: list[BridgeProcess] = field(default_factory=list)
    _children: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def bridge(self) -> BridgeProcess:
        """The one that is to do the work now."""
        return self.bridges[-1]

    async def start_bridge(self, folder: Path) -> None:
        """One more bridge, on the journal in that folder."""
        log = self.directory / f"bridge-{len(self.bridges) + 1}.log"
        environ = {"CHAOS_TOKEN": TOKEN, "JOBBRIDGE__JOURNAL__URL": f"sqlite:///{folder / 'journal.db'}"}
        config = str(self.directory / "jobbridge.yaml")
        running = child(log, "bridge", "run", "-c", config, environ=environ)
        self.bridges.append(BridgeProcess(await self._children.enter_async_context(running), folder, log))

    async def restart_bridge(self) -> float:
        """SIGKILL, and a new one at once on the journal that is left; returns when the blow fell."""
        bridge = self.bridge
        bridge.check_alive()
        bridge.killed = True
        bridge.process.kill()
        at_s = time.time()
        await bridge.process.wait()
        await self.start_bridge(bridge.folder)
        return at_s

    def copy_journal(self) -> Path:
        """The current journal's folder as a snapshot of its volume would have it; where the copy is."""
        folder = self.directory / f"journal-{len(self.bridges) + 1}"
        shutil.copytree(self.bridge.folder, folder, ignore=shutil.ignore_patterns("*.lock", "*-shm"))
        return folder

    async def flows(self) -> None:
        """Wait for a record that is committed after now."""
        since_s = time.time()
        await self.until(lambda: bool(self.tail.arrivals) and self.tail.arrivals[-1].taken_s > since_s, "records flow")

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Look again and again. Raises `AssertionError` when it takes longer than anything may."""
        try:
            async with asyncio.timeout(STUCK_S):
                while not holds():
                    self.bridge.check_alive()
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            state = f"parked: {self.bridge.parked()}; {last_words(self.bridge.log)}"
            raise AssertionError(f"after {STUCK_S:g} s still not: {what}. {self.bridge.log.name} {state}") from None

    async def settled(self) -> dict[str, float]:
        """Wait until the bridge at work owes nothing; its metrics then."""
        async with asyncio.timeout(STUCK_S):
            while (metrics := await self._metrics())[_DEPTH]:  # noqa: ASYNC110 - nor does settling
                await asyncio.sleep(_LOOK_S)
        return metrics

    async def _metrics(self) -> dict[str, float]:
        """A number for each series, by name and labels as exposed."""
        started = next(line for line in self.bridge.said() if line.get("event") == "bridge.started")
        async with (
            ClientSession() as http,
            http.get(f"http://127.0.0.1:{started['control_port']}/metrics") as response,
        ):
            lines = (await response.text()).splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        }

    async def end_bridge(self) -> int:
        """SIGTERM; its exit code."""
        self.bridge.process.terminate()
        return await asyncio.wait_for(self.bridge.process.wait(), STUCK_S)

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        """With a first bridge, the reader and the job API; all of them end with the context."""
        folder = self.directory / "journal-1"
        folder.mkdir()
        async with self.api.served(), self._children:
            self.line = Line(self.api.address)
            async with self.cable.laid(), self.line.laid():
                (self.directory / "jobbridge.yaml").write_text(yaml.safe_dump(self._settings()))
                reading = asyncio.create_task(self.tail.read())
                await self.start_bridge(folder)
                try:
                    yield
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)

    def _settings(self) -> dict[str, Any]:
        """The bridge's settings. Its patience is cut to seconds, so that trouble is both met and over soon."""
        kafka_sink = {
            "kind": "kafka",
            "bootstrap_servers": self.cable.servers,
            "topic": TOPIC,
            "positions_topic": "chaos.positions",
            "transactional_id_prefix": "chaos",
            "create_topics": True,
            "replication_factor": 1,
            "request_timeout_s": 3,
            "delivery_timeout_s": TRANSACTION_TIMEOUT_S - 1,
            "transaction_timeout_s": TRANSACTION_TIMEOUT_S,
        }
        return {
            "sources": {name: self._source(name) for name in self.api.sources},
            "sinks": {"kafka": kafka_sink},
            "control": {"host": "127.0.0.1", "port": 0},
            "supervision": {"backoff_base_s": 0.1, "backoff_cap_s": 1.0, "floor_max_s": 1.0},
        }

    def _source(self, name: str) -> dict[str, Any]:
        return {
            "provider": "auvy",
            "base_url": f"http://{self.line.address}/{name}",
            "token": "${CHAOS_TOKEN}",
            "discover": {"every_s": 1},
            "discover_statuses": [],
            "requests_per_minute": 60_000,
            "idle_timeout_s": 2,
            "status_interval_s": 1,
            "end_quiet_s": 1,
            "request_timeout_s": 5,
        }


@asynccontextmanager
async def stage(directory: Path, api: JobApi) -> AsyncIterator[Stage]:
    """A broker with an empty topic, and everybody around it."""
    (folder := directory / "broker").mkdir()
    async with apache_kafka(folder) as broker:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        try:
            # The broker's own clock on every record tells what was written before a blow and what after it.
            config = {"message.timestamp.type": "LogAppendTime"}
            await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, topic_configs=config)])
        finally:
            await admin.close()
        servers = broker.bootstrap_servers
        playing = Stage(directory, broker, Cable(servers), Line(servers), api, Tail(servers))
        async with playing.playing():
            yield playing
