"""The command line: one function a verb, no logic. Mistakes in a configuration exit with 2, other trouble with 1."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from bridge import __version__
from bridge.errors import BridgeError
from bridge.listen.options import LISTEN_OPTIONS, Options

T = TypeVar("T")
_SWITCH_INTERVAL_S = 0.0005
"""The journal's writer thread gives up the interpreter at every row. With Python's own 5 ms a busy event loop would
starve it: measured, 1.7k appended events a second instead of 24k or more."""
_GARBAGE_OBJECTS = 100_000
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

_url = click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where its control listens.")
_json = click.option("--json", "json_output", is_flag=True, help="Print the answer as JSON.")


def _since(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    from bridge.control.client import moment  # noqa: PLC0415

    try:
        return None if value is None else moment(value)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter("write 2025-01-31T12:00:00Z, or how long ago: 90s, 15m, 2h, 3d") from error


def _all_of(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, in the order in which `--help` shows them."""
    return lambda verb: reduce(lambda decorated, option: option(decorated), reversed(options), verb)


_filters = _all_of(
    click.option("--source", help="Only events of this source."),
    click.option("--job", "job_id", help="Only events of this job."),
    click.option("--type", help="Only events of this type; may be a pattern such as job.*."),
    click.option("--since", callback=_since, help="Only those journalled since a moment, or so long ago: 90s, 2h, 3d."),
)
_changes = _all_of(
    click.argument("sink"),
    click.argument("delivery", required=False),
    _filters,
    click.option("--all", is_flag=True, help="Without any filter."),
    click.option("--dry-run", is_flag=True, help="Count only."),
    _url,
    _json,
)
_redrives = _all_of(
    _changes, click.option("--per-second", type=click.FloatRange(0.01), help="So many a second, not all at once.")
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
@_url
@_json
def status(url: str, json_output: bool) -> None:
    """Show a running bridge: sources, sinks and subscriptions. The token comes from JOBBRIDGE_TOKEN."""
    from bridge.control import client  # noqa: PLC0415

    shown = _asked(client.fetch_status, url)
    click.echo(_pretty(shown) if json_output else client.render_status(shown))
    sys.exit(0 if shown["ready"].get("ready") else 1)


@cli.group("dead-letters")
def dead_letters() -> None:
    """What sinks finally refused, in a running bridge. The token comes from JOBBRIDGE_TOKEN."""


@dead_letters.command("list")
@click.argument("sink")
@_filters
@click.option("--state", default="dead", show_default=True, help="Other states than dead, with commas between them.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many, at most.")
@_url
@_json
def list_dead_letters(sink: str, state: str, limit: int, url: str, json_output: bool, **query: str | None) -> None:
    """List them, oldest first."""
    from bridge.control import client  # noqa: PLC0415

    found = _asked(client.fetch_deliveries, url, sink, {**query, "state": state}, limit)
    click.echo(_pretty(found) if json_output else client.render_deliveries(found), nl=bool(found))


@dead_letters.command("show")
@click.argument("sink")
@click.argument("delivery")
@_url
@_json
def show_dead_letter(sink: str, delivery: str, url: str, json_output: bool) -> None:
    """Show one, by its id, with every attempt that is kept."""
    from bridge.control import client  # noqa: PLC0415

    found = _asked(client.fetch_delivery, url, sink, delivery)
    click.echo(_pretty(found) if json_output else client.render_delivery(found))


@dead_letters.command("redrive")
@_redrives
def redrive_dead_letters(sink: str, delivery: str | None, **options: Any) -> None:
    """Deliver them anew: one by its id, those of a filter, or all. They keep their webhook-id."""
    _change("redrive", sink, delivery=delivery, **options)


@dead_letters.command("drop")
@_changes
def drop_dead_letters(sink: str, delivery: str | None, **options: Any) -> None:
    """Give them up: one by its id, those of a filter, or all."""
    _change("drop", sink, delivery=delivery, **options)


@cli.command()
@_redrives
@click.option("--state", "states", multiple=True, help="Other states than dead, dropped and expired.")
def replay(sink: str, delivery: str | None, states: tuple[str, ...], **options: Any) -> None:
    """Deliver again what a sink never got, whatever the reason; with --state delivered, what it got as well."""
    _change("replay", sink, delivery=delivery, states=states, **options)


@cli.command()
@click.argument("what", type=click.Choice(["config", "events", "asyncapi", "settings", "metrics"]), default="config")
def schema(what: str) -> None:
    """Print a description of the configuration (JSON Schema), of the events (JSON Schemas by type, or AsyncAPI), or
    a table of all settings or metrics."""
    from bridge import asyncapi, settings, vocabulary  # noqa: PLC0415
    from bridge.telemetry.metrics import metrics_table  # noqa: PLC0415

    describe: dict[str, Callable[[], Any]] = {
        "config": lambda: settings.json_schema(*_catalogues()),
        "events": lambda: {type_: vocabulary.data_schema(type_) for type_ in vocabulary.MEANINGS},
        "asyncapi": asyncapi.document,
        "settings": lambda: settings.settings_table(*_catalogues()),
        "metrics": metrics_table,
    }
    described = _or_exit(describe[what])
    click.echo(described if isinstance(described, str) else _pretty(described))


@cli.command()
@_all_of(*LISTEN_OPTIONS)
def listen(**given: Any) -> None:
    """Receive webhooks here until Ctrl-C: verify each, tell what is wrong with it, and answer as asked."""
    from bridge.listen.run import listen  # noqa: PLC0415

    _or_exit(lambda: asyncio.run(listen(Options.said(**given), os.environ, _stop_on_signals, click.echo)))


@cli.command("webhook-secret")
@click.argument("scheme", type=click.Choice(["v1", "v1a"]), default="v1")
def webhook_secret(scheme: str) -> None:
    """Make a secret that signs webhooks. The public key of a v1a secret goes to standard error."""
    from bridge.delivery.signing import new_private_key, new_secret  # noqa: PLC0415

    if scheme == "v1":
        click.echo(new_secret())
        return
    secret, public = new_private_key()
    click.echo(secret)
    click.echo(str(public), err=True)


def _change(verb: str, sink: str, *, url: str, json_output: bool, **wanted: Any) -> None:
    from bridge.control import client  # noqa: PLC0415

    told = _asked(client.change_deliveries, url, sink, verb, wanted)
    click.echo(_pretty(told) if json_output else f"{told['count']}" + " (dry run)" * told["dry_run"])


def _asked(question: Callable[..., Awaitable[T]], url: str, *arguments: Any) -> T:
    """What a running bridge answers."""

    async def ask() -> T:
        return await question(url, os.environ.get("JOBBRIDGE_TOKEN"), *arguments)

    return _or_exit(lambda: asyncio.run(ask()))


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
