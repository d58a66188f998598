"""The only place that opens a description's file: a setting holds the description itself, or says where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import yaml
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from bridge.intake.providers.described.description import Description
from bridge.secret import read_file

_DEPTH_MAX = 16


class _InlineOrFile:
    """A `Description` where a setting is a mapping, or is read from a file by `{file: path}`.

    Its many keys are described in the schema for editors and are no settings each.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_opened, handler.generate_schema(Description))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        path = {"type": "string", "minLength": 1}
        by_path = {"type": "object", "properties": {"file": path}, "required": ["file"], "additionalProperties": False}
        return {"anyOf": [handler(schema), by_path]}


InlineOrFile = Annotated[Any, _InlineOrFile()]


def _opened(value: object) -> object:
    if isinstance(value, Mapping) and set(value) == {"file"} and isinstance(value["file"], str):
        return from_file(value["file"])
    return value


def from_file(path: str) -> Description:
    """The description in a YAML file of at most 64 KiB. Raises ValueError that names the file and all its mistakes."""
    text = read_file(path)
    try:
        if refusal := next(_refusals(text), None):
            raise ValueError(f"{path}: {refusal}")
        return Description.model_validate(yaml.load(text, yaml.BaseLoader))  # noqa: S506 - makes texts only
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)[:20]
        raise ValueError("; ".join(f"{path}: {_line(mistake)}" for mistake in mistakes)) from None


def _refusals(text: str) -> Iterator[str]:
    """What would unfold into something huge."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH_MAX:
            yield "is nested too deeply"
        if isinstance(event, yaml.AliasEvent):
            yield "aliases (*name) are not used here: write the value out"


def _line(mistake: Mapping[str, Any]) -> str:
    where = ".".join(str(key) for key in mistake["loc"])
    what = str(mistake["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
