"""The control room as one aiohttp application: who gets in, for how long, and on which address."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler
from structlog.typing import FilteringBoundLogger

from bridge.control import deliveries, endpoints, groups, health, jobs, pulling, subscriptions, trail, webhook_keys
from bridge.control.bearer import given_token, same
from bridge.control.problem import BODY_BYTES_MAX, Problem, problems, unavailable
from bridge.control.view import VIEW, View
from bridge.errors import Fatal
from bridge.serving import CLIENT_FAULTS


def application(view: View) -> web.Application:
    """Probes, metrics and public keys for everybody, `/v1` for who has the token, and one address under it for
    receivers with tokens of their own.

    `/v1` is an application of its own, so that no route under it, known or unknown, can be reached past its gate.
    """
    v1 = web.Application(middlewares=[_gate, _deadline])
    for routes in (subscriptions, jobs, deliveries, endpoints, trail, groups):
        v1.add_routes(routes.ROUTES)
    app = web.Application(middlewares=[problems], client_max_size=BODY_BYTES_MAX)
    app[VIEW] = view
    app.add_routes([*health.ROUTES, *webhook_keys.ROUTES])
    app.add_subapp("/v1", v1)
    app.router.add_get(pulling.PATH, _pull, allow_head=False)  # more of the path than "/v1": it is found first
    return app


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the context lasts; gives the port really bound, which tells when 0 was asked for.

    Raises `Fatal` when the address cannot be bound.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_terse(app[VIEW].log),
        shutdown_timeout=2.0,
        keepalive_timeout=75.0,
        lingering_time=2.0,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Fatal(f"cannot listen on {host}:{port}: {_why(error)}; set control.host or control.port") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@web.middleware
async def _gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    token = request.config_dict[VIEW].token
    if not token:
        raise Problem(403, "closed: set control.token")
    if not same(given_token(request), token):
        challenge = 'Bearer realm="jobbridge", error="invalid_token"'
        raise Problem(401, "this token is not the one", headers={"WWW-Authenticate": challenge})
    return await handler(request)


@web.middleware
async def _deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A client that trickles its body and a journal that hangs cost a bounded time each."""
    deadline_s = request.config_dict[VIEW].deadline_s
    try:
        async with asyncio.timeout(deadline_s):
            return await handler(request)
    except TimeoutError:
        if not request.content.is_eof():
            raise Problem(408, f"the body took longer than {deadline_s:g} s", headers={"Connection": "close"}) from None
        raise unavailable(f"the bridge did not answer within {deadline_s:g} s") from None


async def _pull(request: web.Request) -> web.StreamResponse:
    return await _deadline(request, pulling.events)


def _why(error: OSError) -> str:
    """The system's words alone: asyncio wraps them into a sentence that names the address once more."""
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error.strerror)


class _Terse(logging.Handler):
    """Passes on what aiohttp logs about a connection, without its quotes of the request: they can hold the token."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        tell = self._log.debug if isinstance(error, CLIENT_FAULTS) else self._log.error
        tell("control.connection", trouble=record.msg, error=type(error).__name__)


def _terse(log: FilteringBoundLogger) -> logging.Logger:
    logger = logging.Logger("control", logging.INFO)
    logger.addHandler(_Terse(log))
    return logger
