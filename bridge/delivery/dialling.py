"""Which addresses a receiver may have: the only place that stands between a foreign URL and our own network.

The judgement falls when the socket is made, on the very address that is then dialled. A name that resolves to
something else a moment later, or a URL that holds a bare address, meets the same judge.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""One answer of `getaddrinfo`: family, type, protocol, canonical name, socket address."""

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NEVER = (
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments, and a metadata service; older Pythons take it for public
    IPv4Network("168.63.129.16/32"),  # public by its number, but a cloud host's own agent and secrets answer there
)
_LOW_32_BITS = 0xFFFFFFFF


def public_socket(info: AddressInfo) -> socket.socket:
    """A socket for a public address. Raises `OSError` (EACCES) for every other one."""
    family, kind, protocol, _, address = info
    if not is_public(address[0]):
        raise OSError(errno.EACCES, f"{address[0]} is not a public address, and allow_private_networks is off")
    return socket.socket(family, kind, protocol)


def is_public(host: str) -> bool:
    """Whether an address in text form belongs to the open internet.

    False for private, loopback, link-local, shared (CGNAT), multicast and reserved ranges. An IPv6 address that
    carries an IPv4 one (mapped, 6to4, NAT64) is judged by what it carries; Teredo is refused.
    """
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is None:
            return address in _GLOBAL_UNICAST and address.teredo is None and address.is_global
        address = carried
    return address.is_global and not address.is_multicast and not any(address in network for network in _NEVER)


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & _LOW_32_BITS)
    return address.ipv4_mapped or address.sixtofour
