"""Rights on a Kafka with an authorizer: what the client library has no request for."""

from __future__ import annotations

from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String
from apache_kafka import unable

READ = 3
WRITE = 4
DESCRIBE = 8
DESCRIBE_CONFIGS = 10

_ALL = 2
TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID = 2, 3, 4, 5
_CLUSTER_NAME = "kafka-cluster"
_LITERAL = 3
_DENY, _ALLOW = 2, 3

_TEXT = String("utf-8")

Rule = tuple[int, str, int, str, str, int, int]
"""Kind and name of the resource, how the name is meant, user, host, right, whether it is given or taken."""


class _CreateAclsResponse(Response):  # type: ignore[misc]
    API_KEY = 30
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("results", Array(("error_code", Int16), ("error_message", _TEXT))),
    )


class _CreateAclsRequest_v1(RequestStruct):  # type: ignore[misc] # noqa: N801 - as the library calls its own
    API_KEY = 30
    API_VERSION = 1
    RESPONSE_TYPE = _CreateAclsResponse
    SCHEMA = Schema(
        (
            "creations",
            Array(
                ("resource_type", Int8),
                ("resource_name", _TEXT),
                ("resource_pattern_type", Int8),
                ("principal", _TEXT),
                ("host", _TEXT),
                ("operation", Int8),
                ("permission_type", Int8),
            ),
        )
    )


class _CreateAclsRequest(Request[_CreateAclsRequest_v1]):  # type: ignore[misc]
    API_KEY = 30

    def __init__(self, creations: list[Rule]) -> None:
        self._creations = creations

    def build(self, request_struct_class: type[_CreateAclsRequest_v1]) -> _CreateAclsRequest_v1:
        return request_struct_class(self._creations)


async def deny(bootstrap_servers: str, operation: int, name: str, kind: int = TOPIC, user: str = "User:*") -> None:
    """Take one right on one topic or group from everybody, or from one user; the others stay.

    Skips where the cluster knows no rights.
    """
    rules = [
        (kind, name, _LITERAL, user, "*", which, permission)
        for which, permission in ((_ALL, _ALLOW), (operation, _DENY))
    ]
    await _create(bootstrap_servers, rules)


async def allow_all(bootstrap_servers: str, user: str, *kinds: int) -> None:
    """Give a user every right on everything of these kinds."""
    rules = [(kind, _CLUSTER_NAME if kind == CLUSTER else "*", _LITERAL, user, "*", _ALL, _ALLOW) for kind in kinds]
    await _create(bootstrap_servers, rules)


async def _create(bootstrap_servers: str, rules: list[Rule]) -> None:
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers)
    await client.bootstrap()
    try:
        answer = await client.send(client.get_random_node(), _CreateAclsRequest(rules))
    finally:
        await client.close()
    for code, text in answer.results:
        error = kafka.for_code(code)
        if error is kafka.SecurityDisabled:
            unable("this cluster has no authorizer that could deny something")
        if error is not kafka.NoError:
            raise error(text)
