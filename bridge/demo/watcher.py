"""Looks at everybody from outside, by HTTP alone: the simulators, the receiver and the bridge's control API."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from bridge.demo.cast import KEY, Cast
from bridge.demo.proof import Arrival, Emitted

_PAGE = 1000
_UNFINISHED = {"retrying", "held"}


class JobRow(NamedTuple):
    """One job as both sides see it. What the bridge does not know yet is empty."""

    source: str
    id: str
    provider_status: str
    emitted: int
    over: bool
    origin: str = ""
    """Who asked the bridge to follow it."""
    status: str = ""
    """The canonical status."""
    events: int = 0
    """Events journalled, those of the bridge itself included."""
    watching: str = ""
    """What the subscription is doing, with the reason when it is in trouble."""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment."""

    jobs: list[JobRow]
    emitted: int
    journalled: int
    kafka: int
    webhooks: int
    reconnects: Mapping[str, int]
    """Of each source."""
    faults: Mapping[str, int]
    backlog: int
    """Journalled events that some sink still owes."""
    finished: bool
    """Whether no simulator has anything more to say."""

    @property
    def settled(self) -> bool:
        """Whether everything was said, followed to its end and delivered."""
        return self.finished and self.backlog == 0 and all(job.ended for job in self.jobs)

    @property
    def waiting_for(self) -> str:
        """What is missing to be settled, in words."""
        alive = [f"{job.id} ({job.watching or 'not followed'})" for job in self.jobs if not job.ended]
        jobs = f"{len(alive)} of {len(self.jobs)} jobs not ended: {', '.join(alive[:5])}" if alive else ""
        owed = f"{self.backlog} events not delivered" if self.backlog else ""
        return "; ".join(filter(None, (jobs, owed))) or "the simulators have not finished"


class Watcher:
    """Where everybody is, and the way to ask them."""

    def __init__(
        self, http: ClientSession, *, simulators: Mapping[str, str], receiver: str, control: str, token: str
    ) -> None:
        """`simulators` are the addresses by source."""
        self._http = http
        self._simulators = simulators
        self._receiver = receiver
        self._control = control
        self._token = {"Authorization": f"Bearer {token}"}

    async def ready(self) -> None:
        """Return if the bridge is ready; raises ClientError while it is not."""
        async with self._http.get(f"{self._control}/readyz") as response:
            response.raise_for_status()

    async def look(self) -> Snapshot:
        """Ask everybody. Raises ClientError when somebody cannot be asked."""
        progress = await self._simulated("progress")
        known = {(shape["source"], shape["job_id"]): shape for shape in await self._subscriptions()}
        metrics = await self._metrics()
        jobs = [
            _row(source, job, said, known.get((source, job)))
            for source, told in progress.items()
            for job, said in told["jobs"].items()
        ]
        return Snapshot(
            jobs=jobs,
            emitted=sum(job.emitted for job in jobs),
            journalled=sum(job.events for job in jobs),
            kafka=metrics["deliveries", "kafka", "delivered"],
            webhooks=metrics["deliveries", "receiver", "delivered"],
            reconnects={source: metrics["session_ends", source] for source in progress},
            faults=sum((Counter(told["faults"]) for told in progress.values()), Counter[str]()),
            backlog=metrics["depth"] + metrics["outstanding"],
            finished=all(told["finished"] for told in progress.values()),
        )

    async def start(self, cast: Cast) -> None:
        """Start a job at the provider and hand it in at the bridge. Raises ClientError when either refuses."""
        if cast.starts is not None:
            path, body = cast.starts
            auth = {"Authorization": f"Bearer {KEY}"}
            url = f"{self._simulators[cast.source]}{path}"
            async with self._http.post(url, json=body, headers=auth) as response:
                response.raise_for_status()
                job = (await response.json())["job_id"]
            await self.hand_in(cast.source, job)

    async def hand_in(self, source: str, job: str) -> None:
        """Have the bridge follow a job. Raises ClientError when it refuses."""
        asked = {"source": source, "job_id": job}
        url = f"{self._control}/v1/subscriptions"
        async with self._http.post(url, json=asked, headers=self._token) as response:
            response.raise_for_status()

    async def emitted(self) -> dict[str, dict[str, Emitted]]:
        """The simulators' ledgers by source."""
        return {
            source: {
                job: Emitted([key for key, _ in said["entries"]], said["terminal"])
                for job, said in ledger["jobs"].items()
            }
            for source, ledger in (await self._simulated("emitted")).items()
        }

    async def received(self) -> tuple[list[Arrival], Mapping[str, Any]]:
        """The receiver's ledger: what it accepted, and its figures."""
        ledger = await self._json(f"{self._receiver}/_receiver/received")
        accepted = [Arrival(one["id"], one["job"], one["type"], one["sequence"]) for one in ledger["accepted"]]
        return accepted, ledger

    async def _simulated(self, what: str) -> dict[str, Any]:
        """What each simulator tells of itself, by source."""
        answers = await asyncio.gather(*(self._json(f"{url}/_sim/{what}") for url in self._simulators.values()))
        return dict(zip(self._simulators, answers, strict=True))

    async def _subscriptions(self) -> list[dict[str, Any]]:
        shapes: list[dict[str, Any]] = []
        following: str | None = "0"
        while following is not None:
            url = f"{self._control}/v1/subscriptions?limit={_PAGE}&after={following}"
            page = await self._json(url)
            shapes += page["subscriptions"]
            following = page["next"]
        return shapes

    async def _metrics(self) -> Counter[Any]:
        """The few sums that matter, out of the text that a scraper would read."""
        async with self._http.get(f"{self._control}/metrics") as response:
            response.raise_for_status()
            text = await response.text()
        sums: Counter[Any] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels, value = sample.labels, int(sample.value)
                if sample.name == "jobbridge_deliveries_total":
                    sums["deliveries", labels["sink"], labels["outcome"]] += value
                elif sample.name == "jobbridge_session_ends_total":
                    sums["session_ends", labels["group"]] += value
                elif sample.name == "jobbridge_journal_depth_entries":
                    sums["depth"] += value
                elif sample.name == "jobbridge_outstanding_entries" and labels["state"] in _UNFINISHED:
                    sums["outstanding"] += value
        return sums

    async def _json(self, url: str) -> Any:
        async with self._http.get(url, headers=self._token) as response:
            response.raise_for_status()
            return await response.json()


def _row(source: str, job: str, said: Mapping[str, Any], known: Mapping[str, Any] | None) -> JobRow:
    row = JobRow(source, job, said["status"], said["emitted"], said["over"])
    if known is None:
        return row
    session = known["session"] or {}
    watching = session.get("state", known["state"])
    if reason := session.get("reason") or known["reason"]:
        watching = f"{watching}: {reason}"
    status = (known["job"] or {}).get("status") or ""
    return row._replace(
        origin=known["origin"],
        status=status,
        events=known["sequence"],
        watching=watching,
        ended=known["state"] == "ended",
    )
