"""Which topics there must be, on Apache Kafka itself. One broker serves the whole file."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from acls import DESCRIBE, DESCRIBE_CONFIGS, deny
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.metadata import MetadataRequest
from apache_kafka import apache_kafka, kafka_configs
from cluster import Cluster, until

from bridge.delivery.sinks.kafka.topics import Topics, TopicSpec
from bridge.errors import Fatal
from bridge.kafka.failure import bounded

# Brokers create topics by themselves unless told not to: a look that makes what it looks for would show here.
_PROPERTIES = (
    "auto.create.topics.enable=true",
    "num.partitions=4",
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found=true",
)
_NOWHERE = "127.0.0.1:1"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with apache_kafka(tmp_path_factory.mktemp("kafka"), *_PROPERTIES) as running:
        yield running.bootstrap_servers


@pytest.fixture
async def cluster(servers: str) -> AsyncIterator[Cluster]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        yield Cluster(servers, admin)
    finally:
        await admin.close()


async def test_missing_topics_are_created_as_wanted_and_can_be_written_to_at_once(cluster: Cluster) -> None:
    events = TopicSpec(cluster.name(), 6, (("retention.ms", "3600000"), ("max.message.bytes", "5000")))
    positions = TopicSpec(cluster.name("positions"), 1, (("segment.bytes", "4194304"),), compacted=True)
    topics = cluster.topics(replication_factor=1)
    await topics.require([events, positions])
    producer = AIOKafkaProducer(bootstrap_servers=cluster.servers)
    await producer.start()
    try:
        for partition in range(6):
            await producer.send_and_wait(events.name, b"1", partition=partition)
    finally:
        await producer.stop()
    assert (topics.partitions(events.name), topics.partitions(positions.name)) == (6, 1)
    assert (topics.record_bytes_max(events.name), topics.record_bytes_max(positions.name)) == (5000, 1_048_588)
    assert await cluster.config(events.name) == dict(events.config)
    assert await cluster.config(positions.name) == {"cleanup.policy": "compact", "segment.bytes": "4194304"}


async def test_a_topic_without_a_number_of_partitions_gets_the_brokers_default(cluster: Cluster) -> None:
    topics = cluster.topics()
    await topics.require([TopicSpec(cluster.name())])
    [broker, *_] = (await cluster.admin.describe_cluster())["brokers"]
    asked = ConfigResource(ConfigResourceType.BROKER, str(broker["node_id"]), {"num.partitions": ""})
    [answer] = await cluster.admin.describe_configs([asked])
    [(_, _, _, _, [(_, default, *_)])] = answer.resources
    assert topics.partitions(cluster.name()) == int(default)


async def test_what_exists_is_taken_as_it_is_where_it_fits(cluster: Cluster) -> None:
    await cluster.make(cluster.name(), 5, {"max.message.bytes": "70000"})
    await cluster.make(cluster.name("latest"), 1, {"cleanup.policy": "compact"})
    topics = cluster.topics(create=False)
    await topics.require([TopicSpec(cluster.name(), 3, (("max.message.bytes", "5000"),))])
    await topics.require([TopicSpec(cluster.name()), TopicSpec(cluster.name("latest"), compacted=True)])
    assert (topics.partitions(cluster.name()), topics.partitions(cluster.name("latest"))) == (5, 1)
    assert topics.record_bytes_max(cluster.name()) == 70_000
    assert await cluster.config(cluster.name()) == {"max.message.bytes": "70000"}


async def test_missing_topics_are_named_and_looking_for_them_does_not_make_them(cluster: Cluster) -> None:
    here, one, other = cluster.name("here"), cluster.name("one"), cluster.name("other")
    await cluster.make(here, 1)
    with pytest.raises(Fatal, match="create_topics") as caught:
        await cluster.topics(create=False).require([TopicSpec(other), TopicSpec(here), TopicSpec(one)])
    assert caught.value.reason == "topic_missing"
    assert f"no topic {one}, {other}:" in str(caught.value)
    assert not await cluster.lists(one)


async def test_everything_unfit_is_said_at_once(cluster: Cluster) -> None:
    await cluster.make(cluster.name(), 3)
    await cluster.make(cluster.name("latest"), 2, {"cleanup.policy": "compact,delete"})
    topics = cluster.topics()
    with pytest.raises(Fatal) as caught:
        await topics.require([TopicSpec(cluster.name(), 6), TopicSpec(cluster.name("latest"), 4, compacted=True)])
    assert caught.value.reason == "topic_unfit"
    for fact in (f"{cluster.name()} at", "3 of the 6", "2 of the 4", "`partitions`", "cleanup.policy=compact,delete"):
        assert fact in str(caught.value)
    with pytest.raises(Fatal):  # what was unfit is not known: it is looked at again
        await topics.require([TopicSpec(cluster.name(), 6)])


async def test_the_command_in_the_complaint_makes_a_topic_compacted(cluster: Cluster) -> None:
    spec = TopicSpec(cluster.name("positions"), 1, compacted=True)
    await cluster.make(spec.name, 1)
    topics = cluster.topics()
    with pytest.raises(Fatal, match=r"cleanup\.policy=delete") as caught:
        await topics.require([spec])
    command, *arguments = shlex.split(str(caught.value).rpartition(": ")[2])
    assert command == "kafka-configs.sh"
    await asyncio.to_thread(kafka_configs, arguments)
    assert await cluster.config(spec.name) == {"cleanup.policy": "compact"}
    await topics.require([spec])


async def test_a_user_who_may_not_read_a_topics_configuration_goes_on_without(cluster: Cluster) -> None:
    spec = TopicSpec(cluster.name(), 2, (("max.message.bytes", "5000"),), compacted=True)
    await cluster.make(spec.name, 2, {"max.message.bytes": "5000"})

    async def hidden() -> bool:
        try:
            return not await cluster.config(spec.name)
        except kafka.TopicAuthorizationFailedError:
            return True

    await deny(cluster.servers, DESCRIBE_CONFIGS, spec.name)
    await until(hidden)
    topics = cluster.topics()
    await topics.require([spec])
    assert topics.partitions(spec.name) == 2
    assert topics.record_bytes_max(spec.name) > 1 << 30


async def test_a_topic_that_the_user_may_not_see_is_denied_and_not_missing(cluster: Cluster) -> None:
    async def hidden() -> bool:
        return not await cluster.lists(cluster.name())

    await cluster.make(cluster.name(), 1)
    await deny(cluster.servers, DESCRIBE, cluster.name())
    await until(hidden)
    with pytest.raises(Fatal, match=cluster.name()) as caught:
        await _bounded(cluster.topics(), TopicSpec(cluster.name()))
    assert caught.value.reason == "kafka_denied"


async def test_a_topic_deleted_underneath_is_created_anew_as_it_was_wanted(cluster: Cluster) -> None:
    spec = TopicSpec(cluster.name(), 3, (("retention.ms", "3600000"),), compacted=True)
    topics = cluster.topics()
    await topics.require([spec])
    await cluster.delete(spec.name)
    await topics.require([spec])
    assert not await cluster.lists(spec.name)  # known, so nobody looked
    topics.forget(spec.name)
    await topics.require([spec])
    assert await cluster.partitions(spec.name) == 3
    assert await cluster.config(spec.name) == {"cleanup.policy": "compact", "retention.ms": "3600000"}


async def test_a_topic_deleted_underneath_is_missing_where_none_may_be_created(cluster: Cluster) -> None:
    await cluster.make(cluster.name(), 1)
    topics = cluster.topics(create=False)
    await topics.require([TopicSpec(cluster.name())])
    await cluster.delete(cluster.name())
    topics.forget(cluster.name())
    with pytest.raises(Fatal, match=cluster.name()) as caught:
        await topics.require([TopicSpec(cluster.name())])
    assert caught.value.reason == "topic_missing"


async def test_partitions_that_are_added_count_once_the_topic_is_looked_at_again(cluster: Cluster) -> None:
    async def grown() -> bool:
        return await cluster.partitions(cluster.name()) == 5

    spec = TopicSpec(cluster.name(), 2)
    topics = cluster.topics()
    await topics.require([spec])
    await cluster.admin.create_partitions({spec.name: NewPartitions(5)})
    await until(grown)
    await topics.require([spec])
    assert topics.partitions(spec.name) == 2
    topics.forget(spec.name)
    await topics.require([spec])
    assert topics.partitions(spec.name) == 5


async def test_a_broker_that_has_yet_to_hear_of_a_new_topic_or_of_its_leader_is_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = AIOKafkaAdminClient._send_request
    looks = 0

    async def behind(self: AIOKafkaAdminClient, request: Any, node: int | None = None) -> Any:
        nonlocal looks
        answer = await ask(self, request, node)
        if isinstance(request, MetadataRequest):
            looks += 1
            [(code, name, internal, partitions)] = answer.topics
            if looks == 2:
                answer.topics = [(kafka.UnknownTopicOrPartitionError.errno, name, internal, [])]
            elif looks == 3:
                answer.topics = [(code, name, internal, [(0, 0, -1, [1], [1]), *partitions[1:]])]
        return answer

    monkeypatch.setattr(AIOKafkaAdminClient, "_send_request", behind)
    topics = cluster.topics()
    await topics.require([TopicSpec(cluster.name(), 2)])
    assert (topics.partitions(cluster.name()), looks) == (2, 4)


async def test_several_that_require_the_same_missing_topic_at_once_all_get_it(cluster: Cluster) -> None:
    several = [cluster.topics() for _ in range(5)]
    spec = TopicSpec(cluster.name(), 6)
    await asyncio.gather(*[topics.require([spec]) for topics in [*several, several[0]]])
    assert [topics.partitions(spec.name) for topics in several] == [6] * 5
    assert await cluster.partitions(spec.name) == 6


async def test_of_two_with_different_wishes_at_once_the_one_that_got_too_little_says_so(cluster: Cluster) -> None:
    specs = [TopicSpec(cluster.name(), partitions) for partitions in (2, 3)]
    ends = await asyncio.gather(*[cluster.topics().require([spec]) for spec in specs], return_exceptions=True)
    if await cluster.partitions(cluster.name()) == 3:
        assert ends == [None, None]
    else:
        assert ends[0] is None
        assert "2 of the 3" in str(ends[1])


@pytest.mark.parametrize(
    ("word", "config", "replication_factor", "named"),
    [
        ("no/slash", (), None, "`topic` or `positions_topic`"),
        ("x" * 240, (), None, "`topic` or `positions_topic`"),
        ("plain", (), 300, "`replication_factor`"),
        ("plain", (("no.such.option", "1"),), None, "no.such.option"),
        ("plain", (("max.message.bytes", "many"),), None, "max.message.bytes"),
        ("taken_name", (), None, "collides with existing topic"),
    ],
)
async def test_a_topic_that_cannot_be_created_names_what_to_change(
    cluster: Cluster, word: str, config: tuple[tuple[str, str], ...], replication_factor: int | None, named: str
) -> None:
    await cluster.make(cluster.name("taken.name"), 1)
    with pytest.raises(Fatal, match=cluster.name(word)) as caught:
        await _bounded(
            cluster.topics(replication_factor=replication_factor), TopicSpec(cluster.name(word), config=config)
        )
    assert caught.value.reason == "kafka_settings"
    assert named in str(caught.value)


async def test_brokers_are_asked_only_about_what_is_unknown(cluster: Cluster) -> None:
    client = {"bootstrap_servers": cluster.servers}
    topics = Topics(client, True, None)
    await topics.require([TopicSpec(cluster.name())])
    client["bootstrap_servers"] = _NOWHERE
    await topics.require([TopicSpec(cluster.name())])
    topics.forget(cluster.name())
    with pytest.raises(kafka.KafkaConnectionError):
        await topics.require([TopicSpec(cluster.name())])


async def test_no_client_outlives_the_question_however_it_ends(cluster: Cluster) -> None:
    before = asyncio.all_tasks()
    await cluster.topics().require([TopicSpec(cluster.name())])
    with pytest.raises(Fatal):
        await cluster.topics(create=False).require([TopicSpec(cluster.name("missing"))])
    with pytest.raises(kafka.KafkaConnectionError):
        await Topics({"bootstrap_servers": _NOWHERE}, True, None).require([TopicSpec("events")])
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def _bounded(topics: Topics, spec: TopicSpec) -> None:
    async with bounded("k:9092", 20.0, "take a batch"):
        await topics.require([spec])
