"""The connection pool of a receiver: every connection in it goes to an address that was judged."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import ClientConnectorError, TCPConnector
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection

from bridge.delivery.dialling.judge import AddressInfo
from bridge.delivery.dialling.settings import DiallingSettings
from bridge.wire import authority


class DiallingConnector(TCPConnector):
    """Dials the receiver's own addresses, directly or through the proxy. `dialling` hears each just before.

    aiohttp's own `proxy=` is never used with it: that would leave the look-up, and so the choice, to the proxy.
    """

    def __init__(
        self,
        settings: DiallingSettings,
        *,
        limit: int,
        keepalive_timeout_s: float,
        dialling: Callable[[str], None],
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`limit` connections at most, each kept for `keepalive_timeout_s` without use."""
        self._judge = settings.judge
        self._proxy = settings.proxy_to_dial
        self._dialling = dialling
        self._tunnelled: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        super().__init__(
            limit=limit, keepalive_timeout=keepalive_timeout_s, resolver=resolver, socket_factory=self._direct
        )

    def address_of(self, connection: Connection) -> str | None:
        """The receiver's address as `address:port`; behind a proxy, the one it was asked for. None once closed."""
        if connection.protocol in self._tunnelled:
            return self._tunnelled[connection.protocol]
        peer = connection.transport and connection.transport.get_extra_info("peername")
        return _authority(peer) if peer else None

    def _direct(self, info: AddressInfo) -> socket.socket:
        if self._proxy is not None:  # the step below was not asked: a fault of ours, which must not become a way out
            raise OSError(errno.EACCES, "there is a proxy, and nothing is dialled but that")
        made = self._judge.socket(info)  # may refuse the address, which is then not dialled
        self._dialling(_authority(info[4]))
        return made

    async def _wrap_create_connection(
        self,
        *args: Any,
        addr_infos: list[AddressInfo],
        req: Any,
        timeout: Any,  # noqa: ASYNC109 - aiohttp's own
        client_error: type[Exception] = ClientConnectorError,
        **kwargs: Any,
    ) -> Any:
        """aiohttp's step from looked-up addresses to a connection; it asks again without the first, where that fails.

        Without an override of this step, a proxy could be had only by leaving the look-up to it. Were the step ever
        renamed, nothing would be dialled.
        """
        if self._proxy is None:
            return await super()._wrap_create_connection(
                *args, addr_infos=addr_infos, req=req, timeout=timeout, client_error=client_error, **kwargs
            )
        try:
            self._judge.vet(addr_infos[0])
            receiver = _authority(addr_infos[0][4])
            self._dialling(receiver)
            tunnel = await self._proxy.tunnel(receiver)
        except OSError as error:
            raise client_error(req.connection_key, error) from error
        made = await self._wrap_existing_connection(
            *args, req=req, timeout=timeout, client_error=client_error, sock=tunnel, **kwargs
        )
        self._tunnelled[made[1]] = receiver
        return made


def _authority(address: tuple[Any, ...]) -> str:
    return authority(*address[:2])
