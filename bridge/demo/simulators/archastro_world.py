"""The lives of simulated ArchAstro sessions and runs, and which of them there are.

Facts come from section 4 of the wire contracts and the vendor's SDK; what harness events and journal records hold is
invented. The ledger lists what stands in a log: harness events and journal entries. States may be missed while away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, NamedTuple

from bridge.demo.simulators import world
from bridge.demo.simulators.world import Entry, Job, Pace, Step, rfc3339


class Plot(NamedTuple):
    """What becomes of a session or a run."""

    kind: str
    end: str = "completed"
    waits: bool = False
    idle: bool = False
    """A session that begins by waiting for its first message."""
    logged: bool = True
    """A session on a computer with a coding harness; a run of a workflow. Others leave their log empty."""


PLOTS = (
    Plot("session", waits=True),
    Plot("routine_run"),
    Plot("session"),
    Plot("automation_run"),
    Plot("session", "failed"),
    Plot("routine_run", "skipped", logged=False),
    Plot("session", logged=False),
    Plot("routine_run", "failed"),
    Plot("automation_run", "failed"),
    Plot("session", "cancelled"),
    Plot("routine_run", "cancelled"),
)
"""What becomes of job 1, 2, 3 ..., over and over."""

PREFIXES = {"session": "ase", "routine_run": "arr", "automation_run": "atr"}

_HARNESS = {"message": 60, "tool_use": 18, "activity": 12, "turn_complete": 4, "harness_raw": 3, "plan_note": 3}
"""Relative frequency. `plan_note` is documented nowhere, as new kinds will be."""
_WORDS = ("reading", "the", "ticket", "then", "patching", "–", "voilà", "✓")
_LONG_S = 3600.0


@dataclass(frozen=True, slots=True)
class World(world.World):
    """What is simulated. Automation runs are in no list, so without being told nobody finds them."""

    automations: bool = True
    api_key: str = "sk_demo"
    publishable_key: str = "pk_demo"
    token: str = "tok_demo"  # noqa: S105 - a toy's token
    refresh_token: str = "rt_demo"  # noqa: S105
    token_life_s: float = 0.0
    """How long a bearer token is good for; zero: for ever."""
    stream_max_s: float = 4.0
    """The longest that a stream stays open."""
    list_max: int = 100
    """Where every list stops."""
    entitled: bool = True
    """False: the plan lacks the feature, so everything answers 402."""


class SimulatedJob(Job):
    """One session or run as the API knows it, with its log."""

    ends: ClassVar = {word: word for word in ("completed", "failed", "skipped", "cancelled")}
    holds: ClassVar = frozenset({"waiting"})

    def __init__(self, number: int, plot: Plot, pace: Pace, dice: Random, epoch_ms: int) -> None:
        own_id = f"{PREFIXES[plot.kind]}_{number}"
        self.kind, self.number, self.log = plot.kind, number, list[dict[str, Any]]()
        super().__init__(
            f"{plot.kind}:{own_id}",
            life(plot, pace, dice),
            {"id": own_id, "status": "pending", "created_at": rfc3339(epoch_ms), **_fields(plot.kind, number)},
            epoch_ms=epoch_ms,
            lag_s=pace.status_lag_s,
        )

    @property
    def snapshot(self) -> bytes:
        """The frame that tells the current state."""
        return _frame("session_update" if self.kind == "session" else "run_update", self.state)

    def say(self, step: Step) -> list[Entry]:
        """A run's journal never shows on its stream; a state shows only where the status moved."""
        moment = rfc3339(self.now_ms)
        entries = [self._log(step, moment)] if step.kind else []
        if self.kind != "session":
            self.state["updated_at"] = moment
        elif "status" in step.changes:
            self.state["started_at"] = self.state["started_at"] or moment
            self.state["completed_at"] = moment if self.over else None
        return [*entries, Entry("", "state", self.snapshot)] if "status" in step.changes else entries

    def hear(self, content: str) -> None:
        """Take a message into the inbox; a waiting session wakes."""
        entry = {"id": f"msg_{len(self.state['inbox']) + 1}", "role": "user", "content": content}
        self.state = self.state | {"inbox": [*self.state["inbox"], entry]}
        self.help_on()

    def cancel(self) -> None:
        """Stop for good; nothing happens to what is over."""
        if not self.over:
            self.stop(Step(1, {"status": "cancelled"}))

    def _log(self, step: Step, moment: str) -> Entry:
        place = len(self.log) + 1
        if self.kind == "session":
            event_id = f"cse_{self.number}_{place}"
            event = {"id": event_id, "event": step.kind, "harness": "codex", "occurred_at": moment}
            self.log.append(event | {"payload": step.said})
            return Entry(event_id, step.kind, _frame("session_event", self.log[-1]))
        record = {"id": f"wdr_{self.number}_{place}", "sequence": place, "type": step.kind, "created_at": moment}
        self.log.append(record | {"node_id": step.said.get("node"), "record": step.said})
        return Entry(f"journal.{place}", step.kind)


def life(plot: Plot, pace: Pace, dice: Random) -> Iterator[Step]:
    """The steps of a whole life, the same for the same dice."""
    mean_ms = 1000 / pace.events_per_s
    count = max(2, round(pace.job_s * pace.events_per_s * dice.uniform(0.6, 1.0)))
    if plot.idle:
        yield Step(0, {"status": "waiting"}, hold_s=_LONG_S)
    if plot.end == "skipped":
        yield Step(round(count * mean_ms / 2), {"status": "skipped"})
        return
    worker = {} if plot.kind != "routine_run" else {"worker": _worker("executing", 1)}
    yield Step(round(mean_ms), {"status": "running", **worker})
    happened = _harness(count, dice) if plot.kind == "session" else _journal(count, plot, dice)
    for n, (kind, said) in enumerate(happened):
        after_ms = 0 if dice.random() < 0.1 else round(dice.uniform(0.2, 1.8) * mean_ms)
        yield Step(after_ms, {}, kind if plot.logged else "", said)
        if n == count // 2 and plot.waits:
            yield Step(0, {}, "needs_input", {"question": "Merge into main?", "options": ["yes", "no"]})
            yield Step(10, {"status": "waiting"}, hold_s=pace.hold_s)
            yield Step(0, {"status": "running"})
        elif n == count // 2 and worker:
            yield Step(0, {"worker": _worker("retrying", 2)})
    yield Step(50, _end(plot, count, dice))


def _harness(count: int, dice: Random) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "session_started", {"cwd": "/workspace"}
    for n in range(count):
        kind = dice.choices(list(_HARNESS), list(_HARNESS.values()))[0]
        yield kind, {"n": n, "text": dice.choice(_WORDS)}
    yield "finished", {"turns": count}


def _journal(count: int, plot: Plot, dice: Random) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "execution_started", {}
    for n in range(count // 2):
        node = f"{dice.choice(_WORDS)}-{n}"
        broken = plot.end == "failed" and n == count // 2 - 1
        yield "node_started", {"node": node}
        yield "node_failed" if broken else "node_completed", {"node": node, "n": n}


def _end(plot: Plot, count: int, dice: Random) -> dict[str, Any]:
    """A delivery or a worker that fails says nothing about the run."""
    changes: dict[str, Any] = {"status": plot.end}
    if plot.end == "completed":
        changes["result"] = {"summary": f"{count} steps", "score": round(dice.random(), 3)}
    elif plot.end == "failed":
        changes |= (
            {"error": "the budget of turns is spent"} if plot.kind == "session" else {"result": {"error": "boom"}}
        )
    if plot.kind == "routine_run":
        delivery = {"type": "thread", "status": dice.choice(["delivered", "failed"])}
        changes |= {"worker": _worker("completed", 2), "delivery": delivery, "duration_ms": 10 * count}
    return changes


def _fields(kind: str, number: int) -> dict[str, Any]:
    if kind == "session":
        nothing = dict.fromkeys(("error", "result", "started_at", "completed_at"))
        return {"agent": f"agi_{number % 3}", "inbox": [], "metadata": {}, **nothing}
    if kind == "routine_run":
        delivery = {"type": "thread", "status": "pending"}
        own = {"agent": f"agi_{number % 3}", "routine": f"arn_{number % 2}", "worker": _worker("queued", 0)}
        return own | {"delivery": delivery, "payload": {}, "result": None, "updated_at": None}
    return {"app": "dap_1", "automation": f"aut_{number % 2}", "payload": {}, "result": None, "updated_at": None}


def _worker(status: str, attempt: int) -> dict[str, Any]:
    return {"status": status, "attempt": attempt, "max_attempts": 3}


def _frame(event: str, data: dict[str, Any]) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


class Population(world.Population[World, SimulatedJob]):
    """Its jobs. The wishes `kind` and `idle` make a plain one that the plots would not have brought."""

    def bear(self, number: int, dice: Random, **wishes: Any) -> SimulatedJob:
        plots = [plot for plot in PLOTS if self.world.automations or plot.kind != "automation_run"]
        plot = Plot(**wishes) if wishes else plots[(number - 1) % len(plots)]
        return SimulatedJob(number, plot, self.world.pace, dice, self.world.epoch_ms + 137 * number)
