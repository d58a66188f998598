"""The lives of simulated jobs of the described APIs: the same stories, each told in its API's own frames and words.

Facts come from section 5 of the wire contracts; fields that they leave open are invented.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any, ClassVar

from bridge.demo.simulators.world import Entry, Job, Pace, Step, rfc3339

_WORDS = ("the ", "order ", "was\nfound ", "and ", "42", "euros – ", "merci ✓ ", "done ")
_WHY = "the model refused"


class DescribedJob(Job):
    """A job of any of them. Its state is neutral but for the API's status word; `body` makes an answer of it."""

    ends: ClassVar = {}
    words: ClassVar[dict[str, str]]
    """The API's status words by the canonical ones."""
    plots: ClassVar[tuple[str, ...]]
    """What becomes of job 1, 2, 3 ..., over and over."""
    kinds: ClassVar[dict[str, int]]
    """What it says on its way, each with its relative frequency."""

    def __init__(self, job_id: str, plot: str, pace: Pace, dice: Random, epoch_ms: int) -> None:
        state: dict[str, Any] = dict.fromkeys(("outcome", "result", "error", "cut", "ended"))
        state |= {"status": self.words["pending"], "ahead": 2, "logs": [], "open": []}
        super().__init__(job_id, self.life(plot, pace, dice), state, epoch_ms=epoch_ms, lag_s=pace.status_lag_s)
        self._said = 0
        self._epoch_ms = epoch_ms
        self._hold_s = pace.hold_s

    @property
    def terminal(self) -> str | None:
        outcome: str | None = self.state["outcome"]
        return outcome

    def life(self, plot: str, pace: Pace, dice: Random) -> Iterator[Step]:
        """The steps of a whole life, the same for the same dice."""
        count = max(2, round(pace.job_s * pace.events_per_s * dice.uniform(0.6, 1.0)))
        mean_ms = 1000 / pace.events_per_s
        yield Step(0, {}, "queued")
        yield Step(round(mean_ms), {"ahead": 0}, "queued")
        yield Step(round(mean_ms), {"status": self.words["running"]}, "started")
        for _ in range(count):
            kind = dice.choices(list(self.kinds), list(self.kinds.values()))[0]
            yield Step(round(dice.uniform(0.1, 1.9) * mean_ms), {}, kind, dice.choice(_WORDS))
        yield from self.finish(plot)

    def finish(self, plot: str) -> Iterator[Step]:
        """The last steps of a life."""
        outcome = "completed" if plot == "completes" else "failed"
        yield self.end(outcome, {} if outcome == "completed" else {"error": {"code": plot, "message": _WHY}})

    def end(self, outcome: str, changes: dict[str, Any]) -> Step:
        """The step that ends a life."""
        result = {"result": [self.id, "✓"]} if outcome == "completed" else {}
        return Step(20, {"status": self.words[outcome], "outcome": outcome, **result, **changes}, "ended")

    def cancel(self) -> None:
        """Stop for good."""
        self.stop(self.end("cancelled", {"open": []}))

    def say(self, step: Step) -> list[Entry]:
        if self.over and self.state["ended"] is None:
            self.state["ended"] = self.now_ms
        return self.tell(step)

    def tell(self, step: Step) -> list[Entry]:
        """What the step puts on the wire."""
        raise NotImplementedError

    def body(self) -> dict[str, Any]:
        """What the status endpoint answers."""
        raise NotImplementedError


class OpenAiJob(DescribedJob):
    """A response in background mode; the sequence number is in the payload."""

    words: ClassVar = {
        "pending": "queued",
        "running": "in_progress",
        "completed": "completed",
        "failed": "failed",
        "cancelled": "cancelled",
    }
    plots: ClassVar = ("completes", "fails", "completes", "runs out")
    kinds: ClassVar = {"output_text.delta": 80, "web_search_call.searching": 8, "output_item.added": 8, "hologram": 4}

    def finish(self, plot: str) -> Iterator[Step]:
        if plot == "runs out":
            yield self.end("failed", {"status": "incomplete", "cut": {"reason": "max_output_tokens"}})
        else:
            yield from super().finish(plot)

    def tell(self, step: Step) -> list[Entry]:
        if step.kind == "queued":
            return [] if self._said else [self._frame("created"), self._frame("queued")]
        if step.kind == "started":
            return [self._frame("in_progress")]
        if step.kind == "ended":  # a cancelled one falls silent
            return [] if self.terminal == "cancelled" else [self._frame(self.state["status"])]
        return [self._frame(step.kind, delta=step.said, item_id="it_1", item={"type": "message", "id": "it_1"})]

    def _frame(self, kind: str, **members: Any) -> Entry:
        members = members or {"response": self._response(self.state)}
        payload = {"type": f"response.{kind}", "sequence_number": self._said, **members}
        self._said += 1
        return Entry(str(self._said - 1), kind, f"event: response.{kind}\ndata: {_json(payload)}\n\n".encode())

    def _response(self, state: dict[str, Any]) -> dict[str, Any]:
        times = {"created_at": self._epoch_ms / 1000, "completed_at": (state["ended"] or 0) / 1000 or None}
        facts = {"status": state["status"], "output": state["result"] or [], "error": state["error"]}
        cut = {"incomplete_details": state["cut"]}
        return {"id": self.id, "object": "response", "background": True, "model": "toy-1", **times, **facts, **cut}

    def body(self) -> dict[str, Any]:
        return self._response(self.shown)


class LangGraphJob(DescribedJob):
    """A resumable run of a thread; `end` and `error` bear no id of their own."""

    words: ClassVar = {
        "pending": "pending",
        "running": "running",
        "completed": "success",
        "failed": "error",
        "cancelled": "interrupted",
    }
    plots: ClassVar = ("completes", "interrupts", "fails", "completes")
    kinds: ClassVar = {"messages": 70, "updates": 10, "values": 10, "custom": 5, "hologram": 3, "garbled": 2}

    def finish(self, plot: str) -> Iterator[Step]:
        if plot != "interrupts":
            yield from super().finish(plot)
            return
        question = [{"id": "in_1", "value": "Approve the refund?"}]
        yield Step(20, {"status": "interrupted", "open": question}, "asked")
        yield Step(0, {}, "ended", hold_s=self._hold_s)
        yield Step(0, {"open": [], "outcome": "cancelled"})

    def tell(self, step: Step) -> list[Entry]:
        said = {"said": step.said}
        match step.kind:
            case "" | "queued":
                return []
            case "ended" if self.entries[-1:] and self.entries[-1].kind == "end":
                return []
            case "started":
                return [self._frame("metadata", {"run_id": self.id})]
            case "asked":
                return [self._frame("updates", {"__interrupt__": self.state["open"]})]
            case "ended" if self.terminal == "failed":
                return [self._last("error", self.state["error"])]
            case "ended":
                return [self._last("end", "")]
            case "messages":
                return [self._frame("messages", [{"content": step.said}, {"langgraph_node": "agent"}])]
            case "garbled":
                return [self._frame("custom", said, data=f"<<{step.said!r} is not JSON")]
        return [self._frame(step.kind, said)]

    def _frame(self, event: str, payload: Any, data: str | None = None) -> Entry:
        self._said += 1
        key = f"{self.now_ms}-{self._said}"
        return Entry(key, event, f"id: {key}\nevent: {event}\ndata: {data or _json(payload)}\n\n".encode())

    def _last(self, event: str, payload: Any) -> Entry:
        data = _json(payload) if payload else ""
        key = f"{self.entries[-1].key}.{event}" if self.entries else event
        return Entry(key, event, f"event: {event}\ndata: {data}\n\n".encode())

    def body(self) -> dict[str, Any]:
        thread_id, _, run_id = self.id.partition("/")
        return {
            "run_id": run_id,
            "thread_id": thread_id,
            "assistant_id": "agent",
            "created_at": rfc3339(self._epoch_ms),
            "status": self.shown["status"],
        }


class ReplicateJob(DescribedJob):
    """A prediction; its frames are plain text, and `done` follows every end."""

    words: ClassVar = {
        "pending": "starting",
        "running": "processing",
        "completed": "succeeded",
        "failed": "failed",
        "cancelled": "canceled",
    }
    plots: ClassVar = ("completes", "fails", "completes")
    kinds: ClassVar = {"output": 85, "logs": 15}

    def tell(self, step: Step) -> list[Entry]:
        if step.kind == "queued":
            return []
        if step.kind == "started":
            return [self._frame("logs", "booting")]
        if step.kind != "ended":
            return [self._frame(step.kind, str(step.said))]
        reason = {"failed": {"reason": "error"}, "cancelled": {"reason": "canceled"}}.get(self.terminal or "", {})
        failure = [self._frame("error", _json({"detail": _WHY}))] if self.terminal == "failed" else []
        return [*failure, self._frame("done", _json(reason))]

    def _frame(self, event: str, text: str) -> Entry:
        self._said += 1
        key = f"{self.now_ms // 1000}:{self._said}"
        data = "".join(f"data: {line}\n" for line in text.split("\n"))
        return Entry(key, event, f"event: {event}\nid: {key}\n{data}\n".encode())

    def body(self) -> dict[str, Any]:
        shown = self.shown
        return {
            "id": self.id,
            "model": "toys/parrot",
            "status": shown["status"],
            "output": shown["result"],
            "error": shown["error"] and shown["error"]["message"],
            "created_at": rfc3339(self._epoch_ms),
            "completed_at": rfc3339(shown["ended"]) if shown["ended"] else None,
        }


class FalJob(DescribedJob):
    """A queue request; its stream tells the present state, and only the stored answer whether it failed."""

    words: ClassVar = {
        "pending": "IN_QUEUE",
        "running": "IN_PROGRESS",
        "completed": "COMPLETED",
        "failed": "COMPLETED",
        "cancelled": "COMPLETED",
    }
    plots: ClassVar = ("completes", "refused", "dies", "completes")
    kinds: ClassVar = {"log": 20, "silent": 80}

    def cancel(self) -> None:
        self.stop(self.end("failed", {"error": {"code": "refused", "message": "the request was cancelled"}}))

    def tell(self, step: Step) -> list[Entry]:
        if step.kind == "log":
            line = {"message": step.said, "level": "INFO", "timestamp": rfc3339(self.now_ms)}
            self.state["logs"] = [*self.state["logs"], line]
        if step.kind == "silent":
            return []
        return [Entry("", step.kind, f"data: {_json(self._status(self.state))}\n\n".encode())]

    def _status(self, state: dict[str, Any]) -> dict[str, Any]:
        status = {"status": state["status"], "request_id": self.id.rpartition("/")[2], "logs": state["logs"]}
        if state["status"] == "IN_QUEUE":
            status["queue_position"] = state["ahead"]
        if state["error"] and state["error"]["code"] == "dies":
            status |= {"error": state["error"]["message"], "error_type": "runner_died"}
        return status

    def body(self) -> dict[str, Any]:
        return self._status(self.shown)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
