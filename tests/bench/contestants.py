"""Who takes part in the bench: how each is started, and how many of the events it gets."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import yaml
from cache import cache_folder

MQ_BRIDGE = "1.2.0"
_HERE = Path(__file__).parent


class Course(NamedTuple):
    """What a contestant has to run: from the streams at `url` into `topic`."""

    url: str
    bootstrap_servers: str
    topic: str
    streams: int
    directory: Path
    """Its own, for what it wants to keep."""
    profile: Path | None


class Contestant(NamedTuple):
    """One way to bring the streams into the topic."""

    what: str
    command: Callable[[Course], Sequence[str]]
    share_of_few: float = 1.0
    """How much of the events it gets: a slow one is measured as well on fewer."""
    share_of_many: float = 1.0
    """The same, for a hundred streams and more."""

    def events(self, streams: int, events: int) -> int:
        return int(events * (self.share_of_few if streams < 100 else self.share_of_many))


def _jobbridge(course: Course) -> Sequence[str]:
    token = course.directory / "token"
    token.write_text("a-key")
    source = {
        "provider": "auvy",
        "base_url": course.url,
        "token": {"file": str(token)},
        "requests_per_minute": 1e6,
        "jobs": [f"job-{number}" for number in range(course.streams)],
    }
    sink = {
        "kind": "kafka",
        "bootstrap_servers": course.bootstrap_servers,
        "topic": course.topic,
        "positions_topic": f"{course.topic}.positions",
        "transactional_id_prefix": course.topic,
    }
    settings = {
        "sources": {"auvy": source},
        "sinks": {"kafka": sink},
        "journal": {"url": f"sqlite:///{course.directory}/journal.db"},
        "control": {"host": "127.0.0.1", "port": 0},
    }
    config = course.directory / "jobbridge.yaml"
    config.write_text(yaml.safe_dump(settings))
    under = ["-m", "cProfile", "-o", str(course.profile)] if course.profile else []
    return [*under, "-m", "bridge", "run", "-c", str(config)]


def _hand_loop(way: str) -> Callable[[Course], Sequence[str]]:
    return lambda course: [
        str(_HERE / "hand_loop.py"),
        way,
        course.url,
        course.bootstrap_servers,
        course.topic,
        str(course.streams),
    ]


def _mq_bridge(way: str) -> Callable[[Course], Sequence[str]]:
    return lambda course: [
        str(_HERE / "mq_bridge_routes.py"),
        way,
        str(_mq_bridge_package()),
        course.url,
        course.bootstrap_servers,
        course.topic,
        str(course.streams),
        str(course.directory),
    ]


def _mq_bridge_package() -> Path:
    """The folder with the package, fetched once (about 100 MB): a compiled engine that nobody but this bench needs."""
    cache = cache_folder()
    package = cache / f"mq-bridge-{MQ_BRIDGE}"
    if package.is_dir():
        return package
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as folder:
        fetched = Path(folder) / "package"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
        subprocess.run([*pip, "--target", str(fetched), f"mq-bridge=={MQ_BRIDGE}"], check=True)
        with suppress(OSError):  # somebody else was faster
            fetched.rename(package)
    return package


CONTESTANTS = {
    "send_and_wait": Contestant(
        "httpx-sse and aiokafka, each event sent and waited for", _hand_loop("send_and_wait"), 0.1, 0.5
    ),
    "batched": Contestant("the same, up to 500 idempotent sends at a time", _hand_loop("batched")),
    "transactions": Contestant("the same, up to 500 and their cursors in a transaction", _hand_loop("transactions")),
    "mq-bridge": Contestant(f"mq-bridge {MQ_BRIDGE}, a route a stream, cursors kept", _mq_bridge("kept"), 0.5, 0.5),
    "mq-bridge-loose": Contestant(f"mq-bridge {MQ_BRIDGE} at its quickest, no cursors", _mq_bridge("loose"), 1.0, 0.5),
    "jobbridge": Contestant("journalled, exactly once, its defaults", _jobbridge),
}
