"""How the looks of many jobs share one budget: by the numbers, and lived through in virtual time."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import virtual_time

from bridge.intake.budget import Budget
from bridge.intake.provider import OpenStream, Provider, Reading, Refusal, Request, SourceSettings
from bridge.intake.source import Looker, Source


class Silent(Provider):
    """Nothing here asks it anything."""

    async def status(self, job_id: str) -> Reading:
        raise AssertionError("a source asks nothing by itself")


class NoStreams:
    full = False

    def open(self, request: Request, refusal: Refusal) -> AbstractAsyncContextManager[OpenStream]:
        raise AssertionError("nothing is streamed here")


def source(**settings: Any) -> Source:
    given = {"provider": "silent", "requests_per_minute": 50, "status_interval_s": 2} | settings
    return Source("src", "silent", Silent(), NoStreams(), SourceSettings.model_validate(given))


def crowd(stack: ExitStack, of: Source, count: int, *, beside_stream: bool = False) -> list[Looker]:
    return [stack.enter_context(of.looker(beside_stream=beside_stream)) for _ in range(count)]


@pytest.mark.parametrize(
    ("jobs", "beside_stream", "interval_s"),
    [(0, False, 2), (1, False, 2), (3, False, 4), (100, False, 100 / 0.75), (1, True, 2.4), (100, True, 240)],
)
def test_the_interval_stretches_so_that_looks_keep_to_their_share(
    jobs: int, beside_stream: bool, interval_s: float
) -> None:
    of = source()
    with ExitStack() as stack:
        crowd(stack, of, jobs, beside_stream=beside_stream)
        assert of.look_interval_s() == pytest.approx(interval_s)
        assert of.lookers == jobs
    assert (of.lookers, of.look_interval_s()) == (0, 2)


def test_one_open_stream_is_enough_to_keep_half_of_the_budget_for_reconnects() -> None:
    of = source()
    with ExitStack() as stack:
        crowd(stack, of, 29)
        with of.looker(beside_stream=True):
            assert of.look_interval_s() == pytest.approx(30 / (50 / 60 / 2))
        assert of.look_interval_s() == pytest.approx(29 / 0.75)


@pytest.mark.parametrize(
    ("moving", "resting", "interval_s"),
    [
        (6, 30, 6 / (0.75 - 30 / 60)),  # those at rest want one in a minute each, and leave the others the remainder
        (10, 90, 100 / 0.75),  # one in a minute is more than there is for each: all alike
        (0, 30, 2),
    ],
)
def test_jobs_at_rest_leave_what_they_do_not_need_to_the_others(moving: int, resting: int, interval_s: float) -> None:
    of = source()
    with ExitStack() as stack:
        crowd(stack, of, moving)
        slow = crowd(stack, of, resting)
        for looker in slow:
            looker.every_s = 60.0
        assert of.look_interval_s() == pytest.approx(interval_s)
        assert of.until_look_s(slow[0], 0.0) == pytest.approx(max(60.0, interval_s))
        for looker in slow:
            looker.every_s = 2.0
        assert of.look_interval_s() == pytest.approx((moving + resting) / 0.75)
    assert of.lookers == 0


@pytest.mark.parametrize("jobs", [1, 7, 40])
def test_jobs_that_ask_at_the_same_moment_are_spread_over_one_interval_and_stay_so(jobs: int) -> None:
    of = source(requests_per_minute=6000, status_interval_s=15)
    with ExitStack() as stack:
        due = [(1000.0, looker) for looker in crowd(stack, of, jobs)]
        for round_ in range(5):
            due = [(now_s + of.until_look_s(looker, now_s), looker) for now_s, looker in due]
            first_s = 1000.0 + 15 * (round_ + 1)
            assert [at_s for at_s, _ in due] == pytest.approx([first_s + 15 * n / jobs for n in range(jobs)])


def test_a_crowd_that_leaves_does_not_keep_the_rest_waiting() -> None:
    of = source()
    with ExitStack() as stack:
        for looker in crowd(stack, of, 100):
            of.until_look_s(looker, 0.0)
    with of.looker(beside_stream=False) as looker:
        assert of.until_look_s(looker, 1.0) == 2.0


# -- lived through


class Vendor:
    """An API that answers after a moment, counts strictly, and whose jobs end at moments of their own."""

    def __init__(self, seed: int, limit: int = 60) -> None:
        self.dice = Random(seed)
        self.ends_s: dict[str, float] = {}
        self.looks: list[tuple[float, str]] = []
        self.noticed_s: dict[str, float] = {}
        self.refused = 0
        self._limit = limit
        self._minute_s: deque[float] = deque()

    async def look(self, job: str) -> bool:
        """Whether the job is over."""
        await asyncio.sleep(self.dice.uniform(0.02, 0.3))
        now_s = now()
        while self._minute_s and self._minute_s[0] <= now_s - 60:
            self._minute_s.popleft()
        self.refused += len(self._minute_s) >= self._limit
        self._minute_s.append(now_s)
        self.looks.append((now_s, job))
        await asyncio.sleep(self.dice.uniform(0.02, 0.3))
        if now_s < self.ends_s[job]:
            return False
        self.noticed_s[job] = now_s
        return True

    def of(self, job: str) -> list[float]:
        return [at_s for at_s, name in self.looks if name == job]


def now() -> float:
    return asyncio.get_running_loop().time()


async def follow(job: str, of: Source, budget: Budget, vendor: Vendor, born_s: float = 0.0) -> None:
    """What a subscription to a polled job does."""
    await asyncio.sleep(born_s)
    with of.looker(beside_stream=False) as looker:
        while True:
            await budget.take()
            if await vendor.look(job):
                return
            await asyncio.sleep(of.until_look_s(looker, now()))


async def follow_all(vendor: Vendor, of: Source, births_s: dict[str, float]) -> None:
    budget = Budget(of.settings.requests_per_minute, clock=now)
    await asyncio.gather(*(follow(job, of, budget, vendor, born_s) for job, born_s in births_s.items()))


def fullest(moments_s: Sequence[float], length_s: float) -> int:
    """The most moments, of those in order, that any stretch of that length holds."""
    return max(bisect_left(moments_s, at_s + length_s) - n for n, at_s in enumerate(moments_s))


@pytest.mark.parametrize("jobs", [1, 2, 10, 100])
def test_nobody_is_starved_and_no_end_goes_unnoticed_for_long(jobs: int) -> None:
    """An hour with all of them alive, and another in which they end one by one."""
    vendor, of = Vendor(seed=jobs), source()
    vendor.ends_s = {f"job {n}": 3600 + vendor.dice.uniform(0, 3600) for n in range(jobs)}
    virtual_time.run(follow_all(vendor, of, dict.fromkeys(vendor.ends_s, 0.0)))
    round_s = max(2.0, jobs / 0.75)

    assert vendor.refused == 0
    assert (
        fullest([at_s for at_s, _ in vendor.looks], 60) <= 52
    )  # 50 when they go out; the way there is not always equally long
    counts = Counter(job for at_s, job in vendor.looks if at_s < 3600)
    assert len(counts) == jobs
    assert max(counts.values()) <= min(counts.values()) + 1
    assert sum(counts.values()) > 0.75 * 3600 / round_s * jobs
    rounds_s = [list(pairwise(vendor.of(job))) for job in counts]
    assert min(after_s - before_s for pair in rounds_s for before_s, after_s in pair) >= 2.0
    assert max(after_s - before_s for pair in rounds_s for before_s, after_s in pair[1:]) <= 1.2 * round_s + 1
    delays_s = [vendor.noticed_s[job] - end_s for job, end_s in vendor.ends_s.items()]
    assert max(delays_s) <= 1.2 * round_s + 1


def test_looks_come_evenly_and_not_in_bursts() -> None:
    """Ten jobs that begin together; two seconds' worth of looks are two."""
    vendor, of = Vendor(seed=3, limit=10_000), source(requests_per_minute=600, status_interval_s=10)
    vendor.ends_s = {f"job {n}": 600.0 for n in range(10)}
    virtual_time.run(follow_all(vendor, of, dict.fromkeys(vendor.ends_s, 0.0)))
    assert fullest([at_s for at_s, _ in vendor.looks if at_s < 5], 2) == 10
    assert fullest([at_s for at_s, _ in vendor.looks if 5 < at_s < 600], 2) <= 4


def test_a_new_job_is_looked_at_at_once_however_many_there_are() -> None:
    vendor, of = Vendor(seed=5), source()
    births_s = {f"job {n}": 0.0 for n in range(60)} | {f"late {n}": 600.0 + 40 * n for n in range(20)}
    vendor.ends_s = dict.fromkeys(births_s, 3000.0)
    virtual_time.run(follow_all(vendor, of, births_s))
    waits_s = [vendor.of(job)[0] - born_s for job, born_s in births_s.items() if born_s]
    assert max(waits_s) < 10
    assert vendor.refused == 0


class TellsBeside(Silent):
    tells_beside = True


def test_a_look_that_is_two_requests_is_had_half_as_often() -> None:
    of = source()
    of.provider = TellsBeside()
    with ExitStack() as stack:
        crowd(stack, of, 100, beside_stream=True)
        assert of.look_interval_s() == pytest.approx(480)
