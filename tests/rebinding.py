"""A name that flips its address, served by DNS and looked up by the system: run alone, in namespaces of its own.

Arguments: the address outside and the one inside our network. Prints what became of each attempt.
"""

from __future__ import annotations

import asyncio
import sys
from ipaddress import ip_address
from typing import cast

import orjson
from aiohttp import ClientConnectorError, ClientSession

from bridge.delivery.dialling import DiallingConnector, DiallingSettings

A, AAAA = 1, 28
ATTEMPTS = 4


class Flipping(asyncio.DatagramProtocol):
    """A name server: every name is outside in odd look-ups, and inside in even ones."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = [ip_address(address) for address in addresses]
        self._asked = {A: 0, AAAA: 0}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        kind = int.from_bytes(question[-4:-2])
        address = self._addresses[self._asked[kind] % 2]
        self._asked[kind] += 1
        answers = b""
        if kind == (A if address.version == 4 else AAAA):
            packed = address.packed
            answers = b"\xc0\x0c" + question[-4:] + bytes(4) + len(packed).to_bytes(2) + packed  # to live for 0 s
        counts = b"\0\1" + (b"\0\1" if answers else b"\0\0") + bytes(4)
        self._transport.sendto(data[:2] + b"\x81\x80" + counts + question + answers, addr)


async def attempts(outside: str, inside: str) -> dict[str, object]:
    """Whom each attempt reached, or why nobody; and how many connections came in at either address."""
    visits = {outside: 0, inside: 0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits[writer.get_extra_info("sockname")[0]] += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    settings = DiallingSettings.model_validate({"url": "https://partner.test", "allow_networks": [outside]})
    told: list[str] = []
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Flipping(outside, inside), ("127.0.0.1", 53))
    async with await asyncio.start_server(serve, [outside, inside], 8080):
        connector = DiallingConnector(settings, limit=1, keepalive_timeout_s=1, dialling=lambda _: None)
        connector._use_dns_cache = False
        async with ClientSession(connector=connector) as session:
            for _ in range(ATTEMPTS):
                try:
                    async with session.get("http://partner.test:8080/") as answer:
                        told.append(str(answer.status))
                except ClientConnectorError as error:
                    told.append(error.os_error.strerror or "")
    return {"told": told, "visits": visits}


if __name__ == "__main__":
    print(orjson.dumps(asyncio.run(attempts(*sys.argv[1:]))).decode())
