"""How a Kafka cluster is reached: addresses, encryption, credentials. The same for whoever speaks to one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Connection(BaseModel):
    """The way to one cluster; whatever speaks to Kafka has these options among its own."""

    bootstrap_servers: str = Field(description="`host:port` of one or more brokers, separated by commas.")
    client_id: str = Field("jobbridge", description="Name of this client in the brokers' logs and quotas.")
    request_timeout_s: float = Field(10.0, gt=0, description="Limit of one request to a broker.")

    def client(self) -> dict[str, Any]:
        """Options of every client, whatever it does."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": round(self.request_timeout_s * 1000),
        }
