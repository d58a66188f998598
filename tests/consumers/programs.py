"""How a snippet of the README becomes a program that runs: the only place that knows each language's tools.

What a program needs beside its language is fetched once, pinned, into the user's cache folder.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from apache_kafka import kafka_jars
from npm import npm_package
from snippets import go_program, need, snippet

KAFKAJS = "2.2.4"
FRANZ_GO = "v1.20.6"

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


def command(language: str, folder: Path) -> Sequence[str]:
    """What runs the README's snippet in that language; `folder` takes the program. Skips where a tool is missing."""
    return _LANGUAGES[language](snippet("consumer", language), folder)


def _python(text: str, folder: Path) -> Sequence[str]:
    program = folder / "reader.py"
    program.write_text(_PYTHON.format(snippet=textwrap.indent(text, "    ")))
    return [sys.executable, "-u", str(program)]


def _node(text: str, folder: Path) -> Sequence[str]:
    program = folder / "reader.mjs"
    program.write_text(_NODE.format(snippet=text))
    (folder / "node_modules").symlink_to(npm_package("kafkajs", KAFKAJS))
    return ["node", str(program)]


def _java(text: str, folder: Path) -> Sequence[str]:
    need("javac")
    program = folder / "Reader.java"
    program.write_text(_JAVA.format(snippet=text))
    return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_jars()}/*", str(program)]


def _go(text: str, folder: Path) -> Sequence[str]:
    return go_program(_GO.format(snippet=text), f"github.com/twmb/franz-go {FRANZ_GO}", folder)


_LANGUAGES = {"java": _java, "go": _go, "node": _node, "python": _python}
LANGUAGES = tuple(_LANGUAGES)
