"""How a small server of ours is served on one address: the demo's, and the receiver for people who integrate."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bridge.errors import Fatal
from bridge.wire import authority

CLIENT_FAULTS = (HttpProcessingError, web.RequestPayloadError, ConnectionError)
"""What aiohttp tells of that only a client can be to blame for."""


def _ours(record: logging.LogRecord) -> bool:
    """Whether what aiohttp tells is our own fault: a request that is no HTTP is not worth a traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], CLIENT_FAULTS))


_LOG = logging.getLogger(__name__)
_LOG.addFilter(_ours)


@asynccontextmanager
async def serve(app: web.Application, address: str, port: int) -> AsyncIterator[str]:
    """Serve until the context ends; yields the URL. A handler is cancelled as soon as its client is gone.

    Bodies stay as they came, compressed or not. Raises `Fatal` when the address cannot be bound.
    """
    runner = web.AppRunner(
        app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None, logger=_LOG, auto_decompress=False
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, address, port).start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise Fatal(f"cannot listen on {address}:{port}: {why}") from error
        host, bound_port = runner.addresses[0][:2]
        yield f"http://{authority(host, bound_port)}"
    finally:
        await runner.cleanup()
