"""Apache Kafka with a listener of every security kind, its users and their rights, all in one broker."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from acls import CLUSTER, GROUP, TOPIC, TRANSACTIONAL_ID, allow_all
from aiohttp import web
from apache_kafka import apache_kafka, free_ports, unable
from brokers import Broker
from certificates import Authority

PASSWORD = "open-sesame"
CLIENT_SECRET = "a-secret-of-the-client"
SESSION_S = 3.0
"""How long the listener `brief` keeps an authenticated connection."""

_KINDS = (TOPIC, TRANSACTIONAL_ID, GROUP, CLUSTER)
_USERS = {
    "bridge": _KINDS,
    "no-topic": (TRANSACTIONAL_ID, GROUP, CLUSTER),
    "no-transactions": (TOPIC, GROUP, CLUSTER),
    "no-group": (TOPIC, TRANSACTIONAL_ID, CLUSTER),
    "no-cluster": (TRANSACTIONAL_ID, GROUP),
    "CN=bridge": _KINDS,
    "CN=renewed": _KINDS,
}
"""Who there is, and on what kinds of resource they have all rights."""

_PROTOCOLS = {"mutual": "SSL", "secret": "SASL_SSL", "clear": "SASL_PLAINTEXT", "brief": "SASL_PLAINTEXT"}
_MODULES = "org.apache.kafka.common.security"
_PASSWORDS = " ".join(f'user_{name}="{PASSWORD}"' for name in _USERS if "=" not in name)
_MECHANISMS = {
    "PLAIN": f"{_MODULES}.plain.PlainLoginModule required {_PASSWORDS};",
    "SCRAM-SHA-256": f"{_MODULES}.scram.ScramLoginModule required;",
    "SCRAM-SHA-512": f"{_MODULES}.scram.ScramLoginModule required;",
    # Without a handler of its own the broker takes tokens that nobody signed, and looks at their dates and names.
    "OAUTHBEARER": f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
}


@dataclass(frozen=True)
class Secured:
    """A running broker and the ways to it."""

    broker: Broker
    authority: Authority
    ports: dict[str, int]

    def at(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"


@asynccontextmanager
async def secured_kafka(folder: Path) -> AsyncIterator[Secured]:
    """Listeners: `mutual` wants a client certificate; `secret` (with TLS) and `clear` (without) take every SASL
    mechanism; `brief` (without) takes all but PLAIN and ends each connection after `SESSION_S`. Whoever comes by the
    plain one may do everything."""
    authority = Authority(folder)
    ports = dict(zip(_PROTOCOLS, free_ports(len(_PROTOCOLS)), strict=True))
    listeners = [f"{name.upper()}://127.0.0.1:{port}" for name, port in ports.items()]
    passwords = [f"[name={name},password={PASSWORD}]" for name in _USERS if "=" not in name]
    users = [f"{mechanism}={each}" for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512") for each in passwords]
    async with apache_kafka(folder, *_properties(authority, folder), listeners=listeners, users=users) as broker:
        if not hasattr(broker, "_process"):
            unable("JOBBRIDGE_TEST_KAFKA names a cluster whose listeners and users are its own")
        for name, kinds in _USERS.items():
            await allow_all(broker.bootstrap_servers, f"User:{name}", *kinds)
        yield Secured(broker, authority, ports)


def _properties(authority: Authority, folder: Path) -> list[str]:
    own = authority.sign("broker")
    keystore = folder / "keystore.pem"
    keystore.write_text(own.key_file.read_text() + own.file.read_text())
    protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
    lines = [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
        f"ssl.keystore.type=PEM\nssl.keystore.location={keystore}",
        f"ssl.truststore.type=PEM\nssl.truststore.location={authority.file}",
        "listener.name.mutual.ssl.client.auth=required",
    ]
    for name, protocol in _PROTOCOLS.items():
        protocols.append(f"{name.upper()}:{protocol}")
        if protocol.startswith("SASL"):
            lines += _sasl(f"listener.name.{name}", brief=name == "brief")
    return [*lines, f"listener.security.protocol.map={','.join(protocols)}"]


def _sasl(listener: str, *, brief: bool) -> list[str]:
    mechanisms = [name for name in _MECHANISMS if not (brief and name == "PLAIN")]
    lines = [f"{listener}.sasl.enabled.mechanisms={','.join(mechanisms)}"]
    for name in mechanisms:
        prefix = f"{listener}.{name.lower()}"
        lines.append(f"{prefix}.sasl.jaas.config={_MECHANISMS[name]}")
        lines.append(f"{prefix}.connections.max.reauth.ms={SESSION_S * 1000 if brief else 3_600_000:.0f}")
    return lines


class TokenEndpoint:
    """Gives unsigned tokens to one client, and remembers them; `age_s` before now they were made."""

    def __init__(self, *, lifetime_s: float = 3600.0, age_s: float = 0.0) -> None:
        self.lifetime_s = lifetime_s
        self.age_s = age_s
        self.given: list[str] = []
        self.url = ""

    async def reply(self, request: web.Request) -> web.Response:
        if (
            request.headers.get("Authorization")
            != f"Basic {base64.b64encode(f'bridge:{CLIENT_SECRET}'.encode()).decode()}"
        ):
            return web.json_response({"error": "invalid_client"}, status=401)
        token = self._token()
        self.given.append(token)
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime_s})

    def _token(self) -> str:
        made_s = time.time() - self.age_s
        header: dict[str, object] = {"alg": "none"}
        claims: dict[str, object] = {
            "sub": "bridge",
            "iat": made_s,
            "exp": made_s + self.lifetime_s,
            "n": len(self.given),
        }
        return f"{_encoded(header)}.{_encoded(claims)}."


def _encoded(part: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
