"""A good receiver whose judge is the npm library `standardwebhooks`: it writes down what it accepts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import orjson
from arrivals import Arrival
from judging import node, running

# The keys are the secret, the file to write to, and the share that is refused after it was verified.
_JUDGE = """\
import { appendFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const [file, fail] = process.argv.slice(3);
const judge = (secret, body, headers) => {
  try {
    new Webhook(secret).verify(body, headers);
  } catch (error) {
    appendFileSync(file, JSON.stringify({ unverified: String(error) }) + "\\n");
    throw error;
  }
  if (Math.random() < Number(fail)) throw new Error("not now");
  const { subject, id, sequence, recordedtime } = JSON.parse(body);
  const kept = { webhook_id: headers["webhook-id"], at_ms: Date.now(), subject, id, sequence, recordedtime };
  appendFileSync(file, JSON.stringify(kept) + "\\n");
};
"""


@contextmanager
def npm_receiver(directory: Path, secret: str, fail: float = 0.0) -> Iterator[str]:
    """Listening until the context ends; its URL. Skips where there is no node."""
    _file(directory).touch()
    with running(node(_JUDGE, [secret, str(_file(directory)), str(fail)], directory)) as address:
        yield f"{address}/0"


def npm_arrivals(directory: Path, endpoint: str) -> list[Arrival]:
    """What it accepted, under the name of its endpoint. All of it verified."""
    told = [orjson.loads(line) for line in _file(directory).read_bytes().splitlines()]
    assert [one for one in told if "unverified" in one] == []
    return [
        Arrival(
            endpoint=endpoint,
            webhook_id=one["webhook_id"],
            job=one["subject"],
            event_id=one["id"],
            sequence=int(one["sequence"]),
            at_ms=one["at_ms"],
            recorded_ms=datetime.fromisoformat(one["recordedtime"]).timestamp() * 1000,
        )
        for one in told
    ]


def _file(directory: Path) -> Path:
    return directory / "npm-arrivals.jsonl"
