"""`jobbridge demo` as a person starts it: real processes, a real broker, broken connections, and a proof."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.demo.cast import EVERYBODY
from bridge.demo.run import run_demo
from bridge.errors import Fatal

PROMISED = ("jobs", "events_emitted", "kafka_records", "webhook_events", "signatures_verified")


@asynccontextmanager
async def demo(temporary: Path, *arguments: str) -> AsyncIterator[Process]:
    """The command, with a directory for temporary files by which its whole family can be known."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "demo", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def family(temporary: Path) -> list[str]:
    """The command lines of all living processes that inherited the directory."""
    mark = f"TMPDIR={temporary}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def files(temporary: Path) -> list[Path]:
    """What was left in the directory."""
    return list(temporary.iterdir())


async def test_the_demo_proves_that_nothing_is_lost_over_broken_connections(tmp_path: Path) -> None:
    async with demo(tmp_path, "--duration", "5", "--json") as process:
        out, err = await process.communicate()
    told = err.decode()
    assert process.returncode == 0, told
    [line] = out.decode().splitlines()
    counts = json.loads(line)
    assert (counts["lost"], counts["duplicates"], counts["out_of_order"]) == (0, 0, 0)
    assert all(counts[name] > 0 for name in PROMISED), counts
    assert counts["jobs"] == 12
    assert counts["reconnects"] > 5
    assert counts["kafka_records"] == counts["webhook_events"] > counts["events_emitted"] > 150
    assert counts["signatures_verified"] >= counts["webhook_events"] + counts["webhook_duplicates"]
    assert "Proven: " in told
    assert family(tmp_path) == []
    assert files(tmp_path) == []


async def test_all_providers_side_by_side_give_the_same_proof(tmp_path: Path) -> None:
    async with demo(tmp_path, "--all", "--duration", "4", "--json") as process:
        out, err = await process.communicate()
    told = err.decode()
    assert process.returncode == 0, told
    counts = json.loads(out)
    sources = counts.pop("sources")
    assert [*sources] == [cast.source for cast in EVERYBODY]
    for name, total in counts.items():
        assert total == sum(source[name] for source in sources.values()), name
    for name, source in sources.items():
        assert (source["lost"], source["duplicates"], source["out_of_order"], source["invented"]) == (0, 0, 0, 0), name
        assert source["jobs"] >= 9
        assert source["kafka_records"] == source["webhook_events"] >= 2 * source["jobs"]
        assert (source["events_emitted"] > 50) == (name not in {"flowrelay", "fal"})
    assert "at 8 providers" in told
    assert family(tmp_path) == []
    assert files(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_demo_leaves_no_process_and_no_file_behind(tmp_path: Path, number: signal.Signals) -> None:
    async with demo(tmp_path, "--duration", "60", "--json") as process:
        assert process.stderr is not None
        while b"the bridge is up" not in (line := await process.stderr.readline()):
            assert line, "the demo ended before the bridge was up"
        assert len(family(tmp_path)) == 5
        process.send_signal(number)
        out, err = await process.communicate()
    assert process.returncode == 130
    assert out == b""
    assert b"nothing is proven" in err
    assert family(tmp_path) == []
    assert files(tmp_path) == []


async def test_a_missing_extra_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(Fatal, match=r"^the demo needs rich: pip install 'jobbridge\[demo\]'$"):
        await run_demo()
