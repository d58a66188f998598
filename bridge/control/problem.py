"""Every refusal of the control room, as problem+json (RFC 9457): nothing else words an error for a client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from math import ceil
from urllib.parse import quote

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from bridge.control.view import VIEW
from bridge.errors import Temporary
from bridge.wire import media_type

BODY_BYTES_MAX = 64 << 10
ERRORS_MAX = 16
"""Faults named in one answer: a body of ten thousand unknown keys does not earn ten thousand sentences."""


class Problem(Exception):
    """An answer other than the one asked for. `errors` name single faults by `pointer` (RFC 6901) or `parameter`."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors
        self.headers = headers or {}

    def response(self) -> web.Response:
        """The problem on the wire; its type is `about:blank`, so its title is the phrase of its status."""
        shape = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self),
            **({"errors": self.errors} if self.errors else {}),
        }
        return web.Response(
            status=self.status,
            body=orjson.dumps(shape),
            content_type="application/problem+json",
            headers=dict(self.headers),
        )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into a problem; what nobody foresaw is logged and not told."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as refusal:
        return _of_aiohttp(refusal).response()
    except Temporary as trouble:
        return unavailable(str(trouble), trouble.after_s).response()
    except Exception as error:
        log = request.config_dict[VIEW].log
        log.exception("control.bug", method=request.method, route=_route(request), error=type(error).__name__)
        return Problem(500, "an error nobody foresaw; the log of the bridge has it").response()


async def read_json(request: web.Request) -> bytes:
    """The body of a request that says it is JSON."""
    if media_type(request.headers.get("Content-Type", "")) != "application/json":
        raise Problem(415, "send the body as Content-Type: application/json")
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Problem(400, "the body did not arrive as its headers say") from error


def unavailable(detail: str, after_s: float | None = None) -> Problem:
    """503, with the wait that is asked of the client in whole seconds."""
    return Problem(503, detail, headers={"Retry-After": str(max(1, ceil(after_s or 0.0)))})


def invalid_body(error: ValidationError) -> Problem:
    """400 for what is no JSON, 422 for JSON of the wrong shape, with a pointer to each fault."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return Problem(400, f"the body cannot be read: {faults[0]['msg']}")
    named = [{"detail": fault["msg"], "pointer": _pointer(fault["loc"])} for fault in faults[:ERRORS_MAX]]
    return Problem(422, "the body has the wrong shape", errors=named)


def invalid_query(faults: Iterable[tuple[str, str]]) -> Problem:
    """400 naming each (parameter, what is wrong with it)."""
    named = [{"detail": detail, "parameter": name} for name, detail in faults]
    return Problem(400, "the query has parameters that cannot be used", errors=named[:ERRORS_MAX])


def _pointer(path: Iterable[str | int]) -> str:
    """A JSON pointer as a URI fragment (RFC 6901 section 6)."""
    return "#" + "".join("/" + quote(str(step).replace("~", "~0").replace("/", "~1"), safe="~") for step in path)


def _of_aiohttp(refusal: web.HTTPException) -> Problem:
    details = {
        404: "there is nothing at this address",
        405: "this address does not take that method",
        413: f"the body is over {BODY_BYTES_MAX} bytes",
    }
    allow = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else None
    return Problem(refusal.status, details.get(refusal.status, refusal.reason), headers=allow)


def _route(request: web.Request) -> str | None:
    """The route's pattern and never the address itself: people put secrets into addresses."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical
