"""The life of one simulated AUVY job: drawn from a seed beforehand, then lived in real time.

Facts come from section 1 of the wire contracts: chunk kinds, status words and field names as documented. Fields
that the documentation leaves open are invented.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from random import Random
from typing import Any, ClassVar, NamedTuple

from bridge.demo.simulators.world import Entry, Job, Pace, Step, rfc3339

PLOTS = ("completes", "waits", "fails", "completes", "pauses", "completes", "silent")
"""What becomes of job 1, 2, 3 ..., over and over. A silent one was started without `stream: true`."""

_WORDS = ("the", "order", "was", "found", "and", "twelve", "euros", "were", "refunded", "–", "merci", "✓", "done")
_KINDS = {"token": 72, "content_block": 7, "reflex_call": 7, "state_update": 7, "usage_note": 4, "garbled": 3}
"""Relative frequency. `usage_note` is documented nowhere, as new kinds will be; `garbled` is a line that is no JSON."""


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


class SimulatedJob(Job):
    """One job as the API knows it."""

    ends: ClassVar = {"completed": "completed", "failed": "failed"}
    holds: ClassVar = frozenset({"waiting", "paused"})

    def __init__(
        self,
        job_id: str,
        steps: Iterator[Step],
        *,
        epoch_ms: int,
        lag_s: float,
        streaming: bool = True,
        closes: bool = True,
    ) -> None:
        later = ("progress", "current_step", "failedReason", "result", "waitingFor", "processed_at", "finished_at")
        created = {"job_id": job_id, "status": "pending", "created_at": rfc3339(epoch_ms)}
        super().__init__(job_id, steps, created | dict.fromkeys(later), epoch_ms=epoch_ms, lag_s=lag_s)
        self.closes = closes
        self._streaming = streaming
        self._last = StreamId(0, 0)

    def say(self, step: Step) -> list[Entry]:
        same_ms = self.now_ms == self._last.ms
        self._last = StreamId(self.now_ms, self._last.seq + 1 if same_ms else 0)
        moment = rfc3339(self.now_ms)
        self.state["processed_at"] = self.state["processed_at"] or moment
        self.state["finished_at"] = moment if self.over else None
        if not (step.kind and self._streaming):
            return []
        return [Entry(str(self._last), step.kind, f"id: {self._last}\ndata: {step.said}\n\n".encode())]

    def behind(self, after: StreamId) -> int:
        """The index of the first entry behind an id."""
        return bisect_right(self.entries, after, key=lambda entry: StreamId.parse(entry.key))

    def cancel(self) -> None:
        """Stop for good. The documented enum has no word for it, so it reads as a failure."""
        why = "cancelled by request"
        self.stop(Step(1, {"status": "failed", "failedReason": why}, "error", _json(type="error", error=why)))
