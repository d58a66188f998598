"""A whole river for a test: simulator, receiver, and a bridge process that can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout, web
from cable import free_port

from bridge.demo.cast import AUVY, KEY_VARIABLE
from bridge.demo.children import child, last_words
from bridge.demo.proof import Proof, by_source, prove
from bridge.demo.receiver import SECRET_VARIABLE, Mood, Receiver
from bridge.demo.scene import TOKEN_VARIABLE, TOPIC, configuration, source
from bridge.demo.simulators.api import Handler
from bridge.demo.simulators.auvy import AuvySimulator
from bridge.demo.simulators.auvy_world import World
from bridge.demo.simulators.world import Pace
from bridge.demo.topic import read_topic
from bridge.demo.watcher import Snapshot, Watcher
from bridge.serving import serve

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "a-token-for-control"
LOOK_S = 0.05


async def until(holds: Callable[[], Awaitable[bool]], what: str, within_s: float = 20.0) -> None:
    """Ask again and again until the answer is yes; an endpoint that cannot be reached counts as no."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                with suppress(ClientError):
                    if await holds():
                        return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise AssertionError(f"after {within_s:g} s still not: {what}") from None


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


async def jobbridge(*arguments: str, environ: Mapping[str, str] | None = None, within_s: float = 20.0) -> Ran:
    """Run the command to its end. A command that does not end fails the test."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOBBRIDGE")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", *arguments),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={**inherited, **(environ or {})},
    )
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return Ran(await process.wait(), out.decode(), err.decode())


class Heard(NamedTuple):
    """One request for a job's stream, as the simulator heard it."""

    job: str
    after: str | None


class WatchedSimulator(AuvySimulator):
    """A simulator inside the test, which remembers who asked for which stream and how many are open."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.heard: list[Heard] = []
        self.open_streams = 0

    def application(self) -> web.Application:
        app = super().application()
        app.middlewares.append(self._listen)
        return app

    @web.middleware
    async def _listen(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.endswith("/stream"):
            return await handler(request)
        self.heard.append(Heard(request.match_info["id"], request.query.get("after")))
        self.open_streams += 1
        try:
            return await handler(request)
        finally:
            self.open_streams -= 1


class AwayReceiver:
    """A receiver inside the test that can leave its port and come back to it, remembering what it accepted."""

    def __init__(self, mood: Mood | None = None) -> None:
        self._receiver = Receiver(SECRET, mood or Mood())
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Listen until the context ends; may be entered again."""
        async with serve(self._receiver.application(), "127.0.0.1", self._port) as url:
            yield url


@dataclass(slots=True)
class River:
    """Where everybody is, and the configuration with which a bridge is started between them."""

    directory: Path
    control: str
    watcher: Watcher
    http: ClientSession
    servers: str
    overrides: dict[str, str] = field(default_factory=dict)
    """Settings by their environment variable without its first part, for every bridge started from now on."""
    logs: list[Path] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.directory / "jobbridge.yaml"

    @property
    def journal(self) -> Path:
        return self.directory / "journal.db"

    @property
    def environ(self) -> dict[str, str]:
        """What a bridge finds in its environment."""
        overrides = {f"JOBBRIDGE__{name}": value for name, value in self.overrides.items()}
        return {KEY_VARIABLE: World().api_key, TOKEN_VARIABLE: TOKEN, SECRET_VARIABLE: SECRET} | overrides

    @asynccontextmanager
    async def bridge(self) -> AsyncIterator[Process]:
        """One bridge process on the one journal; not yet ready."""
        self.logs.append(self.directory / f"bridge-{len(self.logs) + 1}.log")
        async with child(self.logs[-1], "bridge", "run", "-c", str(self.config), environ=self.environ) as process:
            yield process

    @asynccontextmanager
    async def ready_bridge(self) -> AsyncIterator[Process]:
        async with self.bridge() as process:
            await until(self.is_ready, "the bridge is ready")
            yield process

    async def is_ready(self) -> bool:
        await self.watcher.ready()
        return True

    async def is_settled(self) -> bool:
        return (await self.watcher.look()).settled

    async def ask(self, path: str, method: str = "GET", json: Any = None) -> tuple[int, Any]:
        """Status and body of an answer of the control API."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.http.request(method, f"{self.control}{path}", json=json, headers=headers) as response:
            return response.status, await response.json()

    async def settled(self, within_s: float = 40.0) -> Snapshot:
        """Wait until everything was said, followed to its end and delivered."""
        try:
            await until(self.is_settled, "everything is settled", within_s)
        except AssertionError as error:
            seen = await self.watcher.look()
            raise AssertionError(f"{error}: {seen.waiting_for}; {last_words(self.logs[-1])}") from None
        return await self.watcher.look()

    async def proof(self) -> Proof:
        """The ledgers compared: as of now, so that the sides must have come to rest."""
        accepted, figures = await self.watcher.received()
        emitted, topic = await self.watcher.emitted(), await read_topic(self.servers, TOPIC)
        proofs = [
            prove(sides, verified=figures["verified_by_source"].get(sides.source, 0), reconnects=0)
            for sides in by_source(emitted, topic, accepted)
        ]
        return Proof.total(proofs, refused=figures["refused"])

    def said(self) -> str:
        """All that the bridges wrote."""
        return "\n".join(log.read_text() for log in self.logs)

    def assert_no_bug(self) -> None:
        """No exception that nobody foresaw is in what the bridges wrote."""
        said = self.said()
        assert "Traceback" not in said, said
        assert '"exception"' not in said, said


@asynccontextmanager
async def river(
    directory: Path, *, simulator: str, receiver: str, servers: str | None, jobs: list[str] | None = None
) -> AsyncIterator[River]:
    """A configuration between these addresses; without `servers` there is no Kafka sink.

    With `jobs` it is just these that are followed, and discovery is off.
    """
    port = free_port()
    auvy = source(AUVY, simulator) | {"jobs": jobs or []}
    if jobs is not None:
        del auvy["discover"]
    settings = configuration(
        directory,
        sources={AUVY.source: auvy},
        receiver=receiver,
        bootstrap_servers=servers or "",
        control_port=port,
    )
    if servers is None:
        del settings["sinks"]["kafka"]
    control = f"http://127.0.0.1:{port}"
    async with ClientSession(timeout=ClientTimeout(total=10)) as http:
        watcher = Watcher(http, simulators={AUVY.source: simulator}, receiver=receiver, control=control, token=TOKEN)
        place = River(directory, control, watcher, http, servers or "")
        place.config.write_text(yaml.safe_dump(settings, sort_keys=False))
        yield place


@asynccontextmanager
async def quiet_river(directory: Path, jobs: list[str] | None = None) -> AsyncIterator[tuple[River, WatchedSimulator]]:
    """A river without Kafka, over a simulator that keeps to the rules, whose jobs outlast every test."""
    simulator = WatchedSimulator(World(jobs=2, at_once=2, pace=Pace(job_s=60, events_per_s=20)))
    receiver = AwayReceiver()
    async with (
        simulator.served() as url,
        receiver.served(),
        river(directory, simulator=url, receiver=receiver.url, servers=None, jobs=jobs or []) as place,
    ):
        yield place, simulator
