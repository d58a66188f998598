"""How the processes of the demo's little servers speak to whoever started them.

Such a process prints one JSON line with its address once it listens, and ends in peace on SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AbstractAsyncContextManager


async def run_process(server: AbstractAsyncContextManager[str]) -> None:
    """The whole life of a server's process."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with server as url:
        sys.stdout.write(json.dumps({"url": url}) + "\n")
        sys.stdout.flush()
        await told.wait()
