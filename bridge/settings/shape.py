"""The shape of the configuration: every section that is not a plug's own, each setting with its unit and default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from bridge.delivery.dialling import DiallingRules
from bridge.delivery.operators import OperatorSettings
from bridge.delivery.sink import SinkSettings
from bridge.intake.commands import CommandSettings
from bridge.intake.provider import SourceSettings
from bridge.plug import NAME, Plug
from bridge.sealing import SealingKey
from bridge.secret import Secret
from bridge.settings.yaml_source import Keys
from bridge.telemetry.logs import LogFormat, LogLevel

Catalogue = Mapping[str, Plug[Any]]
"""Plugs by kind."""

PLUGGED = {"sources": "provider", "sinks": "kind"}
"""The sections whose entries are judged by plugs, and the key in each entry that names the plug."""

Name = Annotated[str, Field(pattern=NAME)]


class Section(BaseModel):
    """A part of the configuration: closed, unchangeable, and silent about what it was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class JournalSettings(Section):
    """The durable log between intake and delivery."""

    url: str = Field(
        "sqlite:////var/lib/jobbridge/journal.db",
        pattern="^sqlite:///.",
        description="Where the journal is kept. Four slashes begin an absolute path.",
    )
    synchronous: Literal["full", "normal"] = Field(
        "full",
        description="`full` survives a loss of power; `normal` is faster and survives only a crash of the process.",
    )
    high_water_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="Size of the live journal, in bytes, at which intake stops reading until delivery catches up.",
    )
    retention_s: float = Field(
        604_800.0, ge=0, description="Seconds for which an event is kept although every sink has settled it."
    )
    attempts_retention_s: float = Field(
        259_200.0, ge=0, description="Seconds for which each attempt at an endpoint is kept."
    )
    prune_interval_s: float = Field(
        60.0, gt=0, description="Seconds between two removals of events and attempts that are past their retention."
    )
    partitions: int = Field(
        1, ge=1, le=1024, description="Units of order and parallel delivery. Fixed once the journal exists."
    )


class ControlSettings(Section):
    """The HTTP server for probes, metrics and the API."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on. A container needs `0.0.0.0`.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    token: Secret | None = Field(None, description="Bearer token of the `/v1` API. Without one it answers 403.")
    ready_needs_sinks: bool = Field(
        False, description="Whether `/readyz` fails while a sink is away, although the journal holds its events."
    )


class EndpointSettings(DiallingRules):
    """Webhook endpoints made over the API, and where their receivers may live."""

    keys: list[SealingKey] = Field(
        default_factory=list,
        max_length=8,
        description="Keys of 32 bytes in base64 that encrypt the secrets of endpoints made over the API: the first "
        "one seals, all open. Without one, no endpoint can be made there.",
    )


class SupervisionSettings(Section):
    """When something that ended is run again, and how long the end may take."""

    backoff_base_s: float = Field(
        0.5, gt=0, description="Ceiling of the first wait, in seconds; it doubles with every failure."
    )
    backoff_cap_s: float = Field(60.0, gt=0, description="Ceiling of all waits, in seconds.")
    floor_max_s: float = Field(300.0, ge=0, description="Seconds up to which a wait that a server asks for is granted.")
    drain_timeout_s: float = Field(
        20.0, ge=0, description="Seconds that delivery has, after SIGTERM, for what is journalled already."
    )

    @model_validator(mode="after")
    def _base_below_cap(self) -> SupervisionSettings:
        if self.backoff_base_s > self.backoff_cap_s:
            raise ValueError("backoff_base_s must not be greater than backoff_cap_s")
        return self


class TelemetrySettings(Section):
    """What the process says about itself."""

    log_level: LogLevel = Field("info", description="The least important log lines that are written.")
    log_format: LogFormat = Field("json", description="`json` for machines, `console` for people.")


class Settings(Section):
    """The whole configuration. Each source and sink is an instance of its own plug's settings model."""

    sources: dict[Name, SourceSettings] = Field(description="Job APIs to follow, each under a name of your choice.")
    sinks: dict[Name, SinkSettings] = Field(description="Where events go, each under a name of your choice.")
    operators: dict[Name, OperatorSettings] = Field(
        {}, description="Webhooks for your own people: who is told that an endpoint fails, was disabled, or recovered."
    )
    commands: CommandSettings | None = Field(
        None, description="A Kafka topic on which others say what to follow. Off when absent."
    )
    journal: JournalSettings = Field(JournalSettings(), description="The durable log between sources and sinks.")
    control: ControlSettings = Field(ControlSettings(), description="The HTTP server for probes, metrics and the API.")
    endpoints: EndpointSettings = Field(
        EndpointSettings(), description="Webhook endpoints made over the API, and where their receivers may live."
    )
    supervision: SupervisionSettings = Field(SupervisionSettings(), description="When to try again, when to give up.")
    telemetry: TelemetrySettings = Field(TelemetrySettings(), description="What the process says about itself.")

    @model_validator(mode="after")
    def _names_differ(self) -> Settings:
        if shared := sorted(self.sources.keys() & self.sinks.keys()):
            raise ValueError(f"a source and a sink share the name {shared[0]!r}, so metrics and parking would mix them")
        return self


def fields(model: type[BaseModel], at: Keys = ()) -> Iterator[tuple[Keys, FieldInfo]]:
    """Every setting of a model, each before those inside it. `<name>` and `<n>` stand for any key and any index."""
    for name, field in model.model_fields.items():
        yield (*at, name), field
        inside = [found for inner, keys in _models(field.annotation, (*at, name)) for found in fields(inner, keys)]
        yield from {keys: (keys, found) for keys, found in inside}.values()  # members of a union may share some


def _models(annotation: Any, at: Keys) -> Iterator[tuple[type[BaseModel], Keys]]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, at
    elif origin in {Union, UnionType, Annotated}:
        for argument in arguments:
            yield from _models(argument, at)
    elif origin is list:
        yield from _models(arguments[0], (*at, "<n>"))
    elif origin is dict:
        yield from _models(arguments[1], (*at, "<name>"))
