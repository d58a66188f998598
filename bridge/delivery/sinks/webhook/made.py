"""Webhook endpoints made over the API: the only place that tells what of a receiver's settings is a secret, and what
an outsider may not decide.

An outsider decides neither where in our own network a receiver may live, nor which of our files or variables are
read. The first is the operator's rule for all of them; so there is nothing to refer to, and secrets come as they are.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from bridge.delivery.dialling import DiallingRules
from bridge.delivery.made import Draft
from bridge.delivery.signing import KEYS_MAX, PublicKey, new_private_key, new_secret, parse_key
from bridge.delivery.sink import Endpoint, Pullable
from bridge.delivery.sinks.webhook.plug import WebhookSink
from bridge.delivery.sinks.webhook.settings import WebhookSettings
from bridge.errors import Fatal, Rejected
from bridge.journal.endpoints import EndpointRecord, EndpointState
from bridge.sealing import Seal
from bridge.secret import Referenced

Given = Mapping[str, Any]
Faults = dict[tuple[str, ...], str]
Secrets = dict[str, Any]
"""`secret`: keys as the setting lists them, the new one first; `headers`: names and values; `pull_token`."""

_RULES = frozenset(DiallingRules.model_fields)
_REFUSED = {
    **dict.fromkeys(_RULES, "is the operator's to decide, for all endpoints: see the settings under endpoints"),
    "tls": "names files of the server, which is left to endpoints declared in its configuration",
    "kind": "is not given here: these are webhooks",
}
_SECRET = frozenset({"secret", "headers", "pull_token"})


class MadeWebhooks:
    """Fits the seam of makers. `rules` hold for every endpoint made here."""

    kind = "webhook"

    def __init__(self, rules: DiallingRules, seal: Seal, clock: Callable[[], float] = time.time) -> None:
        self._rules = {name: getattr(rules, name) for name in _RULES}
        self._seal = seal
        self._clock = clock
        self._open: list[WebhookSettings] = []

    @property
    def closed(self) -> str | None:
        return None if self._seal else "endpoints cannot be made here: set endpoints.keys, which seal their secrets"

    def draft(self, name: str, given: Given) -> Draft:
        _check(given, {})
        shown = {} if given.get("secret") is not None else {"secret": new_secret()}
        secrets = {"secret": [shown.get("secret") or given["secret"]], "headers": given.get("headers") or {}}
        secrets["pull_token"] = given.get("pull_token")
        return self._draft(name, _without_nulls(given), secrets, shown)

    def altered(self, record: EndpointRecord, given: Given) -> Draft:
        _check(given, {"secret": "is changed with POST .../rotate-secret"})
        secrets = self._secrets(record)
        if "headers" in given:
            secrets["headers"] = given["headers"] or {}
        if "pull_token" in given:
            secrets["pull_token"] = given["pull_token"]
        return self._draft(record.name, _without_nulls({**orjson.loads(record.settings), **given}), secrets)

    def rotated(self, record: EndpointRecord, overlap_s: float) -> Draft:
        secrets, now_s = self._secrets(record), self._clock()
        kept = [ending for key in secrets["secret"] if (ending := _ending(key, now_s, now_s + overlap_s))]
        if len(kept) >= KEYS_MAX:
            raise Rejected(f"{KEYS_MAX} secrets sign already: wait until one has ended, or give a smaller overlap_s")
        newest = secrets["secret"][0]
        if (newest if isinstance(newest, str) else newest["key"]).startswith("whsk_"):
            new, public = new_private_key()
            shown = {"public_key": str(public)}
        else:
            new = new_secret()
            shown = {"secret": new}
        return self._draft(record.name, orjson.loads(record.settings), secrets | {"secret": [new, *kept]}, shown)

    def sink(self, record: EndpointRecord) -> _MadeSink:
        return _MadeSink(self, record)

    def pullable(self, record: EndpointRecord) -> Pullable | None:
        return None if record.state is EndpointState.REMOVED else self._sink(record)[0]

    def public_keys(self, now_s: float) -> Iterable[PublicKey]:
        return [key for settings in self._open for key in settings.ring.public_keys(now_s)]

    @asynccontextmanager
    async def opened(self, record: EndpointRecord) -> AsyncIterator[Endpoint]:
        """As `sink` promises."""
        sink, settings = self._sink(record)
        async with sink.endpoint() as endpoint:
            self._open.append(settings)
            try:
                yield endpoint
            finally:
                self._open.remove(settings)

    def _sink(self, record: EndpointRecord) -> tuple[WebhookSink, WebhookSettings]:
        try:
            settings = self._settings(orjson.loads(record.settings), self._secrets(record))
        except ValidationError as error:
            why = "; ".join(fault["msg"] for fault in error.errors(include_input=False, include_url=False))
            raise Fatal(f"{record.name} is no longer allowed: {why}", reason="settings") from None
        return WebhookSink(record.name, settings, self._clock), settings

    def _draft(self, name: str, given: Given, secrets: Secrets, shown: Mapping[str, str] | None = None) -> Draft:
        plain = {key: value for key, value in given.items() if key not in _SECRET}
        self._settings(plain, secrets)
        return Draft(orjson.dumps(plain), self._seal.seal(orjson.dumps(secrets), name), shown or {})

    def _settings(self, plain: Given, secrets: Secrets) -> WebhookSettings:
        literal = {
            "secret": [_literal_key(key) for key in secrets["secret"]],
            "headers": {name: Referenced(value) for name, value in secrets["headers"].items()},
            "pull_token": Referenced(secrets["pull_token"]) if secrets.get("pull_token") else None,
        }
        return WebhookSettings.model_validate({**self._rules, **plain, **literal, "kind": self.kind})

    def _secrets(self, record: EndpointRecord) -> Secrets:
        try:
            secrets: Secrets = orjson.loads(self._seal.open(record.sealed, record.name))
        except ValueError as error:
            raise Fatal(f"{record.name}: {error}: endpoints.keys must hold the key", reason="sealed") from None
        return secrets


class _MadeSink:
    """Fits the seam of sinks. What is wrong with an endpoint shows when it is opened, and parks that one."""

    def __init__(self, maker: MadeWebhooks, record: EndpointRecord) -> None:
        self._maker = maker
        self._record = record

    def endpoint(self) -> AbstractAsyncContextManager[Endpoint]:
        return self._maker.opened(self._record)


def _check(given: Given, refused: Mapping[str, str]) -> None:
    """Raises `ValidationError` for what may not be said here at all; everything else the settings judge themselves."""
    faults: Faults = {(key,): why for key, why in {**_REFUSED, **refused}.items() if key in given}
    headers = given.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise _invalid({("headers",): "must be an object of names and values"})
    secrets: dict[tuple[str, ...], Any] = {("headers", name): value for name, value in headers.items()}
    secrets |= {(name,): given[name] for name in ("secret", "pull_token") if given.get(name) is not None}
    faults |= {at: why for at, value in secrets.items() if (why := _wrong_with(value, is_key=at == ("secret",)))}
    if faults:
        raise _invalid(faults)


def _wrong_with(secret: Any, *, is_key: bool) -> str | None:
    if not isinstance(secret, str) or "${" in secret:
        return "must be the value itself, as text: what refers to a file or a variable is not taken here"
    try:
        if is_key:
            parse_key(secret)
    except ValueError as error:
        return str(error)
    return None


def _invalid(faults: Faults) -> ValidationError:
    details = [
        InitErrorDetails(type=PydanticCustomError("endpoint", "{why}", {"why": why}), loc=place, input=None)
        for place, why in faults.items()
    ]
    return ValidationError.from_exception_data("endpoint", details)


def _without_nulls(given: Given) -> Given:
    return {key: value for key, value in given.items() if value is not None}


def _ending(key: Any, now_s: float, until_s: float) -> dict[str, str] | None:
    """The key with its end; None where it has ended by then."""
    if not isinstance(key, str):
        until_s = min(until_s, datetime.fromisoformat(key["until"]).timestamp())
        key = key["key"]
    until = datetime.fromtimestamp(until_s, UTC).isoformat(timespec="milliseconds")
    return {"key": key, "until": until} if until_s > now_s else None


def _literal_key(key: Any) -> Any:
    return Referenced(key) if isinstance(key, str) else {"key": Referenced(key["key"]), "until": key["until"]}
