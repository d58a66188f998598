"""Sources and sinks as the API tells them, and the hand that sets a parked one going again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from aiohttp import web

from bridge.control.answers import Shape, answer, backlog, group, tally
from bridge.control.health import journal_health
from bridge.control.problem import Problem
from bridge.control.view import VIEW, View


async def sources(request: web.Request) -> web.Response:
    """Every configured source: its state, and how its sessions are."""
    view = request.config_dict[VIEW]
    return answer({"sources": _groups(view, view.sources)})


async def sinks(request: web.Request) -> web.Response:
    """Every configured sink: its state, how its sessions are, and what it has yet to deliver."""
    view = request.config_dict[VIEW]
    health = await journal_health(view)
    shapes = _groups(view, view.sinks)
    if health is not None:
        shapes = [shape | backlog(shape["name"], health) for shape in shapes]
    return answer({"sinks": shapes})


async def resume_source(request: web.Request) -> web.Response:
    """Set a source going again, say after its key was renewed."""
    return await _resume(request, request.config_dict[VIEW].sources, "source")


async def resume_sink(request: web.Request) -> web.Response:
    """Set a sink going again, say after its broker let us in; a disabled endpoint is enabled."""
    await request.config_dict[VIEW].journal.endpoint_health.enable(request.match_info["name"])
    return await _resume(request, request.config_dict[VIEW].sinks, "sink")


async def commands(request: web.Request) -> web.Response:
    """The topic that commands are read from, where one is configured, and how its session is."""
    view = request.config_dict[VIEW]
    return answer({"commands": _groups(view, view.commands)})


async def resume_commands(request: web.Request) -> web.Response:
    """Read commands again, say after their topic was made."""
    return await _resume(request, request.config_dict[VIEW].commands, "command topic")


ROUTES = (
    web.get("/sources", sources),
    web.post("/sources/{name:[^/]+}/resume", resume_source),
    web.get("/commands", commands),
    web.post("/commands/{name:[^/]+}/resume", resume_commands),
    web.get("/sinks", sinks),
    web.post("/sinks/{name:[^/]+}/resume", resume_sink),
)


async def _resume(request: web.Request, known: Mapping[str, str], what: str) -> web.Response:
    view = request.config_dict[VIEW]
    name = request.match_info["name"]
    if name not in known:
        raise Problem(404, f"there is no such {what}; known: {', '.join(sorted(known)) or 'none'}")
    await view.crew.resume(name)
    view.log.info("control.resume", group=name)
    [shape] = _groups(view, {name: known[name]})
    return answer(shape)


def _groups(view: View, kinds: Mapping[str, str]) -> list[Shape]:
    counts = tally(view.crew.states())
    return [group(name, kind, view.crew, counts.get(name, Counter())) for name, kind in kinds.items()]
