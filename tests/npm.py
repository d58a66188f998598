"""Packages for Node, fetched once, pinned, into the user's cache folder."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from apache_kafka import unable
from cache import cache_folder

_FETCH_S = 180.0


def npm_package(name: str, version: str) -> Path:
    """The `node_modules` that hold this package. Skips, or where `CI` is set fails, when it cannot be had."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            unable(f"the package {name} needs {tool}, and there is none here")
    cache = cache_folder()
    fetched = cache / f"{name}-{version}"
    if not fetched.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as folder:
            package = Path(folder) / "package"
            _fetch(f"{name}@{version}", package)
            with suppress(OSError):  # somebody else was faster
                package.rename(fetched)
    return fetched / "node_modules"


def _fetch(what: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "package.json").write_text("{}")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", what]
    done = subprocess.run(
        install, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_FETCH_S, check=False
    )
    if done.returncode:
        unable(f"`{' '.join(install)}` failed: {(done.stdout + done.stderr).strip()[-500:]}")
