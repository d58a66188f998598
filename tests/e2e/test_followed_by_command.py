"""A job that nobody named but a record on the command topic, from there to its last event in Kafka."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import orjson
import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from apache_kafka import apache_kafka
from brokers import committed
from rig import AwayReceiver, River, WatchedSimulator, river, until

from bridge.demo.cast import AUVY
from bridge.demo.scene import TOPIC
from bridge.demo.simulators.auvy_world import World
from bridge.demo.simulators.world import Pace
from bridge.event import EventType

COMMANDS = "jobs.commands"


async def create_topics(servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1) for name in (COMMANDS, TOPIC)])
    finally:
        await admin.close()


async def send(servers: str, *job_ids: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        for job_id in job_ids:
            await producer.send_and_wait(COMMANDS, orjson.dumps({"source": AUVY.source, "job_id": job_id}))
    finally:
        await producer.stop()


async def said_of(place: River, job_id: str) -> Counter[str]:
    """How many events of each type the topic holds of a job."""
    events = [dict(record.headers) for record in await committed(place.servers, TOPIC)]
    return Counter(event["ce_type"].decode() for event in events if event["ce_subject"].decode() == job_id)


async def test_a_command_has_a_job_followed_to_its_end_and_a_kill_forgets_none(tmp_path: Path) -> None:
    simulator = WatchedSimulator(World(jobs=4, at_once=4, pace=Pace(job_s=1.5, events_per_s=20)))
    receiver = AwayReceiver()
    async with (
        apache_kafka(tmp_path) as kafka,
        simulator.served() as url,
        receiver.served(),
        river(tmp_path, simulator=url, receiver=receiver.url, servers=kafka.bootstrap_servers, jobs=[]) as place,
    ):
        commands = {"bootstrap_servers": kafka.bootstrap_servers, "topic": COMMANDS, "session_timeout_s": 6}
        place.config.write_text(yaml.safe_dump(yaml.safe_load(place.config.read_text()) | {"commands": commands}))
        await create_topics(kafka.bootstrap_servers)

        async def over(job_id: str) -> bool:
            return (await said_of(place, job_id))[EventType.COMPLETED] > 0

        async with place.ready_bridge() as bridge:
            await send(place.servers, "job_1", "no such job?")
            await until(lambda: over("job_1"), "job_1 is told to its end", 30)
            _, known = await place.ask(f"/v1/subscriptions/{AUVY.source}/job_1")
            assert known["origin"] == "commands"
            os.kill(bridge.pid, signal.SIGKILL)
            await bridge.wait()
        await send(place.servers, "job_1", "job_4")
        async with place.ready_bridge() as bridge:
            await until(lambda: over("job_4"), "job_4 is told to its end", 30)
            assert (await said_of(place, "job_1"))[EventType.COMPLETED] == 1
            assert not await said_of(place, "job_3")
            bridge.terminate()
            assert await bridge.wait() == 0
        place.assert_no_bug()
