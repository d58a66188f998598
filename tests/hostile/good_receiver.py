"""A process with many good receivers, one a path: each delivery is verified with `standardwebhooks` and remembered.

With `--fail` each of them refuses that share of what it verified: with 503, 429, or by hanging up. `GET /_ledger` tells
what was accepted, how many were refused on purpose, and what did not verify.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from random import Random
from typing import Any

from aiohttp import web
from arrivals import Arrival
from standardwebhooks import Webhook

from bridge.demo.serving import run_process
from bridge.serving import serve

SECRET_VARIABLE = "HOSTILE_SECRET"


class Receivers:
    """All of them, with one key."""

    def __init__(self, secret: str, fail: float, dice: Random) -> None:
        self._webhook = Webhook(secret)
        self._fail = fail
        self._dice = dice
        self._accepted: list[Arrival] = []
        self._refused = 0
        self._unverified: list[str] = []

    async def hook(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            event = self._webhook.verify(body, dict(request.headers))
        except Exception as error:  # noqa: BLE001 - the library also raises ValueError and more
            self._unverified.append(f"{type(error).__name__}: {error}")
            return web.Response(status=400)
        if self._dice.random() < self._fail:
            self._refused += 1
            return self._refuse(request)
        self._accepted.append(_arrival(request, event))
        return web.Response(status=204)

    def _refuse(self, request: web.Request) -> web.Response:
        status = self._dice.choice([503, 429, None])
        if status is None and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 500)

    async def ledger(self, _: web.Request) -> web.Response:
        shape = {"accepted": self._accepted, "refused": self._refused, "unverified": self._unverified[:10]}
        return web.json_response(shape)


def _arrival(request: web.Request, event: dict[str, Any]) -> Arrival:
    return Arrival(
        endpoint=request.match_info["name"],
        webhook_id=request.headers["webhook-id"],
        job=event["subject"],
        event_id=event["id"],
        sequence=int(event["sequence"]),
        at_ms=time.time() * 1000,
        recorded_ms=datetime.fromisoformat(event["recordedtime"]).timestamp() * 1000,
    )


@asynccontextmanager
async def receivers(secret: str, fail: float, seed: int) -> AsyncIterator[str]:
    """Listen until the context ends; yields the URL, to which each receiver's name is added."""
    app, kept = web.Application(client_max_size=8 << 20), Receivers(secret, fail, Random(seed))
    app.add_routes([web.get("/_ledger", kept.ledger), web.post("/{name}", kept.hook)])
    async with serve(app, "127.0.0.1", 0) as url:
        yield url


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fail", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(run_process(receivers(os.environ[SECRET_VARIABLE], options.fail, options.seed)))
