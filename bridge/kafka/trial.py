"""One connection before clients are built: the only place that learns which broker answers, why others refuse, which
clients keep to themselves, and how long they let a connection live."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from aiokafka import errors as kafka
from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.protocol.admin import SaslAuthenticateRequest, SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from bridge.errors import BridgeError, Fatal
from bridge.kafka.failure import Unproven, translated
from bridge.wire import authority

Options = Mapping[str, Any]

_NEXT_S = 0.5
"""How long one address is tried alone, before the next one is tried beside it."""
_HANDSHAKE_S = 5.0
_CLOSE_S = 2.0
_ALERT_S = 1.0
"""How long a silent connection waits to be told what is wrong with it."""


Address = tuple[str, int]


class Entrance(NamedTuple):
    """The broker that let us in first."""

    server: str
    """Its address, `host:port`."""
    ends_s: float
    """When it ends an authenticated connection made now, on the monotonic clock, or infinity."""


class _Met(NamedTuple):
    address: Address
    started_s: float
    session_s: float
    advertised: list[Address]


async def entrance(options: Options, session_part: float = 1.0) -> Entrance:
    """Reach one broker as clients will. `session_part` is how much of an authenticated session counts.

    `options` are those of an aiokafka client. Raises `Fatal` where one of the brokers finds a setting wrong and no
    other lets us in, else `Temporary`.
    """
    hosts = collect_hosts(options["bootstrap_servers"], randomize=False)
    met = await _first([(host, port) for host, port, _ in hosts], options)
    if met.advertised and met.address not in met.advertised:
        await _first(met.advertised, options)  # where clients go next, only to wait in silence if they cannot
    return Entrance(authority(*met.address), met.started_s + session_part * met.session_s)


async def _first(addresses: Sequence[Address], options: Options) -> _Met:
    waiting, tries = list(addresses), set[asyncio.Task[_Met | BridgeError]]()
    failures: list[BridgeError] = []
    try:
        while waiting or tries:
            if waiting:  # not kept waiting by one before it that says nothing
                tries.add(asyncio.create_task(_try(waiting.pop(0), options)))
            timeout_s = _NEXT_S if waiting else None
            done, tries = await asyncio.wait(tries, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for result in [each.result() for each in done]:
                if not isinstance(result, BridgeError):
                    return result
                failures.append(result)
    finally:
        for each in tries:
            each.cancel()
        if tries:
            await asyncio.wait(tries, timeout=_CLOSE_S)
    raise next((failure for failure in failures if isinstance(failure, Fatal)), failures[0])


async def _try(address: Address, options: Options) -> _Met | BridgeError:
    known = {key: value for key, value in options.items() if key != "bootstrap_servers"}
    connection = _Connection(*address, **known)
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(options["request_timeout_ms"] / 1000):
            await connection.connect()
            answer = await connection.send(MetadataRequest([]))
        advertised = [(host, port) for _, host, port, *_ in answer.brokers]
        return _Met(address, started_s, connection.session_s, advertised)
    except (OSError, kafka.KafkaError) as error:
        return await _explained(error, *address, options)
    finally:
        await _closed(connection)


class _Connection(AIOKafkaConnection):  # type: ignore[misc] # the library is untyped
    """Looks into the answers of the SASL exchange for what the library passes over."""

    session_s = math.inf
    opened = False
    offered: list[str] | None = None
    """SASL mechanisms; none where the listener asks for no credentials, None where it was not asked."""

    async def send(self, request: Any, expect_response: bool = True) -> Any:
        self.opened = True
        answer = await super().send(request, expect_response)
        if isinstance(request, SaslHandShakeRequest):
            self.offered = list(answer.enabled_mechanisms)
            if answer.error_code == kafka.UnsupportedSaslMechanismError.errno:
                raise kafka.UnsupportedSaslMechanismError(f"they offer {', '.join(self.offered)}")
        if isinstance(request, SaslAuthenticateRequest):
            self.session_s = getattr(answer, "session_lifetime_ms", 0) / 1000 or math.inf
            if self._sasl_mechanism == "OAUTHBEARER" and answer.sasl_auth_bytes:
                # RFC 7628 section 3.2.2: a refusal comes as data, and only the next request would fail.
                raise kafka.SaslAuthenticationFailed(answer.sasl_auth_bytes.decode(errors="replace"))
        return answer

    async def _do_sasl_handshake(self) -> None:
        try:
            await super()._do_sasl_handshake()
        except (ValueError, KeyError, AssertionError) as error:  # what the library makes of a proof that is none
            raise Unproven(str(error)) from error


async def _explained(error: Exception, host: str, port: int, options: Options) -> BridgeError:
    brokers, what = authority(host, port), "let this client in"
    meant = translated(error, brokers, what)
    hung_up = isinstance(error, kafka.KafkaConnectionError | ConnectionError | ssl.SSLError)
    if isinstance(meant, Fatal) or not hung_up or isinstance(error, ConnectionRefusedError):
        return meant
    if context := options.get("ssl_context"):
        told = await _alert(host, port, context)
        if told and isinstance(fatal := translated(told, brokers, what), Fatal):
            return fatal
    if advice := await _misfit(host, port, options):
        return Fatal(f"Kafka at {brokers} did not {what}: {advice}", reason="kafka_settings")
    return meant


async def _alert(host: str, port: int, context: ssl.SSLContext) -> Exception | None:
    """What the broker says to a connection that says nothing: an answer to data it refuses can get lost behind it."""
    try:
        async with asyncio.timeout(_HANDSHAKE_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), _ALERT_S)
        finally:
            writer.transport.abort()
    except OSError as error:
        return error
    return None


async def _misfit(host: str, port: int, options: Options) -> str | None:
    """What the listener takes instead of what it is offered, where that can be found out."""
    sasl, _, transport = options["security_protocol"].rpartition("_")
    if transport == "SSL" and await _mechanisms(host, port, options, "PLAINTEXT") is not None:
        return "this listener speaks no TLS: name another port in `bootstrap_servers`, or take `tls` out"
    if transport == "PLAINTEXT" and await _speaks_tls(host, port):
        return "this listener speaks TLS: set `tls`"
    if not sasl and (offered := await _mechanisms(host, port, options, transport)):
        return f"this listener asks for credentials, one of {', '.join(offered)}: set `sasl`"
    return None


async def _speaks_tls(host: str, port: int) -> bool:
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    told = await _alert(host, port, anyone)
    return told is None or (isinstance(told, ssl.SSLError) and "ALERT" in (told.reason or ""))


async def _mechanisms(host: str, port: int, options: Options, protocol: str) -> list[str] | None:
    """The SASL mechanisms that the listener offers; None where it does not speak Kafka over that protocol."""
    plain = {name: options[name] for name in ("client_id", "request_timeout_ms", "ssl_context") if name in options}
    connection = _Connection(host, port, **plain, security_protocol=protocol)
    try:
        await connection.connect()
        await connection.send(SaslHandShakeRequest(""))
    except (OSError, kafka.KafkaError):
        pass  # of no interest: an unknown mechanism is refused, but those that are known come with it
    finally:
        await _closed(connection)
    return connection.offered


async def _closed(connection: _Connection) -> None:
    """Returns once the socket is gone, if the other side lets it go."""
    closing = connection.close()
    if connection.opened:  # else nothing would ever complete it
        await asyncio.wait({closing}, timeout=_CLOSE_S)
