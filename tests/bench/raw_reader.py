"""Reads the streams and does nothing with them: `python tests/bench/raw_reader.py BASE_URL STREAMS STREAM_BYTES`."""

from __future__ import annotations

import selectors
import socket
import sys
from urllib.parse import urlsplit


def main(base_url: str, streams: int, stream_bytes: int) -> None:
    """Return when every stream has brought so many bytes, what HTTP itself adds to them not counted exactly."""
    address = urlsplit(base_url)
    ready = selectors.DefaultSelector()
    left = dict.fromkeys(range(streams), stream_bytes)
    for number in left:
        stream = socket.create_connection((address.hostname, address.port))
        stream.sendall(f"GET /v1/jobs/job-{number}/stream HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        ready.register(stream, selectors.EVENT_READ, number)
    while left:
        for key, _ in ready.select():
            arrived = key.fileobj
            assert isinstance(arrived, socket.socket)
            left[key.data] -= len(arrived.recv(1 << 18))
            if left[key.data] <= 0:
                ready.unregister(arrived)
                del left[key.data]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
