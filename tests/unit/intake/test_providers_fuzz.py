"""Every plug against answers and frames with anything in any place: none may raise but what the loops understand, and
whatever is read must make events that can be journalled."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from bridge.errors import BridgeError, Temporary
from bridge.event import Cursor, JobKey
from bridge.intake.decoding import decoded
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Action, Answer, Frame, Provider, Reading, Refusal, Request
from bridge.intake.providers import catalogue

PAGES_MAX = 20
SOURCES: dict[str, dict[str, Any]] = {
    "auvy": {"token": SecretStr("t"), "cancelled_when": "^stopped"},
    "tenfive": {"base_url": "http://tenfive.test", "token": SecretStr("k:s")},
    "flowrelay": {"token": SecretStr("t")},
    "archastro": {"api_key": SecretStr("k"), "refresh_token": SecretStr("r")},
    **{
        name: {"provider": "sse", "base_url": "http://api.test"} for name in ("openai", "langgraph", "replicate", "fal")
    },
    "reckoning": {
        "provider": "sse",
        "api": {
            "base_url": "http://api.test",
            "statuses": {"running": "running", "completed": "completed"},
            "stream": {"url": "/{job_id}/s", "latest_value": True},
            "status": {
                "url": "/{job_id}",
                "status": "status",
                "progress": "to_number(id)",
                "step": "sum(output)",
                "fingerprint": "[to_number(id), @]",
            },
            "listing": {"url": "/", "ids": "data[].[id]", "next": "next"},
        },
    },
}
DOCUMENT: dict[str, Any] = {
    "status": "running", "id": "r", "type": "response.created", "seq": 3, "sequence_number": 3, "sequence": 3,
    "timestamp": "2026-03-25T14:30:00Z", "event": "tool_use", "kind": "k", "time": 12.5, "completed_at": 1.5,
    "payload": {"redacted": False, "value": {"to_status": "failed", "kind": "content_delta", "content_delta": "x"}},
    "job": {"id": "r", "status": "failed", "error": "e", "error_code": "c"}, "run": {"status": "succeeded"},
    "result": {"a": 1}, "error": {"code": "c", "message": "m"}, "output": [1, 2], "response": {"status": "queued"},
    "failedReason": "stopped", "progress": {"p": 1}, "current_step": "s", "waitingFor": ["w"], "limit": 2,
    "jobs": [{"job_id": "r"}, {"id": "q"}], "events": [{"seq": 4, "type": "step.done"}], "next_cursor": "n",
    "data": [{"id": "r", "status": "running", "sequence": 5, "type": "node_started", "record": {}}],
    "after_cursor": "a", "has_more": True, "worker": {"status": "executing"}, "queue_position": 2, "logs": [{}],
    "results": [{"id": "p"}], "next": "/v1/predictions?cursor=1", "tasks": [{"interrupts": [1]}], "token": "t",
    "paths": {"/v1/runs/{id}/events": {"get": {"parameters": [{"name": "after", "in": "query"}]}}},
    "reason_code": "R", "request_id": "q", "retryAfter": 3, "cancel_reason": None, "__interrupt__": [1],
}  # fmt: skip
KINDS = (
    "message", "run_event", "session_update", "session_event", "run_update", "error", "end", "done", "output",
    "values", "values|ns", "messages", "metadata",
)  # fmt: skip

LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
    | st.sampled_from(["", "-1", "9" * 30, "1e999", "\ud800", "\x00", "completed", "//evil.test/", "http://["])
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A document that any of the plugs knows something of, with anything in one to three places of it."""
    document = json.loads(json.dumps(DOCUMENT))
    for _ in range(draw(st.integers(0, 3))):
        parent, name = document, draw(st.sampled_from(sorted(DOCUMENT)))
        while isinstance(inner := parent[name], dict | list) and inner and draw(st.booleans()):
            parent, name = inner, draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        parent[name] = draw(ANYTHING)
    whole = draw(st.sampled_from([document, document, document, [document], document["data"], draw(ANYTHING)]))
    return json.dumps(whole).encode()


class Wire:
    """Answers each request with the next of the bodies, over and over, decoded as off the wire; some are refusals."""

    def __init__(self, answers: Sequence[tuple[int, bytes]]) -> None:
        self._answers = answers
        self._asked = 0

    async def json(self, request: Request, refusal: Refusal) -> Any:
        answer = await self.exchange(request)
        if answer.status >= 400:
            raise refusal(answer)
        try:
            return decoded(answer.body)[0]
        except ValueError as error:
            raise Temporary("no JSON", reason="not_json") from error

    async def exchange(self, request: Request) -> Answer:
        assert request.url.startswith(("http://api.test/", "http://tenfive.test/", "https://")), request.url
        assert "evil" not in request.url.split("/")[2]
        self._asked += 1
        status, body = self._answers[self._asked % len(self._answers)]
        return Answer(status, {"Retry-After": "1"}, body, 0.0)


def plug(name: str, wire: Wire, **more: Any) -> Provider:
    given: dict[str, Any] = {"provider": name} | SOURCES[name] | more
    if given["provider"] == "sse" and "api" not in given:
        given["api"] = {"file": str(Path(__file__).parents[3] / "config" / "providers" / f"{name}.yaml")}
    kind = catalogue()[given["provider"]]
    built: Provider = kind.build(kind.settings.model_validate(given), wire)
    return built


async def some(pages: AsyncGenerator[Sequence[Any], None]) -> list[Any]:
    """What the first pages tell until it ends or something the loops understand is raised."""
    told: list[Any] = []
    with suppress(BridgeError):
        async with aclosing(pages):
            async for page in pages:
                told.append(page)
                if len(told) == PAGES_MAX:
                    break
    return [one for page in told for one in page]


ANSWERS = st.lists(
    st.tuples(st.sampled_from([200, 200, 200, 200, 400, 401, 404, 410, 422, 429, 500]), bodies()),
    min_size=1,
    max_size=3,
)
FRAMES = st.lists(
    st.builds(
        Frame,
        st.sampled_from(KINDS) | st.text(max_size=5),
        bodies() | st.binary(max_size=20),
        st.sampled_from(["", "1-1", "3", "9" * 400, "0-0", "\u00fc \u2028"]),
        st.sampled_from([0, 0, 0, 7]),
    ),
    max_size=4,
)


def read(provider: Provider, frames: Sequence[Frame]) -> tuple[list[Reading], Cursor | None]:
    """What the frames say, and the cursor behind them."""
    told: list[Reading] = []
    cursor: Cursor | None = None
    for frame in frames:
        readings = provider.read(frame, cursor)
        assert list(provider.read(frame, cursor)) == list(readings), "the same frame twice is the same reading twice"
        told.extend(readings)
        cursor = next((reading.cursor for reading in reversed(readings) if reading.cursor), cursor)
    return told, cursor


async def asked(provider: Provider, job_id: str, cursor: Cursor | None) -> list[Reading]:
    """Everything else that can be asked of a provider, once."""
    told: list[Reading] = []
    for place in (None, cursor):
        told += await some(provider.backfill(job_id, place))
        provider.stream(job_id, place)
    with suppress(BridgeError):
        told.append(await provider.status(job_id))
    assert all(isinstance(found, str) for found in await some(provider.jobs()))
    with suppress(BridgeError):
        await provider.renew()
    for action in Action:
        with suppress(BridgeError):
            await provider.act(job_id, action, {"action": "approve", "content": "x", "input": 3})
    return told


@pytest.mark.parametrize(
    ("name", "job_id"), [*((name, "t/r") for name in sorted(SOURCES)), ("archastro", "routine_run:r")]
)
@given(answers=ANSWERS, frames=FRAMES)
@seed(20261122)
@settings(database=None, max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
async def test_nothing_off_the_wire_raises_what_the_loops_do_not_understand(
    name: str, job_id: str, answers: list[tuple[int, bytes]], frames: list[Frame]
) -> None:
    provider = plug(name, Wire(answers))
    told, cursor = read(provider, frames)
    told += await asked(provider, job_id, cursor)
    for status, body in answers:
        assert isinstance(provider.refusal(Answer(max(status, 400), {}, body, 0.0)), BridgeError)
    life = Lifecycle(JobKey("src", job_id), "kind", b"")
    for reading in told:
        life.apply([reading])
    Lifecycle(JobKey("src", job_id), "kind", life.memory())


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_address_may_hold_a_password(name: str) -> None:
    with pytest.raises(ValidationError, match="base_url: an address holds no user or password") as caught:
        plug(name, Wire([(200, b"{}")]), base_url="https://user:hidden@api.test")
    assert "hidden" not in str(caught.value)
