"""`jobbridge demo`: sees that everything needed is there, has the play played, and tells the verdict."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.errors import Fatal

if TYPE_CHECKING:
    from bridge.demo.stage import Outcome

_EXTRA = {"rich": "rich", "standardwebhooks": "standardwebhooks", "noida_db": "noida-db"}
_BROKEN, _STOPPED = 1, 130


async def run_demo(
    duration_s: float | None = None, *, everybody: bool = False, json_output: bool = False, seed: int = 1
) -> int:
    """Play once, with one provider or with everybody at once.

    The exit code is 0 only when nothing is lost, repeated or late and the bridge ended cleanly. With `json_output`
    the standard output gets one line of JSON with the counts; all else goes to the standard error. SIGINT and SIGTERM
    end everybody in order and give 130. Raises `Fatal` when somebody is missing or does not play their part. What
    they logged is kept only when something went wrong.
    """
    _check_extra()
    directory = Path(tempfile.mkdtemp(prefix="jobbridge-demo-"))
    keep = False
    with _cancelled_by_signals() as signals:
        try:
            code = await _perform(directory, duration_s, everybody, json_output, seed)
            keep = code == _BROKEN
        except Fatal as error:
            keep = True
            raise Fatal(f"{error} (logs are in {directory})") from error
        except asyncio.CancelledError:
            if not signals:
                raise
            click.echo("jobbridge: stopped before the end; nothing is proven", err=True)
            return _STOPPED
        finally:
            if not keep:
                shutil.rmtree(directory, ignore_errors=True)
    return code


async def _perform(directory: Path, duration_s: float | None, everybody: bool, json_output: bool, seed: int) -> int:
    from rich.console import Console  # noqa: PLC0415 - all of these need the extra

    from bridge.demo.cast import AUVY, EVERYBODY  # noqa: PLC0415
    from bridge.demo.scene import Scene  # noqa: PLC0415
    from bridge.demo.stage import play  # noqa: PLC0415
    from bridge.demo.table import display  # noqa: PLC0415

    with display(Console(stderr=json_output), time.monotonic) as shown:
        scene = Scene.of(duration_s, seed, EVERYBODY if everybody else (AUVY,))
        outcome = await play(scene, directory, shown)
        shown.conclude(outcome.proof, outcome.proofs)
        complaints = _complaints(outcome)
        for complaint in complaints:
            shown.say(complaint)
        shown.say(f"NOT proven; logs are in {directory}" if complaints else _verdict(outcome))
    if json_output:
        sources = {source: proof.counts() for source, proof in outcome.proofs.items()}
        click.echo(json.dumps(outcome.proof.counts() | {"sources": sources}))
    return _BROKEN if complaints else 0


def _complaints(outcome: Outcome) -> list[str]:
    complaints = []
    if outcome.shortfall:
        complaints.append(f"the deadline passed: {outcome.shortfall}")
    if outcome.bridge_exit:
        complaints.append(f"the bridge ended with exit code {outcome.bridge_exit}")
    if outcome.proof.flaws:
        complaints.append(f"{len(outcome.proof.flaws)} flaws")
    return complaints


def _verdict(outcome: Outcome) -> str:
    proof, sources = outcome.proof, len(outcome.proofs)
    whose = f"{proof.jobs} jobs" + (f" at {sources} providers" if sources > 1 else "")
    return (
        f"Proven: all {proof.events_emitted} emitted events of {whose} are in the topic exactly once and "
        f"were accepted by the receiver, in order within each job, over {proof.reconnects} reconnects."
    )


def _check_extra() -> None:
    missing = [package for module, package in _EXTRA.items() if find_spec(module) is None]
    if missing:
        raise Fatal(f"the demo needs {', '.join(missing)}: pip install 'jobbridge[demo]'")


@contextmanager
def _cancelled_by_signals() -> Iterator[list[int]]:
    """Cancel this task on SIGINT and SIGTERM, so that everything is ended on the way out; yields those that came."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    came: list[int] = []

    def stop(number: int) -> None:
        came.append(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        yield came
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
