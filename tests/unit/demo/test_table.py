"""What a person sees of the demo."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from bridge.demo.proof import Arrival, Emitted, Proof, Sides, prove
from bridge.demo.table import LiveTable, PlainLines, display
from bridge.demo.watcher import JobRow, Snapshot

RUNNING = JobRow(
    "auvy", "job_1", "running", 12, over=False, origin="api", status="running", events=14, watching="running"
)
ENDED = JobRow("auvy", "job_2", "failed", 30, over=True, status="failed", events=32, watching="ended", ended=True)
SNAPSHOT = Snapshot(
    jobs=[RUNNING, ENDED],
    emitted=42,
    journalled=46,
    kafka=40,
    webhooks=39,
    reconnects={"auvy": 5},
    faults={"cut": 3, "stall": 1},
    backlog=7,
    finished=False,
)


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=terminal, width=140, height=40), written


def test_a_terminal_gets_a_live_table_and_a_pipe_gets_lines() -> None:
    assert isinstance(display(console(terminal=True)[0], lambda: 0.0), LiveTable)
    assert isinstance(display(console(terminal=False)[0], lambda: 0.0), PlainLines)


def test_the_live_table_shows_every_job_and_the_totals() -> None:
    screen, written = console(terminal=True)
    with LiveTable(screen) as table:
        table.show(SNAPSHOT)
    for piece in ("job_1", "job_2", "api", "jobs 1/2 ended", "emitted 42", "Kafka records 40", "deliveries 39"):
        assert piece in written.getvalue()
    assert "reconnects 5, faults 4" in written.getvalue()


def test_where_there_is_no_room_the_living_jobs_stay_in_sight() -> None:
    screen, written = console(terminal=True)
    crowd = [RUNNING, *(ENDED._replace(id=f"job_{n}") for n in range(2, 102))]
    with LiveTable(screen) as table:
        table.show(replace(SNAPSHOT, jobs=crowd))
    shown = written.getvalue()
    assert "job_1 " in shown
    assert "job_101" in shown
    assert "job_50" not in shown
    assert "and 77 more" in shown


def test_every_source_has_a_section_with_its_part_of_the_room() -> None:
    screen, written = console(terminal=True)
    crowd = [RUNNING._replace(source=name, id=f"{name}_{n}") for name in ("auvy", "tenfive") for n in range(20)]
    with LiveTable(screen) as table:
        table.show(replace(SNAPSHOT, jobs=crowd))
    shown = written.getvalue()
    last = shown[shown.rindex("source") :]
    assert last.count("and 8 more") == last.count("0 of 20 ended") == 2
    assert "auvy_19" in last
    assert "tenfive_19" in last


def test_the_conclusion_tells_every_source_by_itself() -> None:
    one = prove(Sides("auvy", {"job_1": Emitted(["1-0"], None)}, [], []), **COUNTS)
    proofs = {"auvy": one, "tenfive": one}
    for terminal, words in ((True, ("all", "auvy", "tenfive")), (False, ("tenfive: jobs 1, events_emitted 1",))):
        out, written = console(terminal=terminal)
        with display(out, lambda: 0.0) as shown:
            shown.conclude(Proof.total(proofs.values(), refused=0), proofs)
        assert all(word in written.getvalue() for word in words)


def test_lines_come_every_few_seconds_only() -> None:
    out, written = console(terminal=False)
    times = iter([0.0, 0.0, 1.0, 2.9, 3.1, 3.1])
    with PlainLines(out, lambda: next(times)) as lines:
        for _ in range(4):
            lines.show(SNAPSHOT)
    assert written.getvalue().count("jobs 1/2 ended") == 2


def test_the_conclusion_tells_the_counts_and_some_of_the_flaws() -> None:
    emitted = {"job_1": Emitted([f"{n}-0" for n in range(100)], end=None)}
    proof = prove(Sides("auvy", emitted, [], [Arrival("x", "job_9", "job.output", 1)]), **COUNTS)
    for terminal in (True, False):
        out, written = console(terminal=terminal)
        with display(out, lambda: 0.0) as shown:
            shown.conclude(proof, {"auvy": proof})
        assert "lost" in written.getvalue()
        assert "201" in written.getvalue()
        assert "auvy:job_1:0-0 is not in the topic" in written.getvalue()
        assert "and 182 more" in written.getvalue()


COUNTS = {"verified": 1, "reconnects": 0}


def test_what_is_missing_is_said_in_words() -> None:
    assert SNAPSHOT.waiting_for == "1 of 2 jobs not ended: job_1 (running); 7 events not delivered"
    assert not SNAPSHOT.settled
    done = replace(SNAPSHOT, jobs=[ENDED], backlog=0)
    assert not done.settled
    assert done.waiting_for == "the simulators have not finished"
    assert replace(done, finished=True).settled
