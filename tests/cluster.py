"""An admin's view of a cluster: what a test makes there beside the sink, and what it reads back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from bridge.delivery.sinks.kafka.topics import Topics

_SET_FOR_THE_TOPIC = 1


class Cluster:
    """The shared cluster: an admin's view of it, and topic names of one test's own."""

    def __init__(self, servers: str, admin: AIOKafkaAdminClient) -> None:
        self.servers = servers
        self.admin = admin
        self._prefix = uuid.uuid4().hex[:12]

    def name(self, word: str = "events") -> str:
        return f"{self._prefix}-{word}"

    def topics(self, *, create: bool = True, replication_factor: int | None = None) -> Topics:
        return Topics({"bootstrap_servers": self.servers}, create, replication_factor)

    async def make(self, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
        answer = await self.admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
        assert [code for _, code, _ in answer.topic_errors] == [0]
        await until(lambda: self.lists(name))

    async def delete(self, name: str) -> None:
        async def gone() -> bool:
            return not await self.lists(name)

        await self.admin.delete_topics([name])
        await until(gone)

    async def lists(self, name: str) -> bool:
        return name in await self.admin.list_topics()

    async def partitions(self, name: str) -> int:
        [topic] = await self.admin.describe_topics([name])
        return len(topic["partitions"])

    async def config(self, name: str) -> dict[str, str]:
        """What was set for this topic itself. Raises the client's error where the user may not see it."""
        [answer] = await self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        [(code, text, _, _, entries)] = answer.resources
        if code:
            raise kafka.for_code(code)(text)
        return {key: value for key, value, _, source, *_ in entries if source == _SET_FOR_THE_TOPIC}


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is so. Raises TimeoutError when it has not become so within a long while."""
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110 - brokers tell nobody when they have heard of a change
            await asyncio.sleep(0.02)
