"""How a provider or a sink presents itself, and how the catalogue of them is made.

A plug is one file that ends in `PLUG = Plug(kind, Settings, build)`; its settings model lives beside it, so that a
new plug changes no shared settings file. Packages from outside add theirs through an entry point whose value is
such a `PLUG`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from bridge.errors import Fatal

B = TypeVar("B")

NAME = "^[a-z0-9][a-z0-9-]{0,62}$"
"""What the name of a source or sink looks like: it becomes a metric label and part of an environment variable."""


@dataclass(frozen=True, slots=True)
class Plug(Generic[B]):
    """A kind (the word used in the configuration), the model of its options, and what builds it from them."""

    kind: str
    settings: type[BaseModel]
    build: Callable[..., B]


def catalogue(built_in: Iterable[Plug[Any]], group: str) -> dict[str, Plug[Any]]:
    """All plugs by kind: our own, and those that installed packages offer under the entry point `group`.

    Raises `Fatal` naming the package when an entry point cannot be loaded, is no plug, or takes a kind that is
    taken already: a half-loaded catalogue would turn into a puzzling configuration error later.
    """
    plugs = {plug.kind: plug for plug in built_in}
    for point in entry_points(group=group):
        try:
            plug = point.load()
        except Exception as error:
            raise Fatal(f"plug {point.value} ({group}) cannot be loaded: {error}") from error
        if not isinstance(plug, Plug):
            raise Fatal(f"plug {point.value} ({group}) is a {type(plug).__name__}, not a bridge.plug.Plug")
        if plug.kind in plugs:
            raise Fatal(f"plug {point.value} ({group}) takes the kind {plug.kind!r}, which exists already")
        plugs[plug.kind] = plug
    return plugs
