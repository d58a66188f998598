"""mq-bridge as its pages describe it for server-sent events, to measure against.

`python tests/bench/mq_bridge_routes.py WAY PACKAGE BASE_URL BOOTSTRAP_SERVERS TOPIC STREAMS DIRECTORY`. Its input for
them, `http_bulk` with `stream: sse`, reads one response, so there is one route a stream, and each route brings a
runtime of its own. The ways:

- `kept`: straight to Kafka, each stream's cursor saved after the broker has acknowledged; nothing is lost in a crash.
- `loose`: the quickest that we found, whatever a crash loses. No cursor, all routes into one queue in memory and one
  route from there to Kafka. A thousand routes are busy even when idle; there its `http` output is quicker, which sends
  all requests at once and passes on what streams back, but does not open a broken stream again.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

MANY = 500
Config = dict[str, Any]


class Bridge:
    """The package, from a folder that only this contestant sees, and what runs of it."""

    def __init__(self, package: str, base_url: str, kafka: Config, streams: int) -> None:
        sys.path.insert(0, package)
        self._package = importlib.import_module("mq_bridge")
        self._base_url = base_url
        self._kafka = kafka
        self._streams = streams
        self._routes: list[object] = []

    def kept(self, directory: str) -> None:
        for number in range(self._streams):
            cursor = {"cursor_id": f"job-{number}", "checkpoint_store": f"file://{directory}/{number}.json"}
            self._start(self._source(number, cursor), self._kafka)

    def loose(self) -> None:
        if self._streams >= MANY:
            return self._request_all()
        queue = {"memory": {"topic": "events", "capacity": 20_000}}
        self._start(queue, self._kafka)
        for number in range(self._streams):
            self._start(self._source(number, {}), queue)
        return None

    def _request_all(self) -> None:
        requests = {
            "url": self._base_url,
            "method": "GET",
            "batch_concurrency": self._streams,
            "request_timeout_ms": 3_600_000,
            "stream_response_to": self._kafka,
        }
        publisher = self._package.Publisher.from_config({"http": requests})
        message = self._package.Message
        publisher.send_batch([message(b"", {"http_path": _path(number)}) for number in range(self._streams)])

    def _source(self, number: int, cursor: Config) -> Config:
        return {"http_bulk": {"url": self._base_url, "read": {"path": _path(number), "stream": "sse"} | cursor}}

    def _start(self, source: Config, sink: Config) -> None:
        route = self._package.Route.from_config({"input": source, "output": sink, "batch_size": 1024})
        route.start()
        self._routes.append(route)


def _path(number: int) -> str:
    return f"/v1/jobs/job-{number}/stream"


def main(
    way: str, package: str, base_url: str, bootstrap_servers: str, topic: str, streams: int, directory: str
) -> None:
    if streams > (os.cpu_count() or 1):  # more runtimes than cores: a third less memory, and quicker
        os.environ["TOKIO_WORKER_THREADS"] = "1"
    kafka = {"kafka": {"url": bootstrap_servers, "topic": topic, "create_topic": False}}
    bridge = Bridge(package, base_url, kafka, streams)
    if way == "kept":
        bridge.kept(directory)
    else:
        bridge.loose()
    signal.pause()


if __name__ == "__main__":
    _, chosen, folder, address, servers, name, count, scratch = sys.argv
    main(chosen, folder, address, servers, name, int(count), scratch)
