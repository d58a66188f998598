"""Which addresses belong to the open internet, and which to a private network. Pure.

After the special-purpose registries of IANA (RFC 6890), and stricter where Python's own tables differ by version.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})  # the interface id's upper half: RFC 5214, section 6.1
_LOW_32_BITS = 0xFFFF_FFFF

_NEVER_PUBLIC: tuple[Network, ...] = (
    IPv4Network("168.63.129.16/32"),  # public by its number, but a cloud host's own agent and secrets answer there
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments, and a metadata service
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, withdrawn
    IPv6Network("2001::/23"),  # IETF protocol assignments, Teredo among them
    IPv6Network("3fff::/20"),  # documentation
)
_PRIVATE = tuple(
    ip_network(each)
    for each in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8"),
        *("fc00::/7", "::1/128"),
    )
)
_METADATA = tuple(ip_network(each) for each in ("100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128"))
"""Of the private ones: where clouds hand out the credentials of a host."""


def address_of(host: str) -> Address | None:
    """The address a text stands for; an IPv4 one for its IPv6 spelling `::ffff:a.b.c.d`, which reaches the same host.

    None for anything that is no plain address: names, addresses with a zone, octal, hexadecimal and short spellings.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def is_public(address: Address) -> bool:
    """Whether it belongs to the open internet.

    An IPv6 address that carries an IPv4 one (NAT64, 6to4, ISATAP) is public only if what it carries is.
    """
    if _within(address, _NEVER_PUBLIC):
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    if not all(is_public(carried) for carried in _carried(address)):
        return False
    return address in _NAT64 or address.sixtofour is not None or (address in _GLOBAL_UNICAST and address.is_global)


def is_private(address: Address) -> bool:
    """Whether it is a private, shared or loopback address, and no metadata service.

    Link-local, multicast and reserved addresses are neither public nor private.
    """
    return _within(address, _PRIVATE) and not _within(address, _METADATA)


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _carried(address: IPv6Address) -> list[IPv4Address]:
    """One address may carry two: a 6to4 prefix before an ISATAP interface id."""
    carried = [] if address.sixtofour is None else [address.sixtofour]
    if address in _NAT64 or int(address) >> 32 & _LOW_32_BITS in _ISATAP:
        carried.append(IPv4Address(int(address) & _LOW_32_BITS))
    return carried
