"""Where good and bad receivers stand beside each other: a bridge in a process of its own, built from settings."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout
from arrivals import Arrival
from cable import free_port
from good_receiver import SECRET_VARIABLE
from told_jobs import TOKEN, ToldJobs

from bridge.delivery.signing import new_secret
from bridge.demo.children import child, last_words, server

SECRET = new_secret()
PATIENCE_S = 60.0
"""Nothing is awaited for longer; nothing is expected to take a part of it."""

_HERE = Path(__file__).parent
_CONTROL_TOKEN = "a-token-for-control"
_ENVIRON = {SECRET_VARIABLE: SECRET, "HOSTILE_TOKEN": TOKEN, "CONTROL_TOKEN": _CONTROL_TOKEN}
_LOOK_S = 0.1


def program(directory: Path, name: str, *arguments: str) -> AbstractAsyncContextManager[str]:
    """A receiver program of this folder in a process of its own; its URL."""
    path = os.pathsep.join(filter(None, [str(_HERE), os.environ.get("PYTHONPATH")]))
    environ = {"PYTHONPATH": path, SECRET_VARIABLE: SECRET}
    return server(directory / f"{name}.log", name, *arguments, environ=environ)


def endpoint(url: str, **options: Any) -> dict[str, Any]:
    """Settings of an endpoint on loopback."""
    given = {"kind": "webhook", "url": url, "secret": f"${{{SECRET_VARIABLE}}}", "body": "cloudevents"}
    return given | {"allow_http": True, "allow_private_networks": True} | options


@dataclass(slots=True)
class Arena:
    """The jobs, and how bridges are started between them and the endpoints."""

    directory: Path
    jobs: ToldJobs
    http: ClientSession
    port: int = field(default_factory=free_port)
    logs: list[Path] = field(default_factory=list)
    _bridge: Process | None = None

    def configure(self, source: str, sinks: Mapping[str, Any]) -> None:
        """Write the settings for jobs at that address and these endpoints, once."""
        settings = {
            "sources": {
                "api": {
                    "provider": "auvy",
                    "base_url": source,
                    "token": "${HOSTILE_TOKEN}",
                    "jobs": list(self.jobs.jobs),
                    "requests_per_minute": 60_000,
                    "end_quiet_s": 0.5,
                }
            },
            "sinks": dict(sinks),
            "journal": {"url": f"sqlite:///{self.directory / 'journal.db'}"},
            "control": {"port": self.port, "token": "${CONTROL_TOKEN}"},
            "supervision": {"drain_timeout_s": 0.1},
        }
        (self.directory / "jobbridge.yaml").write_text(yaml.safe_dump(settings))

    @asynccontextmanager
    async def bridge(self) -> AsyncIterator[Process]:
        """One bridge process on the one journal, ready."""
        self.logs.append(self.directory / f"bridge-{len(self.logs) + 1}.log")
        config = str(self.directory / "jobbridge.yaml")
        async with child(self.logs[-1], "bridge", "run", "-c", config, environ=_ENVIRON) as process:
            self._bridge = process
            await self.until(self._is_ready, "the bridge is ready")
            yield process

    async def _is_ready(self) -> bool:
        async with self.http.get(f"http://127.0.0.1:{self.port}/readyz") as response:
            return response.status == 200

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Ask a bridge that runs again and again until the answer is yes; one that cannot be reached counts as no."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    assert self._bridge is None or self._bridge.returncode is None, last_words(self.logs[-1])
                    with suppress(ClientError):
                        if await holds():
                            return
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            words = last_words(self.logs[-1])
            raise AssertionError(f"after {PATIENCE_S:g} s still not: {what}; the bridge: {words}") from None

    async def ask(self, path: str) -> Any:
        """What the control API answers."""
        headers = {"Authorization": f"Bearer {_CONTROL_TOKEN}"}
        async with self.http.get(f"http://127.0.0.1:{self.port}/v1{path}", headers=headers) as response:
            response.raise_for_status()
            return await response.json()

    async def tried(self, sink: str, limit: int) -> list[dict[str, Any]]:
        """The first so many of a sink's deliveries that were tried, each with its attempts."""
        listed = await self.ask(f"/endpoints/{sink}/deliveries?limit=1000")
        tried = [one for one in listed["deliveries"] if one["attempts"]][:limit]
        return [await self.ask(f"/endpoints/{sink}/deliveries/{one['id']}") for one in tried]

    def assert_no_bug(self) -> None:
        """No exception that nobody foresaw is in what the bridges wrote."""
        said = "\n".join(log.read_text() for log in self.logs)
        assert "Traceback" not in said, said
        assert '"exception"' not in said, said


@asynccontextmanager
async def arena(directory: Path, jobs: ToldJobs, sinks: Mapping[str, Any]) -> AsyncIterator[Arena]:
    """Jobs that nobody has told to speak yet, and the settings of a bridge that is not there yet."""
    async with jobs.served() as source, ClientSession(timeout=ClientTimeout(total=20)) as http:
        place = Arena(directory, jobs, http)
        place.configure(source, sinks)
        yield place


async def ledger(http: ClientSession, receivers: str) -> tuple[list[Arrival], int]:
    """What a process of good receivers accepted, and how much it refused on purpose. All of it verified."""
    async with http.get(f"{receivers}/_ledger") as response:
        told = await response.json()
    assert told["unverified"] == []
    return [Arrival(*one) for one in told["accepted"]], told["refused"]


def peak_memory_mib(process: Process) -> float:
    """The most memory that the process ever held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
