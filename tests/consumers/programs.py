"""How a snippet of the README becomes a program that runs: the only place that knows each language's tools.

What a program needs beside its language is fetched once, pinned, into the user's cache folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from apache_kafka import kafka_jars, unable
from generated import ROOT

KAFKAJS = "2.2.4"
FRANZ_GO = "v1.20.6"

_SNIPPET = re.compile(r"<!-- consumer: (?P<language>\w+) -->\n+```\w+\n(?P<text>.*?)```", re.DOTALL)
_BUILD_S = 180.0

# Each snippet finds the names `brokers`, `topic` and `group`; the one for Node also `firstTime`, somebody's unique key.
_PYTHON = """\
import asyncio, os

brokers, topic, group = (os.environ[name] for name in ("BROKERS", "TOPIC", "GROUP"))

async def main():
{snippet}

asyncio.run(main())
"""

_NODE = """\
process.env.KAFKAJS_LOG_LEVEL = "error";
const [brokers, topic, group] = [[process.env.BROKERS], process.env.TOPIC, process.env.GROUP];
const seen = new Set();
const firstTime = async (id) => seen.size < seen.add(id).size;
{snippet}
"""

_JAVA = """\
import static java.nio.charset.StandardCharsets.UTF_8;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Reader {{
    public static void main(String[] given) {{
        String brokers = System.getenv("BROKERS"), topic = System.getenv("TOPIC"), group = System.getenv("GROUP");
{snippet}
    }}
}}
"""

_GO = """\
package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {{
	ctx, brokers, topic, group := context.Background(), os.Getenv("BROKERS"), os.Getenv("TOPIC"), os.Getenv("GROUP")
{snippet}
	panic(err)
}}
"""

_GO_MOD = f"""\
module reader

go 1.24

require github.com/twmb/franz-go {FRANZ_GO}
"""


def command(language: str, folder: Path) -> Sequence[str]:
    """What runs the README's snippet in that language; `folder` takes the program. Skips where a tool is missing."""
    [snippet] = [found["text"] for found in _SNIPPET.finditer((ROOT / "README.md").read_text()) if found[1] == language]
    return _LANGUAGES[language](snippet, folder)


def _python(snippet: str, folder: Path) -> Sequence[str]:
    program = folder / "reader.py"
    program.write_text(_PYTHON.format(snippet=textwrap.indent(snippet, "    ")))
    return [sys.executable, "-u", str(program)]


def _node(snippet: str, folder: Path) -> Sequence[str]:
    _need("node", "npm")
    program = folder / "reader.mjs"
    program.write_text(_NODE.format(snippet=snippet))
    (folder / "node_modules").symlink_to(_kafkajs() / "node_modules")
    return ["node", str(program)]


def _java(snippet: str, folder: Path) -> Sequence[str]:
    _need("javac")
    program = folder / "Reader.java"
    program.write_text(_JAVA.format(snippet=snippet))
    return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_jars()}/*", str(program)]


def _go(snippet: str, folder: Path) -> Sequence[str]:
    _need("go")
    (folder / "go.mod").write_text(_GO_MOD)
    (folder / "reader.go").write_text(_GO.format(snippet=snippet))
    _fetch(["go", "mod", "tidy"], folder)
    built = _run(["go", "build", "-o", "reader", "."], folder)  # which Go caches by itself: a second, the second time
    assert built.returncode == 0, built.stderr
    return [str(folder / "reader")]


_LANGUAGES = {"java": _java, "go": _go, "node": _node, "python": _python}
LANGUAGES = tuple(_LANGUAGES)


def _kafkajs() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jobbridge"
    fetched = cache / f"kafkajs-{KAFKAJS}"
    if fetched.is_dir():
        return fetched
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as folder:
        package = Path(folder) / "package"
        package.mkdir()
        (package / "package.json").write_text("{}")
        _fetch(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"kafkajs@{KAFKAJS}"], package)
        with suppress(OSError):  # somebody else was faster
            package.rename(fetched)
    return fetched


def _need(*tools: str) -> None:
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
