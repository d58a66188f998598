"""A person's wish, passed on through the API to a provider of whatever mood."""

from __future__ import annotations

from typing import Any, cast

import orjson
import pytest

from bridge.errors import Fatal, Rejected, Temporary
from bridge.event import JobKey, Json
from bridge.intake.errand import pass_on
from bridge.intake.provider import Action, Answer, Provider, Request, SourceSettings
from bridge.intake.source import Source
from bridge.journal.store import SubscriptionRecord

from .room import TOKEN, Room, open_room

KEY = JobKey("auvy", "job/1")
NESTED = orjson.loads(b'{"a":' * 253 + b"1" + b"}" * 253)
"""As deep as can just be sent, but not be journalled any more."""


class Helpful:
    """Answers every wish with what it was given."""

    def __init__(self, outcome: Answer | Exception) -> None:
        self._outcome = outcome
        self.asked: list[tuple[str, Action, Json]] = []

    async def renew(self) -> bool:
        return False

    async def act(self, job_id: str, action: Action, body: Json) -> Answer:
        self.asked.append((job_id, action, body))
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def answered(status: int, body: Any = None) -> Answer:
    return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, orjson.dumps(body), 0.0)


class Unopened:
    """Streams that nobody should open here."""

    full = False

    def open(self, request: Request, refusal: Any) -> Any:
        raise AssertionError


async def asked(
    outcome: Answer | Exception, action: str = "input", **options: Any
) -> tuple[int, Any, Helpful, list[dict[str, Any]]]:
    """Status, body, the provider and the events journalled after following a job and acting on it."""
    provider = Helpful(outcome)
    source = Source("auvy", "auvy", cast(Provider, provider), Unopened(), SourceSettings(provider="auvy"))
    room: Room

    async def act(record: SubscriptionRecord, wish: Action, body: Json) -> Answer:
        return await pass_on(source, record, wish, body, room.store)

    async with open_room(act=act) as room:
        await room.store.follow([KEY], "api")
        status, body = await room.call("POST", f"/v1/jobs/auvy/job%2F1/{action}", **options)
        await room.store.register(["all"])
        end = await room.store.position("all", 0)
        entries = await room.store.pending(0, 0, limit=10) if end else []
        return status, body, provider, [orjson.loads(entry.data) | {"type": entry.type} for entry in entries]


async def test_the_body_goes_to_the_provider_and_its_answer_comes_back_and_both_are_journalled() -> None:
    status, body, provider, events = await asked(answered(200, {"ok": True}), json={"input": {"action": "approve"}})
    assert (status, body) == (200, {"ok": True})
    assert provider.asked == [("job/1", Action.INPUT, {"input": {"action": "approve"}})]
    (event,) = events
    assert event["type"] == "job.state"
    assert event["job"]["id"] == "job/1"
    assert event["detail"] == {
        "action": "input",
        "request": {"input": {"action": "approve"}},
        "answer": {"status": 200, "body": {"ok": True}},
    }


@pytest.mark.parametrize("action", ["cancel", "resume"])
async def test_no_body_is_an_empty_one(action: str) -> None:
    status, _, provider, _ = await asked(answered(202, {}), action)
    assert status == 202
    assert provider.asked == [("job/1", Action(action), {})]


@pytest.mark.parametrize(
    ("outcome", "status", "journalled"),
    [
        (answered(400, {"message": "already completed"}), 400, 1),
        (answered(409, {}), 409, 1),
        (answered(401, {}), 502, 0),  # our key, not the caller's
        (answered(500, {}), 502, 1),
        (Rejected("no route for resume", reason="unsupported"), 501, 0),
        (Rejected("`input` must be an object", reason="invalid"), 422, 0),
        (Temporary("no answer", after_s=3), 503, 0),
        (Fatal("no key"), 502, 0),
    ],
)
async def test_a_refusal_is_a_problem_that_says_whose_it_is(
    outcome: Answer | Exception, status: int, journalled: int
) -> None:
    got, body, _, events = await asked(outcome, json={})
    assert (got, body["status"]) == (status, status)
    assert len(events) == journalled


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"data": b"{"}, 415),
        ({"data": b"{", "headers": {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}}, 400),
        ({"json": [1]}, 422),
        ({"json": NESTED}, 422),
    ],
)
async def test_a_body_that_is_no_object_reaches_nobody(options: dict[str, Any], status: int) -> None:
    got, _, provider, _ = await asked(answered(200), **options)
    assert got == status
    assert provider.asked == []


async def test_only_followed_jobs_are_acted_on() -> None:
    async with open_room() as room:
        assert (await room.call("POST", "/v1/jobs/auvy/nobody/cancel"))[0] == 404
        assert (await room.call("POST", "/v1/jobs/auvy/nobody/explode"))[0] == 404


@pytest.mark.parametrize("kind", ["", "charset=utf-8", "no type", "a/b/c"])
async def test_an_answer_of_no_proper_type_comes_back_all_the_same(kind: str) -> None:
    status, _, _, events = await asked(Answer(200, {"Content-Type": kind}, b"{}", 0.0), json={})
    assert (status, len(events)) == (200, 1)
