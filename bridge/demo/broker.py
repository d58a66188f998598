"""A Kafka broker in its own process: the only place that knows how the embedded one is started and ended.

It keeps what it holds in one JSON file, written every few seconds and when it ends: after `kill` the last seconds
are lost, after `stop` nothing is.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from bridge.errors import Fatal

_START_S = 20.0
_STOP_S = 10.0
_LOOK_S = 0.02


async def ended(process: subprocess.Popen[bytes], how: signal.Signals, patience_s: float) -> None:
    """Send the signal and wait for the process to be gone; killed when it is still there after so long."""
    process.send_signal(how)
    try:
        await asyncio.to_thread(process.wait, patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


async def list_topics(bootstrap_servers: str) -> None:
    """Return once a broker has told its topics; raises the client's error where none does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        await admin.list_topics()
    finally:
        await admin.close()


class EmbeddedBroker:
    """One broker on one port of the loopback interface, with one data directory."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self._port = port
        self._data_dir = data_dir
        self._log = data_dir / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return once it answers a metadata request. Raises `Fatal` with its last words when it ends instead."""
        self._process = self._spawn()
        try:
            async with asyncio.timeout(_START_S):
                await self._accepts(self._process)
                await self._answers()
            self._still(self._process)  # what answered may be somebody else's, who had the port first
        except TimeoutError as error:
            await self.kill()
            raise Fatal(f"the embedded broker did not answer on {self.bootstrap_servers}: {self._tail()}") from error
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """End it so that its data is kept; killed when it has not ended after a while. It ignores SIGTERM."""
        await self._end(signal.SIGINT)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        await self._end(signal.SIGKILL)

    def _spawn(self) -> subprocess.Popen[bytes]:
        binary = _binary()
        self._data_dir.mkdir(parents=True, exist_ok=True)
        command = [
            str(binary),
            "start",
            "--only",
            "kafka",
            "--kafka-port",
            str(self._port),
            "--data-dir",
            str(self._data_dir),
        ]
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal must not reach it before its clients have finished.
            return subprocess.Popen(  # noqa: S603 - our own binary and arguments
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def _accepts(self, process: subprocess.Popen[bytes]) -> None:
        while True:
            self._still(process)
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(_LOOK_S)

    def _still(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            raise Fatal(f"the embedded broker ended while it started: {self._tail()}")

    async def _answers(self) -> None:
        await list_topics(self.bootstrap_servers)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            await ended(process, how, _STOP_S)

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or f"nothing in {self._log}"


@asynccontextmanager
async def embedded_broker(data_dir: Path, port: int = 0) -> AsyncIterator[EmbeddedBroker]:
    """A running broker; port 0 takes a free one. Raises `Fatal` when it is not installed or does not start."""
    broker = EmbeddedBroker(data_dir, port or _free_port())
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def _binary() -> Path:
    spec = find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise Fatal("the embedded broker is not installed: pip install 'jobbridge[demo]'")
    # The package's console script would put a second process between us and the signals we send.
    binary = Path(spec.origin).with_name("noida-db")
    if not binary.is_file():
        raise Fatal(f"the embedded broker's binary is missing from {binary.parent}: reinstall noida-db")
    if not binary.stat().st_mode & stat.S_IXUSR:
        binary.chmod(0o755)
    return binary


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
