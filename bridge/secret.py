"""What a secret is, and the only place where a value is fetched by reference instead of being written down.

`${NAME}` stands for an environment variable, `${file:/path}` for the text of a file, `$${` for a plain `${`. A secret
may also be given as the mapping `{file: /path}`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, SecretStr, WithJsonSchema

FILE_BYTES_MAX = 64 << 10
HIDDEN_LENGTH_MIN = 8

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Referenced(str):
    """Text that came out of the environment or a file, as against text that stands in the configuration itself."""

    __slots__ = ()


class References:
    """Fetches what is referred to, and remembers it so that none of it is ever shown."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._fetched: set[str] = set()

    def expand(self, text: str) -> str:
        """`text` with its references replaced: `Referenced` where there was at least one.

        Raises ValueError with a sentence for the operator.
        """
        replaced = False

        def fetch(match: re.Match[str]) -> str:
            nonlocal replaced
            if match[0] == "$${":
                return "${"
            replaced = True
            return self._fetch(match[1])

        expanded = _REFERENCE.sub(fetch, text)
        return Referenced(expanded) if replaced else expanded

    def variable(self, name: str) -> Referenced:
        """The value of an environment variable. Raises ValueError where it is not set."""
        if name not in self._environ:
            raise ValueError(f"environment variable {name} is not set")
        return self._remember(Referenced(self._environ[name]))

    def hide(self, text: str) -> str:
        """`text` without any fetched value in it. Very short ones are left: they keep no secret but spoil words."""
        for value in sorted(self._fetched, key=len, reverse=True):
            text = text.replace(value, "…")
        return text

    def _fetch(self, reference: str | None) -> Referenced:
        if reference is None:
            raise ValueError("`${` is not closed with `}`; write `$${` for a plain `${`")
        if reference.startswith("file:"):
            return self._remember(read_file(reference.removeprefix("file:")))
        if not _VARIABLE.fullmatch(reference):
            raise ValueError("between `${` and `}` stands the name of an environment variable, or file:/path")
        return self.variable(reference)

    def _remember(self, value: Referenced) -> Referenced:
        if len(value) >= HIDDEN_LENGTH_MIN:
            self._fetched.add(value)
        return value


def read_file(path: str) -> Referenced:
    """The text of a small file without one trailing line end. Raises ValueError that names the path and the reason."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a named pipe would wait for ever
            raise ValueError(f"{path} is not a regular file")
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None  # the cause holds the content
    return Referenced(text.removesuffix("\n").removesuffix("\r"))


def _by_reference(value: object) -> object:
    if isinstance(value, Mapping) and set(value) == {"file"} and isinstance(value["file"], str):
        value = read_file(value["file"])
    match value:
        case SecretStr():  # built in code, not read from a file
            return value
        case Referenced() if value:
            return str(value)
        case Referenced():
            raise ValueError("the secret is empty")
    raise ValueError("a secret is never written here: refer to it as ${NAME} or as {file: /path}")


Secret = Annotated[
    SecretStr,
    BeforeValidator(_by_reference),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"\$\{[^{}]+\}"},
                {
                    "type": "object",
                    "properties": {"file": {"type": "string", "minLength": 1}},
                    "required": ["file"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""A setting that holds a secret: given by reference only, and shown as stars."""
