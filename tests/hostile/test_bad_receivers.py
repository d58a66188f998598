"""Every bad receiver we could think of beside good ones that get the same jobs: who gets what, and at what cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
from arena import SECRET, Arena, arena, endpoint, ledger, peak_memory_mib, program
from arrivals import complete, counts, flaws, percentile
from cable import free_port
from npm_receiver import npm_arrivals, npm_receiver
from told_jobs import ToldJobs

JOBS, EVENTS, EVENTS_PER_S = 6, 30, 60
RETRY_S = 0.3
RETRY_AFTER_MAX_S = 0.6
MEMORY_MIB = 64.0
"""All that they pour out may cost so much altogether: less than a single one of their answers, were it kept."""

METADATA = "http://169.254.169.254/latest/meta-data"
DATE = "Mon, 01 Jan 2001 00:00:00 GMT"
SOON_AFTER_DATE = "Mon, 01 Jan 2001 00:00:01 GMT"
FAR_FUTURE = "Fri, 01 Jan 2100 00:00:00 GMT"


class Bad(NamedTuple):
    """A misdeed, and what each attempt has to say of it."""

    path: str
    reason: str | None
    """None: that counts as delivered, since the answer began with 200 and more of it is nobody's business."""
    status: int | None = None


def status(number: int, reason: str, **headers: str) -> Bad:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Bad(f"/status/{number}?{urlencode(named)}", reason, number)


BAD = {
    "hang-up": Bad("/hang-up", "network"),
    "hang": Bad("/hang", "timeout"),
    "drip-head": Bad("/drip-head", "timeout"),
    "drip-body": Bad("/drip-body", "timeout", 200),
    "flood": Bad("/flood", None, 200),
    "flood-error": Bad("/flood-error", "server_error", 500),
    "bomb": Bad("/bomb", None, 200),
    "bomb-error": Bad("/bomb-error", "server_error", 503),
    "cut": Bad("/cut", "network", 200),
    "garbage": Bad("/garbage", "network"),
    "endless-header": Bad("/endless-header", "network"),
    "endless-headers": Bad("/endless-headers", "network"),
    "endless-continue": Bad("/endless-continue", "network"),
    "endless-answers": Bad("/endless-answers", None, 200),
    "to-metadata-302": status(302, "redirect", location=METADATA),
    "to-metadata-307": status(307, "redirect", location=METADATA),
    "storm": status(429, "rate_limited"),
    "storm-seconds": status(429, "rate_limited", retry_after="1"),
    "storm-date": status(429, "rate_limited", retry_after=FAR_FUTURE),
    "storm-absurd": status(429, "rate_limited", retry_after="1" + "0" * 12),
    "storm-negative": status(429, "rate_limited", retry_after="-5"),
    "storm-garbage": status(429, "rate_limited", retry_after="soon, I hope"),
    "skewed-back": status(503, "server_error", date=DATE, retry_after=SOON_AFTER_DATE),
    "skewed-ahead": status(503, "server_error", date=FAR_FUTURE, retry_after=FAR_FUTURE),
    "unavailable": status(503, "server_error"),
    "gone": status(410, "gone"),
}
OBEYED = frozenset({"storm-seconds", "storm-date", "storm-absurd", "skewed-ahead"})
"""Their wish is longer than our limit, which then is the floor."""


@dataclass
class Canary:
    """Where a redirect leads that somebody might follow."""

    port: int = 0
    visits: int = 0

    def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.close()


@asynccontextmanager
async def canary() -> AsyncIterator[Canary]:
    bird = Canary()
    async with await asyncio.start_server(bird.serve, "127.0.0.1", 0) as server:
        bird.port = server.sockets[0].getsockname()[1]
        yield bird


def settings(url: str) -> dict[str, Any]:
    """An endpoint whose patience is cut to what a test has, so that every one of them is tried again."""
    return endpoint(
        url,
        retry_schedule_s=[RETRY_S],
        retry_after_max_s=RETRY_AFTER_MAX_S,
        timeout_s=2,
        probe_wait_s=0.2,
        probe_wait_max_s=0.4,
    )


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


async def assert_told(place: Arena, name: str, bad: Bad, url: str) -> None:
    """The attempts at this endpoint say what happened, and that nobody else was dialled."""
    deliveries = await place.tried(name, JOBS)
    told = [attempt for delivery in deliveries for attempt in delivery["history"]]
    assert {(one["reason"], one["status"]) for one in told} == {(bad.reason, bad.status)}, name
    assert {one["address"] for one in told} == {urlsplit(url).netloc}, name
    for delivery in deliveries:
        assert [one["number"] for one in delivery["history"]] == list(range(1, delivery["attempts"] + 1)), name
        assert delivery["state"] in ({"delivered"} if bad.reason is None else {"retrying", "dead"}), name


async def assert_gone(place: Arena) -> None:
    """The endpoint is parked, and was not called again."""

    async def parked() -> bool:
        return [one["state"] for one in (await place.ask("/sinks"))["sinks"] if one["name"] == "gone"] == ["parked"]

    await place.until(parked, "the one that is gone is parked")
    assert {delivery["attempts"] for delivery in await place.tried("gone", 1000)} == {1}


async def assert_waited(place: Arena, name: str) -> None:
    """Each attempt came as late as it had to, and the receiver's wish could not delay it past our limit."""
    floor_s = RETRY_AFTER_MAX_S if name in OBEYED else RETRY_S
    for delivery in await place.tried(name, JOBS):
        for before, after in pairwise(delivery["history"]):
            assert _seconds(after["at"]) - _seconds(before["at"]) >= floor_s - 0.002, (name, before, after)


@pytest.mark.timeout(150)
async def test_bad_receivers_harm_only_themselves(tmp_path: Path) -> None:
    jobs = ToldJobs({f"job-{number}": EVENTS for number in range(JOBS)})
    wanted = {good: dict.fromkeys(jobs.jobs, EVENTS) for good in ("good", "good-npm")}
    async with program(tmp_path, "bad_receiver") as bad, program(tmp_path, "good_receiver") as good, canary() as bird:
        redirects = {
            f"to-loopback-{number}": status(number, "redirect", location=f"http://127.0.0.1:{bird.port}/")
            for number in (301, 302, 303, 307, 308)
        }
        all_bad = BAD | redirects
        sinks = {name: settings(bad + one.path) for name, one in all_bad.items()}
        sinks["nobody"] = settings(f"http://127.0.0.1:{free_port()}/")
        sinks["good"] = settings(f"{good}/good")
        with npm_receiver(tmp_path, SECRET) as npm:
            sinks["good-npm"] = settings(npm)
            async with arena(tmp_path, jobs, sinks) as place, place.bridge() as bridge:
                idle_mib = peak_memory_mib(bridge)
                telling = asyncio.create_task(jobs.tell(EVENTS_PER_S))

                async def arrived() -> bool:
                    return complete((await ledger(place.http, good))[0] + npm_arrivals(tmp_path, "good-npm"), wanted)

                await place.until(arrived, "the good ones have everything")
                await telling
                arrivals = (await ledger(place.http, good))[0] + npm_arrivals(tmp_path, "good-npm")
                for name, one in (all_bad | {"nobody": Bad("", "network")}).items():
                    await place.until(partial(_tried_enough, place, name, one), f"{name} is tried again")
                    await assert_told(place, name, one, sinks[name]["url"])
                    await assert_waited(place, name)
                await assert_gone(place)
                peak_mib = peak_memory_mib(bridge)
            place.assert_no_bug()
    late_ms = sorted(arrival.late_ms for arrival in arrivals)
    print(
        f"\n{len(sinks) - 2} bad receivers beside 2 good ones, {dict(counts(arrivals))} delivered to those; from the "
        f"journal to them: p50 {percentile(late_ms, 0.5):.0f} ms, p99 {percentile(late_ms, 0.99):.0f} ms; "
        f"memory {idle_mib:.0f} MiB at rest, {peak_mib:.0f} MiB at most"
    )
    assert flaws(arrivals, wanted) == []
    assert bird.visits == 0
    assert peak_mib - idle_mib < MEMORY_MIB


async def _tried_enough(place: Arena, name: str, bad: Bad) -> bool:
    """Whether there is enough to judge by: a second attempt, where there is to be one."""
    attempts = [delivery["attempts"] for delivery in await place.tried(name, JOBS)]
    return max(attempts, default=0) > (1 if bad.reason not in {None, "gone"} else 0)
