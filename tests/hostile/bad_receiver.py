"""A process with every bad receiver, one a path, on a bare socket: it owes HTTP nothing.

`/status/429?retry-after=soon` answers with that status and with the query's names as headers; the other paths are the
names in `_MISDEEDS`.
"""

from __future__ import annotations

import asyncio
import gzip
import os
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qsl, urlsplit

from bridge.demo.serving import run_process

DRIP_S = 1.0
SLOW_S = 2.0
FLOOD_BYTES = 100 << 20

_PIECE = b"x" * (64 << 10)
# A gzip stream may be several, one after the other: a thousandth of what it unpacks to, and made in no time.
_BOMB = gzip.compress(bytes(16 << 20)) * 64


async def _hang_up(_: StreamReader, writer: StreamWriter) -> None:
    writer.transport.abort()


async def _hang(reader: StreamReader, _: StreamWriter) -> None:
    await reader.read()


async def _slow(_: StreamReader, writer: StreamWriter) -> None:
    await asyncio.sleep(SLOW_S)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


async def _drip(writer: StreamWriter, head: bytes) -> None:
    writer.write(head)
    while True:
        await writer.drain()
        await asyncio.sleep(DRIP_S)
        writer.write(b"x")


async def _drip_head(_: StreamReader, writer: StreamWriter) -> None:
    await _drip(writer, b"HTTP/1.1 200 OK\r\nX-Never-Ends: ")


async def _drip_body(_: StreamReader, writer: StreamWriter) -> None:
    await _drip(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")


async def _pour(writer: StreamWriter, head: bytes, piece: bytes, times: int | None = None) -> None:
    """The same piece so often, or for ever, as fast as it is taken."""
    writer.write(head)
    while times is None or times > 0:
        writer.write(piece)
        await writer.drain()
        times = None if times is None else times - 1


async def _flood(_: StreamReader, writer: StreamWriter) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FLOOD_BYTES
    await _pour(writer, head, _PIECE, FLOOD_BYTES // len(_PIECE))


async def _flood_error(_: StreamReader, writer: StreamWriter) -> None:
    chunk = b"%x\r\n%s\r\n" % (len(_PIECE), _PIECE)
    await _pour(writer, b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n", chunk)


async def _endless_header(_: StreamReader, writer: StreamWriter) -> None:
    await _pour(writer, b"HTTP/1.1 200 OK\r\nX-Never-Ends: ", _PIECE)


async def _endless_headers(_: StreamReader, writer: StreamWriter) -> None:
    await _pour(writer, b"HTTP/1.1 200 OK\r\n", b"X-One-More: yes\r\n" * 1000)


async def _endless_continue(_: StreamReader, writer: StreamWriter) -> None:
    await _pour(writer, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


async def _endless_answers(_: StreamReader, writer: StreamWriter) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    writer.write(answer)
    await asyncio.sleep(0.05)  # the connection is back in the pool by then
    await _pour(writer, b"", answer * 1000)


async def _cut(_: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")


async def _garbage(_: StreamReader, writer: StreamWriter) -> None:
    writer.write(os.urandom(4096))


async def _bomb(writer: StreamWriter, status: bytes) -> None:
    head = b"HTTP/1.1 %s\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (status, len(_BOMB)) + _BOMB)


async def _bomb_accepted(_: StreamReader, writer: StreamWriter) -> None:
    await _bomb(writer, b"200 OK")


async def _bomb_refused(_: StreamReader, writer: StreamWriter) -> None:
    await _bomb(writer, b"503 No")


_MISDEEDS: dict[str, Callable[[StreamReader, StreamWriter], Awaitable[None]]] = {
    "hang-up": _hang_up,
    "hang": _hang,
    "slow": _slow,
    "drip-head": _drip_head,
    "drip-body": _drip_body,
    "flood": _flood,
    "flood-error": _flood_error,
    "endless-header": _endless_header,
    "endless-headers": _endless_headers,
    "endless-continue": _endless_continue,
    "endless-answers": _endless_answers,
    "cut": _cut,
    "garbage": _garbage,
    "bomb": _bomb_accepted,
    "bomb-error": _bomb_refused,
}


async def _answer(reader: StreamReader, writer: StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or 0))
    asked = urlsplit(head.split(b" ", 2)[1].decode())
    first, _, rest = asked.path[1:].partition("/")
    if first != "status":
        await _MISDEEDS[first](reader, writer)
        return
    headers = "".join(f"{name}: {value}\r\n" for name, value in parse_qsl(asked.query))
    writer.write(f"HTTP/1.1 {rest} Told\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())


async def _serve(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        await _answer(reader, writer)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def bad_receiver() -> AsyncIterator[str]:
    """Listen until the context ends; yields the URL."""
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=1024)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


if __name__ == "__main__":
    asyncio.run(run_process(bad_receiver()))
