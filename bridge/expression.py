"""The only place that knows JMESPath (jmespath.org/specification): configured texts, compiled when they are read.

The language can ask for more than any machine has: `[@,@][]` doubles a list, and can be written a hundred times in a
row. So the text, the tree it compiles to and the steps of one evaluation are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.functions import Functions
from jmespath.visitor import Options, TreeInterpreter
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_TEXT_CHARS_MAX, _NODES_MAX, _DEPTH_MAX = 1_000, 250, 50
_PREDICATE_STEPS_MAX = 10_000
"""About 10 ms of the event loop at worst, measured; decoding an event of 512 KiB takes half as long."""
_READING_STEPS_MAX = 200_000
"""Of what an API's description takes out of an answer: a page of many jobs is large, and the text is the operator's."""
_STEP_CHARS = 64


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
            cls, core_schema.str_schema(max_length=_TEXT_CHARS_MAX), serialization=core_schema.to_string_ser_schema()
        )


class JmesPath(Compiled):
    """A JMESPath. One that names a function nobody knows is refused, although the language finds out only when used."""

    __slots__ = ("_computes", "_field", "_node")

    def __init__(self, text: str) -> None:
        super().__init__(text)
        try:
            self._node: Any = jmespath.compile(text).parsed
            nodes = list(_nodes({"type": "whole", "children": [self._node]}))
            trouble = next(_troubles(nodes), None)
        except (JMESPathError, RecursionError) as error:
            trouble = str(error).partition("\n")[0].rstrip(":")
        if trouble:
            raise ValueError(f"{text[:60]!r} is no JMESPath: {trouble}")
        self._field = self._node["value"] if self._node["type"] == "field" else None
        self._computes = any(node["type"] in _COMPUTING for node, _ in nodes)

    def of(self, document: Any) -> Any:
        """What it finds in a decoded JSON document; None where there is nothing. Raises `Unreadable`."""
        if self._field is not None:  # by far the most, and many times faster so
            return document.get(self._field) if isinstance(document, dict) else None
        meter = _Meter(_READING_STEPS_MAX) if self._computes else None
        return self._evaluated(document, meter, as_json=self._computes)

    def holds(self, document: Any) -> bool:
        """Whether it finds what JMESPath takes for true: `0` is. Raises `Unreadable`, also after too many steps."""
        found = self._evaluated(document, _Meter(_PREDICATE_STEPS_MAX), as_json=False)
        return not (found is None or found is False or found in ("", [], {}))

    def _evaluated(self, document: Any, meter: _Meter | None, *, as_json: bool) -> Any:
        """`as_json`: only what can be written as JSON, which an infinite number cannot.

        JMESPath's own errors are ValueErrors; `ceil` of an infinite number, for one, raises an OverflowError.
        """
        try:
            found = (_UNMETERED if meter is None else _Interpreter(meter)).visit(self._node, document)
            if meter is not None and as_json:
                meter.weigh(found)
                orjson.dumps(found)
        except JMESPathTypeError as error:  # its own text repeats the value, which can be of any size
            reason = f"{error.function_name}() takes {' or '.join(error.expected_types)}, not {error.actual_type}"
            raise Unreadable(f"{self.text}: {reason}"[:200]) from None
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise Unreadable(f"{self.text}: {error}"[:200]) from error
        return found


class _Meter:
    """The steps that one evaluation may still take: one a node visited, and one a thing gone through at C's speed."""

    __slots__ = ("left",)

    def __init__(self, steps_max: int) -> None:
        self.left = steps_max

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Unreadable("it takes too many steps")

    def weigh(self, *values: Any) -> None:
        """Spend what it takes to go through all of these, what is in them, and in that. What stands in two places
        counts twice: so it is gone through."""
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                self.spend(1 + len(value) // _STEP_CHARS)
            elif isinstance(value, list | dict):
                self.spend(1 + len(value))  # before they are copied
                waiting += value if isinstance(value, list) else [*value, *value.values()]
            else:
                self.spend(1)


class _Interpreter(TreeInterpreter):
    """One evaluation. Spent beforehand is whatever a node does at once and without visiting others."""

    def __init__(self, meter: _Meter) -> None:
        super().__init__(Options(custom_functions=_Functions(meter)))
        self._meter = meter

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._meter.spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_comparator(self, node: Any, value: Any) -> Any:
        sides = [self.visit(child, value) for child in node["children"]]
        self._meter.weigh(*sides)
        return super().visit_comparator(node | {"children": [_literal(side) for side in sides]}, value)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        base = self.visit(node["children"][0], value)
        if isinstance(base, list):
            self._meter.spend(len(base))
            self._meter.spend(sum(len(each) for each in base if isinstance(each, list)))
        return super().visit_flatten(node | {"children": [_literal(base)]}, value)


class _Functions(Functions):
    """The language's functions. Each may go through all of its arguments, but for those that never look into them."""

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter

    def call_function(self, function_name: str, resolved_args: Any) -> Any:
        if function_name not in _SHALLOW:
            self._meter.weigh(*resolved_args)
        elif function_name in _COPYING:
            self._meter.spend(sum(len(each) for each in resolved_args if isinstance(each, list | dict)))
        match function_name, resolved_args:
            case "join", [str(separator), list(texts)]:
                self._meter.spend(len(separator) * len(texts) // _STEP_CHARS)
        return super().call_function(function_name, resolved_args)


_COMPUTING = frozenset({"function_expression", "multi_select_list", "multi_select_dict"})
"""Nodes that make what is not in the document. The rest finds parts of it, and none twice: that needs no meter where
the text is the operator's, and is several times faster without."""
_UNMETERED = TreeInterpreter()
_COPYING = frozenset({"keys", "map", "merge", "values"})
_SHALLOW = _COPYING | {"length", "not_null", "to_array", "type"}


def _literal(value: Any) -> dict[str, Any]:
    return {"type": "literal", "value": value, "children": []}


def _nodes(node: dict[str, Any], depth: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    yield node, depth
    for child in node["children"]:
        if isinstance(child, dict):  # a slice has numbers
            yield from _nodes(child, depth + 1)


def _troubles(nodes: Sequence[tuple[dict[str, Any], int]]) -> Iterator[str]:
    if len(nodes) > _NODES_MAX:
        yield f"it has {len(nodes)} parts, of which it may have {_NODES_MAX}"
    if (deepest := max(depth for _, depth in nodes)) > _DEPTH_MAX:
        yield f"it is nested {deepest} deep, and may be {_DEPTH_MAX}"
    for node, _ in nodes:
        if node["type"] == "function_expression" and node["value"] not in Functions.FUNCTION_TABLE:
            yield f"there is no function {node['value']}()"
        if node["type"] != "function_expression" and "expref" in [
            child["type"] for child in node["children"] if isinstance(child, dict)
        ]:
            yield "`&` has its place in the arguments of a function only"
