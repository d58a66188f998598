"""Which topic an event goes to, and how a topic is written down in the settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import Formatter
from typing import Annotated, NamedTuple

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from bridge.delivery.patterns import Pattern, any_of
from bridge.delivery.sinks.kafka.topics import TopicSpec
from bridge.journal.store import Entry

TOPIC_FIELDS = ("source", "provider", "type", "kind")
_TOPIC_ILLEGAL = re.compile(r"[^a-zA-Z0-9._-]")
_TOPIC_CHARS_MAX = 249


def check_template(template: str) -> str:
    """The template itself. Raises ValueError when it names unknown fields, or letters that no topic can hold."""
    for text, field, spec, conversion in Formatter().parse(template):
        if field is not None and (field not in TOPIC_FIELDS or spec or conversion):
            raise ValueError(f"unknown field {{{field}}}; there are: {', '.join(TOPIC_FIELDS)}")
        _check_letters(text)
    return _check_there(template)


def check_name(name: str) -> str:
    """The name of one topic itself. Raises ValueError when no topic can be called that."""
    if "{" in name or "}" in name:
        raise ValueError("this is one topic for all events and takes no {fields}")
    _check_letters(name)
    return _check_there(name)


def _check_letters(text: str) -> None:
    if illegal := _TOPIC_ILLEGAL.search(text):
        raise ValueError(f"a topic name cannot hold {illegal[0]!r}; it takes letters, digits, '.', '_' and '-'")


def _check_there(name: str) -> str:
    if name.strip(".") == "":
        raise ValueError("the topic needs a name")
    return name


def _as_brokers_write(value: object) -> object:
    """A number or a boolean as the text that brokers know it by."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


TopicTemplate = Annotated[str, AfterValidator(check_template)]
TopicName = Annotated[str, AfterValidator(check_name)]
TopicConfig = dict[
    str,
    Annotated[str, BeforeValidator(_as_brokers_write), WithJsonSchema({"type": ["string", "number", "boolean"]})],
]


class TopicSettings(BaseModel):
    """How a topic is created where it may be, and what it is checked for."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    partitions: int | None = Field(
        None, ge=1, description="Partitions of the topic, at least; the brokers' default where it is created."
    )
    config: TopicConfig = Field(
        default_factory=dict, description="Configs with which the topic is created, such as `retention.ms`."
    )

    def spec(self, name: str) -> TopicSpec:
        """What is wanted of the topic of that name."""
        return TopicSpec(name, self.partitions, tuple(sorted(self.config.items())))


class RouteSettings(TopicSettings):
    """Events that go to a topic of their own. The first route that fits takes an event."""

    types: list[Pattern] = Field(
        ["*"], min_length=1, description="Event types of this route, as patterns such as `job.*`."
    )
    sources: list[str] = Field(default_factory=list, description="Sources of this route; all when empty.")
    topic: TopicTemplate = Field(description="Topic; a template like the sink's own `topic`.")


class _Route(NamedTuple):
    types: re.Pattern[str]
    sources: frozenset[str]
    template: str
    settings: TopicSettings

    def takes(self, entry: Entry) -> bool:
        return self.types.match(entry.type) is not None and (not self.sources or entry.source in self.sources)


class Routes:
    """The topics of events, worked out once for each source and type."""

    def __init__(self, routes: Sequence[RouteSettings]) -> None:
        """The last route takes every event that is left over."""
        self.specs: dict[str, TopicSpec] = {}
        """What is wanted of each topic named so far; at first those whose templates hold no fields."""
        self._routes = [_Route(any_of(one.types), frozenset(one.sources), one.topic, one) for one in routes]
        self._names: dict[tuple[str, str], str] = {}
        self._providers: dict[str, str] = {}
        for one in routes:
            if "{" not in one.topic:
                self._named(one.topic, one)

    def topic(self, entry: Entry) -> str:
        """The topic of that event."""
        name = self._names.get((entry.source, entry.type))
        if name is None:
            route = next(route for route in self._routes if route.takes(entry))
            name = self._named(self._filled(route.template, entry), route.settings)
            self._names[entry.source, entry.type] = name
        return name

    def topics(self, entries: Iterable[Entry]) -> list[str]:
        """The topic of each."""
        names = self._names
        return [names.get((entry.source, entry.type)) or self.topic(entry) for entry in entries]

    def _named(self, name: str, settings: TopicSettings) -> str:
        self.specs.setdefault(name, settings.spec(name))
        return name

    def _filled(self, template: str, entry: Entry) -> str:
        """The template filled in. What a topic name cannot hold becomes `_`; the length is cut to what Kafka allows."""
        provider = self._provider(entry) if "{provider}" in template else ""
        kind = entry.type.partition(".")[0]
        name = template.format(source=entry.source, provider=provider, type=entry.type, kind=kind)
        return _TOPIC_ILLEGAL.sub("_", name)[:_TOPIC_CHARS_MAX]

    def _provider(self, entry: Entry) -> str:
        # A source has one provider for ever; only the event's data names it.
        if entry.source not in self._providers:
            self._providers[entry.source] = str(orjson.loads(entry.data)["job"]["provider"])
        return self._providers[entry.source]
