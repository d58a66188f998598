"""What every test has. Being here also puts this folder on the path, so that tests can import what stands beside."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog
from aiokafka.admin import AIOKafkaAdminClient
from apache_kafka import apache_kafka
from brokers import Broker
from cluster import Cluster


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A test may set up logging as the service does; the next one finds it untouched."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """The one Apache Kafka that several files share, since it takes seconds to start: topics are each test's own."""
    async with apache_kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
async def cluster(kafka: Broker) -> AsyncIterator[Cluster]:
    """An admin's view of that Kafka."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    yield Cluster(kafka.bootstrap_servers, admin)
    await admin.close()
