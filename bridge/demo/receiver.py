"""A webhook receiver that trusts nothing: every signature is checked with the Standard Webhooks reference library.

`GET /_receiver/received` is its ledger: what it accepted (answered 2xx), in order of arrival. Deliveries that it
verified but answered with an error on purpose are counted only, since the sender owes them again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from bridge.demo.serving import run_process
from bridge.serving import serve

SECRET_VARIABLE = "DEMO_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
_BODY_BYTES_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class Mood:
    """How often the receiver makes trouble, per delivery, from 0 to 1."""

    server_error: float = 0.0
    rate_limit: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.5
    seed: int = 1


class Receiver:
    """The receiver's routes and its memory."""

    def __init__(self, secret: str, mood: Mood) -> None:
        self._webhook = Webhook(secret)
        self._mood = mood
        self._dice = Random(mood.seed)  # noqa: S311 - dice, no secret
        self._accepted: list[dict[str, Any]] = []
        self._answers: Counter[int] = Counter()
        self._verified: Counter[str] = Counter()
        self._refused: list[str] = []

    def application(self) -> web.Application:
        """The hook and the ledger."""
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.add_routes(
            [
                web.post("/hook", self._hook),
                web.get("/_receiver/received", self._received),
                web.get("/_receiver/progress", self._progress),
            ]
        )
        return app

    async def _hook(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            event = self._webhook.verify(body, dict(request.headers))
            arrival = _arrival(request, event)
        except Exception as error:  # noqa: BLE001 - the library also raises ValueError, KeyError and more
            self._refused.append(f"{type(error).__name__}: {error}")
            return self._answer(400)
        self._verified[arrival["id"].partition(":")[0]] += 1
        roll = self._dice.random()
        if roll < self._mood.server_error:
            return self._answer(500)
        if roll < self._mood.server_error + self._mood.rate_limit:
            return self._answer(429, {"Retry-After": "1"})
        self._accepted.append(arrival)
        if self._dice.random() < self._mood.slow:
            await asyncio.sleep(self._mood.slow_s)
        return self._answer(204)

    def _answer(self, status: int, headers: dict[str, str] | None = None) -> web.Response:
        self._answers[status] += 1
        return web.Response(status=status, headers=headers)

    async def _received(self, _: web.Request) -> web.Response:
        return web.json_response({"accepted": self._accepted, **self._figures()})

    async def _progress(self, _: web.Request) -> web.Response:
        return web.json_response(self._figures())

    def _figures(self) -> dict[str, Any]:
        return {
            "accepted_count": len(self._accepted),
            "verified": self._verified.total(),
            "verified_by_source": dict(self._verified),
            "refused": len(self._refused),
            "refusals": self._refused[:10],
            "answers": {str(status): count for status, count in sorted(self._answers.items())},
        }


def _arrival(request: web.Request, event: dict[str, Any]) -> dict[str, Any]:
    """What to remember of a delivery; raises KeyError when the body lacks what it promises."""
    return {
        "webhook_id": request.headers["webhook-id"],
        "id": event["id"],
        "job": event["subject"],
        "type": event["type"],
        "sequence": int(event["sequence"]),
    }


@asynccontextmanager
async def receiver(secret: str, mood: Mood, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """A running receiver; yields its URL. Hooks go to `/hook`."""
    async with serve(Receiver(secret, mood).application(), address, port) as url:
        yield url


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process of its own; the secret comes from the environment."""
    parser = argparse.ArgumentParser("bridge.demo.receiver", description="A webhook receiver that verifies.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("server_error", "rate_limit", "slow"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=0.0, metavar="RATE")
    options = parser.parse_args(arguments)
    mood = Mood(options.server_error, options.rate_limit, options.slow, seed=options.seed)
    asyncio.run(run_process(receiver(os.environ[SECRET_VARIABLE], mood, port=options.port)))


if __name__ == "__main__":
    main()
