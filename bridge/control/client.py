"""The other end of the API, as far as the command line needs it: ask a running bridge, and tell people the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from bridge.errors import BridgeError

_ANSWER_BYTES_MAX = 16 << 20
_PAGE = 1000
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Client:
    """Calls `/v1` of one bridge. Every method raises `BridgeError` with a sentence for whoever typed the command."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def ready(self) -> dict[str, Any]:
        """How the bridge is; needs no token."""
        return (await self._answer("GET", "/readyz", {"verbose": "1"}))[1]

    async def ask(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a GET of `/v1` answers; parameters that are None are left out."""
        return await self._call("GET", path, query=query)

    async def tell(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What a POST to `/v1` answers."""
        return await self._call("POST", path, body=body)

    async def pages(self, path: str, of: str, query: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        """The first so many items of a list that comes in pages, each under the name `of`."""
        items: list[dict[str, Any]] = []
        after = None
        while len(items) < limit:
            page = await self.ask(path, {**query, "after": after, "limit": min(limit - len(items), _PAGE)})
            items += page[of]
            if (after := page["next"]) is None:
                break
        return items

    async def _call(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        status, answer = await self._answer(method, f"/v1{path}", query, body)
        if status < 300:
            return answer
        faults = [
            f"{fault.get('parameter') or fault.get('pointer')} {fault['detail']}" for fault in answer.get("errors", [])
        ]
        why = "; ".join([str(answer.get("detail") or answer.get("title")), *faults])
        raise BridgeError(f"{self._url}/v1: {why}" + "; the token is JOBBRIDGE_TOKEN" * (status in {401, 403}))

    async def _answer(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with self._session.request(
                method, f"{self._url}{path}", params=given, json=body, headers=self._headers
            ) as response:
                answer = orjson.loads(await response.content.read(_ANSWER_BYTES_MAX))
        except orjson.JSONDecodeError as error:
            raise BridgeError(f"what answers at {self._url} is no bridge: it sends no JSON") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BridgeError(f"no bridge answers at {self._url}: {str(error) or 'timed out'}") from error
        return response.status, answer if isinstance(answer, dict) else {}


@asynccontextmanager
async def reaching(url: str, token: str | None, timeout_s: float = 60.0) -> AsyncIterator[Client]:
    """A client of the bridge at that address."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session:
        yield Client(session, url, token)


# -- status -----------------------------------------------------------------------------------------------------------


async def fetch_status(url: str, token: str | None) -> dict[str, Any]:
    """`{"ready": ..., "subscriptions": [...] or None}`; subscriptions need the token. Raises `BridgeError`."""
    async with reaching(url, token, timeout_s=10.0) as client:
        ready = await client.ready()
        listed = (await client.ask("/subscriptions", {"limit": _PAGE}))["subscriptions"] if token else None
    return {"ready": ready, "subscriptions": listed}


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


# -- deliveries -------------------------------------------------------------------------------------------------------


def moment(text: str) -> str:
    """RFC 3339 of a moment, or of so long ago: 90s, 15m, 2h, 3d. Raises ValueError, OverflowError for neither."""
    if text[:-1].isdecimal() and text[-1] in _UNITS_S:
        found = datetime.now(UTC) - timedelta(seconds=int(text[:-1]) * _UNITS_S[text[-1]])
    else:
        found = datetime.fromisoformat(text)
    return found.astimezone(UTC).isoformat()


def deliveries_of(sink: str) -> str:
    """Where a sink's deliveries are found."""
    return f"{_sink(sink)}/deliveries"


async def fetch_deliveries(
    url: str, token: str | None, sink: str, query: Mapping[str, Any], limit: int
) -> list[dict[str, Any]]:
    """The first so many deliveries that fit the query. Raises `BridgeError`."""
    async with reaching(url, token) as client:
        return await client.pages(deliveries_of(sink), "deliveries", query, limit)


async def fetch_delivery(url: str, token: str | None, sink: str, delivery: str) -> dict[str, Any]:
    """One delivery with its attempts. Raises `BridgeError`."""
    async with reaching(url, token) as client:
        return await client.ask(f"{deliveries_of(sink)}/{quote(delivery, safe='')}")


async def change_deliveries(
    url: str, token: str | None, sink: str, verb: str, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Redrive, replay or drop; tells how many. Raises `BridgeError`."""
    body = {name: value for name, value in wanted.items() if value not in (None, False, ())}
    async with reaching(url, token) as client:
        return await client.tell(f"{_sink(sink)}/{verb}", body)


def render_deliveries(deliveries: list[dict[str, Any]]) -> str:
    """One line each, for people."""
    return "\n".join(
        f"{one['id']:>10} {one['state']:9} {one['since'] or one['recorded']} {one['type']:14}"
        f" {one['source']}/{one['job_id']} #{one['sequence']} {_why(one)}".rstrip()
        for one in deliveries
    )


def render_delivery(delivery: dict[str, Any]) -> str:
    """All that is known of one, for people."""
    lines = [f"{name:14} {value}" for name, value in delivery.items() if name != "history" and value is not None]
    for tried in delivery["history"]:
        end = "delivered" if tried["reason"] is None else tried["reason"]
        lines.append(
            f"{'attempt':14} {tried['number']} {tried['at']} {tried['duration_s']:.3f} s {tried['address'] or '-'}"
            f" {tried['status'] or '-'} {end} {tried['answer']!r}"
        )
    return "\n".join(lines)


def _why(delivery: dict[str, Any]) -> str:
    return f"{delivery['status'] or ''} {delivery['detail'] or ''}".strip()


def _sink(name: str) -> str:
    return f"/endpoints/{quote(name, safe='')}"
