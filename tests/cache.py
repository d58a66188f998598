"""Where the tests keep what they fetch once: brokers, packages, tools."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """A folder of ours under the user's own."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jobbridge"
