"""The demo's processes: started, asked for their address, and ended by their own process id whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from bridge.errors import Fatal

_ANNOUNCE_S = 20.0
_SERVER_END_S = 5.0


@asynccontextmanager
async def server(log: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """A process that prints its address as one JSON line, until the context ends; yields the URL."""
    async with servers({log: arguments}, environ=environ) as [url]:
        yield url


@asynccontextmanager
async def servers(
    arguments_by_log: Mapping[Path, Sequence[str]], environ: Mapping[str, str] | None = None
) -> AsyncIterator[list[str]]:
    """Several of them, which start at the same time; yields their URLs in order."""
    async with AsyncExitStack() as stack:
        started = [
            (await stack.enter_async_context(child(log, *arguments, stdout=PIPE, environ=environ)), log, arguments[0])
            for log, arguments in arguments_by_log.items()
        ]
        yield [await _announced(*one) for one in started]


async def _announced(process: Process, log: Path, name: str) -> str:
    assert process.stdout is not None  # noqa: S101 - asked for when it was started
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _ANNOUNCE_S)
        return str(json.loads(line)["url"])
    except (TimeoutError, ValueError, KeyError) as error:
        raise Fatal(f"{name} did not start: {last_words(log)}") from error


@asynccontextmanager
async def child(
    log: Path, *arguments: str, stdout: int | None = None, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """`python -m ...` until the context ends. What it writes goes to `log`, unless `stdout` says otherwise.

    Settings of ours that happen to be in the environment are kept from it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOBBRIDGE__")}
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *arguments),
            stdin=DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            env={**inherited, **(environ or {})},
            start_new_session=True,  # Ctrl-C in a terminal is for us alone, who end the others in order
        )
    try:
        yield process
    finally:
        await end(process, _SERVER_END_S)


async def end(process: Process, patience_s: float) -> int:
    """SIGTERM, and SIGKILL when it is still there after `patience_s`; returns the exit code, negative for a signal."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), patience_s)
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
    return await process.wait()


def last_words(log: Path, lines: int = 3) -> str:
    """The end of a log, as one line."""
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-lines:]) or "it said nothing"
