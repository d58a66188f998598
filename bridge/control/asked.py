"""What a client asks for, read into models: queries and bodies, with every fault named."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ValidationError

from bridge.control.problem import invalid_body, invalid_query, read_json

M = TypeVar("M", bound=BaseModel)


def _digits(value: str) -> str:
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise ValueError("must be a number in decimal digits")
    return value


Digits = Annotated[int, BeforeValidator(_digits)]
"""A number in a query."""


def read_query(request: web.Request, model: type[M]) -> M:
    """The query as that model. Raises a `Problem` that names each parameter that cannot be used."""
    repeated = [name for name, count in Counter(name for name, _ in request.query.items()).items() if count > 1]
    if repeated:
        raise invalid_query((name, "given more than once") for name in repeated)
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid_query((str(fault["loc"][0]), fault["msg"]) for fault in error.errors()) from error


async def read_body(request: web.Request, model: type[M]) -> M:
    """The JSON body as that model. Raises a `Problem` that points at each fault."""
    try:
        return model.model_validate_json(await read_json(request))
    except ValidationError as error:
        raise invalid_body(error) from error
