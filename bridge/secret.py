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

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Referenced(str):
    """Text that came out of the environment or a file, as against text that stands in the configuration itself."""

    __slots__ = ()


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with its references replaced, as `Referenced` where there was at least one.

    Raises ValueError with a sentence for the operator, which never holds a fetched value.
    """
    fetched = False

    def fetch(match: re.Match[str]) -> str:
        nonlocal fetched
        if match[0] == "$${":
            return "${"
        fetched = True
        return _fetch(match[1], environ)

    expanded = _REFERENCE.sub(fetch, text)
    return Referenced(expanded) if fetched else expanded


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


def _fetch(reference: str | None, environ: Mapping[str, str]) -> str:
    if reference is None:
        raise ValueError("`${` is not closed with `}`; write `$${` for a plain `${`")
    if reference.startswith("file:"):
        return read_file(reference.removeprefix("file:"))
    if not _VARIABLE.fullmatch(reference):
        raise ValueError("between `${` and `}` stands the name of an environment variable or file:/path")
    if reference not in environ:
        raise ValueError(f"environment variable {reference} is not set")
    return environ[reference]


def _by_reference(value: object) -> object:
    if isinstance(value, Mapping) and set(value) == {"file"} and isinstance(value["file"], str):
        value = read_file(value["file"])
    if isinstance(value, SecretStr):  # built in code, not read from a file
        return value
    if not isinstance(value, Referenced):
        raise ValueError("a secret is never written here: refer to it as ${NAME} or as {file: /path}")
    if not value:
        raise ValueError("the secret is empty")
    return str(value)


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
