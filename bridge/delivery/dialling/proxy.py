"""Dialling through an HTTP proxy with CONNECT (RFC 9110, section 9.3.6).

The proxy is asked for an address, never for a name: whoever looks the name up decides who is dialled.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from dataclasses import dataclass, field

from bridge.wire import basic

_ANSWER_BYTES_MAX = 16 << 10
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, and what it is shown."""

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)

    async def tunnel(self, authority: str) -> socket.socket:
        """A socket that the proxy connected to `address:port`. Raises `OSError`."""
        dialled = await self._dial()
        try:
            await self._connect(dialled, authority)
        except BaseException:  # being cancelled, too, must not leave it open
            dialled.close()
            raise
        return dialled

    async def _dial(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise self._unreachable(error) from error
        failure = OSError(errno.EHOSTUNREACH, "no address")
        for family, kind, protocol, _, address in found:
            dialled = socket.socket(family, kind, protocol)
            dialled.setblocking(False)
            try:
                await loop.sock_connect(dialled, address)
            except OSError as error:
                dialled.close()
                failure = error
            except BaseException:
                dialled.close()
                raise
            else:
                return dialled
        raise self._unreachable(failure) from failure

    def _unreachable(self, error: OSError) -> OSError:
        return OSError(error.errno, f"the proxy {self.host}:{self.port} cannot be reached: {error.strerror}")

    async def _connect(self, dialled: socket.socket, authority: str) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(dialled, self._request(authority))
        answer = b""
        while b"\r\n\r\n" not in answer:
            try:
                piece = await loop.sock_recv(dialled, _ANSWER_BYTES_MAX)
            except ConnectionError:
                piece = b""
            answer += piece
            if not piece or len(answer) > _ANSWER_BYTES_MAX:
                raise OSError(errno.EPROTO, f"the proxy {self.host}:{self.port} did not answer CONNECT with HTTP")
        status = _STATUS.match(answer)
        if status is None or not status[1].startswith(b"2"):
            raise OSError(errno.ECONNREFUSED, self._refusal(authority, status[1].decode() if status else "no status"))
        if answer.partition(b"\r\n\r\n")[2]:  # both TLS and HTTP begin with us: these bytes are nobody's we want
            raise OSError(errno.EPROTO, f"the proxy {self.host}:{self.port} sent more than its answer to CONNECT")

    def _request(self, authority: str) -> bytes:
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self.username:
            lines.append(f"Proxy-Authorization: {basic(self.username, self.password)}")
        return "\r\n".join([*lines, "", ""]).encode()

    def _refusal(self, authority: str, status: str) -> str:
        hint = ": see proxy_username and proxy_password" if status == "407" else ""
        return f"the proxy {self.host}:{self.port} answered CONNECT {authority} with {status}{hint}"
