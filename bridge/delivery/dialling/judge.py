"""Who may be dialled for a receiver, judged by address and port."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from bridge.delivery.dialling.addresses import Network, address_of, is_private, is_public

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""One answer of `getaddrinfo`: family, type, protocol, canonical name, socket address."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What the settings open besides public addresses."""

    networks: Collection[Network]
    ports: Collection[int] | None
    """None: all."""
    private: bool

    def port_refusal(self, port: int) -> str | None:
        """Why this port is not to be dialled, in one sentence; None where it may be."""
        if self.ports is None or port in self.ports:
            return None
        return f"port {port} is not among allow_ports: {', '.join(map(str, sorted(self.ports)))}"

    def address_refusal(self, host: str) -> str | None:
        """Likewise for an address in text form."""
        address = address_of(host)
        if address is None:
            return f"{host} is not an address in its plain form"
        if is_public(address) or any(address in network for network in self.networks):
            return None
        if not is_private(address):
            return f"{host} is not a public address, and in none of allow_networks"
        return None if self.private else f"{host} is not a public address: open its network with allow_networks"

    def vet(self, info: AddressInfo) -> None:
        """Raises `OSError` (EACCES) for an address that is not to be dialled."""
        host, port = info[4][:2]
        if refusal := self.port_refusal(port) or self.address_refusal(host):
            raise OSError(errno.EACCES, refusal)

    def socket(self, info: AddressInfo) -> socket.socket:
        """A socket for an address that may be dialled. Raises as `vet` does."""
        self.vet(info)
        return socket.socket(*info[:3])
