"""What is generated from the code, and what writes it: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
from click.testing import CliRunner

from bridge import asyncapi
from bridge.cli import cli

ROOT = Path(__file__).parents[1]
_PART = re.compile(r"(<!-- generated: jobbridge (?P<command>[a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def files() -> dict[Path, str]:
    """The text that each generated file must have."""
    readme = ROOT / "README.md"
    schemas = {
        ROOT / "bridge/schemas" / name: orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"
        for name, document in asyncapi.documents().items()
    }
    return {readme: _filled(readme.read_text()), ROOT / "config/schema.json": _output("schema config")} | schemas


def _filled(text: str) -> str:
    """The text with the output of the command that each marked part names."""
    return _PART.sub(lambda part: f"{part[1]}\n{_output(part['command']).strip()}\n\n{part[3]}", text)


def _output(command: str) -> str:
    return CliRunner().invoke(cli, command.split(), catch_exceptions=False).output


if __name__ == "__main__":
    for path, content in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
