"""The only place that knows URL templates (RFC 6570): its simple (3.2.2) and reserved (3.2.3) expansion of one variable
each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from bridge.expression import Compiled

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
