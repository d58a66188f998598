"""The receiver's connection pool, and to whom an attempt really talks."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from aiohttp import ClientConnectorCertificateError, ClientConnectorError, ClientError
from aiohttp.connector import Connection

from bridge.delivery.dialling import DiallingConnector, DiallingSettings
from bridge.delivery.sink import Trial

# Below the 5 s after which common servers close an idle connection: a POST into a closing one counts as a failure.
_KEEPALIVE_S = 4.0

trial_now: ContextVar[Trial] = ContextVar("trial_now")
"""The attempt that this task is making: the pool notes there whom it dials for it."""


class Connections(DiallingConnector):
    """A pool that notes the address of every connection it dials or hands out."""

    def __init__(self, settings: DiallingSettings, limit: int) -> None:
        """`limit` connections at most."""
        super().__init__(settings, limit=limit, keepalive_timeout_s=_KEEPALIVE_S, dialling=_note)

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """A connection for the request; it may be one dialled for an earlier attempt."""
        connection = await super().connect(*args, **kwargs)
        if address := self.address_of(connection):
            _note(address)
        return connection


def trouble(error: ClientError | OSError) -> str:
    """Why no answer came, without the URL's path, which is often a secret: of aiohttp's own texts only the cause."""
    if isinstance(error, ClientConnectorCertificateError):
        return f"{error.host}:{error.port}: {error.certificate_error}"
    if isinstance(error, ClientConnectorError):
        return f"{error.host}:{error.port}: {error.os_error}"
    return f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__


def _note(address: str) -> None:
    trial_now.get().address = address
