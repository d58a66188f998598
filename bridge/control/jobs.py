"""Acting on a job through the bridge: whoever hears `job.waiting` can answer without holding the provider's key."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from bridge.control.problem import Problem, read_json
from bridge.control.subscriptions import found
from bridge.control.view import VIEW
from bridge.errors import Fatal, Rejected
from bridge.intake.decoding import decoded
from bridge.intake.provider import Action, Answer
from bridge.wire import media_type

_OURS_IF_REFUSED = frozenset({400, 404, 409, 410, 422})
"""Refusals that tell the caller something about the job or the body. Others are about us and the provider."""

_MEDIA_TYPE = re.compile(r"[a-z0-9.+_-]+/[a-z0-9.+_-]+")


async def act(request: web.Request) -> web.Response:
    """Pass the body on to the provider's own route and give back its answer."""
    view = request.config_dict[VIEW]
    record = await found(request)
    if record.key.source not in view.sources:
        raise Problem(409, f"source {record.key.source} is not in the configuration any more")
    action = Action(request.match_info["action"])
    body = await _body(request)
    try:
        answer = await view.act(record, action, body)
    except Rejected as error:
        raise Problem(501 if error.reason == "unsupported" else 422, str(error)) from error
    except Fatal as error:
        raise Problem(502, str(error)) from error
    view.log.info(
        "control.act", source=record.key.source, job_id=record.key.job_id, action=action, status=answer.status
    )
    return _passed_back(answer)


ROUTES = (web.post("/jobs/{source:[^/]+}/{job_id:[^/]+}/{action:input|cancel|resume}", act),)


async def _body(request: web.Request) -> dict[str, Any]:
    """A JSON object; nothing at all counts as an empty one."""
    if not request.can_read_body:
        return {}
    body = await read_json(request)
    try:
        wish, told = decoded(body)
    except ValueError as error:
        raise Problem(400, f"the body cannot be read: {error}") from error
    if not isinstance(wish, dict):
        raise Problem(422, "the body must be a JSON object")
    if told != body:
        raise Problem(422, "the body is nested too deeply to be passed on")
    return wish


def _passed_back(answer: Answer) -> web.Response:
    if answer.status < 300:
        kind = media_type(answer.headers.get("Content-Type", ""))
        if not _MEDIA_TYPE.fullmatch(kind):
            kind = "application/octet-stream"
        return web.Response(status=answer.status, body=answer.body or None, content_type=kind)
    status = answer.status if answer.status in _OURS_IF_REFUSED else 502
    words = answer.body[:2000].decode("utf-8", "replace")
    raise Problem(status, f"the provider answered {answer.status}: {words}")
