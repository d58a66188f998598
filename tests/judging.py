"""Receivers in their own processes, in other languages, each around a `judge` that is not ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from npm import npm_package

STANDARDWEBHOOKS = "1.1.1"

# Each is a receiver: POST /<n> is verified with the nth key, and answered with 204 or with 400 and the reason.
_PYTHON = """\
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

{judge}

class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body, status, reason = self.rfile.read(int(self.headers["content-length"])), 204, b""
        try:
            judge(sys.argv[1 + int(self.path[1:])], body, dict(self.headers))
        except Exception as error:
            status, reason = 400, repr(error).encode()
        self.send_response(status)
        if reason:
            self.send_header("content-length", str(len(reason)))
        self.end_headers()
        self.wfile.write(reason)

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Hook)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

_NODE = """\
import {{ createServer }} from "node:http";

{judge}

const server = createServer(async (request, response) => {{
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  try {{
    await judge(process.argv[2 + Number(request.url.slice(1))], Buffer.concat(chunks), request.headers);
    response.writeHead(204).end();
  }} catch (error) {{
    response.writeHead(400).end(String(error));
  }}
}});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[str]:
    """A receiver in its own process; the address it listens on."""
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "it ended before it listened"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def python(judge: str, keys: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", _PYTHON.format(judge=judge), *keys]


def node(judge: str, keys: Sequence[str], folder: Path) -> list[str]:
    modules = npm_package("standardwebhooks", STANDARDWEBHOOKS)
    (folder / "node_modules").symlink_to(modules)
    (folder / "receiver.mjs").write_text(_NODE.format(judge=judge))
    return ["node", str(folder / "receiver.mjs"), *keys]
