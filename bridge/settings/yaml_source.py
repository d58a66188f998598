"""The only place that reads YAML: plain data, the line of every value, and every mistake met on the way.

Scalars follow the core schema of YAML 1.2, so that `no` is text and `12:30` is no number. Aliases and tags are
refused: a small file could otherwise unfold into a huge one, and nothing here needs them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE_BYTES_MAX = 1 << 20
DEPTH_MAX = 16

Keys = tuple[str | int, ...]
"""Where a value stands: the keys and list indexes that lead to it."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong. `path` is dotted, or the name of an environment variable; `line` counts from 1."""

    path: str
    line: int | None
    text: str


@dataclass(slots=True)
class Document:
    """What a text said. `data` is None where it could not be read as YAML at all."""

    data: Any = None
    lines: dict[Keys, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


def read(path: Path, resolve: Callable[[str], str]) -> Document:
    """The mapping that a file holds; an empty file is an empty mapping. Never raises."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        return _refused(None, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return _refused(content.count(b"\n", 0, error.start) + 1, "is not UTF-8 text")
    if len(content) > FILE_BYTES_MAX:
        return _refused(None, f"is larger than {FILE_BYTES_MAX} bytes")
    document = parse(text, resolve)
    if document.data is None and not document.mistakes:
        document.data = {}
    elif not isinstance(document.data, dict | None):
        return _refused(1, "must be a mapping of sections such as `sources:` and `sinks:`")
    return document


def parse(text: str, resolve: Callable[[str], str]) -> Document:
    """What `text` says. `resolve` is given every text value and may raise ValueError, which becomes a mistake."""
    document = Document()
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        return _refused(text.count("\n", 0, error.position) + 1, "holds a character that YAML does not allow")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _refused(mark.line + 1 if mark else None, _plain(error.problem or error.context or "is not valid YAML"))
    if node is not None:
        document.data = _construct(node, (), document, resolve)
    return document


def dotted(keys: Keys) -> str:
    """The path as people write it, safe to print."""
    text = ".".join(map(str, keys))
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - so declared by the base class, whose YAML 1.1 words go here

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        refusal = None
        if isinstance(event, yaml.AliasEvent):
            refusal = "aliases (*name) are not used here: write the value out"
        elif event.tag is not None:
            refusal = "tags (!name) are not used here"
        elif self._depth == DEPTH_MAX:
            refusal = "is nested too deeply"
        if refusal is not None:
            raise yaml.MarkedYAMLError(problem=refusal, problem_mark=event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "null": (r"~|null|Null|NULL|", "~nN", lambda _: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]{1,18}", "-+0123456789", int),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789", float),
}
for _name, (_pattern, _first, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        _TAG + _name, re.compile(rf"(?:{_pattern})\Z"), [*_first, ""] if _name == "null" else list(_first)
    )


def _construct(node: yaml.Node, at: Keys, document: Document, resolve: Callable[[str], str]) -> Any:
    line = document.lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, at, document, resolve)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*at, index), document, resolve) for index, item in enumerate(node.value)]
    scalar = _SCALARS.get(node.tag.removeprefix(_TAG))
    if scalar is not None:
        return scalar[2](node.value)
    try:
        return resolve(node.value)
    except ValueError as error:
        document.mistakes.append(Mistake(dotted(at), line, str(error)))
        return ""


def _mapping(node: yaml.MappingNode, at: Keys, document: Document, resolve: Callable[[str], str]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            document.mistakes.append(Mistake(dotted(at), line, "a key must be a plain word"))
            continue
        path = (*at, key.value)
        if key.value in mapping:
            first = document.lines[path]
            document.mistakes.append(Mistake(dotted(path), line, f"is here twice; the first is on line {first}"))
            continue
        document.lines[path] = line
        mapping[key.value] = _construct(value, path, document, resolve)
    return mapping


def _refused(line: int | None, text: str) -> Document:
    return Document(mistakes=[Mistake("", line, text)])


def _plain(problem: str) -> str:
    if "'\\t'" in problem:
        return "a tab cannot indent YAML: use spaces"
    return problem if problem.startswith(("aliases", "tags", "is ")) else f"is not valid YAML: {problem}"
