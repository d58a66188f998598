"""The play itself: broker, simulators, receiver and bridge on one stage, watched to the end, then judged."""

from __future__ import annotations

import asyncio
import base64
import secrets
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout

from bridge.demo.broker import embedded_broker
from bridge.demo.cast import KEY, KEY_VARIABLE, Cast
from bridge.demo.children import child, end, last_words, server, servers
from bridge.demo.proof import Proof, by_source, prove
from bridge.demo.receiver import SECRET_VARIABLE
from bridge.demo.scene import TOKEN_VARIABLE, TOPIC, Scene, configuration, source
from bridge.demo.table import Display
from bridge.demo.topic import read_topic
from bridge.demo.watcher import Snapshot, Watcher
from bridge.errors import Fatal

_READY_S = 20.0
_BRIDGE_END_S = 30.0
_REQUEST_S = 10.0
_LOOK_S = 0.25
_TROUBLE = (ClientError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    proof: Proof
    proofs: Mapping[str, Proof]
    """The same for each source by itself."""
    bridge_exit: int
    shortfall: str | None
    """What was still missing when the deadline passed."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """Everybody in place."""

    bridge: Process
    bridge_log: Path
    bootstrap_servers: str
    watcher: Watcher


async def play(scene: Scene, directory: Path, display: Display) -> Outcome:
    """Set the stage, watch until all is delivered, prove. Raises `Fatal` when somebody does not play their part."""
    async with _set(scene, directory) as stage:
        await _ready(stage)
        display.say(f"the bridge is up; jobs go on for about {scene.duration_s:g} s over connections that break")
        starting = asyncio.create_task(_start_more(scene, stage))
        try:
            last, shortfall = await _watch(scene, stage, starting, display)
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        bridge_exit = await end(stage.bridge, _BRIDGE_END_S)
        return await _judge(stage, last, bridge_exit, shortfall)


@asynccontextmanager
async def _set(scene: Scene, directory: Path) -> AsyncIterator[_Stage]:
    token, control_port = secrets.token_urlsafe(16), _free_port()
    signing = {SECRET_VARIABLE: "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()}
    playing = {directory / f"simulator-{cast.source}.log": scene.simulator(cast) for cast in scene.casts}
    async with (
        embedded_broker(directory / "broker") as broker,
        servers(playing) as urls,
        server(directory / "receiver.log", *scene.receiver(), environ=signing) as receiver,
        ClientSession(timeout=ClientTimeout(total=_REQUEST_S)) as http,
    ):
        simulators = {cast.source: url for cast, url in zip(scene.casts, urls, strict=True)}
        settings = configuration(
            directory,
            sources={cast.source: source(cast, simulators[cast.source]) for cast in scene.casts},
            receiver=receiver,
            bootstrap_servers=broker.bootstrap_servers,
            control_port=control_port,
        )
        config, log = directory / "jobbridge.yaml", directory / "bridge.log"
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
        control = f"http://127.0.0.1:{control_port}"
        watcher = Watcher(http, simulators=simulators, receiver=receiver, control=control, token=token)
        environ = signing | {KEY_VARIABLE: KEY, TOKEN_VARIABLE: token}
        async with child(log, "bridge", "run", "--config", str(config), environ=environ) as bridge:
            yield _Stage(bridge, log, broker.bootstrap_servers, watcher)


async def _ready(stage: _Stage) -> None:
    try:
        async with asyncio.timeout(_READY_S):
            while True:
                _check_alive(stage)
                with suppress(ClientError):
                    return await stage.watcher.ready()
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise Fatal(f"the bridge is not ready after {_READY_S:g} s: {last_words(stage.bridge_log)}") from None


async def _start_more(scene: Scene, stage: _Stage) -> None:
    """Start some jobs ourselves where we can, as often as it takes: the simulators refuse at random."""
    for _ in range(scene.started):
        await asyncio.sleep(scene.spread_s / scene.started)
        for cast in scene.casts:
            while True:
                try:
                    await stage.watcher.start(cast)
                    break
                except _TROUBLE:
                    await asyncio.sleep(_LOOK_S)


async def _hand_in(casts: tuple[Cast, ...], stage: _Stage, seen: Snapshot) -> None:
    """Tell the bridge of the jobs that have appeared and that it cannot find by itself."""
    prefixes = {cast.source: cast.hands_in for cast in casts}
    for job in seen.jobs:
        prefix = prefixes[job.source]
        if prefix is not None and not job.origin and job.id.startswith(prefix):
            await stage.watcher.hand_in(job.source, job.id)


async def _watch(
    scene: Scene, stage: _Stage, starting: asyncio.Task[None], display: Display
) -> tuple[Snapshot, str | None]:
    """Look on until everything is delivered; with the last look, what is missing at the deadline."""
    deadline_s = asyncio.get_running_loop().time() + scene.deadline_s
    last: Snapshot | None = None
    while True:
        _check_alive(stage)
        with suppress(*_TROUBLE):
            last = await stage.watcher.look()
            display.show(last)
            await _hand_in(scene.casts, stage, last)
            if last.settled and starting.done():
                starting.result()
                return last, None
        if asyncio.get_running_loop().time() > deadline_s:
            if last is None:
                raise Fatal(f"the bridge could not be looked at: {last_words(stage.bridge_log)}")
            return last, last.waiting_for
        await asyncio.sleep(_LOOK_S)


async def _judge(stage: _Stage, last: Snapshot, bridge_exit: int, shortfall: str | None) -> Outcome:
    accepted, figures = await stage.watcher.received()
    topic = await read_topic(stage.bootstrap_servers, TOPIC)
    verified = figures["verified_by_source"]
    proofs = {
        sides.source: prove(
            sides, verified=verified.get(sides.source, 0), reconnects=last.reconnects.get(sides.source, 0)
        )
        for sides in by_source(await stage.watcher.emitted(), topic, accepted)
    }
    total = Proof.total(proofs.values(), refused=figures["refused"])
    return Outcome(total, proofs, bridge_exit, shortfall)


def _check_alive(stage: _Stage) -> None:
    if stage.bridge.returncode is not None:
        words = last_words(stage.bridge_log)
        raise Fatal(f"the bridge ended early with exit code {stage.bridge.returncode}: {words}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
