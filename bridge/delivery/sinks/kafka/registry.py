"""Schema registry framing: the only place that speaks to a Confluent-compatible registry, and the five bytes it costs.

A framed value is a zero byte, the schema's id as four bytes big-endian, then the JSON.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import orjson
from aiohttp import (
    ClientConnectorCertificateError,
    ClientError,
    ClientResponse,
    ClientSession,
    DummyCookieJar,
    TCPConnector,
)
from pydantic import AfterValidator, AnyHttpUrl, BaseModel, ConfigDict, Field, model_validator

from bridge.delivery.sinks.kafka.records import Mode
from bridge.delivery.sinks.kafka.subjects import Naming, subject
from bridge.errors import BridgeError, Fatal, Temporary
from bridge.secret import Secret
from bridge.tls import trusting
from bridge.wire import USER_AGENT, basic, excerpt, retry_after_s, start_of

_PREFIX = struct.Struct(">bI")
_MAGIC = 0
_ID_MAX = 2**31 - 1  # registries count in Java's int

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_ANSWER_BYTES_MAX = 256 << 10  # a look-up answers with the whole schema, some 5 kB
_QUOTED_CHARS_MAX = 500  # an incompatibility is told in a long sentence for each difference


def _plain(url: AnyHttpUrl) -> AnyHttpUrl:
    if url.username is not None or url.password is not None:
        raise ValueError("schema_registry.url must hold no credentials: set schema_registry.username and .password")
    if url.query is not None or url.fragment is not None:
        raise ValueError("schema_registry.url must end with its path")
    return url


class RegistrySettings(BaseModel):
    """A Confluent-compatible schema registry: records are framed with the id of their JSON Schema."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    url: Annotated[AnyHttpUrl, AfterValidator(_plain)] = Field(description="Address of the schema registry.")
    username: str | None = Field(None, pattern=r"^[^:]+$", description="User of the registry, or an API key.")
    password: Secret | None = Field(None, description="That user's password, or the API key's secret.")
    subject: Naming = Field(
        "topic",
        description="Subject: `<topic>-value` with one schema for all types, `<record>`, or `<topic>-<record>`.",
    )
    register_schemas: bool = Field(
        True, description="Register the schemas; off: only look up what somebody else has registered."
    )
    timeout_s: float = Field(10.0, gt=0, description="Limit for all that one batch asks of the registry.")
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities that sign the registry's certificate, instead of the system's."
    )
    allow_plaintext: bool = Field(
        False, description="Let the password travel over `http`, for everybody on the way to read."
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("schema_registry.username and schema_registry.password go together")
        if self.password and self.url.scheme == "http" and not self.allow_plaintext:
            raise ValueError(
                "schema_registry.url is http, which sends the password in the clear: use https, or set "
                "schema_registry.allow_plaintext"
            )
        self.context()
        return self

    def context(self) -> ssl.SSLContext | bool:
        """Whom to trust; True is the system's authorities. Raises ValueError with a sentence that names the setting."""
        return trusting(self.ca_file, "schema_registry.ca_file") if self.ca_file else True


class Registry:
    """Knows the schema ids of one sink's records. A context: its connection lives that long."""

    def __init__(self, settings: RegistrySettings, mode: Mode) -> None:
        self._settings = settings
        self._mode: Mode = mode
        self._url = str(settings.url).rstrip("/")
        self._name = f"the schema registry at {self._url}"
        self._ids: dict[str, int] = {}
        self._prefixes: dict[tuple[str, str], bytes] = {}
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Open it; nothing is asked yet. Raises `Fatal` where `ca_file` can no longer be used."""
        try:
            trusted = self._settings.context()
        except ValueError as error:
            raise Fatal(str(error), reason="registry_settings") from error
        self._session = ClientSession(
            connector=TCPConnector(ssl=trusted),
            headers=self._headers(),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def prepare(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Return once `frame` knows all these pairs of topic and event type. Nothing is asked twice.

        Raises `Temporary` where the registry is away, slow or talks nonsense, `Fatal` where it refuses.
        """
        missing = set(pairs) - self._prefixes.keys()
        if not missing:
            return
        try:
            # Waiting for another caller's answers counts too: mostly they are what this one is missing.
            async with asyncio.timeout(self._settings.timeout_s), self._asking:
                for topic, type_ in sorted(missing):
                    await self._learn(topic, type_)
        except TimeoutError as error:
            raise _unavailable(f"{self._name} did not answer within {self._settings.timeout_s:g} s") from error

    def frame(self, topic: str, type_: str, value: bytes) -> bytes:
        """The value behind its schema's id. The pair must have been prepared."""
        return self._prefixes[topic, type_] + value

    async def _learn(self, topic: str, type_: str) -> None:
        name, schema = subject(self._settings.subject, self._mode, topic, type_)
        if name not in self._ids:
            self._ids[name] = await self._ask(name, schema)
        self._prefixes[topic, type_] = _PREFIX.pack(_MAGIC, self._ids[name])

    async def _ask(self, name: str, schema: str) -> int:
        """The id of the schema under that subject. Registering again what is there already changes nothing."""
        path = "/versions" if self._settings.register_schemas else ""
        try:
            async with self._session.post(
                f"{self._url}/subjects/{name}{path}",  # topics and records are named in letters that a path takes
                params={"normalize": "false"},
                data=orjson.dumps({"schema": schema, "schemaType": "JSON"}),
                headers={"content-type": _MEDIA_TYPE},
                allow_redirects=False,
            ) as answer:
                told = _told(await start_of(answer.content, _ANSWER_BYTES_MAX))
        except ClientConnectorCertificateError as error:
            advice = "trust its issuer with `schema_registry.ca_file`"
            raise Fatal(f"{self._name}: {error.certificate_error}: {advice}", reason="registry_settings") from error
        except (ClientError, OSError) as error:
            raise _unavailable(f"{self._name} cannot be reached: {type(error).__name__}: {error}") from error
        if not 200 <= answer.status < 300:
            raise self._refusal(name, answer, told)
        found = told.get("id")
        if type(found) is not int or not 0 <= found <= _ID_MAX:
            raise _unavailable(f"{self._name} answered without a schema id: is `schema_registry.url` right?")
        return found

    def _refusal(self, name: str, answer: ClientResponse, told: dict[str, Any]) -> BridgeError:
        status = answer.status
        said = self._quoted(str(told.get("message", "")))
        what = f"{self._name} answered HTTP {status} for subject {name}" + (f": {said}" if said else "")
        if status in {408, 425, 429} or status >= 500:
            return _unavailable(what, status, retry_after_s(answer.headers.get("retry-after"), time.time()))
        reason, advice = _advice(status, told.get("error_code"))
        return Fatal(f"{what}: {advice}", reason=reason, status=status)

    def _quoted(self, said: str) -> str:
        if password := self._settings.password:
            said = said.replace(password.get_secret_value(), "…")
        return excerpt(said.encode(), _QUOTED_CHARS_MAX)

    def _headers(self) -> dict[str, str]:
        headers = {"user-agent": USER_AGENT, "accept": _MEDIA_TYPE, "accept-encoding": "identity"}
        username, password = self._settings.username, self._settings.password
        if username is not None and password is not None:
            headers["authorization"] = basic(username, password.get_secret_value())
        return headers


def _advice(status: int, code: object) -> tuple[str, str]:
    """The reason of a refusal in one word, and what a person can do about it."""
    match status, code:
        case ((401 | 403), _):
            advice = "check `schema_registry.username`, `schema_registry.password` and what that user may do"
            return "registry_denied", advice
        case 409, _:
            return "schema_incompatible", "choose another `topic` or `schema_registry.subject`, or relax the subject"
        case 422, _:
            return "schema_refused", "it does not take this schema under this subject"
        case 404, (40401 | 40403):  # subject unknown, schema unknown
            return "schema_missing", "register it, or set `schema_registry.register_schemas: true`"
    return "registry_settings", "no answer of a schema registry: check `schema_registry.url`"


def _told(content: bytes) -> dict[str, Any]:
    """The JSON object that the registry sent; empty where it sent anything else."""
    try:
        told = orjson.loads(content)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _unavailable(text: str, status: int | None = None, after_s: float | None = None) -> Temporary:
    return Temporary(text, reason="registry_unavailable", status=status, after_s=after_s)
