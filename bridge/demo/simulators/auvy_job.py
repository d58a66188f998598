"""The life of one simulated AUVY job: drawn from a seed beforehand, then lived in real time.

Facts come from section 1 of the wire contracts: chunk kinds, status words and field names as documented. Fields
that the documentation leaves open are invented.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

PLOTS = ("completes", "waits", "fails", "completes", "pauses", "completes", "silent")
"""What becomes of job 1, 2, 3 ..., over and over. A silent one was started without `stream: true`."""

_WORDS = ("the", "order", "was", "found", "and", "twelve", "euros", "were", "refunded", "–", "merci", "✓", "done")
_KINDS = {"token": 72, "content_block": 7, "reflex_call": 7, "state_update": 7, "usage_note": 4, "garbled": 3}
"""Relative frequency. `usage_note` is documented nowhere, as new kinds will be; `garbled` is a line that is no JSON."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast jobs live."""

    job_s: float = 6.0
    """How long the longest job goes on, holds not counted."""
    events_per_s: float = 10.0
    """Chunks a second while it runs."""
    hold_s: float = 2.5
    """How long a waiting or paused job stays so if nobody helps it on."""
    status_lag_s: float = 0.2
    """How far the status endpoint is behind the stream."""


class Step(NamedTuple):
    """One moment of a life: `after_ms` behind the one before it, a new state, and what the stream then says."""

    after_ms: int
    changes: dict[str, Any]
    kind: str = ""
    """Empty: nothing is said."""
    data: str = ""
    hold_s: float = 0.0
    """Stay here for so long, or until somebody helps the job on."""


def life(plot: str, pace: Pace, dice: Random) -> Iterator[Step]:
    """The steps of a whole life, the same for the same dice."""
    count = max(2, round(pace.job_s * pace.events_per_s * dice.uniform(0.6, 1.0)))
    mean_ms = 1000 / pace.events_per_s
    yield Step(0, {"status": "running"}, "state_update", _json(type="state_update", state="running"))
    for n in range(count):
        after_ms = 0 if dice.random() < 0.1 else round(dice.uniform(0.2, 1.8) * mean_ms / 0.9)
        kind = dice.choices(list(_KINDS), list(_KINDS.values()))[0]
        changes = {"progress": 100 * n // count, "current_step": f"part {1 + 3 * n // count} of 3"}
        yield Step(after_ms, changes, kind, _chunk(kind, n, dice))
        if n == count // 2 and plot in {"waits", "pauses"}:
            yield _hold(plot, pace)
            yield Step(0, {"status": "running", "waitingFor": None})
    if plot == "fails":
        why = "model provider rejected the request"
        yield Step(50, {"status": "failed", "failedReason": why}, "error", _json(type="error", error=why))
    else:
        result = {"text": f"{count} parts", "score": round(dice.random(), 3)}
        changes = {"status": "completed", "progress": 100, "result": result}
        yield Step(50, changes, "complete", _json(type="complete", result=result))


def _hold(plot: str, pace: Pace) -> Step:
    if plot == "pauses":
        return Step(0, {"status": "paused"}, hold_s=pace.hold_s)
    question = {"type": "intervention", "interventionId": "iv_1", "prompt": "Approve the refund?"}
    return Step(0, {"status": "waiting", "waitingFor": question}, hold_s=pace.hold_s)


def _chunk(kind: str, n: int, dice: Random) -> str:
    word = dice.choice(_WORDS)
    match kind:
        case "token":
            return _json(type=kind, token=word + " ")
        case "content_block":
            return _json(type=kind, block={"kind": "text", "text": " ".join(_WORDS)})
        case "reflex_call":
            return _json(type=kind, name="lookup_order", arguments={"order": n, "word": word})
        case "state_update":
            return _json(type=kind, state={"cursor": n, "word": word})
        case "garbled":
            return f"<<{word}: {n} is not JSON"
        case _:
            return _json(type=kind, input_units=n)


def _json(**members: Any) -> str:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))


class StreamId(NamedTuple):
    """A Redis-style stream id; compared as the pair of integers, never as text."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> StreamId:
        """Raises ValueError when the text is no `ms-seq`."""
        ms, seq = text.split("-")
        return cls(int(ms), int(seq))


class Entry(NamedTuple):
    """One entry of a job's stream, ready for the wire."""

    id: StreamId
    kind: str
    frame: bytes


@dataclass(slots=True)
class SimulatedJob:
    """One job as the API knows it. `state` is the truth; `shown` is what the status endpoint admits to by now."""

    id: str
    steps: Iterator[Step]
    epoch_ms: int
    """The millisecond at which its stream ids begin."""
    lag_s: float
    streaming: bool = True
    closes: bool = True
    """Whether the server closes the stream behind the terminal chunk."""
    entries: list[Entry] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    born_s: float = field(init=False)
    """On the event loop's clock."""
    _now: StreamId = field(init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _helped: asyncio.Event = field(default_factory=asyncio.Event)
    _cancelled: bool = False

    def __post_init__(self) -> None:
        self.born_s = asyncio.get_running_loop().time()
        self._now = StreamId(self.epoch_ms, -1)
        fields = ("progress", "current_step", "failedReason", "result", "waitingFor", "processed_at", "finished_at")
        created = {"job_id": self.id, "status": "pending", "created_at": _rfc3339(self.epoch_ms)}
        self.state = self.shown = created | dict.fromkeys(fields)

    @property
    def over(self) -> bool:
        """Whether the job will never move again."""
        return self.state["status"] in {"completed", "failed"}

    @property
    def held(self) -> bool:
        """Whether it waits for somebody to help it on."""
        return self.state["status"] in {"waiting", "paused"}

    async def live(self) -> None:
        """Take all the steps in real time; those that are due already are taken at once."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for step in self.steps:
            due_s += step.after_ms / 1000
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if self._cancelled:
                return
            self._take(step)
            if step.hold_s:
                await self._hold(step.hold_s)
                due_s = loop.time()

    async def news(self, timeout_s: float) -> bool:
        """Wait for the next entry or the end; False when the time is over first."""
        try:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def behind(self, after: StreamId | None, retained: int) -> list[Entry]:
        """The retained entries behind an id; all that are retained without one."""
        start = bisect_right(self.entries, after, key=lambda entry: entry.id) if after else 0
        return self.entries[max(start, self.trimmed(retained)) :]

    def trimmed(self, retained: int) -> int:
        """How many entries retention has already thrown away."""
        return max(0, len(self.entries) - retained)

    def help_on(self) -> None:
        """End a hold early."""
        self._helped.set()

    def cancel(self) -> None:
        """Stop for good. The documented enum has no word for it, so it reads as a failure."""
        self._cancelled = True
        self._helped.set()
        why = "cancelled by request"
        self._take(Step(1, {"status": "failed", "failedReason": why}, "error", _json(type="error", error=why)))

    async def _hold(self, hold_s: float) -> None:
        self._now = StreamId(self._now.ms + round(1000 * hold_s), -1)
        self._helped.clear()
        try:
            await asyncio.wait_for(self._helped.wait(), hold_s)
        except TimeoutError:
            return

    def _take(self, step: Step) -> None:
        same_ms = step.after_ms == 0
        self._now = StreamId(self._now.ms + step.after_ms, self._now.seq + 1 if same_ms else 0)
        self.state = self.state | step.changes
        moment = _rfc3339(self._now.ms)
        self.state["processed_at"] = self.state["processed_at"] or moment
        self.state["finished_at"] = moment if self.over else None
        asyncio.get_running_loop().call_later(self.lag_s, self._show, self.state)
        if step.kind and self.streaming:
            frame = f"id: {self._now}\ndata: {step.data}\n\n".encode()
            self.entries.append(Entry(self._now, step.kind, frame))
        self._news.set()
        self._news = asyncio.Event()

    def _show(self, state: dict[str, Any]) -> None:
        self.shown = state


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
