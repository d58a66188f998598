"""The receiver's connection pool, and to whom an attempt really talks."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Any

from aiohttp import ClientConnectorCertificateError, ClientConnectorError, ClientError
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from bridge.delivery.dialling import DiallingConnector, DiallingSettings
from bridge.delivery.sink import Trial

# Below the 5 s after which common servers close an idle connection: a POST into a closing one counts as a failure.
_KEEPALIVE_S = 4.0
_PIECE_BYTES = 4 << 10
_UNREAD_ANSWERS_MAX = 8

trial_now: ContextVar[Trial] = ContextVar("trial_now")
"""The attempt that this task is making: the pool notes there whom it dials for it."""


class _Answers(ResponseHandler):
    """Hangs up on a receiver that goes on and on with interim answers, or answers what nobody asked: without a bound of
    its own aiohttp would take them all in, a gigabyte and seconds of our loop at a time."""

    def data_received(self, data: bytes) -> None:
        for start in range(0, max(len(data), 1), _PIECE_BYTES):
            super().data_received(data[start : start + _PIECE_BYTES])
            if len(self) > _UNREAD_ANSWERS_MAX:
                if self.transport is not None:
                    self.transport.abort()
                return


class Connections(DiallingConnector):
    """A pool that notes the address of every connection it dials or hands out."""

    def __init__(self, settings: DiallingSettings, limit: int) -> None:
        """`limit` connections at most."""
        super().__init__(settings, limit=limit, keepalive_timeout_s=_KEEPALIVE_S, dialling=_note)
        self._factory = partial(_Answers, loop=self._loop)  # type: ignore[assignment]  # `partial` is invariant

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
