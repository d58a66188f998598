"""The other end of the API, as far as the command line needs it: ask a running bridge how it is."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from bridge.errors import BridgeError

_ANSWER_BYTES_MAX = 16 << 20


async def fetch_status(url: str, token: str | None) -> dict[str, Any]:
    """`{"ready": ..., "subscriptions": [...] or None}`; subscriptions need the token. Raises `BridgeError`."""
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            ready = await _get(session, f"{url}/readyz?verbose=1")
            listed = None
            if token:
                session.headers["Authorization"] = f"Bearer {token}"
                listed = await _get(session, f"{url}/v1/subscriptions?limit=1000")
    except orjson.JSONDecodeError as error:
        raise BridgeError(f"what answers at {url} is no bridge: it sends no JSON") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BridgeError(f"no bridge answers at {url}: {str(error) or 'timed out'}") from error
    if listed is not None and "subscriptions" not in listed:
        raise BridgeError(f"{url}/v1: {listed.get('detail') or listed.get('title')}; the token is JOBBRIDGE_TOKEN")
    return {"ready": ready, "subscriptions": listed and listed["subscriptions"]}


def render_status(shown: dict[str, Any]) -> str:
    """The same for people."""
    ready = shown["ready"]
    lines = ["ready" if ready.get("ready") else f"not ready: {', '.join(ready.get('obstacles', []))}"]
    for part in ("sources", "sinks"):
        for name, about in ready.get(part, {}).items():
            more = ", ".join(f"{key} {value}" for key, value in about.items() if key != "state")
            lines.append(f"{part[:-1]:8} {name:24} {about['state']:10} {more}")
    if shown["subscriptions"] is None:
        lines.append("set JOBBRIDGE_TOKEN to see the subscriptions")
    for item in shown["subscriptions"] or []:
        job = item.get("job") or {}
        name = f"{item['source']}/{item['job_id']}"
        why = item.get("reason") or ""
        lines.append(f"{'job':8} {name:40} {item['state']:8} {job.get('status') or '-':10} {item['sequence']:>7} {why}")
    return "\n".join(lines)


async def _get(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as response:
        body = orjson.loads(await response.content.read(_ANSWER_BYTES_MAX))
    return body if isinstance(body, dict) else {}
