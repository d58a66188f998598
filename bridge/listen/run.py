"""The whole life of the receiver: keys fetched, the address told, deliveries shown, the counts at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from bridge.errors import Fatal, Temporary
from bridge.listen import showing
from bridge.listen.keys import fetch_set, public_keys, shared_keys
from bridge.listen.options import Options
from bridge.listen.receiver import Delivery, Receiver
from bridge.listen.verifying import Verifier, VerifyingKey
from bridge.serving import serve

_REFRESH_S = 5.0
"""The JWK set is not asked for more often than this."""


async def listen(
    options: Options,
    environ: Mapping[str, str],
    stop_on_signals: Callable[[], asyncio.Event],
    say: Callable[[str], None],
) -> None:
    """Receive until a signal. Raises `Fatal` or `Temporary` when it cannot begin: no key, no address."""
    stopping = stop_on_signals()
    given: list[VerifyingKey] = [*shared_keys(options.secrets, environ), *public_keys(options.public_keys)]
    fetched = _Fetched(options.jwks, given) if options.jwks else None
    verifier = Verifier(given) if fetched is None else await fetched.verifier()
    if not verifier.keys:
        raise Fatal("nothing to verify with: give --secret, --public-key or --jwks")
    voice = _Json(say) if options.json_output else _Text(say, forms=options.forms)
    receiver = Receiver(
        verifier,
        options.mood,
        tell=voice.tell,
        hung_up=voice.hung_up,
        stopping=stopping,
        refresh=None if fetched is None else fetched.refresh,
    )
    async with serve(receiver.application(), options.host, options.port) as url:
        voice.listening(url)
        await stopping.wait()
    voice.summary(receiver.history.summary())


class _Fetched:
    """Keys of a JWK set beside given ones, fetched anew when a signature fits none: keys are changed in time."""

    def __init__(self, url: str, given: Sequence[VerifyingKey]) -> None:
        self._url = url
        self._given = given
        self._verifier = Verifier(given)
        self._asked_s = float("-inf")

    async def verifier(self) -> Verifier:
        await self._fetch()
        return self._verifier

    async def refresh(self) -> bool:
        if time.monotonic() - self._asked_s < _REFRESH_S:
            return False
        self._asked_s, known = time.monotonic(), self._verifier.keys
        try:
            await self._fetch()
        except Temporary:
            return False
        return self._verifier.keys != known

    async def _fetch(self) -> None:
        self._verifier.keys = (*self._given, *await fetch_set(self._url))


class _Text:
    """Tells people."""

    def __init__(self, say: Callable[[str], None], *, forms: bool) -> None:
        self._say = say
        self._forms = forms

    def listening(self, url: str) -> None:
        self._say(f"listening on {url}, any path; Ctrl-C ends it")

    def tell(self, delivery: Delivery) -> None:
        self._say(showing.as_text(delivery, forms=self._forms))

    def hung_up(self, number: int) -> None:
        self._say(f"the sender of #{number} hung up before its answer")

    def summary(self, counts: dict[str, Any]) -> None:
        self._say(showing.summary_text(counts))


class _Json:
    """Tells machines, a line each."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def listening(self, url: str) -> None:
        self._line({"listening": url})

    def tell(self, delivery: Delivery) -> None:
        self._say(showing.as_json(delivery))

    def hung_up(self, number: int) -> None:
        self._line({"hung_up": number})

    def summary(self, counts: dict[str, Any]) -> None:
        self._line({"summary": counts})

    def _line(self, shown: dict[str, Any]) -> None:
        self._say(orjson.dumps(shown).decode())
