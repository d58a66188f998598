"""Doubles that several suites share: only for what a test cannot have for real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from bridge.intake.provider import Answer, Refusal, Request


class CannedHttp:
    """Answers requests from a function and remembers them. An `Answer` from it is an HTTP answer as it stands."""

    def __init__(self, answer: Callable[[Request], Any]) -> None:
        self._answer = answer
        self.requests: list[Request] = []

    async def json(self, request: Request, refusal: Refusal) -> Any:
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, Answer):
            raise refusal(answer)
        return answer

    async def exchange(self, request: Request) -> Answer:
        self.requests.append(request)
        answer = self._answer(request)
        return answer if isinstance(answer, Answer) else Answer(200, {}, orjson.dumps(answer), 0.0)
