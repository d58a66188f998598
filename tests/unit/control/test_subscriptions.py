"""The API of subscriptions and of the groups they belong to."""

from __future__ import annotations

import pytest

from bridge.control.answers import address
from bridge.errors import Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobEvent, JobKey
from bridge.journal.store import Checkpoint, SubscriptionState

from .room import Room, Scripted, open_room

STRANGE_IDS = [
    "plain",
    "a/b",
    "a/pause",
    "pause",
    "resume",
    "/",
    "//",
    "a%2Fb",
    "a%2fb",
    "%",
    "%25",
    "100%",
    "%FF",
    "a b",
    "a+b",
    "a?b#c",
    "{job}",
    "..a",
    "...",
    "é",
    "仕事/三",
    "🦀",
    "a;b=c,d",
    "a:b@c",
    "x" * 512,
    "仕" * 512,
]


async def _follow(room: Room, job_id: str, source: str = "auvy") -> tuple[int, dict[str, object]]:
    return await room.call("POST", "/v1/subscriptions", json={"source": source, "job_id": job_id})


async def test_a_job_is_followed_once_however_often_it_is_handed_in() -> None:
    async with open_room() as room:
        status, first = await _follow(room, "j1")
        assert (status, first["state"], first["origin"]) == (201, "active", "api")
        assert await _follow(room, "j1") == (200, first)
        assert len(await room.states()) == 1


@pytest.mark.parametrize("job_id", STRANGE_IDS)
async def test_whatever_a_job_id_holds_its_address_leads_back_to_it(job_id: str) -> None:
    async with open_room() as room:
        headers = {"Authorization": f"Bearer {room.view.token}"}
        body = {"source": "auvy", "job_id": job_id}
        async with room.http.post(room.url("/v1/subscriptions"), json=body, headers=headers) as reply:
            assert reply.status == 201
            location = reply.headers["Location"]
        assert location == address(JobKey("auvy", job_id))
        for method, suffix, state in [
            ("GET", "", "active"),
            ("POST", "/pause", "paused"),
            ("POST", "/resume", "active"),
        ]:
            status, shown = await room.call(method, location + suffix)
            assert (status, shown["job_id"], shown["state"]) == (200, job_id, state)
        assert await room.call("DELETE", location) == (204, None)
        assert await room.states() == {JobKey("auvy", job_id): SubscriptionState.REMOVED}


async def test_an_encoded_slash_and_a_route_suffix_are_not_confused() -> None:
    async with open_room() as room:
        await room.put("auvy", "a")
        await room.put("auvy", "a/pause")
        status, shown = await room.call("POST", "/v1/subscriptions/auvy/a%2Fpause/pause")
        assert (status, shown["job_id"]) == (200, "a/pause")
        assert (await room.states())[JobKey("auvy", "a")] is SubscriptionState.ACTIVE
        assert (await room.call("POST", "/v1/subscriptions/auvy/a%2Fpause"))[0] == 405


async def test_a_subscription_is_shown_whole() -> None:
    async with open_room() as room:
        memory = b'{"job":{"id":"j1","status":"running"}}'
        events = [JobEvent(f"e{number}", "auvy", "j1", EventType.OUTPUT, b"{}") for number in range(9)]
        await room.put("auvy", "j1", checkpoint=Checkpoint(Cursor("17-2"), memory), events=events)
        await room.board(Scripted("auvy/j1", "auvy", Temporary("HTTP 503", reason="server_error")))
        assert await room.call("GET", "/v1/subscriptions/auvy/j1") == (
            200,
            {
                "source": "auvy",
                "job_id": "j1",
                "state": "active",
                "reason": None,
                "cursor": "17-2",
                "sequence": 9,
                "origin": "config",
                "created": "2023-11-14T22:13:20.000Z",
                "updated": "2023-11-14T22:13:20.000Z",
                "session": {
                    "state": "waiting",
                    "since": "2023-11-14T22:13:20.000Z",
                    "reason": "server_error",
                    "detail": "HTTP 503",
                    "next_try": "2023-11-14T22:13:30.000Z",
                },
                "job": {"id": "j1", "status": "running"},
            },
        )


@pytest.mark.parametrize("memory", [b"", b"{", b"[]", b'"job"', b"{}", b'{"job":3}', b"\xff"])
async def test_memory_that_holds_no_job_shows_none(memory: bytes) -> None:
    async with open_room() as room:
        await room.put("auvy", "j1", checkpoint=Checkpoint(None, memory))
        status, shown = await room.call("GET", "/v1/subscriptions/auvy/j1")
        assert (status, shown["job"], shown["session"]) == (200, None, None)


async def test_pages_follow_each_other_without_gap_or_repeat() -> None:
    async with open_room() as room:
        for number in range(7):
            await room.put("auvy", f"j{number}")
        seen: list[str] = []
        path = "/v1/subscriptions?limit=3"
        sizes = []
        while True:
            status, page = await room.call("GET", path)
            assert status == 200
            sizes.append(len(page["subscriptions"]))
            seen += [shown["job_id"] for shown in page["subscriptions"]]
            if page["next"] is None:
                break
            path = f"/v1/subscriptions?limit=3&after={page['next']}"
        assert (seen, sizes) == ([f"j{number}" for number in range(7)], [3, 3, 1])


async def test_a_list_is_narrowed_by_source_and_state() -> None:
    async with open_room() as room:
        await room.put("auvy", "a")
        await room.put("auvy", "p", SubscriptionState.PARKED)
        await room.put("auvy-eu", "e")

        async def listed(query: str) -> list[str]:
            _, page = await room.call("GET", f"/v1/subscriptions?{query}")
            return [shown["job_id"] for shown in page["subscriptions"]]

        assert await listed("source=auvy") == ["a", "p"]
        assert await listed("state=parked") == ["p"]
        assert await listed("source=auvy-eu&state=parked") == []
        assert await listed("source=gone") == []


async def test_removed_subscriptions_are_listed_only_when_asked_for() -> None:
    async with open_room() as room:
        await room.put("auvy", "r", SubscriptionState.REMOVED)
        await room.put("auvy", "a")
        _, page = await room.call("GET", "/v1/subscriptions?limit=1")
        assert (page["subscriptions"], page["next"]) == ([], "1")
        _, page = await room.call("GET", f"/v1/subscriptions?limit=1&after={page['next']}")
        assert [shown["job_id"] for shown in page["subscriptions"]] == ["a"]
        _, page = await room.call("GET", "/v1/subscriptions?state=removed")
        assert [shown["job_id"] for shown in page["subscriptions"]] == ["r"]


@pytest.mark.parametrize("before", [SubscriptionState.PAUSED, SubscriptionState.PARKED, SubscriptionState.ACTIVE])
async def test_resume_sets_paused_and_parked_ones_going_and_can_be_repeated(before: SubscriptionState) -> None:
    async with open_room() as room:
        await room.put("auvy", "j1", before)
        status, shown = await room.call("POST", "/v1/subscriptions/auvy/j1/resume")
        assert (status, shown["state"]) == (200, "active")


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_what_has_ended_can_only_be_removed(verb: str) -> None:
    async with open_room() as room:
        await room.put("auvy", "j1", SubscriptionState.ENDED)
        status, problem = await room.call("POST", f"/v1/subscriptions/auvy/j1/{verb}")
        assert (status, problem["title"]) == (409, "Conflict")
        assert (await room.call("DELETE", "/v1/subscriptions/auvy/j1"))[0] == 204


async def test_a_removed_job_is_gone_until_it_is_handed_in_again() -> None:
    async with open_room() as room:
        await _follow(room, "j1")
        one = "/v1/subscriptions/auvy/j1"
        assert [(await room.call("DELETE", one))[0] for _ in range(2)] == [204, 204]
        gone = [(await room.call(method, path))[0] for method, path in [("GET", one), ("POST", f"{one}/resume")]]
        assert gone == [404, 404]
        status, shown = await _follow(room, "j1")
        assert (status, shown["state"]) == (200, "active")


async def test_a_job_never_followed_is_not_found() -> None:
    async with open_room() as room:
        one = "/v1/subscriptions/auvy/nobody"
        calls = [("GET", one), ("DELETE", one), ("POST", f"{one}/pause"), ("POST", f"{one}/resume")]
        assert [(await room.call(method, path))[0] for method, path in calls] == [404] * 4


async def test_an_unknown_source_is_refused_with_the_names_of_the_known_ones() -> None:
    async with open_room() as room:
        status, problem = await room.call("POST", "/v1/subscriptions", json={"source": "nope", "job_id": "1"})
        assert (status, problem["errors"]) == (422, [{"detail": "known sources: auvy, auvy-eu", "pointer": "#/source"}])
        assert await room.states() == {}


async def test_a_source_parked_by_its_key_is_told_and_resumed() -> None:
    async with open_room() as room:
        refused = Scripted("auvy/1", "auvy", Fatal("HTTP 401: expired", reason="unauthorized"))
        await room.board(refused)
        _, body = await room.call("GET", "/v1/sources")
        sessions = {"running": 0, "waiting": 0, "parked": 1}
        assert body["sources"][0] == {
            "name": "auvy",
            "kind": "auvy",
            "state": "parked",
            "reason": "unauthorized: HTTP 401: expired",
            "sessions": sessions,
        }
        assert (body["sources"][1]["name"], body["sources"][1]["state"]) == ("auvy-eu", "idle")
        refused.error = None
        status, shown = await room.call("POST", "/v1/sources/auvy/resume")
        assert (status, shown["state"], shown["reason"]) == (200, "running", None)


async def test_sinks_tell_their_backlog_and_are_resumed() -> None:
    async with open_room() as room:
        await room.board(Scripted("hooks/0", "hooks", Rejected("gone", reason="gone")))
        _, body = await room.call("GET", "/v1/sinks")
        kafka, hooks = body["sinks"]
        assert (kafka["name"], kafka["depth"], kafka["oldest_unsettled"]) == ("kafka", 3, "2023-11-14T22:13:10.500Z")
        assert (hooks["state"], hooks["outstanding"]) == ("parked", {"retrying": 2, "dead": 1})
        status, shown = await room.call("POST", "/v1/sinks/hooks/resume")
        assert (status, shown["state"]) == (200, "running")


async def test_a_parked_command_topic_is_told_and_resumed() -> None:
    async with open_room() as room:
        missing = Scripted("commands:jobs", "commands:jobs", Fatal("no topic jobs", reason="topic_missing"))
        await room.board(missing)
        _, body = await room.call("GET", "/v1/commands")
        [topic] = body["commands"]
        assert (topic["name"], topic["state"]) == ("commands:jobs", "parked")
        missing.error = None
        status, shown = await room.call("POST", "/v1/commands/commands:jobs/resume")
        assert (status, shown["state"]) == (200, "running")


async def test_sinks_are_told_without_backlog_while_the_journal_hangs() -> None:
    async with open_room(health_timeout_s=0.05) as room:
        room.journal.hang = True
        status, body = await room.call("GET", "/v1/sinks")
        assert (status, "depth" in body["sinks"][0]) == (200, False)


@pytest.mark.parametrize("path", ["/v1/sources/kafka/resume", "/v1/sinks/auvy/resume", "/v1/sources/a%2Fb/resume"])
async def test_only_known_groups_of_the_right_kind_can_be_resumed(path: str) -> None:
    async with open_room() as room:
        status, problem = await room.call("POST", path)
        assert status == 404
        assert "known: " in problem["detail"]
