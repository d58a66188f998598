"""The configuration described: as a JSON Schema for editors, and as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from bridge.delivery.sink import SinkSettings
from bridge.intake.provider import SourceSettings
from bridge.plug import NAME
from bridge.settings.shape import PLUGGED, Catalogue, Settings, fields
from bridge.settings.yaml_source import Keys, dotted

Rows = Iterator[tuple[Keys, FieldInfo, str]]


def json_schema(providers: Catalogue, sinks: Catalogue) -> dict[str, Any]:
    """JSON Schema 2020-12 of the whole file. Which options an entry may have follows from its kind."""
    catalogues = {"sources": providers, "sinks": sinks}
    models = [plug.settings for catalogue in catalogues.values() for plug in catalogue.values()]
    sections = {
        name: model for name, field in Settings.model_fields.items() if name not in PLUGGED for model in _section(field)
    }
    references, definitions = models_json_schema(
        [(model, "validation") for model in (*models, *sections.values())], schema_generator=_EditorSchema
    )
    schemas = {model: reference for (model, _), reference in references.items()}
    described = {name: {"description": Settings.model_fields[name].description} for name in Settings.model_fields}
    plugged = {name: described[name] | _plugged(PLUGGED[name], catalogues[name], schemas) for name in PLUGGED}
    plain = {name: described[name] | schemas[model] for name, model in sections.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "jobbridge configuration",
        "type": "object",
        "properties": plugged | plain,
        "required": list(catalogues),
        "additionalProperties": False,
        **definitions,
    }


def settings_table(providers: Catalogue, sinks: Catalogue) -> str:
    """A Markdown table of every setting: where it stands, its type and default, what it means."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for keys, field, only in _rows(providers, sinks):
        meaning = (field.description or "").replace("|", "\\|") + only
        lines.append(f"| `{dotted(keys)}` | {_type(field.annotation)} | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _section(field: FieldInfo) -> Iterator[type[BaseModel]]:
    for member in (field.annotation, *get_args(field.annotation)):
        if isinstance(member, type) and issubclass(member, BaseModel):
            yield member


def _plugged(word: str, catalogue: Catalogue, schemas: Mapping[Any, JsonSchemaValue]) -> JsonSchemaValue:
    return {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": NAME},
        "additionalProperties": {
            "type": "object",
            "required": [word],
            "properties": {word: {"enum": sorted(catalogue)}},
            "allOf": [
                {
                    "if": {"properties": {word: {"const": kind}}, "required": [word]},
                    "then": schemas[catalogue[kind].settings],
                }
                for kind in sorted(catalogue)
            ],
        },
    }


class _EditorSchema(GenerateJsonSchema):
    """A setting that is no free text may still be written as a reference, which is text."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False  # pydantic would say every name twice

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _or_reference(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _or_reference(super().float_schema(schema))

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        return _or_reference(super().bool_schema(schema))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return _or_reference(super().literal_schema(schema))

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        return _or_reference(super().enum_schema(schema))

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        constrained = super().str_schema(schema)
        return _or_reference(constrained) if "pattern" in constrained else constrained


def _or_reference(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [schema, {"type": "string", "pattern": r"\$\{[^{}]+\}"}]}


def _rows(providers: Catalogue, sinks: Catalogue) -> Rows:
    yield from _shared("sources", SourceSettings)
    yield from _own("sources", SourceSettings, providers)
    yield from _shared("sinks", SinkSettings)
    yield from _own("sinks", SinkSettings, sinks)
    for keys, field in fields(Settings):
        if keys[0] not in PLUGGED and len(keys) > 1:
            yield keys, field, ""


def _shared(section: str, model: type[BaseModel]) -> Rows:
    for keys, field in fields(model, (section, "<name>")):
        yield keys, field, ""


def _own(section: str, shared: type[BaseModel], catalogue: Catalogue) -> Rows:
    """What a plug has beyond what all of its sort have, and what it has in another way."""
    for kind, plug in sorted(catalogue.items()):
        for keys, field in fields(plug.settings, (section, "<name>")):
            inherited = shared.model_fields.get(str(keys[2]))
            if inherited is None or (len(keys) == 3 and repr(inherited) != repr(field)):
                yield keys, field, f" Only `{kind}`."


_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret",
    Any: "mapping",
}


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_type(member) for member in arguments if member is not type(None)))
    if origin in {list, tuple, set, frozenset}:
        return f"list of {_type(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return _WORDS.get(annotation, "text")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None or isinstance(default, BaseModel):
        return ""
    return f"`{_shown(default)}`"


def _shown(value: Any) -> str:
    """The value as it would stand in the file."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)
