"""The life of one simulated TenFive run, and which runs there are.

Facts come from section 2 of the wire contracts: event types, status words and the envelope as documented. Payload
fields, the events of a stall and a resume, and what a run record holds beside its status are invented.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from bridge.demo.simulators import world
from bridge.demo.simulators.world import Entry, Job, Pace, Step, rfc3339

PLOTS = ("succeeds", "asks", "fails", "succeeds", "stalls", "exceeds", "is cancelled")
"""What becomes of run 1, 2, 3 ..., over and over."""

_WORDS = ("the", "order", "was", "found", "and", "twelve", "euros", "were", "refunded", "–", "merci", "✓", "done")
_DETAILS = {"content_delta": 72, "tool_call": 10, "step.done": 6, "run.rerouted": 4, "usage.noted": 3, "jump": 5}
"""Relative frequency. `run.rerouted` and `usage.noted` are documented nowhere, as further types will be."""


@dataclass(frozen=True, slots=True)
class World(world.World):
    """What is simulated, and how the deployment settled what the documents leave open."""

    api_key: str = "key_demo:secret_demo"
    ids: str = "none"
    """SSE ids: `seq`, `opaque`, or `none`, and then `Last-Event-ID` means nothing."""
    replay: bool = True
    """Whether a connection that names no known id tells all from the start, or only what comes from now on."""
    unstreamed: float = 0.02
    """How many events never show in a stream and only in the list, from 0 to 1."""
    openapi: bool = True
    """Whether there is an `openapi.json`."""
    cursor_param: str = "after"
    page_max: int = 50


def life(plot: str, pace: Pace, dice: Random, request_id: str) -> Iterator[Step]:
    """The steps of a whole run, the same for the same dice."""
    count = max(2, round(pace.job_s * pace.events_per_s * dice.uniform(0.6, 1.0)))
    mean_ms = 1000 / pace.events_per_s
    asked = {"request_id": request_id}
    yield Step(0, {}, "run.created", {**asked, "streaming": True})
    yield _move(30, asked, "queued", "running", "run.worker.started", reason_code="claimed")
    for n in range(count):
        yield _detail(round(dice.uniform(0.2, 1.8) * mean_ms), dice)
        if n == count // 2:
            yield from _interlude(plot, pace, asked)
    yield last_step(plot, asked, dice)


def last_step(plot: str, asked: dict[str, Any], dice: Random) -> Step:
    """How a run ends."""
    match plot:
        case "fails":
            changes = {"reason_code": "step_failed", "error": "the tool gave up"}
            return _move(50, asked, "running", "failed", "run.worker.failed", **changes)
        case "is rejected":
            changes = {"reason_code": "rejected", "error": "a person said no"}
            return _move(1, asked, "awaiting_input", "failed", "run.worker.failed", **changes)
        case "exceeds":
            changes = {"status": "failed", "reason_code": "limit_exceeded"}
            return Step(50, changes, "run.limit_exceeded", {**asked, "limit": "tokens"})
        case "is cancelled":
            return Step(1, {"status": "cancelled", "reason_code": "cancelled_by_owner"}, "run.cancelled", asked)
        case _:
            output = {"text": " ".join(_WORDS), "score": round(dice.random(), 3)}
            step = _move(50, asked, "running", "succeeded", "run.worker.succeeded")
            return step._replace(changes=step.changes | {"output": output})


def _interlude(plot: str, pace: Pace, asked: dict[str, Any]) -> Iterator[Step]:
    if plot == "asks":
        question = {**asked, "prompt": "Approve the refund?"}
        yield Step(0, {"status": "awaiting_input"}, "run.awaiting_input", question, pace.hold_s)
        yield _move(0, asked, "awaiting_input", "running", "run.worker.resumed", reason_code="signalled")
    elif plot == "stalls":
        stall = _move(0, asked, "running", "stalled", "run.worker.stalled", reason_code="heartbeat_lost")
        yield stall._replace(hold_s=pace.hold_s)
        yield _move(0, asked, "stalled", "running", "run.worker.resumed", reason_code="recovered")


def _move(after_ms: int, asked: dict[str, Any], before: str, now: str, kind: str, **more: Any) -> Step:
    return Step(after_ms, {"status": now, **more}, kind, {**asked, "from_status": before, "to_status": now, **more})


def _detail(after_ms: int, dice: Random) -> Step:
    kind = dice.choices(list(_DETAILS), list(_DETAILS.values()))[0]
    word = dice.choice(_WORDS)
    match kind:
        case "content_delta":
            return Step(after_ms, {}, "step.progress", {"kind": kind, kind: word + " "})
        case "tool_call":
            return Step(after_ms, {}, "step.progress", {"kind": kind, "tool": "lookup_order", "word": word})
        case "step.done":
            return Step(after_ms, {}, kind, {"outcome": dice.choice(["succeeded", "retry_step"])})
        case "jump":
            return Step(after_ms, {}, kind, dice.randint(1, 4))
        case _:
            return Step(after_ms, {}, kind, {"word": word})


class Run(Job):
    """One run as the API knows it. `events` are its envelopes as the list tells them, one for each entry."""

    ends: ClassVar = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled"}
    holds: ClassVar = frozenset({"awaiting_input", "stalled"})

    def __init__(self, number: int, plot: str, simulated: World, dice: Random, request_id: str) -> None:
        epoch_ms = simulated.epoch_ms + 137 * number
        record = {"id": f"run_{number}", "status": "queued", "request_id": request_id}
        later = ("reason_code", "output", "error", "completed_at")
        super().__init__(
            record["id"],
            life(plot, simulated.pace, dice, request_id),
            {**record, "created_at": rfc3339(epoch_ms), **dict.fromkeys(later)},
            epoch_ms=epoch_ms,
            lag_s=simulated.pace.status_lag_s,
        )
        self.closes = number % 2 == 0
        self.events: list[dict[str, Any]] = []
        self._ids, self._unstreamed = simulated.ids, simulated.unstreamed
        self._seq = 0
        self._dice = Random(dice.random())  # noqa: S311 - a script, no secret

    def say(self, step: Step) -> list[Entry]:
        if step.kind == "jump":
            self._seq += step.said
            return []
        self._seq += 1
        moment = rfc3339(self.now_ms)
        self.state["completed_at"] = moment if self.over else None
        payload = {"redacted": step.kind == "run.created", "value": step.said}
        self.events.append({"seq": self._seq, "type": step.kind, "timestamp": moment, "payload": payload})
        data = json.dumps(self.events[-1], ensure_ascii=False, separators=(",", ":"))
        shown = self._dice.random() >= self._unstreamed
        id_line = "" if self._ids == "none" else f"id: {self.id_of(self._seq)}\n"
        frame = f"{id_line}event: run_event\ndata: {data}\n\n" if shown else ""
        return [Entry(str(self._seq), step.kind, frame.encode())]

    def end(self, plot: str) -> None:
        """Stop for good, in that way."""
        self.stop(last_step(plot, {"request_id": self.state["request_id"]}, self._dice))

    def id_of(self, seq: int) -> str:
        """The SSE id of an event; an opaque one is nothing to read a number from."""
        return str(seq) if self._ids == "seq" else f"evt-{seq * 7919:x}"

    def behind(self, last_id: str | None) -> int | None:
        """The index of the first event behind an SSE id; None where there is no such id."""
        known = [] if self._ids == "none" else [self.id_of(event["seq"]) for event in self.events]
        return known.index(last_id) + 1 if last_id in known else None


class Population(world.Population[World, Run]):
    """The runs of a world."""

    def bear(self, number: int, dice: Random, **wishes: Any) -> Run:
        request_id = wishes.get("request_id", f"req-{number}")
        return Run(number, PLOTS[(number - 1) % len(PLOTS)], self.world, dice, request_id)
