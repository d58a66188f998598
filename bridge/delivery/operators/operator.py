"""One session: one operator, who is told by signed webhooks what happened to endpoints, in order and at least once."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar

from bridge.delivery.dialling import DiallingConnector
from bridge.delivery.envelope import DATA_TYPE, rfc3339
from bridge.delivery.operators.settings import OperatorSettings
from bridge.delivery.signing import webhook_id
from bridge.delivery.sinks.webhook.answers import refusal
from bridge.delivery.sinks.webhook.connections import trouble
from bridge.errors import BridgeError, Rejected, Temporary
from bridge.journal.health import HealthJournal, HealthTurn
from bridge.wire import USER_AGENT, excerpt

_ANSWER_BYTES_MAX = 1_000
_KEEPALIVE_S = 4.0  # nobody calls often enough for more


class Operator:
    """The session that tells one operator of every turn of every endpoint.

    The journal remembers how far it was told: a turn that was cut off goes out again under the same `webhook-id`.
    """

    def __init__(
        self, name: str, settings: OperatorSettings, journal: HealthJournal, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` is Unix time in seconds."""
        self.name = self.group = f"operator:{name}"
        self._operator = name
        self._settings = settings
        self._journal = journal
        self._clock = clock

    async def run(self, useful: Callable[[], None]) -> None:
        """Tell until cancelled.

        Raises `Temporary` when the operator did not take a turn or the journal fails, `Fatal` when it asked never to be
        called again.
        """
        told = await self._journal.told(self._operator)
        async with self._session() as session:
            while True:
                for turn in await self._journal.turns(told):
                    await self._tell(session, turn)
                    told = turn.revision
                    await self._journal.tell(self._operator, told)
                    useful()

    async def park(self, error: BridgeError) -> None:
        """Nothing to note: the next start tries again."""

    async def _tell(self, session: ClientSession, turn: HealthTurn) -> None:
        body, timestamp_s = _body(turn), int(self._clock())
        identity = webhook_id(f"{turn.endpoint}/{turn.revision}", self._operator)
        headers = {"content-type": DATA_TYPE, **self._settings.ring.headers(identity, timestamp_s, body)}
        try:
            async with session.post(self._settings.url, data=body, headers=headers, allow_redirects=False) as answer:
                start = await answer.content.read(_ANSWER_BYTES_MAX)
        except TimeoutError as error:
            raise Temporary(
                f"operator {self._operator}: no answer within {self._settings.timeout_s:g} s", reason="timeout"
            ) from error
        except (ClientError, OSError) as error:
            raise Temporary(f"operator {self._operator}: {trouble(error)}", reason="network") from error
        what = f"operator {self._operator}: HTTP {answer.status}: {excerpt(start)}"
        refused = refusal(answer.status, answer.headers, what, self._clock(), reject_4xx=False)
        if refused is not None and not isinstance(refused, Rejected):  # which it will never take: the next one, then
            raise refused

    def _session(self) -> ClientSession:
        settings = self._settings
        return ClientSession(
            connector=DiallingConnector(
                settings, limit=1, keepalive_timeout_s=_KEEPALIVE_S, dialling=lambda _address: None
            ),
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(
                total=settings.timeout_s, connect=settings.connect_timeout_s, ceil_threshold=float("inf")
            ),
        )


def _body(turn: HealthTurn) -> bytes:
    """The body of Standard Webhooks 1.0.0, compact."""
    return orjson.dumps(
        {
            "type": turn.turn,
            "timestamp": rfc3339(turn.at_ms),
            "data": {
                "endpoint": turn.endpoint,
                "since": rfc3339(turn.since_ms),
                "reason": turn.reason,
                "failing_for_s": max(0, turn.at_ms - turn.since_ms) / 1000,
            },
        }
    )
