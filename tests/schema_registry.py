"""A schema registry for the tests: Confluent's HTTP API for JSON Schema over a real socket, as its documents tell it.

It checks what a registry checks (the schema itself, `BACKWARD` compatibility, the password), counts what it is asked,
and answers as a test tells it to instead where the test wants trouble.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer
from jsonschema import SchemaError
from jsonschema.validators import validator_for

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class SchemaRegistry:
    """What it holds, what it was asked, and how it misbehaves."""

    def __init__(self) -> None:
        self.url = ""
        self.schemas: list[str] = []
        """Texts; the id of each is its place, counted from 1."""
        self.subjects: dict[str, list[int]] = {}
        """Ids of each subject's versions, the oldest first."""
        self.compatibility = "BACKWARD"
        self.users: dict[str, str] = {}
        """Passwords by user; anybody may ask where there are none."""
        self.asked: list[str] = []
        """Method and path of every request, with its query."""
        self.bodies: list[dict[str, Any]] = []
        self.answer: Answer | None = None
        """Answers in place of the registry while it is set."""

    def text(self, subject: str) -> str:
        """The schema that stands last under a subject."""
        return self.schemas[self.subjects[subject][-1] - 1]

    async def register(self, request: web.Request) -> web.Response:
        text, subject = await self._schema(request), request.match_info["subject"]
        versions = self.subjects.get(subject, [])
        if (found := self._held(subject, text)) is not None:
            return _json({"id": found})
        if versions and self.compatibility == "BACKWARD":
            faults = list(incompatibilities(orjson.loads(self.text(subject)), orjson.loads(text)))
            if faults:
                said = f'Schema being registered is incompatible with an earlier schema for subject "{subject}"'
                raise _Refused(409, 409, f"{said}, details: [{', '.join(faults)}]")
        if text not in self.schemas:
            self.schemas.append(text)
        found = self.schemas.index(text) + 1
        self.subjects[subject] = [*versions, found]
        return _json({"id": found})

    async def look_up(self, request: web.Request) -> web.Response:
        text, subject = await self._schema(request), request.match_info["subject"]
        if subject not in self.subjects:
            raise _Refused(404, 40401, f"Subject '{subject}' not found.")
        found = self._held(subject, text)
        if found is None:
            raise _Refused(404, 40403, "Schema not found")
        version = self.subjects[subject].index(found) + 1
        return _json({"subject": subject, "id": found, "version": version, "schemaType": "JSON", "schema": text})

    async def by_id(self, request: web.Request) -> web.Response:
        number = int(request.match_info["id"])
        if not 0 < number <= len(self.schemas):
            raise _Refused(404, 40403, f"Schema {number} not found")
        return _json({"schemaType": "JSON", "schema": self.schemas[number - 1]})

    async def latest(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        if subject not in self.subjects:
            raise _Refused(404, 40401, f"Subject '{subject}' not found.")
        versions = self.subjects[subject]
        whole = {"subject": subject, "id": versions[-1], "version": len(versions), "schemaType": "JSON"}
        return _json(whole | {"schema": self.text(subject)})

    async def config(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            self.compatibility = (await request.json())["compatibility"]
            return _json({"compatibility": self.compatibility})
        return _json({"compatibilityLevel": self.compatibility})

    def _held(self, subject: str, text: str) -> int | None:
        return next((number for number in self.subjects.get(subject, ()) if self.schemas[number - 1] == text), None)

    async def _schema(self, request: web.Request) -> str:
        body = await request.json()
        self.bodies.append(body)
        text = body.get("schema")
        if body.get("schemaType") != "JSON":
            raise _Refused(422, 42201, f"Invalid schema type {body.get('schemaType')}")
        try:
            schema = orjson.loads(text)
            validator_for(schema).check_schema(schema)
        except (TypeError, ValueError, SchemaError) as error:
            raise _Refused(422, 42201, f"Invalid schema {text}, details: {error}") from error
        return str(text)

    @web.middleware
    async def door(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        if self.answer is not None:
            return await self.answer(request)
        if self.users and not self._knows(request.headers.get("authorization", "")):
            return _refusal(401, 401, "Unauthorized")
        try:
            return await handler(request)
        except _Refused as refused:
            return _refusal(*refused.args)

    def _knows(self, authorization: str) -> bool:
        shown = [f"{user}:{password}".encode() for user, password in self.users.items()]
        return authorization in {f"Basic {base64.b64encode(pair).decode()}" for pair in shown}


def incompatibilities(old: Any, new: Any, path: str = "#") -> Iterator[str]:
    """Why values of the old schema might not be of the new one, in the registry's words; a few common rules of many."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return
    if "type" in new and new["type"] != old.get("type"):
        yield f"{path}: TYPE_CHANGED"
    allowed, taken = (_listed(schema) for schema in (old, new))
    if taken is not None and (allowed is None or not allowed <= taken):
        yield f"{path}: ENUM_ARRAY_NARROWED"
    if not set(new.get("required", ())) <= set(old.get("required", ())):
        yield f"{path}: REQUIRED_ATTRIBUTE_ADDED"
    before, now = old.get("properties", {}), new.get("properties", {})
    if set(before) - set(now) and new.get("additionalProperties") is False:
        yield f"{path}: PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL"
    if set(now) - set(before) and old.get("additionalProperties") is not False:
        yield f"{path}: PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL"
    for name in sorted(set(before) & set(now)):
        yield from incompatibilities(before[name], now[name], f"{path}/properties/{name}")


def _listed(schema: dict[str, Any]) -> set[Any] | None:
    """The only values that a schema allows, where it lists them."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if listed is None else set(listed)


@asynccontextmanager
async def schema_registry(tls: ssl.SSLContext | None = None) -> AsyncIterator[SchemaRegistry]:
    """A running registry that holds nothing yet."""
    registry = SchemaRegistry()
    app = web.Application(middlewares=[registry.door])
    app.router.add_post("/subjects/{subject}/versions", registry.register)
    app.router.add_post("/subjects/{subject}", registry.look_up)
    app.router.add_get("/subjects/{subject}/versions/latest", registry.latest)
    app.router.add_get("/schemas/ids/{id}", registry.by_id)
    app.router.add_route("*", "/config", registry.config)
    server = TestServer(app)
    await server.start_server(ssl=tls)
    try:
        registry.url = str(server.make_url("/"))
        yield registry
    finally:
        await server.close()


def saying(status: int, code: int, message: str, **headers: str) -> Answer:
    """An answer that is always this error of the registry's API."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return _refusal(status, code, message, headers)

    return answer


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(content), content_type=_MEDIA_TYPE, headers=headers)


def _refusal(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json({"error_code": code, "message": message}, status, headers)


class _Refused(Exception):
    """An error of the registry's API: HTTP status, error code, sentence."""
