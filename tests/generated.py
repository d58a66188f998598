"""The parts of README.md that are generated from the code, and what writes them: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from click.testing import CliRunner

from bridge.cli import cli

_PART = re.compile(r"(<!-- generated: jobbridge (?P<command>[a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_generated_parts(text: str) -> str:
    """The text with the output of the command that each marked part names."""

    def fill(part: re.Match[str]) -> str:
        result = CliRunner().invoke(cli, part["command"].split(), catch_exceptions=False)
        return f"{part[1]}\n{result.output.strip()}\n\n{part[3]}"

    return _PART.sub(fill, text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_generated_parts(path.read_text()))
