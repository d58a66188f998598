"""The command line: one function a verb, no logic. Mistakes in a configuration exit with 2, other trouble with 1."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from bridge import __version__
from bridge.errors import BridgeError

T = TypeVar("T")
_SWITCH_INTERVAL_S = 0.0005
"""The journal's writer thread gives up the interpreter at every row. With Python's own 5 ms a busy event loop would
starve it: measured, 1.7k appended events a second instead of 24k or more."""
_GARBAGE_OBJECTS = 20_000
"""New containers between two looks for cyclic garbage. An event is a dozen of them and has no cycles: with Python's
own 700 the looks cost as much again as putting records together."""

_EXISTING = click.Path(path_type=Path)
_config = click.option(
    "--config",
    "-c",
    type=_EXISTING,
    default=Path("/etc/jobbridge/jobbridge.yaml"),
    show_default=True,
    envvar="JOBBRIDGE_CONFIG",
    help="The configuration file.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jobbridge")
def cli() -> None:
    """Follows long jobs on hosted job APIs and hands every event to Kafka and signed webhooks."""


@cli.command()
@_config
def run(config: Path) -> None:
    """Run the bridge until SIGTERM; a second signal stops it at once."""
    import uvloop  # noqa: PLC0415 - the other verbs need no event loop of their own

    from bridge.app import assemble  # noqa: PLC0415
    from bridge.telemetry.logs import configure  # noqa: PLC0415

    settings, providers, sinks = _load(config)
    log = configure(settings.telemetry.log_level, settings.telemetry.log_format)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(_GARBAGE_OBJECTS, *gc.get_threshold()[1:])

    async def main() -> None:
        stopping = _stop_on_signals()
        async with assemble(settings, providers, sinks, log) as bridge:
            gc.freeze()  # what start-up made stays: nothing to look through again
            await bridge.run(stopping)

    _or_exit(lambda: uvloop.run(main()))


@cli.command()
@_config
def check(config: Path) -> None:
    """Tell every mistake in a configuration file, each with its line."""
    settings, _, _ = _load(config)
    click.echo(f"{config}: good; {len(settings.sources)} source(s), {len(settings.sinks)} sink(s)")


@cli.command()
@click.option("--duration", type=click.FloatRange(1, 3600), metavar="SECONDS", help="How long jobs go on emitting.")
@click.option("--all", "everybody", is_flag=True, help="All providers side by side, not just one.")
@click.option("--json", "json_output", is_flag=True, help="Print one last line of JSON with the counts.")
def demo(duration: float | None, everybody: bool, json_output: bool) -> None:
    """Run the whole river against simulated providers that misbehave, and prove that nothing was lost."""
    from bridge.demo.run import run_demo  # noqa: PLC0415 - needs the extra `demo`

    sys.exit(_or_exit(lambda: asyncio.run(run_demo(duration, everybody=everybody, json_output=json_output))))


@cli.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the bridge's control listens.")
@click.option("--json", "json_output", is_flag=True, help="Print the answers as JSON.")
def status(url: str, json_output: bool) -> None:
    """Show a running bridge: sources, sinks and subscriptions. The token comes from JOBBRIDGE_TOKEN."""
    from bridge.control.client import fetch_status, render_status  # noqa: PLC0415

    shown = _or_exit(lambda: asyncio.run(fetch_status(url, os.environ.get("JOBBRIDGE_TOKEN"))))
    click.echo(_pretty(shown) if json_output else render_status(shown))
    sys.exit(0 if shown["ready"].get("ready") else 1)


@cli.command()
@click.argument("what", type=click.Choice(["config", "events", "asyncapi", "settings", "metrics"]), default="config")
def schema(what: str) -> None:
    """Print a description of the configuration (JSON Schema), of the events (JSON Schemas by type, or AsyncAPI), or
    a table of all settings or metrics."""
    from bridge import settings, vocabulary  # noqa: PLC0415
    from bridge.telemetry.metrics import metrics_table  # noqa: PLC0415

    describe: dict[str, Callable[[], Any]] = {
        "config": lambda: settings.json_schema(*_catalogues()),
        "events": lambda: {type_: vocabulary.data_schema(type_) for type_ in vocabulary.MEANINGS},
        "asyncapi": vocabulary.asyncapi,
        "settings": lambda: settings.settings_table(*_catalogues()),
        "metrics": metrics_table,
    }
    described = _or_exit(describe[what])
    click.echo(described if isinstance(described, str) else _pretty(described))


def _pretty(document: Any) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def main() -> None:
    """The entry point of the command."""
    cli(prog_name="jobbridge")


def _catalogues() -> tuple[dict[str, Any], dict[str, Any]]:
    from bridge.delivery import sinks  # noqa: PLC0415 - loads every plug, which `--help` can do without
    from bridge.intake import providers  # noqa: PLC0415

    return providers.catalogue(), sinks.catalogue()


def _load(config: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from bridge.settings import ConfigError, load  # noqa: PLC0415

    providers, sinks = _or_exit(_catalogues)
    try:
        return load(config, os.environ, providers, sinks), providers, sinks
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


def _or_exit(action: Callable[[], T]) -> T:
    """What the action returns; an error that we foresaw becomes its one sentence and exit code 1."""
    try:
        return action()
    except BridgeError as error:
        click.echo(f"jobbridge: {error}", err=True)
        sys.exit(1)


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT. The second ends the process there and then, which loses nothing."""
    stopping = asyncio.Event()

    def stop(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return stopping
