"""What probes and scrapers ask for, without a token: alive, ready, metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from bridge.control.answers import Shape, answer, backlog, group_state, tally
from bridge.control.view import VIEW, View
from bridge.journal.store import DeliveryState, JournalHealth, SubscriptionState
from bridge.supervision.supervisor import SessionState, SessionStatus
from bridge.telemetry.metrics import Metrics

_UNFINISHED = (DeliveryState.RETRYING, DeliveryState.HELD, DeliveryState.DEAD)


async def livez(_request: web.Request) -> web.Response:
    """200 whenever the event loop turns over. Asks nobody: a probe that fails here costs a restart."""
    return web.Response(text="alive\n")


async def readyz(request: web.Request) -> web.Response:
    """200 when the journal takes writes and nobody is draining, else 503; `?verbose` tells about every part.

    Open to everybody, so it shows states and numbers and never the text of an error.
    """
    view = request.config_dict[VIEW]
    health = await journal_health(view)
    obstacles = list(_obstacles(view, health))
    status = 503 if obstacles else 200
    if request.query.get("verbose", "0") not in {"0", "false"}:
        return answer({"ready": not obstacles, "obstacles": obstacles, **_parts(view, health)}, status)
    text = f"not ready: {', '.join(obstacles)}\n" if obstacles else "ready\n"
    return web.Response(text=text, status=status, headers={"Cache-Control": "no-store"})


async def metrics(request: web.Request) -> web.Response:
    """All metrics, as Prometheus text or OpenMetrics, whichever the scraper prefers.

    While the journal is in trouble, its gauges keep their last values: a scrape is worth most then.
    """
    view = request.config_dict[VIEW]
    refresh(view.metrics, await journal_health(view), view.crew.states(), [*view.sources, *view.commands, *view.sinks])
    # Only the media type is handed on: the chooser raises on a version that is none, and echoes those that are.
    openmetrics = "application/openmetrics-text"
    encode, content_type = choose_encoder(openmetrics if openmetrics in request.headers.get("Accept", "") else "")
    return web.Response(body=encode(view.metrics.registry), headers={"Content-Type": content_type})


ROUTES = (web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics))


async def journal_health(view: View) -> JournalHealth | None:
    """The journal's health; None when it does not answer in time."""
    try:
        async with asyncio.timeout(view.health_timeout_s):
            return await view.journal.health()
    except TimeoutError:
        return None


def refresh(
    metrics: Metrics, health: JournalHealth | None, sessions: Iterable[SessionStatus], groups: Iterable[str]
) -> None:
    """Set the gauges that are looked up at each scrape instead of being kept. Every known group is exported."""
    counts = tally(sessions)
    metrics.sessions.clear()
    for group in {*groups, *counts}:
        for state in SessionState:
            metrics.sessions.labels(group, state.value).set(counts.get(group, Counter())[state])
    if health is None or not health.writable:
        return
    metrics.live_bytes.set(health.live_bytes)
    metrics.high_water_bytes.set(health.high_water_bytes)
    for gauge in (metrics.depth, metrics.oldest, metrics.outstanding, metrics.subscriptions):
        gauge.clear()
    for source, states in health.subscriptions.items():
        for wanted in SubscriptionState:
            metrics.subscriptions.labels(source, wanted.value).set(states.get(wanted, 0))
    for sink, depth in health.depth.items():
        metrics.depth.labels(sink).set(depth)
        metrics.oldest.labels(sink).set(health.oldest_unsettled_ms.get(sink, 0) / 1000)
        for unfinished in _UNFINISHED:
            count = health.outstanding.get(sink, {}).get(unfinished, 0)
            metrics.outstanding.labels(sink, unfinished.value).set(count)


def _obstacles(view: View, health: JournalHealth | None) -> Iterable[str]:
    """What keeps the bridge from being ready, each in a few words."""
    if view.draining():
        yield "draining"
    if health is None:
        yield "journal does not answer"
    elif not health.writable:
        yield "journal is not writable"
    if view.ready_needs_sinks:
        yield from (f"sink {sink} is {state}" for sink, state in _declared(view).items() if _away(state))


def _declared(view: View) -> dict[str, str]:
    """Without endpoints made over the API: whether we are ready is not their owners' to decide."""
    return _states(view, view.sinks.keys() & view.endpoints.taken)


def _away(state: str) -> bool:
    """A sink without any session is not away: another replica may own its work."""
    return state in {SessionState.WAITING, SessionState.PARKED}


def _parts(view: View, health: JournalHealth | None) -> Shape:
    sinks: dict[str, Shape] = {sink: {"state": state} for sink, state in _states(view, view.sinks).items()}
    if health is None:
        journal = None
    else:
        journal = {
            "writable": health.writable,
            "live_bytes": health.live_bytes,
            "high_water_bytes": health.high_water_bytes,
            "entries": health.entries,
        }
        sinks = {sink: shape | backlog(sink, health) for sink, shape in sinks.items()}
    sources = {source: {"state": state} for source, state in _states(view, view.sources).items()}
    return {"draining": view.draining(), "journal": journal, "sources": sources, "sinks": sinks}


def _states(view: View, groups: Iterable[str]) -> dict[str, str]:
    counts = tally(view.crew.states())
    return {name: group_state(view.crew.group_parked(name), counts.get(name, Counter())) for name in groups}
