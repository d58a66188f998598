"""What a person sees: a live table on a terminal, plain lines elsewhere, and the proof at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bridge.demo.proof import Proof
from bridge.demo.watcher import JobRow, Snapshot

_ROWS_MAX = 24
_PLAIN_EVERY_S = 3.0
_COLOURS = {
    "running": "cyan",
    "waiting": "yellow",
    "paused": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "red",
}


class Display(Protocol):
    """Shows a demonstration while it lasts; used as a context manager."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, line: str) -> None:
        """A line that stays."""

    def show(self, snapshot: Snapshot) -> None:
        """How things are now."""

    def conclude(self, proof: Proof, proofs: Mapping[str, Proof]) -> None:
        """The counts, in total and of each source, and every flaw."""


class PlainLines:
    """A line now and then, for logs and pipes."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._next_s = 0.0

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, line: str) -> None:
        self._console.out(line, highlight=False)

    def show(self, snapshot: Snapshot) -> None:
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + _PLAIN_EVERY_S
            self.say(_totals(snapshot))

    def conclude(self, proof: Proof, proofs: Mapping[str, Proof]) -> None:
        for name, one in [("proof", proof), *(proofs.items() if len(proofs) > 1 else ())]:
            self.say(f"{name}: " + ", ".join(f"{what} {count}" for what, count in one.counts().items()))
        for flaw in _some(proof.flaws):
            self.say(f"  {flaw}")


class LiveTable:
    """A table that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)

    def show(self, snapshot: Snapshot) -> None:
        room = min(_ROWS_MAX, max(3, self._console.height - 8))
        self._live.update(Group(_jobs(snapshot.jobs, room), Text(_totals(snapshot))), refresh=True)

    def conclude(self, proof: Proof, proofs: Mapping[str, Proof]) -> None:
        self._live.stop()
        columns = {"count": proof} if len(proofs) == 1 else {"all": proof, **proofs}
        table = Table(title="The proof", title_justify="left")
        table.add_column("what")
        for name in columns:
            table.add_column(name, justify="right")
        counts = [one.counts() for one in columns.values()]
        for what in proof.counts():
            table.add_row(what.replace("_", " "), *(str(count[what]) for count in counts))
        self._console.print(table)
        for flaw in _some(proof.flaws):
            self._console.print(flaw, style="red", highlight=False, markup=False)


def display(console: Console, clock: Callable[[], float]) -> Display:
    """The fitting one: a table only where somebody can watch it move."""
    return LiveTable(console) if console.is_terminal else PlainLines(console, clock)


def _jobs(jobs: Sequence[JobRow], room: int) -> Table:
    """The jobs of each source in a section of their own."""
    table = Table(expand=False)
    for title in ("source", "job", "found by", "provider says", "status", "watching"):
        table.add_column(title, no_wrap=True)
    for title in ("emitted", "journalled"):
        table.add_column(title, justify="right")
    sections = [[*section] for _, section in groupby(jobs, key=lambda job: job.source)]
    for section in sections:
        _add_section(table, section, max(1, room // len(sections)))
    return table


def _add_section(table: Table, jobs: Sequence[JobRow], room: int) -> None:
    """All jobs in order; where there is no room, those that go on and the latest of those that have ended."""
    shown = list(jobs)
    if len(jobs) > room:
        shown.reverse()
        shown.sort(key=lambda job: job.ended)
    for job in shown[:room]:
        status = Text(job.status, style=_COLOURS.get(job.status, ""))
        watching = "done" if job.ended else job.watching[:32]
        counts = (str(job.emitted), str(job.events))
        table.add_row(job.source, job.id, job.origin, job.provider_status, status, watching, *counts)
    if len(jobs) > room:
        over = sum(job.ended for job in jobs)
        table.add_row("", f"and {len(jobs) - room} more", "", f"{over} of {len(jobs)} ended")
    table.add_section()


def _totals(snapshot: Snapshot) -> str:
    ended = sum(job.ended for job in snapshot.jobs)
    return (
        f"jobs {ended}/{len(snapshot.jobs)} ended, emitted {snapshot.emitted}, journalled {snapshot.journalled}, "
        f"Kafka records {snapshot.kafka}, deliveries {snapshot.webhooks}, "
        f"reconnects {sum(snapshot.reconnects.values())}, faults {sum(snapshot.faults.values())}"
    )


def _some(flaws: Sequence[str], limit: int = 20) -> list[str]:
    more = [f"and {len(flaws) - limit} more"] if len(flaws) > limit else []
    return [*flaws[:limit], *more]
