"""The only place that knows JMESPath and URL templates: texts of a configuration, compiled when it is read.

JMESPath: jmespath.org/specification. Templates: RFC 6570, its simple (3.2.2) and reserved (3.2.3) expansion of one
variable each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

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


_VARIABLE = re.compile(r"\{(\+?)([a-z][a-z0-9_]*)\}")
_LITERAL = re.compile(r"/(?!/)[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*")


class Template(Compiled):
    """A path, and perhaps a query: `{name}` stands for a value as one segment, `{+name}` for one that keeps its `/`."""

    __slots__ = ("names",)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        if not _LITERAL.fullmatch(_VARIABLE.sub("x", text)):
            raise ValueError(
                f"{text[:60]!r} is no template: a path that begins with one `/`, with `{{name}}` for values"
            )
        self.names = frozenset(match[2] for match in _VARIABLE.finditer(text))

    def fill(self, values: Mapping[str, str]) -> str:
        """The path with the values in it, percent-encoded. Raises ValueError on one that would lead elsewhere."""
        return _VARIABLE.sub(lambda match: _expanded(values[match[2]], "/" if match[1] else ""), self.text)


def _expanded(value: str, kept: str) -> str:
    steps = value.split(kept) if kept else [value]
    if not {"", ".", ".."}.isdisjoint(steps):
        raise ValueError(f"{value[:60]!r} cannot stand in a path")
    return quote(value, safe=kept)
