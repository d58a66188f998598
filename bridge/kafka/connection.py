"""How a Kafka cluster is reached: addresses, encryption, credentials. The same for whoever speaks to one."""

from __future__ import annotations

import asyncio
import math
import re
from functools import cached_property
from typing import Annotated, Any

from aiokafka.conn import collect_hosts
from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator

from bridge.errors import Fatal, Temporary
from bridge.kafka.link import Link
from bridge.kafka.oauth import RENEW_AT, Tokens
from bridge.kafka.sasl import OAuth, Sasl
from bridge.kafka.trial import entrance
from bridge.tls import Certificates, Tls

_HOST = re.compile(r"(?!.*\.\.)[\w.:%-]{1,255}")  # neither with a scheme nor with credentials, as an URL has


def _switch_or_files(value: object) -> str:
    return "files" if isinstance(value, dict | Tls) else "switch"


class Connection(BaseModel):
    """The way to one cluster; whatever speaks to Kafka has these options among its own."""

    bootstrap_servers: str = Field(description="`host:port` of one or more brokers, separated by commas.")
    client_id: str = Field("jobbridge", description="Name of this client in the brokers' logs and quotas.")
    request_timeout_s: float = Field(10.0, gt=0, description="Limit of one request to a broker.")
    tls: Annotated[Annotated[Tls, Tag("files")] | Annotated[bool, Tag("switch")], Discriminator(_switch_or_files)] = (
        Field(False, description="Encryption: `true` trusts the system's authorities, a mapping names files.")
    )
    sasl: Sasl | None = Field(None, description="Credentials, where the listener asks for any.")

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str) -> str:
        try:
            hosts = collect_hosts(value)
        except ValueError:
            hosts = []
        if not hosts or not all(_HOST.fullmatch(host) and 0 < port < 65536 for host, port, _ in hosts):
            raise ValueError("must be host:port, several of them separated by commas")
        return value

    @field_validator("sasl", mode="before")
    @classmethod
    def _said(cls, value: object) -> object:
        if value is None:
            raise ValueError("sasl has no value")  # a section whose lines are all commented out means no "none"
        return value

    @model_validator(mode="after")
    def _safe(self) -> Connection:
        if self.sasl and self.sasl.readable and not self.sasl.allow_plaintext and self._tls is None:
            raise ValueError(
                f"sasl.mechanism {self.sasl.mechanism} without tls shows its secret to everybody on the way: "
                "set tls, or sasl.allow_plaintext"
            )
        return self

    def client(self) -> dict[str, Any]:
        """Options of every client, whatever it does; as the certificate files are now."""
        return self._options(self._certificates())

    async def link(self) -> Link:
        """Try the way to the cluster, and learn how long it stays open; once for all clients of one session.

        Raises `Temporary` where no broker answers, `Fatal` naming the setting that they refuse.
        """
        certificates = await asyncio.to_thread(self._certificates)
        options = self._options(certificates)
        if self._tokens is None:
            return await _link(options, certificates)
        token = await self._tokens.fresh()
        try:
            return await _link(options, certificates, self._tokens)
        except Fatal:
            # It may be the token alone: withdrawn, or older than our clock says, which stands still while we sleep.
            await self._tokens.fresh(refused=token)
        return await _link(options, certificates, self._tokens)

    @cached_property
    def _tokens(self) -> Tokens | None:
        return Tokens(self.sasl) if isinstance(self.sasl, OAuth) else None

    @cached_property
    def _tls(self) -> Tls | None:
        if isinstance(self.tls, Tls):
            return self.tls
        return Tls() if self.tls else None

    def _certificates(self) -> Certificates | None:
        try:
            return Certificates(self._tls) if self._tls else None
        except ValueError as error:
            # They were good at the start: somebody is replacing them, and is probably not done yet.
            raise Temporary(
                f"Kafka at {self.bootstrap_servers} cannot be dialled: {error}", reason="tls_files"
            ) from error

    def _options(self, certificates: Certificates | None) -> dict[str, Any]:
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": round(self.request_timeout_s * 1000),
            "security_protocol": ("SASL_" if self.sasl else "") + ("SSL" if certificates else "PLAINTEXT"),
        }
        if certificates:
            options["ssl_context"] = certificates.context
        if self.sasl:
            options |= self.sasl.client()
        if self._tokens:
            options["sasl_oauth_token_provider"] = self._tokens
        return options


async def _link(options: dict[str, Any], certificates: Certificates | None, tokens: Tokens | None = None) -> Link:
    found = await entrance(options, RENEW_AT)
    # Clients begin where there is an answer: each would wait anew for an address that is dead.
    options = options | {"bootstrap_servers": found.server}
    return Link(options, min(found.ends_s, tokens.renew_s if tokens else math.inf), certificates)
