"""Which topics there must be, and how those that are missing are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bridge.errors import Fatal


@dataclass(slots=True)
class Topics:
    """Which topics are known to exist, and how missing ones are made."""

    client: Mapping[str, Any]
    create: bool
    replication_factor: int | None
    known: set[str] = field(default_factory=set)

    async def require(self, topics: Iterable[str], partitions: int, config: Mapping[str, str] | None = None) -> None:
        """Return once all exist. Raises `Fatal` naming those that are missing where they may not be created."""
        wanted = set(topics) - self.known
        if not wanted:
            return
        admin = AIOKafkaAdminClient(**self.client)
        try:
            await admin.start()
            missing = sorted(wanted.difference(await admin.list_topics()))
            if missing and not self.create:
                raise Fatal(
                    f"Kafka at {self.client['bootstrap_servers']} has no topic {', '.join(missing)} that this user may "
                    "see: create it, or set `create_topics: true`",
                    reason="topic_missing",
                )
            if missing:
                await self._make(admin, [self._new(name, partitions, config) for name in missing])
        finally:
            await admin.close()
        self.known |= wanted

    def _new(self, name: str, partitions: int, config: Mapping[str, str] | None) -> NewTopic:
        # -1 is the brokers' default (KIP-464), which the client takes only beside an empty list of assignments.
        if self.replication_factor is None:
            return NewTopic(name, partitions, -1, replica_assignments={}, topic_configs=dict(config or {}))
        return NewTopic(name, partitions, self.replication_factor, topic_configs=dict(config or {}))

    async def _make(self, admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
        answer = await admin.create_topics(topics)
        for name, code, *text in answer.topic_errors:
            error = kafka.for_code(code)
            if error not in (kafka.NoError, kafka.TopicAlreadyExistsError):
                raise error(f"{name}: {text[0] if text else ''}")
