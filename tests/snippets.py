"""The programs that the README shows: the only place that finds them, and that knows what Go needs to build one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from apache_kafka import unable
from generated import ROOT

_SNIPPET = r"<!-- {kind}: {language} -->\n+```\w+\n(.*?)```"
_BUILD_S = 180.0


def snippet(kind: str, language: str) -> str:
    """The text of the one snippet that is marked so."""
    [found] = re.findall(_SNIPPET.format(kind=kind, language=language), (ROOT / "README.md").read_text(), re.DOTALL)
    return str(found)


def go_program(source: str, requirement: str, folder: Path) -> Sequence[str]:
    """What runs this Go program, built in `folder` with that module and version."""
    need("go")
    (folder / "go.mod").write_text(f"module program\n\ngo 1.24\n\nrequire {requirement}\n")
    (folder / "program.go").write_text(source)
    _fetch(["go", "mod", "tidy"], folder)
    built = _run(["go", "build", "-o", "program", "."], folder)  # which Go caches by itself: a second, the second time
    assert built.returncode == 0, built.stderr
    return [str(folder / "program")]


def need(*tools: str) -> None:
    """Skips where one is missing."""
    for tool in tools:
        if shutil.which(tool) is None:
            unable(f"this snippet of the README needs {tool}, and there is none here")


def _fetch(arguments: Sequence[str], folder: Path) -> None:
    done = _run(arguments, folder)
    if done.returncode:
        unable(f"`{' '.join(arguments)}` failed: {(done.stdout + done.stderr).strip()[-500:]}")


def _run(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BUILD_S, check=False
    )
