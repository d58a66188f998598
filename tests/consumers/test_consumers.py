"""The README's guide for consumers, held against Apache Kafka: its snippets as they stand there, and what it claims."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import NamedTuple

import orjson
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from apache_kafka import apache_kafka
from brokers import Broker, committed, written
from generated import ROOT
from programs import LANGUAGES, command
from relaying import entries, entry, sink, write

from bridge.delivery.sink import LogWriter
from bridge.delivery.sinks.kafka import KafkaSink
from bridge.journal.store import Entry

README = (ROOT / "README.md").read_text()

_READ_S = 60.0

FIRST = [event._replace(time=f"2025-10-09T08:{event.position:02d}:00Z") for event in entries(1, 10, jobs=1)]
SECOND = [entry(n, job="other") for n in range(101, 104)]
EVENTS = [f"{event.id} {event.data.decode()}" for event in [*FIRST, *SECOND]]
"""What every consumer is to see: the events of two writers, as two partitions of the journal have them."""


class History(NamedTuple):
    """A topic with a past, and where it is."""

    bootstrap_servers: str
    topic: str
    stable: int
    """The last stable offset while a writer was dead in the middle of its transaction."""
    high: int
    """The high watermark then."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    async with apache_kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def history(kafka: Broker) -> History:
    """Bridges that died before they committed: first one, then two whose transactions overlap and end crosswise.

    The latter is where a client may show what was aborted although it was told not to (kafkajs 2.2 does).
    """
    topic = f"events-{uuid.uuid4().hex[:12]}"
    names = {"topic": topic, "positions_topic": f"{topic}.positions", "transactional_id_prefix": topic}
    relay = sink(kafka, partitions=1, **names)
    await _write(relay, 0, FIRST[:3])
    async with relay.writer(0) as dying:
        await _die_before_commit(dying, FIRST[3:5])
        stable = await _end(kafka.bootstrap_servers, topic, "read_committed")
        high = await _end(kafka.bootstrap_servers, topic, "read_uncommitted")
    await _write(relay, 0, FIRST[3:5])
    async with AsyncExitStack() as bridges:
        for partition, batch in ((0, FIRST[5:8]), (1, SECOND)):
            await _die_before_commit(await bridges.enter_async_context(relay.writer(partition)), batch)
        async with relay.writer(1) as successor:
            await _write(relay, 0, FIRST[5:])
            await write(successor, SECOND)
    return History(kafka.bootstrap_servers, topic, stable, high)


async def _write(relay: KafkaSink, partition: int, batch: Sequence[Entry]) -> None:
    async with relay.writer(partition) as writer:
        await write(writer, batch)


async def _die_before_commit(writer: LogWriter, batch: Sequence[Entry]) -> None:
    sent = asyncio.Event()

    async def never(_: AIOKafkaProducer) -> None:
        sent.set()
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AIOKafkaProducer, "commit_transaction", never)
        writing = asyncio.create_task(write(writer, batch))
        await sent.wait()
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing


async def _end(bootstrap_servers: str, topic: str, isolation_level: str) -> int:
    """How far such a reader gets in the topic's one partition now."""
    place = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, isolation_level=isolation_level) as consumer:
        return int((await consumer.end_offsets([place]))[place])


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_snippet_of_the_readme_reads_every_event_once(history: History, language: str, tmp_path: Path) -> None:
    arguments = await asyncio.to_thread(command, language, tmp_path)
    assert await _printed(arguments, history, tmp_path) == EVENTS


async def _printed(arguments: Sequence[str], history: History, folder: Path) -> list[str]:
    """What the program prints up to the last event; it would go on reading for ever, so it is then killed."""
    environ = {"BROKERS": history.bootstrap_servers, "TOPIC": history.topic, "GROUP": folder.name}
    lines: list[str] = []
    with (folder / "errors").open("w+") as errors:
        program = await asyncio.create_subprocess_exec(
            *arguments, env={**os.environ, **environ}, stdin=DEVNULL, stdout=PIPE, stderr=errors, cwd=folder
        )
        assert program.stdout is not None
        try:
            async with asyncio.timeout(_READ_S):
                while not lines or lines[-1] != EVENTS[-1]:
                    line = await program.stdout.readline()
                    assert line, f"it ended after {lines}: {(folder / 'errors').read_text()}"
                    lines.append(line.decode().rstrip("\n"))
        finally:
            with suppress(ProcessLookupError):
                program.kill()
            await program.wait()
    return lines


async def test_without_read_committed_nothing_is_missing_but_what_was_aborted_comes_twice(history: History) -> None:
    seen = [_event(record) for record in await written(history.bootstrap_servers, history.topic)]
    aborted = [f"event-{n}" for n in (4, 5, 6, 7, 8, 101, 102, 103)]
    assert sorted(seen) == sorted([*[event.id for event in [*FIRST, *SECOND]], *aborted])


async def test_a_dead_writers_transaction_holds_readers_back_until_its_successor_starts(history: History) -> None:
    assert (history.stable, history.high) == (4, 6)  # three records and a marker, then two records not committed
    stable = await _end(history.bootstrap_servers, history.topic, "read_committed")
    assert stable == await _end(history.bootstrap_servers, history.topic, "read_uncommitted")


async def test_offsets_have_holes_where_markers_and_aborted_records_are(history: History) -> None:
    records = await committed(history.bootstrap_servers, history.topic)
    assert [record.offset for record in records][:5] == [0, 1, 2, 7, 8]


async def test_a_reader_can_start_at_a_time_of_the_events(history: History) -> None:
    place = TopicPartition(history.topic, 0)
    second_ms = round(datetime.fromisoformat(FIRST[1].time or "").timestamp() * 1000)
    async with AIOKafkaConsumer(bootstrap_servers=history.bootstrap_servers) as consumer:
        found = await consumer.offsets_for_times({place: second_ms - 1})
    assert (found[place].offset, found[place].timestamp) == (1, second_ms)


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_a_record_has_the_headers_of_the_readme(kafka: Broker, mode: str) -> None:
    topic = f"events-{uuid.uuid4().hex[:12]}"
    full = entry(1)._replace(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await _write(sink(kafka, topic=topic, positions_topic=f"{topic}.positions", mode=mode), 0, [full])
    [record] = await committed(kafka.bootstrap_servers, topic)
    headers = {name: value.decode() for name, value in record.headers}
    if mode == "structured":
        assert f"`content-type: {headers['content-type']}`" in README
        event = orjson.loads(record.value)
        assert (event.pop("data"), sorted(headers)) == ({"n": 1}, ["content-type", "traceparent"])
        headers = {"content-type": event.pop("datacontenttype"), "traceparent": headers["traceparent"]}
        headers |= {f"ce_{name}": value for name, value in event.items()}
    guide = README.partition("\n## Reading the topics\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`(?:ce_|content-type).*) \| (?:`(.+)`)?", guide, re.MULTILINE)
    assert sorted(headers) == sorted(name for names, _ in rows for name in names.strip("`").split("`, `"))
    assert [headers[names.strip("`")] for names, value in rows if value] == [value for _, value in rows if value]
    assert headers["ce_sequence"] == "000000000001"
    assert record.key.decode() == headers["ce_partitionkey"] == "auvy-prod/job-1"


def _event(record: ConsumerRecord) -> str:
    return str(dict(record.headers)["ce_id"], "ascii")
