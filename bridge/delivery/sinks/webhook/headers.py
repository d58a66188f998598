"""Headers that a receiver wants besides ours: which may be set, and what they may hold. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from bridge.secret import Secret

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?")

_OURS = re.compile(
    r"(webhook|ce|content|proxy|sec)-.*"
    r"|host|user-agent|accept-encoding|date|traceparent|tracestate|expect"
    r"|connection|keep-alive|te|trailer|transfer-encoding|upgrade"  # hop by hop: RFC 9110, section 7.6.1
)


def _free(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name[:60]!r} cannot name a header: it takes letters, digits and !#$%&'*+-.^_`|~")
    if _OURS.fullmatch(name.lower()):
        raise ValueError(f"{name[:60]!r} cannot be set here: it is ours, or the connection's")
    return name


def _one_line(value: SecretStr) -> SecretStr:
    if not _VALUE.fullmatch(value.get_secret_value()):
        raise ValueError("a header's value takes visible ASCII characters, with blanks only between them")
    return value


def _distinct(headers: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("the same header stands here twice: letters' case makes no difference")
    return headers


HeaderName = Annotated[str, AfterValidator(_free)]
CustomHeaders = Annotated[
    dict[HeaderName, Annotated[Secret, AfterValidator(_one_line)]],
    AfterValidator(_distinct),
]
