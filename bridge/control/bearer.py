"""The bearer token of a request (RFC 6750): the only place that reads one, or compares it."""

from __future__ import annotations

import hmac

from aiohttp import web

from bridge.control.problem import Problem


def given_token(request: web.Request) -> str:
    """The token that came with the request; empty where `Authorization` holds something else. A `Problem` where there
    is no such header."""
    given = request.headers.getall("Authorization", [])
    if not given:
        raise Problem(
            401, "send Authorization: Bearer <token>", headers={"WWW-Authenticate": 'Bearer realm="jobbridge"'}
        )
    scheme, _, credentials = given[0].partition(" ")
    return credentials.strip() if len(given) == 1 and scheme.lower() == "bearer" else ""


def same(given: str, token: str) -> bool:
    """Whether it is this token, which must not be empty; the time it takes does not tell how much of it fits."""
    # Undecodable bytes arrive as lone surrogates, which only `surrogateescape` can turn back into bytes.
    return bool(token) & hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
