"""Subscriptions that arrive on a topic of Apache Kafka itself. One broker serves the whole file."""

from __future__ import annotations

import asyncio
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
import structlog
from acls import DESCRIBE, GROUP, READ, deny
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.coordination import FindCoordinatorRequest
from apache_kafka import apache_kafka
from brokers import Broker
from cable import Cable
from structlog.testing import capture_logs

from bridge.errors import Fatal, Temporary
from bridge.event import Cursor, JobKey
from bridge.intake.commands import Commands, CommandSettings
from bridge.journal.store import Checkpoint, SubscriptionRecord, SubscriptionState
from bridge.journal.stores.sqlite import SqliteJournal, open_journal
from bridge.kafka.consumer import Member, Record, joined
from bridge.kafka.link import Link
from bridge.supervision.backoff import Backoff
from bridge.supervision.supervisor import Supervisor, Surroundings
from bridge.telemetry.metrics import Metrics

SOURCE = "auvy-prod"
SHORTEST_SESSION_S = 2.0
"""The least that these brokers allow a member of a group."""
SECRET = "correct-horse-battery-staple"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    rights = ("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",)
    everybody = "allow.everyone.if.no.acl.found=true"
    shortest = f"group.min.session.timeout.ms={SHORTEST_SESSION_S * 1000:.0f}"
    async with apache_kafka(tmp_path_factory.mktemp("kafka"), *rights, everybody, shortest) as running:
        async with admin(running) as asked:
            # Asking makes the topic for offsets, which a fresh broker has not got yet.
            while (await asked._send_request(FindCoordinatorRequest("", 0))).error_code:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield running


@asynccontextmanager
async def admin(broker: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def journal() -> AsyncIterator[SqliteJournal]:
    async with open_journal(":memory:") as opened:
        yield opened


class Place:
    """A topic and a group of one test's own on the shared broker."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.topic = f"commands-{uuid.uuid4().hex[:12]}"
        self.group = f"group-{self.topic}"
        self.metrics = Metrics()

    def settings(self, **options: Any) -> CommandSettings:
        own = {
            "bootstrap_servers": self.broker.bootstrap_servers,
            "topic": self.topic,
            "group_id": self.group,
            "session_timeout_s": SHORTEST_SESSION_S,
            "request_timeout_s": 1.0,
        }
        return CommandSettings.model_validate(own | options)

    def commands(self, journal: SqliteJournal, settings: CommandSettings | None = None) -> Commands:
        log = structlog.get_logger()
        return Commands(settings or self.settings(), {SOURCE}, journal=journal, metrics=self.metrics, log=log)

    async def create(self, partitions: int = 1) -> None:
        async with admin(self.broker) as asked:
            await asked.create_topics([NewTopic(self.topic, partitions, 1)])

    async def delete(self) -> None:
        async with admin(self.broker) as asked:
            await asked.delete_topics([self.topic])

    async def send(self, values: Iterable[bytes | None]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap_servers)
        await producer.start()
        try:
            for n, value in enumerate(values):
                await producer.send(self.topic, value, key=str(n).encode())
            await producer.flush()
        finally:
            await producer.stop()

    async def committed(self) -> dict[int, int]:
        """The group's offset in each partition that has one."""
        async with admin(self.broker) as asked:
            offsets = await asked.list_consumer_group_offsets(self.group)
        return {place.partition: offset.offset for place, offset in offsets.items() if offset.offset >= 0}

    async def members(self) -> int:
        """How many members the group has; none while it still shares out partitions among them."""
        async with admin(self.broker) as asked:
            [answer] = await asked.describe_consumer_groups([self.group])
        [(_, _, state, _, _, members, *_)] = answer.groups
        return len(members) if state == "Stable" else 0

    def passed_over(self) -> dict[str, float]:
        [family] = self.metrics.commands_passed_over.collect()
        samples = (sample for sample in family.samples if sample.name.endswith("_total"))
        return {sample.labels["reason"]: sample.value for sample in samples}


@pytest.fixture
def place(kafka: Broker) -> Place:
    return Place(kafka)


def command(job_id: str, **more: Any) -> bytes:
    return orjson.dumps({"source": SOURCE, "job_id": job_id} | more)


def follows(first: int, last: int) -> list[bytes]:
    return [command(f"job-{n}") for n in range(first, last + 1)]


async def followed(journal: SqliteJournal) -> list[SubscriptionRecord]:
    return list(await journal.subscriptions(limit=10_000))


async def job_ids(journal: SqliteJournal) -> set[str]:
    return {record.key.job_id for record in await followed(journal)}


@asynccontextmanager
async def running(*sessions: Commands) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The sessions while the context lasts. What one of them raises is raised here."""
    tasks = [asyncio.create_task(session.run(lambda: None)) for session in sessions]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def until(holds: Callable[[], Awaitable[bool]], *tasks: asyncio.Task[None]) -> None:
    """Ask again and again until the answer is yes. None of the tasks may end before that."""
    while not await holds():
        ended, _ = await asyncio.wait(tasks, timeout=0.02)
        assert not ended, ended


async def until_committed(place: Place, count: int, *tasks: asyncio.Task[None]) -> None:
    async def holds() -> bool:
        return sum((await place.committed()).values()) >= count

    await until(holds, *tasks)


async def test_a_thousand_commands_become_a_thousand_subscriptions(place: Place, journal: SqliteJournal) -> None:
    await place.create(partitions=3)
    await place.send(follows(1, 1000))
    began_s = time.monotonic()
    async with running(place.commands(journal)) as tasks:
        await until_committed(place, 1000, *tasks)
        print(f"1,000 commands in {time.monotonic() - began_s:.2f} s, joining included")
    records = await followed(journal)
    assert {record.key for record in records} == {JobKey(SOURCE, f"job-{n}") for n in range(1, 1001)}
    assert {(record.origin, record.state) for record in records} == {("commands", SubscriptionState.ACTIVE)}
    assert len(records) == 1000
    assert place.metrics.commands.labels("follow")._value.get() == 1000
    assert place.passed_over() == {}
    assert await place.members() == 0, "the member has left"


BAD: dict[str, list[bytes | None]] = {
    "no_value": [None],
    "not_json": [b"", b"\xff", SECRET.encode(), b'{"source": "auvy-prod"'],
    "not_object": [b"[]", b"17", b"null"],
    "too_large": [command("job", note="x" * 900_000)],
    "unknown_source": [orjson.dumps({"source": SECRET, "job_id": "job"}), b'{"job_id": "job"}'],
    "bad_job_id": [command(""), command("a\x00b"), command(".."), b'{"source": "auvy-prod", "job_id": 5}'],
    "unknown_action": [command("job", action=SECRET), command("job", action=None)],
    "not_followed": [command("never", action=action) for action in ("pause", "resume", "unfollow")],
}


async def test_bad_records_are_counted_told_and_passed_over(place: Place, journal: SqliteJournal) -> None:
    await place.create()
    mixed = [*(value for values in BAD.values() for value in values), *follows(1, 50)]
    random.Random(4).shuffle(mixed)
    await place.send(mixed)
    with capture_logs() as lines:
        async with running(place.commands(journal)) as tasks:
            await until_committed(place, len(mixed), *tasks)
    assert await job_ids(journal) == {f"job-{n}" for n in range(1, 51)}
    assert place.passed_over() == {reason: len(values) for reason, values in BAD.items()}
    told: dict[str, set[str]] = {}
    for line in lines:
        assert (line["event"], line["topic"], line["log_level"]) == ("commands.passed_over", place.topic, "warning")
        told.setdefault(line["reason"], set()).update(line["places"])
    expected = {
        reason: {f"0:{offset}" for offset, value in enumerate(mixed) if value in values}
        for reason, values in BAD.items()
    }
    assert told == expected
    assert SECRET not in str(lines)


async def test_commands_do_what_the_api_does_in_the_order_they_stand(place: Place, journal: SqliteJournal) -> None:
    [(over, _)] = await journal.follow([JobKey(SOURCE, "over")], "config")
    await journal.append(over, [], Checkpoint(Cursor(""), b"", ended=True))
    await place.create()
    told = {
        "paused": ["follow", "pause", "follow"],
        "resumed": ["follow", "pause", "resume"],
        "gone": ["follow", "unfollow", "resume", "unfollow"],
        "back": ["follow", "pause", "unfollow", "follow"],
        "over": ["follow", "pause", "resume"],
    }
    steps = max(map(len, told.values()))
    await place.send(
        command(job, action=actions[step], requested_by="somebody")
        for step in range(steps)
        for job, actions in told.items()
        if step < len(actions)
    )
    async with running(place.commands(journal)) as tasks:
        await until_committed(place, sum(map(len, told.values())), *tasks)
    states = {record.key.job_id: record.state.value for record in await followed(journal)}
    assert states == {"paused": "paused", "resumed": "active", "gone": "removed", "back": "active", "over": "ended"}
    assert place.passed_over() == {"not_followed": 1, "job_over": 2}


async def test_a_crash_before_the_commit_brings_the_commands_again_and_none_twice(
    place: Place, journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.create()
    await place.send(follows(1, 100))
    reached = asyncio.Event()

    async def never(_: Member) -> None:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as crashing:
        crashing.setattr(Member, "commit", never)
        async with running(place.commands(journal)):
            await reached.wait()
    before = await followed(journal)
    assert (len(before), await place.committed()) == (100, {})
    await place.send(follows(101, 110))
    async with running(place.commands(journal)) as tasks:
        await until_committed(place, 110, *tasks)
    after = await followed(journal)
    assert after[:100] == before
    assert len(after) == 110
    assert place.metrics.commands.labels("follow")._value.get() == 210


async def test_nothing_is_committed_while_the_journal_takes_nothing(place: Place, tmp_path: Path) -> None:
    await place.create()
    await place.send(follows(1, 10))
    path = tmp_path / "journal.db"
    async with open_journal(path, high_water_bytes=1) as full:
        await full.follow([JobKey(SOURCE, "job-0")], "config")
        with pytest.raises(Temporary, match="high_water_bytes"):
            await place.commands(full).run(lambda: None)
        assert await job_ids(full) == {"job-0"}
    async with open_journal(path) as closed:
        pass
    with pytest.raises(Temporary, match="closed"):
        await place.commands(closed).run(lambda: None)
    assert await place.committed() == {}
    async with open_journal(path) as roomy:
        async with running(place.commands(roomy)) as tasks:
            await until_committed(place, 10, *tasks)
        assert await job_ids(roomy) == {f"job-{n}" for n in range(11)}


async def test_a_member_that_dies_leaves_its_commands_to_the_others(place: Place, journal: SqliteJournal) -> None:
    await place.create(partitions=4)
    cable = Cable(place.broker.bootstrap_servers)
    async with cable.laid():
        doomed = place.commands(journal, place.settings(bootstrap_servers=cable.servers))
        async with running(place.commands(journal)) as [survivor]:
            dying = asyncio.create_task(doomed.run(lambda: None))

            async def both_are_in() -> bool:
                return await place.members() == 2

            await until(both_are_in, survivor, dying)
            await place.send(follows(1, 200))
            await until_committed(place, 200, survivor, dying)
            await cable.cut()  # it cannot even say that it leaves, as after SIGKILL
            dying.cancel()
            await asyncio.wait({dying})
            await place.send(follows(201, 400))
            await until_committed(place, 400, survivor)
    assert await job_ids(journal) == {f"job-{n}" for n in range(1, 401)}


async def test_what_was_taken_away_is_not_committed_and_comes_to_whoever_has_it_now(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.create(partitions=4)
    await place.send(follows(1, 40))
    async with joining(place) as first:
        read = [record async for record in taking(first, 40)]
        rebalances = first._rebalances
        notice = rebalances.on_partitions_revoked

        async def notice_and_commit(revoked: Collection[Any]) -> None:
            notice(revoked)
            await first.commit()

        monkeypatch.setattr(rebalances, "on_partitions_revoked", notice_and_commit)
        async with joining(place) as second:
            assert rebalances.count == 2, "it joined, and was asked to join again"
            await first.commit()
            assert not any((await place.committed()).values())
            again = [record async for record in taking(second, 1)]
            assert set(again) < set(read)
            await second.commit()
            offsets = await place.committed()
            assert {partition for partition, offset in offsets.items() if offset} == {r.partition for r in again}


@asynccontextmanager
async def joining(place: Place) -> AsyncIterator[Member]:
    settings = place.settings()
    names = {"topic": settings.topic, "group_id": settings.group_id}
    async with joined(settings, **names, session_timeout_s=settings.session_timeout_s) as member:
        yield member


async def taking(member: Member, at_least: int) -> AsyncIterator[Record]:
    count = 0
    while count < at_least:
        for record in await member.records():
            count += 1
            yield record


async def test_a_broker_that_stops_and_starts_again_loses_no_command(place: Place, journal: SqliteJournal) -> None:
    await place.create()
    await place.send(follows(1, 10))
    around = Surroundings(
        metrics=place.metrics,
        log=structlog.get_logger(),
        new_backoff=lambda: Backoff(dice=random.random, base_s=0.05, cap_s=0.2),
        clock=time.time,
    )
    fatal: list[Fatal] = []
    supervisor = Supervisor(place.commands(journal), around, lambda _, error: fatal.append(error))
    session = asyncio.create_task(supervisor.run())
    try:
        await until_committed(place, 10, session)
        await place.broker.stop()
        await place.broker.start()
        await place.send(follows(11, 20))
        await until_committed(place, 20, session)
    finally:
        session.cancel()
        with suppress(asyncio.CancelledError):
            await session
    assert fatal == []
    assert await job_ids(journal) == {f"job-{n}" for n in range(1, 21)}


async def losing(broker: Broker, journal: SqliteJournal, how: str) -> tuple[str, str]:
    """What the session says after it had read all there was, and then lost the brokers or the topic."""
    place = Place(broker)
    await place.create()
    await place.send(follows(1, 10))
    cable = Cable(broker.bootstrap_servers)
    async with cable.laid():
        settings = place.settings(bootstrap_servers=cable.servers, request_timeout_s=0.2)
        session = asyncio.create_task(place.commands(journal, settings).run(lambda: None))
        await until_committed(place, 10, session)
        match how:
            case "cut":
                await cable.cut()
            case "stalled":
                cable.stall()
            case "deleted":
                await place.delete()
        with pytest.raises(Temporary, match=f"{place.topic} as group {place.group}") as caught:
            await session
    return how, caught.value.reason


async def test_brokers_or_a_topic_that_went_away_are_not_waited_for_in_silence(
    kafka: Broker, journal: SqliteJournal
) -> None:
    told = await asyncio.gather(*(losing(kafka, journal, how) for how in ("stalled", "cut", "deleted")))
    away = "kafka_unavailable"
    assert dict(told) == {"stalled": away, "cut": away, "deleted": "topic_missing"}


async def test_an_end_amid_a_silent_broker_takes_seconds(place: Place, journal: SqliteJournal) -> None:
    await place.create()
    cable = Cable(place.broker.bootstrap_servers)
    patience_s = 60.0
    async with cable.laid():
        settings = place.settings(bootstrap_servers=cable.servers, request_timeout_s=patience_s)
        session = asyncio.create_task(place.commands(journal, settings).run(lambda: None))

        async def is_in() -> bool:
            return await place.members() == 1

        await until(is_in, session)
        cable.stall()
        session.cancel()
        async with asyncio.timeout(patience_s / 4):
            await asyncio.wait({session})
        assert session.cancelled()


class Wearing(CommandSettings):
    """A way to the cluster that ends before anybody has joined a group on it."""

    async def link(self) -> Link:
        LINKS.append(replace(await super().link(), ends_s=-math.inf))
        return LINKS[-1]


LINKS: list[Link] = []


async def test_a_stale_link_is_left_for_a_new_one_but_not_before_it_was_of_use(
    place: Place, journal: SqliteJournal
) -> None:
    LINKS.clear()
    await place.create()
    await place.send(follows(1, 10))
    settings = Wearing.model_validate(place.settings().model_dump(exclude_defaults=True))
    async with running(place.commands(journal, settings)) as tasks, asyncio.timeout(30.0):
        await until_committed(place, 10, *tasks)
        await place.send(follows(11, 20))
        await until_committed(place, 20, *tasks)
    assert len(LINKS) > 1


async def refusal(place: Place, journal: SqliteJournal, **options: Any) -> Fatal:
    with pytest.raises(Fatal) as caught:
        await place.commands(journal, place.settings(**options)).run(lambda: None)
    return caught.value


async def test_a_missing_topic_is_named(place: Place, journal: SqliteJournal) -> None:
    error = await refusal(place, journal, request_timeout_s=0.5, session_timeout_s=0.5)
    assert error.reason == "topic_missing"
    assert place.topic in str(error)
    assert "`topic`" in str(error)


class Deaf(Cable):
    """A way to a broker that falls silent once it is asked about the topic."""

    topic = b""

    async def _from_client(self, reader: asyncio.StreamReader) -> bytes:
        frame = await super()._from_client(reader)
        if self.topic in frame:
            self.stall()
        return frame


async def test_a_broker_that_says_nothing_about_the_topic_is_no_missing_topic(
    place: Place, journal: SqliteJournal
) -> None:
    await place.create()
    cable = Deaf(place.broker.bootstrap_servers)
    cable.topic = place.topic.encode()
    async with cable.laid():
        settings = place.settings(bootstrap_servers=cable.servers, request_timeout_s=0.2, session_timeout_s=0.3)
        with pytest.raises(Temporary) as caught:
            await place.commands(journal, settings).run(lambda: None)
    assert caught.value.reason == "kafka_unavailable"


async def test_a_session_timeout_that_the_brokers_do_not_allow_is_named(place: Place, journal: SqliteJournal) -> None:
    await place.create()
    error = await refusal(place, journal, session_timeout_s=1.0)
    assert error.reason == "kafka_settings"
    assert "`session_timeout_s`" in str(error)


async def test_a_group_that_the_user_may_not_use_is_named(place: Place, journal: SqliteJournal) -> None:
    await place.create()
    await deny(place.broker.bootstrap_servers, READ, place.group, GROUP)
    error = await refusal(place, journal)
    assert error.reason == "kafka_denied"
    assert place.group in str(error)
    assert "`group_id`" in str(error)


@pytest.mark.parametrize("right", [DESCRIBE, READ])
async def test_a_topic_that_the_user_may_not_read_is_named(place: Place, journal: SqliteJournal, right: int) -> None:
    await place.create()
    await place.send(follows(1, 1))
    await deny(place.broker.bootstrap_servers, right, place.topic)
    error = await refusal(place, journal)
    assert error.reason == "kafka_denied"
    assert place.topic in str(error)
    assert "`topic`" in str(error)
