"""What the command line lets say to the receiver. Light: `--help` needs nothing else of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Mood:
    """How genuine deliveries are answered; those that are not get 400, and too large ones 413."""

    status: int | None = None
    status_after: int | None = None
    fail_first: int = 0
    retry_after_s: int | None = None
    delay_s: float = 0.0

    def answer(self, number: int) -> int:
        """The status for the genuine delivery of that number, from 1.

        `status` is for the first `fail_first` and for those that follow `status_after`; with neither, for all.
        """
        partly = self.fail_first > 0 or self.status_after is not None
        if number <= self.fail_first or (self.status_after is not None and number > self.status_after):
            return self.status or 503
        return 204 if partly else self.status or 204


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    host: str
    port: int
    secrets: Sequence[str]
    """Names of environment variables, or `file:` and a path."""
    public_keys: Sequence[str]
    jwks: str | None
    forms: bool
    json_output: bool
    mood: Mood

    @classmethod
    def said(cls, **given: Any) -> Options:
        """From the values of `LISTEN_OPTIONS`."""
        mood = {name: given.pop(name) for name in Mood.__slots__}
        return cls(**given, mood=Mood(**mood))


LISTEN_OPTIONS = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", type=click.IntRange(0, 65_535), default=8090, show_default=True, help="0 takes a free one."),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME|file:PATH",
        help="Environment variable or file that holds a secret of v1, whsec_. May be repeated.",
    ),
    click.option(
        "--public-key", "public_keys", multiple=True, metavar="KEY", help="Public key of v1a, whpk_. May be repeated."
    ),
    click.option("--jwks", metavar="URL", help="Where a bridge shows its keys of v1a: .../.well-known/webhook-keys."),
    click.option(
        "--status", type=click.IntRange(200, 599), help="Answer so.  [default: 204; 503 with one of the next two]"
    ),
    click.option("--status-after", type=click.IntRange(0), metavar="N", help="The first N are answered 204 before."),
    click.option("--fail-first", type=click.IntRange(0), default=0, metavar="N", help="Only the first N; then 204."),
    click.option(
        "--retry-after", "retry_after_s", type=click.IntRange(0), metavar="SECONDS", help="Beside any status but 2xx."
    ),
    click.option(
        "--delay", "delay_s", type=click.FloatRange(0, 3_600), default=0.0, metavar="SECONDS", help="Before any answer."
    ),
    click.option("--forms", is_flag=True, help="Show each delivery's payload form, our headers and all its data."),
    click.option("--json", "json_output", is_flag=True, help="Print a line of JSON for each, and for the counts."),
)
