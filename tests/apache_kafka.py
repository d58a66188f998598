"""Apache Kafka itself for the tests: the only place that knows how it is fetched, formatted, started and ended.

`JOBBRIDGE_TEST_KAFKA` (bootstrap servers) names a cluster to use instead. Where there is neither that nor Java and
Maven, the tests that need Kafka are skipped with the reason, or fail with it where `CI` is set.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest
from brokers import Broker
from cache import cache_folder

from bridge.demo.broker import ended, list_topics

VERSION = "4.1.1"

_FETCH_S = 600.0
_START_S = 60.0
_STOP_S = 20.0
_LOOK_S = 0.05
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>jobbridge</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""

# One replica of everything, and few partitions inside: a broker that starts within seconds in 512 MB. Nothing is
# deleted by age: what tests write is stamped with times long gone.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={listeners}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
log.retention.ms=-1
transaction.abort.timed.out.transaction.cleanup.interval.ms=200
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

_JAVA = """\
import static java.nio.charset.StandardCharsets.UTF_8;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

public class Partitions {
    public static void main(String[] given) {
        int partitions = Integer.parseInt(given[0]);
        for (int n = 1; n < given.length; n++)
            System.out.println(BuiltInPartitioner.partitionForKey(given[n].getBytes(UTF_8), partitions));
    }
}
"""


class ApacheKafka:
    """One node in KRaft mode, broker and controller at once, on free ports of the loopback interface."""

    def __init__(
        self, jars: Path, data_dir: Path, *properties: str, listeners: Sequence[str], users: Sequence[str]
    ) -> None:
        port, controller = free_ports(2)
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self._jars = jars
        self._log = data_dir / "kafka.log"
        self._properties = data_dir / "server.properties"
        listening = [f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controller}", *listeners]
        own = _PROPERTIES.format(controller=controller, data=data_dir / "data", listeners=",".join(listening))
        self._properties.write_text(own + "".join(f"{line}\n" for line in properties))
        self._users = [argument for user in users for argument in ("--add-scram", user)]
        self._formatted = False
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return once it answers a metadata request. Raises `RuntimeError` with its last words when it does not."""
        if not self._formatted:
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            folder = [f"--cluster-id={cluster}", "-c", str(self._properties)]  # joined: an id may begin with a hyphen
            formatting = self._java("kafka.tools.StorageTool", "format", *folder, *self._users)
            if await asyncio.to_thread(formatting.wait, _START_S):
                raise RuntimeError(f"Kafka could not format its folder: {self._tail()}")
            self._formatted = True
        self._process = self._java("kafka.Kafka", str(self._properties))
        try:
            async with asyncio.timeout(_START_S):
                while not await self._answers():
                    self._still(self._process)
                    await asyncio.sleep(_LOOK_S)
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """End it in good order; killed when it has not ended after a while."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        await self._end(signal.SIGKILL)

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        # The first compiler alone and the plain collector: half the time to start, and room for the tests beside it.
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["java", *options, "-cp", f"{self._jars}/*", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _still(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            raise RuntimeError(f"Kafka ended while it started: {self._tail()}")

    async def _answers(self) -> bool:
        host, _, port = self.bootstrap_servers.partition(":")
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            await writer.wait_closed()
            await list_topics(self.bootstrap_servers)
            return True
        return False

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            await ended(process, how, _STOP_S)

    def _tail(self) -> str:
        return " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-3:])


class ForeignKafka:
    """The cluster that `JOBBRIDGE_TEST_KAFKA` names: it is there already, and not ours to end."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    async def start(self) -> None:
        unable("JOBBRIDGE_TEST_KAFKA names a cluster that a test cannot start")

    async def stop(self) -> None:
        unable("JOBBRIDGE_TEST_KAFKA names a cluster that a test cannot stop")

    async def kill(self) -> None:
        unable("JOBBRIDGE_TEST_KAFKA names a cluster that a test cannot kill")


@asynccontextmanager
async def apache_kafka(
    data_dir: Path, *properties: str, listeners: Sequence[str] = (), users: Sequence[str] = ()
) -> AsyncIterator[Broker]:
    """A running Kafka, fetched first where this machine has not got it yet (about 45 MB).

    `properties` are lines of its configuration that come after ours, `listeners` further ones such as
    `SECURE://127.0.0.1:9093`, `users` such as `SCRAM-SHA-256=[name=ann,password=...]`. A cluster that is there already
    has its own.
    """
    if servers := os.environ.get("JOBBRIDGE_TEST_KAFKA"):
        yield ForeignKafka(servers)
        return
    broker = ApacheKafka(await asyncio.to_thread(kafka_jars), data_dir, *properties, listeners=listeners, users=users)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def java_partitions(keys: Sequence[str], partitions: int, folder: Path) -> list[int]:
    """Where the Java client itself puts these keys. `folder` takes a small program, which a JDK runs from source."""
    jars = kafka_jars()
    if shutil.which("javac") is None:
        unable("asking the Java client needs a JDK, and there is no javac here")
    Path(folder, "Partitions.java").write_text(_JAVA)
    done = _run(["java", "-cp", f"{jars}/*", "Partitions.java", str(partitions), *keys], folder)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def kafka_configs(arguments: Sequence[str]) -> None:
    """What `kafka-configs.sh` runs, with these arguments."""
    jars = kafka_jars()
    done = _run(["java", "-cp", f"{jars}/*", "kafka.admin.ConfigCommand", *arguments], jars)
    assert done.returncode == 0, done.stdout + done.stderr


def unable(reason: str) -> NoReturn:
    """Skip the test with the reason; where `CI` is set that is a failure, so that nothing goes untested there."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def kafka_jars() -> Path:
    """The folder with Kafka and all it needs, the Java client included; fetched with Maven the first time."""
    if shutil.which("java") is None:
        unable("Apache Kafka needs Java 17, and there is no java here")
    cache = cache_folder()
    jars = cache / f"kafka-{VERSION}"
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None:
        unable(f"Apache Kafka is fetched with Maven, and there is no mvn here; nor is there {jars}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as folder:
        fetched = Path(folder) / "jars"
        Path(folder, "pom.xml").write_text(_POM)
        maven = ["mvn", "-q", "-B", _COPY, "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        done = _run(maven, folder)
        if done.returncode:
            unable(f"Maven could not fetch Apache Kafka: {(done.stdout + done.stderr).strip()[-300:]}")
        with suppress(OSError):  # somebody else was faster
            fetched.rename(jars)
    return jars


def _run(command: Sequence[str], folder: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_FETCH_S, check=False
    )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
