"""How the demo's little servers are served and how their processes speak to whoever started them.

Such a process prints one JSON line with its address once it listens, and ends in peace on SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def serve(app: web.Application, address: str, port: int) -> AsyncIterator[str]:
    """Serve until the context ends; yields the URL. A handler is cancelled as soon as its client is gone."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        host, bound_port = runner.addresses[0][:2]
        yield f"http://{host}:{bound_port}"
    finally:
        await runner.cleanup()


async def run_process(server: AbstractAsyncContextManager[str]) -> None:
    """The whole life of a server's process."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with server as url:
        sys.stdout.write(json.dumps({"url": url}) + "\n")
        sys.stdout.flush()
        await told.wait()
