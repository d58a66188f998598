"""The only place that knows JMESPath (jmespath.org/specification): configured texts, compiled when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Unreadable(Exception):
    """A payload that an expression cannot be applied to; the text is a sentence for an operator."""


class Compiled:
    """A text that is compiled when a settings model takes it; a ValueError from that is the model's finding."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(max_length=1000), serialization=core_schema.to_string_ser_schema()
        )


class JmesPath(Compiled):
    """A JMESPath. One that names a function nobody knows is refused, although the language finds out only when used."""

    __slots__ = ("_computes", "_field", "_node")

    def __init__(self, text: str) -> None:
        super().__init__(text)
        try:
            self._node: Any = jmespath.compile(text).parsed
            trouble = next(_troubles({"type": "whole", "children": [self._node]}), None)
        except (JMESPathError, RecursionError) as error:
            trouble = str(error).partition("\n")[0].rstrip(":")
        if trouble:
            raise ValueError(f"{text[:60]!r} is no JMESPath: {trouble}")
        self._field = self._node["value"] if self._node["type"] == "field" else None
        self._computes = "(" in text  # then a number may be beyond what can be written as JSON

    def of(self, document: Any) -> Any:
        """What it finds in a decoded JSON document; None where there is nothing. Raises `Unreadable`.

        JMESPath's own errors are ValueErrors; `ceil` of an infinite number, for one, raises an OverflowError.
        """
        if self._field is not None:  # by far the most, and many times faster so
            return document.get(self._field) if isinstance(document, dict) else None
        try:
            found = _INTERPRETER.visit(self._node, document)
            if self._computes:
                orjson.dumps(found)
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise Unreadable(f"{self.text}: {error}"[:200]) from error  # it repeats the document
        return found


_INTERPRETER = TreeInterpreter()


def _troubles(node: dict[str, Any]) -> Iterator[str]:
    if node["type"] == "function_expression" and node["value"] not in Functions.FUNCTION_TABLE:
        yield f"there is no function {node['value']}()"
    for child in node["children"]:
        if isinstance(child, dict):
            if child["type"] == "expref" and node["type"] != "function_expression":
                yield "`&` has its place in the arguments of a function only"
            yield from _troubles(child)
