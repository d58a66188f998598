"""What became of events, over the API and from the shell, on a journal in a real file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from bridge.cli import cli
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.outcomes import Attempt, DeliveryState, Outcome

from .room import NOW_S, TOKEN, Room, open_room

NOW_MS = int(NOW_S * 1000)
MOMENT = "2023-11-14T22:13:20.000Z"
PENDING, DELIVERED, RETRYING, HELD, FILTERED, EXPIRED, DEAD, DROPPED = DeliveryState


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path / "journal.db") as room:
        await _past(room)
        yield room


async def _past(room: Room) -> None:
    """Six events of one job and one of another; the webhook settled the first six, Kafka two."""
    store = room.store
    await store.register(["kafka", "hooks"], ["hooks"])
    (a, _), (b, _) = await store.follow([JobKey("auvy", "a/1"), JobKey("auvy-eu", "b")], "config")
    await store.append(a, [JobEvent(f"a-{n}", *a.key, EventType.OUTPUT, b"{}") for n in range(1, 7)], None)
    await store.append(b, [JobEvent("b-1", *b.key, EventType.COMPLETED, b"{}")], None)
    noted = {2: DELIVERED, 3: EXPIRED, 5: RETRYING, 6: HELD}
    outcomes = [Outcome(position, a.id, state, 1, NOW_MS - 5) for position, state in noted.items()]
    dead = Outcome(4, a.id, DEAD, 2, NOW_MS - 2000, 0, 500, "partner.example answered 500")
    attempts = [
        Attempt(4, a.id, 1, NOW_MS - 2000, 1250, None, "timeout", "203.0.113.9", "", "no answer within 1 s"),
        Attempt(4, a.id, 2, NOW_MS - 500, 31, 500, "server_error", "203.0.113.9", "oops <b>", dead.detail),
    ]
    await store.settle("hooks", 0, 6, [*outcomes, dead], attempts)
    await store.settle("kafka", 0, 2)


async def get(room: Room, path: str) -> Any:
    status, told = await room.call("GET", f"/v1{path}")
    assert status == 200, told
    return told


async def tell(room: Room, path: str, **body: Any) -> tuple[int, Any]:
    return await room.call("POST", f"/v1{path}", json=body)


async def states(room: Room) -> dict[str, str]:
    return {one["id"]: one["state"] for one in (await get(room, "/endpoints/hooks/deliveries"))["deliveries"]}


STATES = {
    "0-1": "filtered", "0-2": "delivered", "0-3": "expired", "0-4": "dead", "0-5": "retrying", "0-6": "held",
    "0-7": "pending",
}  # fmt: skip


# -- asking -----------------------------------------------------------------------------------------------------------


async def test_every_event_is_listed_with_its_outcome(room: Room) -> None:
    assert await states(room) == STATES
    [dead] = (await get(room, "/endpoints/hooks/deliveries?state=dead"))["deliveries"]
    assert dead == {
        "id": "0-4", "event_id": "a-4", "type": "job.output", "source": "auvy", "job_id": "a/1", "sequence": 4,
        "recorded": MOMENT, "state": "dead", "since": MOMENT, "attempts": 2,
        "first_attempt": "2023-11-14T22:13:18.000Z", "next_attempt": None, "status": 500,
        "detail": "partner.example answered 500", "redriven": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("state=dead,expired", ["0-3", "0-4"]),
        ("source=auvy-eu", ["0-7"]),
        ("source=auvy&job_id=a%2F1&state=held", ["0-6"]),
        ("type=job.c*", ["0-7"]),
        ("since=2023-11-14T22:13:20Z&state=filtered", ["0-1"]),
        ("since=2023-11-14T22:13:21%2B00:00", []),
    ],
)
async def test_a_list_is_narrowed_by_its_query(room: Room, query: str, ids: list[str]) -> None:
    told = await get(room, f"/endpoints/hooks/deliveries?{query}")
    assert [one["id"] for one in told["deliveries"]] == ids


async def test_a_list_comes_in_pages(room: Room) -> None:
    ids: list[str] = []
    after: str | None = "0-0"
    while after is not None:
        page = await get(room, f"/endpoints/hooks/deliveries?limit=3&after={after}")
        ids += [one["id"] for one in page["deliveries"]]
        after = page["next"]
    assert ids == list(STATES)


async def test_deliveries_are_counted_by_state(room: Room) -> None:
    assert await get(room, "/endpoints/hooks/deliveries/counts") == {
        "counts": dict.fromkeys(STATES.values(), 1) | {"dropped": 0}
    }
    told = await get(room, "/endpoints/kafka/deliveries/counts?source=auvy")
    assert told["counts"] == dict.fromkeys(DeliveryState, 0) | {"delivered": 2, "pending": 4}


async def test_one_delivery_tells_its_attempts(room: Room) -> None:
    told = await get(room, "/endpoints/hooks/deliveries/0-4")
    assert (told["id"], told["state"]) == ("0-4", "dead")
    assert told["history"] == [
        {
            "number": 1, "at": "2023-11-14T22:13:18.000Z", "duration_s": 1.25, "status": None, "reason": "timeout",
            "address": "203.0.113.9", "answer": "", "detail": "no answer within 1 s",
        },
        {
            "number": 2, "at": "2023-11-14T22:13:19.500Z", "duration_s": 0.031, "status": 500,
            "reason": "server_error", "address": "203.0.113.9", "answer": "oops <b>",
            "detail": "partner.example answered 500",
        },
    ]  # fmt: skip
    assert (await get(room, "/endpoints/hooks/deliveries/0-1"))["history"] == []


async def test_a_jobs_trail_tells_every_event_at_every_sink(room: Room) -> None:
    told = await get(room, "/jobs/auvy/a%2F1/trail")
    assert [
        (one["event_id"], {name: sink["state"] for name, sink in one["sinks"].items()}) for one in told["events"]
    ] == [
        ("a-1", {"hooks": "filtered", "kafka": "delivered"}),
        ("a-2", {"hooks": "delivered", "kafka": "delivered"}),
        ("a-3", {"hooks": "expired", "kafka": "pending"}),
        ("a-4", {"hooks": "dead", "kafka": "pending"}),
        ("a-5", {"hooks": "retrying", "kafka": "pending"}),
        ("a-6", {"hooks": "held", "kafka": "pending"}),
    ]
    assert told["events"][0]["sinks"]["kafka"]["kind"] == "kafka"
    assert told["next"] is None
    page = await get(room, "/jobs/auvy/a%2F1/trail?after=1&limit=2")
    assert ([one["sequence"] for one in page["events"]], page["next"]) == ([2, 3], 3)


async def test_a_trail_for_which_logs_are_searched_comes_in_small_pages(room: Room) -> None:
    [(job, _)] = await room.store.follow([JobKey("auvy", "a/1")], "config")
    await room.store.append(job, [JobEvent(f"more-{n}", *job.key, EventType.OUTPUT, b"{}") for n in range(200)], None)
    page = await get(room, "/jobs/auvy/a%2F1/trail?kafka=true&limit=1000")
    assert ([one["sequence"] for one in page["events"]], page["next"]) == (list(range(1, 101)), 100)
    rest = await get(room, "/jobs/auvy/a%2F1/trail?kafka=true&limit=7&after=199")
    assert ([one["sequence"] for one in rest["events"]], rest["next"]) == (list(range(200, 207)), 206)


# -- changing ---------------------------------------------------------------------------------------------------------


async def test_redrive_counts_first_and_then_holds_the_dead(room: Room) -> None:
    assert await tell(room, "/endpoints/hooks/redrive", all=True, dry_run=True) == (200, {"count": 1, "dry_run": True})
    assert await states(room) == STATES
    woken = asyncio.create_task(room.store.redriven("hooks", 0, 0))
    assert await tell(room, "/endpoints/hooks/redrive", all=True) == (200, {"count": 1, "dry_run": False})
    assert await states(room) == STATES | {"0-4": "held"}
    _, lanes = await woken
    assert list(lanes.values()) == [0]
    assert "control.redrive" in room.logged()


async def test_a_replay_at_a_set_pace_counts_first_and_then_is_due_one_after_the_other(room: Room) -> None:
    wanted = {"states": ["expired", "dead", "filtered"], "per_second": 0.5}
    dry = await tell(room, "/endpoints/hooks/replay", **wanted, dry_run=True)
    assert dry == (200, {"count": 3, "dry_run": True})
    assert await states(room) == STATES
    assert (await tell(room, "/endpoints/hooks/replay", **wanted))[1]["count"] == 3
    held = (await get(room, "/endpoints/hooks/deliveries?state=held"))["deliveries"]
    assert [(one["id"], one["next_attempt"], one["redriven"]) for one in held] == [
        ("0-1", "2023-11-14T22:13:20.000Z", 1),
        ("0-3", "2023-11-14T22:13:22.000Z", 1),
        ("0-4", "2023-11-14T22:13:24.000Z", 1),
        ("0-6", None, 0),
    ]


async def test_replay_takes_what_an_endpoint_never_got(room: Room) -> None:
    assert (await tell(room, "/endpoints/hooks/replay", since="2023-11-14T22:13:20Z"))[1]["count"] == 2
    assert await states(room) == STATES | {"0-3": "held", "0-4": "held"}
    assert (await tell(room, "/endpoints/hooks/replay", states=["filtered", "delivered"]))[1]["count"] == 2
    assert (await tell(room, "/endpoints/hooks/replay", since="2023-11-14T22:13:21Z"))[1]["count"] == 0


async def test_one_delivery_is_redriven_whatever_ended_it(room: Room) -> None:
    assert await tell(room, "/endpoints/hooks/redrive", delivery="0-2") == (200, {"count": 1, "dry_run": False})
    assert await states(room) == STATES | {"0-2": "held"}
    status, problem = await tell(room, "/endpoints/hooks/redrive", delivery="0-2")
    assert (status, problem["detail"].startswith("the delivery is held: only dead,")) == (409, True)


async def test_drop_gives_up_dead_letters_and_others_only_by_name(room: Room) -> None:
    assert (await tell(room, "/endpoints/hooks/drop", source="auvy"))[1]["count"] == 1
    assert await states(room) == STATES | {"0-4": "dropped"}
    assert (await tell(room, "/endpoints/hooks/drop", states=["retrying", "held"], dry_run=True))[1]["count"] == 2
    assert (await tell(room, "/endpoints/hooks/drop", delivery="0-6"))[1]["count"] == 1
    assert await states(room) == STATES | {"0-4": "dropped", "0-6": "dropped"}


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/endpoints/nobody/deliveries", None, 404, "known: hooks, kafka"),
        ("POST", "/endpoints/nobody/redrive", {"all": True}, 404, "known: hooks, kafka"),
        ("GET", "/endpoints/hooks/deliveries/0-8", None, 404, "no such delivery"),
        ("GET", "/endpoints/hooks/deliveries/9-1", None, 404, "no such delivery"),
        ("GET", "/endpoints/hooks/deliveries/one", None, 404, "nothing at this address"),
        ("POST", "/endpoints/hooks/redrive", {"delivery": "0-8"}, 404, "no such delivery"),
        ("GET", "/endpoints/hooks/deliveries?state=lost", None, 400, "state"),
        ("GET", "/endpoints/hooks/deliveries?since=yesterday", None, 400, "since"),
        ("GET", "/endpoints/hooks/deliveries?since=2023-11-14T22:13:20", None, 400, "timezone"),
        ("GET", "/endpoints/hooks/deliveries?after=17", None, 400, "such as 0-17"),
        ("GET", "/endpoints/hooks/deliveries?limit=1001", None, 400, "limit"),
        ("GET", "/endpoints/hooks/deliveries?limit=1&limit=2", None, 400, "more than once"),
        ("POST", "/endpoints/hooks/redrive", {}, 422, "name a delivery"),
        ("POST", "/endpoints/hooks/drop", {"dry_run": True}, 422, "name a delivery"),
        ("POST", "/endpoints/hooks/redrive", {"all": True, "dryrun": True}, 422, "#/dryrun"),
        ("POST", "/endpoints/hooks/redrive", {"all": True, "dry_run": "no"}, 422, "#/dry_run"),
        ("POST", "/endpoints/hooks/redrive", {"delivery": "four"}, 422, "#/delivery"),
        ("POST", "/endpoints/hooks/redrive", {"states": ["pending"]}, 422, "not pending"),
        ("POST", "/endpoints/hooks/drop", {"states": ["delivered", "dead"]}, 422, "not delivered"),
        ("POST", "/endpoints/kafka/redrive", {"all": True}, 409, "kafka is a log"),
        ("POST", "/endpoints/kafka/replay", {"all": True, "dry_run": True}, 409, "kafka is a log"),
        ("POST", "/endpoints/hooks/redrive", {"all": True, "per_second": 0}, 422, "#/per_second"),
        ("POST", "/endpoints/hooks/replay", {"all": True, "per_second": "10"}, 422, "#/per_second"),
        ("POST", "/endpoints/hooks/drop", {"all": True, "per_second": 10}, 422, "#/per_second"),
        ("GET", "/jobs/auvy/unknown/trail", None, 404, "never followed"),
        ("GET", "/jobs/auvy/a%2F1/trail?kafka=perhaps", None, 400, "kafka"),
        ("GET", "/jobs/auvy/a%2F1/trail?limit=0", None, 400, "limit"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_the_reason(
    room: Room, method: str, path: str, body: dict[str, Any] | None, status: int, words: str
) -> None:
    told, problem = await room.call(method, f"/v1{path}", **({} if body is None else {"json": body}))
    assert told == status, problem
    assert words in orjson.dumps(problem).decode()
    assert await states(room) == STATES


async def test_nobody_gets_in_without_the_token(room: Room) -> None:
    for method, path in (
        ("GET", "/endpoints/hooks/deliveries"),
        ("GET", "/endpoints/hooks/deliveries/0-4"),
        ("GET", "/jobs/auvy/a%2F1/trail"),
        ("POST", "/endpoints/hooks/redrive"),
        ("POST", "/endpoints/hooks/replay"),
        ("POST", "/endpoints/hooks/drop"),
    ):
        status, _ = await room.call(method, f"/v1{path}", headers={})
        assert status == 401
    assert await states(room) == STATES


# -- from the shell ---------------------------------------------------------------------------------------------------


async def jobbridge(room: Room, *words: str, token: str = TOKEN) -> tuple[int, str, str]:
    """Exit code, output and complaints of the command, which runs in a thread and an event loop of its own."""
    arguments = [*words, "--url", str(room.url("")).rstrip("/")]
    ran = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env={"JOBBRIDGE_TOKEN": token})
    return ran.exit_code, ran.stdout, ran.stderr


async def test_dead_letters_are_listed_shown_redriven_and_dropped_from_the_shell(room: Room) -> None:
    code, out, _ = await jobbridge(room, "dead-letters", "list", "hooks")
    [line] = out.splitlines()
    assert code == 0
    assert line.split() == [
        "0-4", "dead", MOMENT, "job.output", "auvy/a/1", "#4", "500", "partner.example", "answered", "500",
    ]  # fmt: skip
    code, out, _ = await jobbridge(room, "dead-letters", "list", "hooks", "--state", "dead,held", "--json")
    assert [one["id"] for one in orjson.loads(out)] == ["0-4", "0-6"]
    code, out, _ = await jobbridge(room, "dead-letters", "show", "hooks", "0-4")
    assert "partner.example answered 500" in out
    assert "203.0.113.9 500 server_error 'oops <b>'" in out
    assert await jobbridge(room, "dead-letters", "drop", "hooks", "--all", "--dry-run") == (0, "1 (dry run)\n", "")
    assert await jobbridge(room, "dead-letters", "redrive", "hooks", "--job", "a/1") == (0, "1\n", "")
    assert await states(room) == STATES | {"0-4": "held"}
    assert await jobbridge(room, "dead-letters", "drop", "hooks", "0-4") == (0, "1\n", "")
    assert await states(room) == STATES | {"0-4": "dropped"}


async def test_a_pace_is_set_from_the_shell(room: Room) -> None:
    states = [word for state in ("expired", "dead") for word in ("--state", state)]
    assert await jobbridge(room, "replay", "hooks", *states, "--per-second", "4") == (0, "2\n", "")
    code, out, _ = await jobbridge(room, "dead-letters", "list", "hooks", "--state", "held", "--json")
    assert [one["next_attempt"] for one in orjson.loads(out)] == [MOMENT, MOMENT.replace(".000", ".250"), None]
    code, _, complaint = await jobbridge(room, "dead-letters", "redrive", "hooks", "--all", "--per-second", "0")
    assert (code, "--per-second" in complaint) == (2, True)


async def test_replay_from_the_shell_goes_by_time_and_state(room: Room) -> None:
    assert await jobbridge(room, "replay", "hooks", "--since", "1h") == (0, "0\n", "")
    assert await jobbridge(room, "replay", "hooks", "--since", "2023-11-14T23:13:20+01:00") == (0, "2\n", "")
    assert await jobbridge(room, "replay", "hooks", "--state", "filtered", "--state", "delivered") == (0, "2\n", "")


async def test_the_shell_tells_a_refusal_in_one_line(room: Room) -> None:
    for words, code, why in (
        (("dead-letters", "list", "nobody"), 1, "there is no such sink; known: hooks, kafka"),
        (("dead-letters", "list", "hooks", "--state", "lost"), 1, "state"),
        (("dead-letters", "show", "hooks", "0-99"), 1, "there is no such delivery"),
        (("dead-letters", "drop", "hooks"), 1, "name a delivery"),
        (("replay", "kafka", "--all"), 1, "kafka is a log"),
        (("replay", "hooks", "--since", "soon"), 2, "how long ago"),
    ):
        told, out, err = await jobbridge(room, *words)
        assert (told, out) == (code, ""), err
        assert why in err.splitlines()[-1]
    told, _, err = await jobbridge(room, "dead-letters", "list", "hooks", token="wrong")
    assert (told, "JOBBRIDGE_TOKEN" in err) == (1, True)
